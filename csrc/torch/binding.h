// What the bindings of every device share: new tensors, views of them as matrices, and the checks
// that memory safety rests on.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <vector>

#include "../math/activation.h"
#include "../math/loss.h"
#include "../train.h"

namespace torchnn {

using torch::headeronly::DeviceType;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A contiguous tensor on the device of `like`, of that dtype. The raw call takes a fifth of the
// time of stable::new_empty.
template <int dim>
Tensor new_tensor(const Tensor& like, std::array<int64_t, dim> sizes, int32_t dtype) {
  std::array<int64_t, dim> strides;
  int64_t stride = 1;
  for (int i = dim - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, sizes.data(), strides.data(), dtype,
                                                  device_type, device_index, &handle));
  return Tensor(handle);
}

// The same, of the dtype of `like`.
template <int dim>
Tensor new_tensor(const Tensor& like, std::array<int64_t, dim> sizes) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return new_tensor<dim>(like, sizes, dtype);
}

// A tensor like x, of shape (..., columns).
inline Tensor new_output(const Tensor& x, int64_t columns) {
  if (x.dim() == 2) return new_tensor<2>(x, {x.size(0), columns});
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes.back() = columns;
  return torch::stable::new_empty(x, sizes);
}

inline Tensor make_contiguous(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// A tensor (..., columns) as a matrix: rows contiguous in themselves, row_stride apart.
struct Rows {
  Tensor tensor;
  int64_t count, row_stride;
};

inline Rows as_rows(const Tensor& t) {
  const int64_t dim = t.dim();
  if (dim == 2 && (t.stride(1) == 1 || t.size(1) <= 1)) return {t, t.size(0), t.stride(0)};
  const Tensor whole = make_contiguous(t);
  int64_t count = 1;
  for (int64_t i = 0; i + 1 < dim; ++i) count *= t.size(i);
  return {whole, count, t.size(dim - 1)};
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

inline bool is_like(const Tensor& t, const Tensor& x) {
  return t.scalar_type() == x.scalar_type() && t.device() == x.device();
}

// x @ weight.T + bias by the library behind torch.nn.functional.linear.
inline Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(x),
                                    torch::stable::detail::from(weight),
                                    torch::stable::detail::from(bias)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::linear", "", stack.data(), TORCH_ABI_VERSION));
  const Tensor out = torch::stable::detail::to<Tensor>(stack[0]);
  STD_TORCH_CHECK(is_like(out, x), "this operator must not be called under autocast");
  return out;
}

inline void check_layer(const Tensor& x, const Tensor& weight, int64_t activation,
                        DeviceType device) {
  STD_TORCH_CHECK(x.dim() >= 1 && weight.dim() == 2 && weight.size(1) == x.size(x.dim() - 1),
                  "x must be (..., in_features) and weight (units, in_features)");
  STD_TORCH_CHECK(x.device().type() == device && is_like(weight, x),
                  "x and weight must be on the device of these kernels, of one dtype");
  STD_TORCH_CHECK(activation >= 0 && activation < Activations::size, "no activation ", activation);
}

inline void check_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                        int64_t activation, DeviceType device) {
  check_layer(x, weight, activation, device);
  STD_TORCH_CHECK(
      !bias || (is_like(*bias, x) && bias->dim() == 1 && bias->size(0) == weight.size(0)),
      "bias must be (units,), on the device of x, of its dtype");
}

inline void check_dense_backward(const Tensor& grad_out, const Tensor& out, const Tensor& x,
                                 const Tensor& weight, int64_t activation, DeviceType device) {
  check_layer(x, weight, activation, device);
  for (const Tensor* t : {&grad_out, &out}) {
    STD_TORCH_CHECK(
        is_like(*t, x) && t->dim() == x.dim() && t->size(t->dim() - 1) == weight.size(0),
        "grad_out and out must be (..., units), on the device of x, of its dtype");
    for (int64_t i = 0; i + 1 < x.dim(); ++i)
      STD_TORCH_CHECK(t->size(i) == x.size(i), "grad_out and out must have as many rows as x");
  }
}

// The layers of a network; each weight, bias and slot may have a leading dimension of models.
template <class T>
std::vector<TrainLayer<T>> as_layers(const std::vector<Tensor>& weights,
                                     const std::vector<Tensor>& biases,
                                     const std::vector<int64_t>& activations,
                                     const std::vector<Tensor>& slots) {
  std::vector<TrainLayer<T>> layers;
  const size_t count = weights.size();
  for (size_t i = 0; i < count; ++i) {
    const int64_t dim = weights[i].dim();
    TrainLayer<T> layer{.in_features = weights[i].size(dim - 1),
                        .units = weights[i].size(dim - 2),
                        .activation = activations[i],
                        .weight = mutable_data<T>(weights[i]),
                        .bias = biases[i].numel() ? mutable_data<T>(biases[i]) : nullptr,
                        .weight_slots = {},
                        .bias_slots = {}};
    for (size_t s = 0; s < slots.size() / (2 * count); ++s) {
      layer.weight_slots[s] = mutable_data<T>(slots[2 * (s * count + i)]);
      layer.bias_slots[s] = mutable_data<T>(slots[2 * (s * count + i) + 1]);
    }
    layers.push_back(layer);
  }
  return layers;
}

