// What the bindings of every device share: new tensors, views of them as matrices, and the checks
// of a layer that memory safety rests on.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <vector>

#include "../errors.h"
#include "../math/activation.h"

namespace torchnn {

using torch::headeronly::DeviceType;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// a * b, both positive, or else the largest number there is.
inline int64_t saturating_product(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<int64_t>::max() : product;
}

// A contiguous tensor on the device of `like`, of that dtype; strides is where its `dim` strides
// go. The raw call takes a fifth of the time of stable::new_empty, and lets us say OutOfMemory.
inline Tensor new_tensor(const Tensor& like, int64_t dim, const int64_t* sizes, int64_t* strides,
                         int32_t dtype) {
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  int64_t size = 1;
  for (int64_t i = dim - 1; i >= 0; --i) {
    strides[i] = size;
    size = saturating_product(size, std::max<int64_t>(sizes[i], 1));
  }
  const int64_t bytes = saturating_product(size, int64_t(aoti_torch_dtype_element_size(dtype)));
  if (bytes == most) throw OutOfMemory(most);
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle;
  const AOTITorchError error =
      aoti_torch_empty_strided(dim, sizes, strides, dtype, device_type, device_index, &handle);
  if (error && like.is_cpu()) throw OutOfMemory(bytes);
  TORCH_ERROR_CODE_CHECK(error);
  return Tensor(handle);
}

// The same, of any sizes and of the dtype of `like`.
inline Tensor new_tensor(const Tensor& like, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size());
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return new_tensor(like, int64_t(sizes.size()), sizes.data(), strides.data(), dtype);
}

template <int dim>
Tensor new_tensor(const Tensor& like, std::array<int64_t, dim> sizes, int32_t dtype) {
  std::array<int64_t, dim> strides;
  return new_tensor(like, dim, sizes.data(), strides.data(), dtype);
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
  return new_tensor(x, sizes);
}

inline Tensor make_contiguous(const Tensor& t) {
  if (t.is_contiguous()) return t;
  Tensor copy = new_tensor(t, {t.sizes().begin(), t.sizes().end()});
  return torch::stable::copy_(copy, t);
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

// torch::stable::parallel_for, but for errors: they come out as they are, where PyTorch's C API
// would print them and make one kind of them all.
template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  FirstError error;
  torch::stable::parallel_for(
      begin, end, grain, [&](int64_t begin, int64_t end) { error.guard([&] { f(begin, end); }); });
  error.rethrow();
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

inline void check_range(const char* name, int64_t value, int64_t least, int64_t most) {
  STD_TORCH_CHECK(value >= least && value <= most, name, " must be from ", least, " to ", most,
                  ", got ", value);
}

inline void check_activation(int64_t activation) {
  STD_TORCH_CHECK(activation >= 0 && activation < Activations::size, "no activation ", activation);
}

inline void check_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                        int64_t activation, DeviceType device) {
  STD_TORCH_CHECK(x.dim() >= 1 && weight.dim() == 2 && weight.size(1) == x.size(x.dim() - 1),
                  "x must be (..., in_features) and weight (units, in_features)");
  STD_TORCH_CHECK(x.device().type() == device && is_like(weight, x),
                  "x and weight must be on the device of these kernels, of one dtype");
  STD_TORCH_CHECK(
      !bias || (is_like(*bias, x) && bias->dim() == 1 && bias->size(0) == weight.size(0)),
      "bias must be (units,), on the device of x, of its dtype");
  check_activation(activation);
}

// What the gradients of dense are computed from: out unless the activation is the identity, x for
// the gradient of weight, and weight for that of x. One that is not there is grad_out here, and
// never looked at.
struct BackwardOf {
  const Tensor &grad_out, &out, &x, &weight;
  int64_t activation, rows, in_features, units;
  bool need_x, need_weight, need_bias;

  bool is_linear() const { return activation == 0; }  // Identity: grad_z is grad_out

  BackwardOf(const Tensor& grad_out, const std::optional<Tensor>& out,
             const std::optional<Tensor>& x, const std::optional<Tensor>& weight,
             int64_t activation, bool need_x, bool need_weight, bool need_bias, DeviceType device)
      : grad_out(grad_out),
        out(out ? *out : grad_out),
        x(x ? *x : grad_out),
        weight(weight ? *weight : grad_out),
        activation(activation),
        rows(1),
        in_features(0),
        units(0),
        need_x(need_x),
        need_weight(need_weight),
        need_bias(need_bias) {
    check_activation(activation);
    STD_TORCH_CHECK(grad_out.dim() >= 1 && grad_out.device().type() == device,
                    "grad_out must be (..., units), on the device of these kernels");
    const int64_t last = grad_out.dim() - 1;
    units = grad_out.size(last);
    for (int64_t i = 0; i < last; ++i) rows *= grad_out.size(i);
    STD_TORCH_CHECK(out || is_linear(), "out must be given, unless the activation is the identity");
    STD_TORCH_CHECK(x || !need_weight, "x must be given for the gradient of weight");
    STD_TORCH_CHECK(weight || !need_x, "weight must be given for the gradient of x");
    if (out) check_rows("out", *out);
    STD_TORCH_CHECK(!out || out->size(last) == units, "out must have the shape of grad_out");
    if (x) check_rows("x", *x);
    STD_TORCH_CHECK(
        !weight || (is_like(*weight, grad_out) && weight->dim() == 2 && weight->size(0) == units),
        "weight must be (units, in_features), on the device of grad_out, of its dtype");
    if (x) in_features = x->size(last);
    if (weight) in_features = weight->size(1);
    STD_TORCH_CHECK(!x || x->size(last) == in_features, "x must be (..., in_features)");
  }

 private:
  void check_rows(const char* name, const Tensor& t) const {
    bool fits = is_like(t, grad_out) && t.dim() == grad_out.dim();
    for (int64_t i = 0; fits && i + 1 < t.dim(); ++i) fits = t.size(i) == grad_out.size(i);
    STD_TORCH_CHECK(fits, name, " must have as many rows as grad_out, on its device, of its dtype");
  }
};

}  // namespace torchnn