inline void check_state(const Tensor& t, const Tensor& like, const Tensor& x) {
  STD_TORCH_CHECK(is_like(t, x) && t.is_contiguous() && t.dim() == like.dim(),
                  "weights, biases and slots must be contiguous, on the device of x, of its dtype");
  for (int64_t i = 0; i < t.dim(); ++i)
    STD_TORCH_CHECK(t.size(i) == like.size(i), "slots must have the shapes of their weights");
}

// Of a network, or of `models` of them: then weights, biases and slots have one dimension more, and
// x may. Returns how many numbers a network gives for each row of x.
inline int64_t check_network(const Tensor& x, const std::vector<Tensor>& weights,
                             const std::vector<Tensor>& biases,
                             const std::vector<int64_t>& activations,
                             const std::vector<Tensor>& slots, int64_t slot_count,
                             DeviceType device, int64_t models = 0) {
  const size_t count = weights.size();
  const int64_t lead = models > 0, last = x.dim() - 1;
  STD_TORCH_CHECK(count > 0 && biases.size() == count && activations.size() == count,
                  "there must be a weight, a bias and an activation for each layer");
  STD_TORCH_CHECK(slots.size() == 2 * count * size_t(slot_count), "the update rule needs ",
                  slot_count, " slots for each weight and bias");
  STD_TORCH_CHECK(x.device().type() == device && (last == 1 || last == 1 + lead) &&
                      (x.stride(last) == 1 || x.size(last) == 1),
                  "x must be rows on the device of these kernels");
  int64_t features = x.size(last);
  for (size_t i = 0; i < count; ++i) {
    const Tensor &weight = weights[i], &bias = biases[i];
    check_state(weight, weight, x);
    check_state(bias, bias, x);
    STD_TORCH_CHECK(weight.dim() == 2 + lead && weight.size(1 + lead) == features && features > 0 &&
                        (!lead || weight.size(0) == models),
                    "weight ", i, " must have shape (units, ", features, ")");
    features = weight.size(lead);
    STD_TORCH_CHECK(!bias.numel() || (bias.dim() == 1 + lead && bias.size(lead) == features &&
                                      (!lead || bias.size(0) == models)),
                    "bias ", i, " must have shape (", features, ",) or none");
    STD_TORCH_CHECK(activations[i] >= 0 && activations[i] < Activations::size, "no activation ",
                    activations[i]);
    for (int64_t s = 0; s < slot_count; ++s) {
      check_state(slots[2 * (s * count + i)], weight, x);
      check_state(slots[2 * (s * count + i) + 1], bias, x);
    }
  }
  return features;
}

// What no tensor of the network tells. Returns how many slots the update rule has.
inline int64_t check_training(const Tensor& x, int64_t epoch_size, int64_t batch_size,
                              const Tensor& learning_rates, int64_t loss, int64_t update,
                              const Tensor& options, const Tensor& steps_before,
                              const Tensor& steps_done) {
  STD_TORCH_CHECK(loss >= 0 && loss < Losses::size, "no loss ", loss);
  STD_TORCH_CHECK(update >= 0 && update < Updates::size, "no update rule ", update);
  STD_TORCH_CHECK(batch_size > 0, "batch_size must be positive, got ", batch_size);
  STD_TORCH_CHECK(epoch_size > 0, "epoch_size must be positive, got ", epoch_size);
  STD_TORCH_CHECK(learning_rates.device() == x.device() && learning_rates.is_contiguous() &&
                      learning_rates.scalar_type() == ScalarType::Double,
                  "learning_rates must be contiguous float64 on the device of x");
  STD_TORCH_CHECK(options.is_cpu() && options.is_contiguous() && options.numel() == 5 &&
                      options.scalar_type() == ScalarType::Double,
                  "options must be 5 contiguous float64 on the CPU");
  STD_TORCH_CHECK(steps_before.device() == x.device() && steps_before.numel() == 1 &&
                      steps_before.scalar_type() == ScalarType::Long,
                  "steps_before must be one int64 on the device of x");
  STD_TORCH_CHECK(steps_done.is_cpu() && steps_done.numel() == 1 &&
                      steps_done.scalar_type() == ScalarType::Long,
                  "steps_done must be one int64 on the CPU");
  int64_t slot_count = 0;
  Updates::with(update, [&](auto rule) { slot_count = rule.slots; });
  return slot_count;
}

}  // namespace torchnn
