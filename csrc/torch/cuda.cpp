// The CUDA registration of the operators that ops.cpp defines: checks, stream and device; no
// arithmetic. It is a library of its own, built where nvcc is, which also loads beside a PyTorch
// without CUDA.
#include <Python.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/csrc/stable/accelerator.h>

#include <cstdlib>
#include <string_view>
#include <tuple>

#include "binding.h"
#include "../cuda/plan.h"
#include "../cuda/warp_plan.h"
#include "../dense.h"
#include "../train.h"

// Weak: it is in a PyTorch with CUDA alone.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace torchnn {
namespace {

// Calls f with a null pointer of the tensor's element type, and one of the type it is computed in.
template <class F>
void dispatch_float(const Tensor& t, F&& f) {
  float* single = nullptr;
  double* twice = nullptr;
  switch (t.scalar_type()) {
    case ScalarType::Float: return f(single, single);
    case ScalarType::Double: return f(twice, twice);
    case ScalarType::Half: return f(static_cast<__half*>(nullptr), single);
    case ScalarType::BFloat16: return f(static_cast<__nv_bfloat16*>(nullptr), single);
    default: STD_TORCH_CHECK(false, "x must be float32, float64, float16 or bfloat16");
  }
}

// The same for whole networks, which are trained in float32 or float64 alone.
template <class F>
void dispatch_network(const Tensor& t, F&& f) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return f(static_cast<float*>(nullptr));
    case ScalarType::Double: return f(static_cast<double*>(nullptr));
    default: STD_TORCH_CHECK(false, "x must be float32 or float64");
  }
}

// Makes a tensor's device the current one while it lives.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  cuda::Stream stream;

  explicit OnDevice(const Tensor& x) : guard(x.get_device_index()) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this PyTorch has no CUDA");
    void* current;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &current));
    stream = static_cast<cuda::Stream>(current);
  }
};

// t (..., columns) as (rows, columns).
Tensor flat(const Tensor& t, int64_t rows) {
  return t.dim() == 2 ? t : torch::stable::reshape(t, {rows, t.size(t.dim() - 1)});
}

int64_t row_count(const Tensor& x) {
  int64_t count = 1;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) count *= x.size(i);
  return count;
}

// x @ weight.T by the library; then the activation in place, and the bias before it where the
// library does not add that as it stores.
Tensor large_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                   int64_t activation) {
  if (activation == 0) return linear(x, weight, bias);  // Identity
  const bool apart = bias && cuda::adds_bias_apart(row_count(x), x.element_size());
  Tensor out = make_contiguous(linear(x, weight, apart ? std::nullopt : bias));
  const Tensor b = apart ? make_contiguous(*bias) : out;
  const OnDevice device(x);
  dispatch_float(x, [&]<class T, class L>(T*, L*) {
    cuda::activate(activation, mutable_data<T>(out), apart ? data<T>(b) : nullptr, weight.size(0),
                   out.numel(), device.stream);
  });
  return out;
}

Tensor dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
             int64_t activation) {
  check_dense(x, weight, bias, activation, DeviceType::CUDA);
  const int64_t in_features = weight.size(1), units = weight.size(0);
  if (!cuda::fuses_forward(row_count(x), in_features, units, x.element_size()))
    return large_dense(x, weight, bias, activation);
  const OnDevice device(x);
  const Rows rows = as_rows(x);
  const Tensor w = make_contiguous(weight), b = bias ? make_contiguous(*bias) : w;
  Tensor out = new_output(x, units);
  dispatch_float(x, [&]<class T, class L>(T*, L*) {
    const DenseForward<T> layer{
        .x = data<T>(rows.tensor),
        .weight = data<T>(w),
        .bias = bias ? data<T>(b) : nullptr,
        .out = mutable_data<T>(out),
        .rows = rows.count,
        .in_features = in_features,
        .units = units,
        .x_stride = rows.row_stride,
        .activation = activation,
    };
    cuda::dense_forward(layer, device.stream);
  });
  return out;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // of x, weight and bias

// One pass for grad_z and grad_bias, then two products by the library.
Gradients large_dense_backward(const Tensor& grad_out, const Tensor& out, const Tensor& x,
                               const Tensor& weight, int64_t activation, bool need_x,
                               bool need_weight, bool need_bias) {
  const int64_t rows = row_count(x), in_features = weight.size(1), units = weight.size(0);
  const bool linear = activation == 0;  // Identity: grad_z is grad_out
  const Tensor a = make_contiguous(out), grad = make_contiguous(grad_out);
  const Tensor grad_z = linear ? grad : new_output(x, units);
  const Tensor grad_bias = new_tensor<1>(x, {need_bias ? units : 0});
  if (!linear || need_bias) {
    const OnDevice device(x);
    dispatch_float(x, [&]<class T, class L>(T*, L*) {
      DenseBackward<T> layer{};
      layer.grad_out = data<T>(grad);
      layer.out = data<T>(a);
      layer.grad_z = linear ? nullptr : mutable_data<T>(grad_z);
      layer.grad_bias = need_bias ? mutable_data<T>(grad_bias) : nullptr;
      layer.rows = rows;
      layer.units = units;
      layer.activation = activation;
      const int64_t sum_count = cuda::bias_sums<T>(rows, units);
      if (!need_bias || sum_count == 1) {
        cuda::dense_backward_z(layer, static_cast<L*>(nullptr), device.stream);
        return;
      }
      const int32_t lane =
          sizeof(L) == sizeof(double) ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
      const Tensor sums = new_tensor<2>(x, {sum_count, units}, lane);
      cuda::dense_backward_z(layer, mutable_data<L>(sums), device.stream);
      cuda::dense_backward_bias(layer, data<L>(sums), device.stream);
    });
  }
  return {need_x ? torch::stable::matmul(grad_z, weight) : new_tensor<1>(x, {0}),
          need_weight ? torch::stable::matmul(torch::stable::transpose(flat(grad_z, rows), 0, 1),
                                              flat(x, rows))
                      : new_tensor<2>(x, {0, in_features}),
          grad_bias};
}

// The gradients of dense; one that is not needed comes back with no elements.
Gradients dense_backward(const Tensor& grad_out, const Tensor& out, const Tensor& x,
                         const Tensor& weight, int64_t activation, bool need_x, bool need_weight,
                         bool need_bias) {
  check_dense_backward(grad_out, out, x, weight, activation, DeviceType::CUDA);
  const int64_t in_features = weight.size(1), units = weight.size(0);
  if (!cuda::fuses_backward(row_count(x), in_features, units, x.element_size()))
    return large_dense_backward(grad_out, out, x, weight, activation, need_x, need_weight,
                                need_bias);
  const OnDevice device(x);
  const Rows rows = as_rows(x);
  const Tensor a = make_contiguous(out), grad = make_contiguous(grad_out);
  const Tensor w = make_contiguous(weight);
  const Tensor grad_x = need_x ? new_output(x, in_features) : new_tensor<1>(x, {0});
  const Tensor grad_weight = new_tensor<2>(x, {need_weight ? units : 0, in_features});
  const Tensor grad_bias = new_tensor<1>(x, {need_bias ? units : 0});
  dispatch_float(x, [&]<class T, class L>(T*, L*) {
    const DenseBackward<T> layer{
        .grad_out = data<T>(grad),
        .out = data<T>(a),
        .x = data<T>(rows.tensor),
        .weight = data<T>(w),
        .grad_z = nullptr,
        .grad_x = need_x ? mutable_data<T>(grad_x) : nullptr,
        .grad_weight = need_weight ? mutable_data<T>(grad_weight) : nullptr,
        .grad_bias = need_bias ? mutable_data<T>(grad_bias) : nullptr,
        .rows = rows.count,
        .in_features = in_features,
        .units = units,
        .x_stride = rows.row_stride,
        .activation = activation,
    };
    cuda::dense_backward(layer, device.stream);
  });
  return {grad_x, grad_weight, grad_bias};
}

std::optional<Tensor> if_any(const Tensor& bias) {
  return bias.numel() ? std::optional(bias) : std::nullopt;
}

Tensor predict(const Tensor& x, const std::vector<int64_t>& activations,
               const std::vector<Tensor>& weights, const std::vector<Tensor>& biases) {
  check_network(x, weights, biases, activations, {}, 0, DeviceType::CUDA);
  Tensor a = x;
  for (size_t l = 0; l < weights.size(); ++l)
    a = dense(a, weights[l], if_any(biases[l]), activations[l]);
  return a;
}

// ---- training ----

// Rows first ... first + count - 1 of t, or those that order names there.
Tensor rows_of(Tensor t, std::optional<Tensor> order, int64_t first, int64_t count) {
  if (!order) return torch::stable::narrow(t, 0, first, count);
  std::array<StableIValue, 3> stack{
      torch::stable::detail::from(t), torch::stable::detail::from(int64_t(0)),
      torch::stable::detail::from(torch::stable::narrow(*order, 0, first, count))};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::index_select", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// What train_ is given, beside numbers.
struct Tensors {
  const Tensor &x, &y;
  const std::optional<Tensor>&sample_weight, &order;
  const std::vector<Tensor>&weights, &biases;
};

// Step after step, each some launches: for a network that does not fit into one.
template <class T>
void train_by_layers(const Train<T>& job, const Tensors& t) {
  const OnDevice device(t.x);
  const int64_t step_count = torchnn::step_count(job.samples, job.epoch_size, job.batch_size);
  const Tensor numbers = new_tensor<2>(t.x, {step_count, cuda::numbers_a_step});
  auto* const steps = reinterpret_cast<UpdateStep<T>*>(mutable_data<T>(numbers));
  cuda::make_steps(job, {}, steps, device.stream);
  // Targets are small: those of all steps are fetched at once.
  const int64_t units = t.y.size(1);
  const Tensor y = rows_of(t.y, t.order, 0, job.samples);
  const Tensor weight = t.sample_weight ? rows_of(*t.sample_weight, t.order, 0, job.samples) : y;
  const Tensor sums = new_tensor<1>(y, {cuda::loss_parts(job.batch_size * units)});
  for (cuda::Chunk batch = cuda::chunk_after(job, {}, job.batch_size); batch.rows;
       batch = cuda::chunk_after(job, batch, job.batch_size)) {
    // 1. fetch the batch
    std::vector<Tensor> a{rows_of(t.x, t.order, batch.first, batch.rows)};
    // 2. forward
    for (int64_t l = 0; l < job.layer_count; ++l)
      a.push_back(dense(a[l], t.weights[l], if_any(t.biases[l]), job.layers[l].activation));
    // 3. loss
    Tensor grad = new_tensor<2>(y, {batch.rows, units});
    cuda::measure(
        cuda::BatchLoss<T>{
            .out = data<T>(a.back()),
            .y = data<T>(y) + batch.first * units,
            .sample_weight = t.sample_weight ? data<T>(weight) + batch.first : nullptr,
            .grad_out = mutable_data<T>(grad),
            .sums = mutable_data<T>(sums),
            .loss = job.losses + batch.step,
            .predictions = job.predictions ? job.predictions + batch.first * units : nullptr,
            .rows = batch.rows,
            .units = units,
            .place = job.loss,
        },
        device.stream);
    // 4. backward
    std::vector<Tensor> grads;  // until they are used
    std::vector<cuda::Parameter<T>> parameters;
    for (int64_t l = job.layer_count - 1; l >= 0; --l) {
      const TrainLayer<T>& layer = job.layers[l];
      const auto [grad_x, grad_weight, grad_bias] = dense_backward(
          grad, a[l + 1], a[l], t.weights[l], layer.activation, l > 0, true, layer.bias);
      parameters.push_back({.values = layer.weight,
                            .slots = {layer.weight_slots[0], layer.weight_slots[1]},
                            .grad = data<T>(grad_weight),
                            .size = layer.units * layer.in_features});
      if (layer.bias)
        parameters.push_back({.values = layer.bias,
                              .slots = {layer.bias_slots[0], layer.bias_slots[1]},
                              .grad = data<T>(grad_bias),
                              .size = layer.units});
      grads.insert(grads.end(), {grad_weight, grad_bias});
      grad = grad_x;
    }
    // 5. update
    cuda::update(parameters.data(), int64_t(parameters.size()), job.update, steps + batch.step,
                 device.stream);
  }
}

// How many elements it is from one model's part of t to the next's, 0 where all share the one there
// is; a part has that many dimensions and no gaps between its rows.
int64_t model_stride(const char* name, const Tensor& t, int64_t dim, int64_t models) {
  STD_TORCH_CHECK(t.dim() == dim || (models && t.dim() == dim + 1 && t.size(0) == models), name,
                  " must have ", dim, " dimensions, or one more of ", models, " models");
  return t.dim() == dim ? 0 : t.stride(0);
}

// Of x, y, sample_weight, order and learning_rates in one; the last size counts samples or units.
cuda::Models check_models(const Tensor& x, const Tensor& y,
                          const std::optional<Tensor>& sample_weight,
                          const std::optional<Tensor>& order, const Tensor& learning_rates,
                          int64_t units, int64_t models) {
  const int64_t rows = x.size(x.dim() - 2);
  cuda::Models all{.count = std::max<int64_t>(models, 1), .rows = rows};
  all.x = model_stride("x", x, 2, models);
  all.y = model_stride("y", y, 2, models);
  STD_TORCH_CHECK(is_like(y, x) && y.is_contiguous() && y.size(y.dim() - 2) == rows &&
                      y.size(y.dim() - 1) == units,
                  "y must be contiguous, on the device of x, of shape (", rows, ", ", units, ")");
  if (sample_weight) {
    all.sample_weight = model_stride("sample_weight", *sample_weight, 1, models);
    STD_TORCH_CHECK(is_like(*sample_weight, x) && sample_weight->is_contiguous() &&
                        sample_weight->size(sample_weight->dim() - 1) == rows,
                    "sample_weight must be contiguous, on the device of x, of shape (", rows, ",)");
  }
  if (order) {
    all.order = model_stride("order", *order, 1, models);
    STD_TORCH_CHECK(order->device() == x.device() && order->is_contiguous() &&
                        order->scalar_type() == ScalarType::Long,
                    "order must be a contiguous int64 vector on the device of x");
    STD_TORCH_CHECK(rows > 0 || order->numel() == 0, "order must be empty, as x is");
  }
  all.learning_rates = model_stride("learning_rates", learning_rates, 1, models);
  return all;
}

cuda::Shape shape_of(const std::vector<Tensor>& weights, int64_t slots) {
  const int64_t dim = weights[0].dim();
  cuda::Shape shape{{weights[0].size(dim - 1)}, slots, int64_t(weights[0].element_size())};
  for (const Tensor& weight : weights) shape.widths.push_back(weight.size(dim - 2));
  return shape;
}

// TORCHNN_CUDA_WARPS=0 trains small models in blocks too, for a comparison.
bool warps_are_wanted() {
  const char* const wanted = std::getenv("TORCHNN_CUDA_WARPS");
  return !wanted || std::string_view(wanted) != "0";
}

// How to train models side by side, each in a warp; no rows at once if that is not for them.
cuda::WarpPlan warp_plan_of(const cuda::Shape& shape, int64_t batch_size, bool many) {
  if (!many || !warps_are_wanted()) return {};
  return cuda::make_warp_plan(shape, batch_size, cuda::shared_limit());
}

// How to train networks in blocks of threads; no rows at once if one does not fit there, or if it
// is a single one that is better off layer by layer. Many have a block each, so that the bits of a
// model do not depend on how many there are.
cuda::Plan plan_of(cuda::Shape shape, int64_t batch_size, bool many) {
  if (many) return cuda::make_plan(shape, batch_size, cuda::shared_limit());
  shape.blocks = cuda::most_blocks();
  return cuda::choose_plan(shape, batch_size, cuda::shared_limit());
}

std::tuple<Tensor, Tensor> train_(
    const Tensor& x, const Tensor& y, const std::optional<Tensor>& sample_weight,
    const std::optional<Tensor>& order, int64_t epoch_size, int64_t batch_size,
    const Tensor& learning_rates, int64_t loss, int64_t update, const Tensor& options,
    const Tensor& steps_before, const std::vector<int64_t>& activations,
    const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
    const std::vector<Tensor>& slots, bool keep_predictions, const Tensor& steps_done) {
  const int64_t slot_count = check_training(x, epoch_size, batch_size, learning_rates, loss, update,
                                            options, steps_before, steps_done);
  const bool many = !weights.empty() && weights[0].dim() == 3;
  const int64_t models = many ? weights[0].size(0) : 0;
  STD_TORCH_CHECK(!many || models > 0, "there must be at least one model");
  const int64_t units =
      check_network(x, weights, biases, activations, slots, slot_count, DeviceType::CUDA, models);
  const cuda::Models grid = check_models(x, y, sample_weight, order, learning_rates, units, models);
  const int64_t samples = order ? order->size(order->dim() - 1) : grid.rows;
  const int64_t steps = step_count(samples, epoch_size, batch_size);
  STD_TORCH_CHECK(learning_rates.size(learning_rates.dim() - 1) == steps, "there must be ", steps,
                  " learning rates");
  const OnDevice device(x);
  const cuda::Shape shape = shape_of(weights, slot_count);
  const int64_t most_rows = std::max<int64_t>(1, std::min({batch_size, epoch_size, samples}));
  const cuda::WarpPlan by_warps = warp_plan_of(shape, most_rows, many);
  const cuda::Plan plan = by_warps.rows ? cuda::Plan{} : plan_of(shape, most_rows, many);
  STD_TORCH_CHECK(by_warps.rows || plan.rows || !many,
                  "models must fit in shared memory to be trained at once");
  const int64_t kept = keep_predictions ? samples : 0;
  Tensor losses = many ? new_tensor<2>(x, {models, steps}) : new_tensor<1>(x, {steps});
  Tensor predictions =
      many ? new_tensor<3>(x, {models, kept, units}) : new_tensor<2>(x, {kept, units});
  const double* o = data<double>(options);
  dispatch_network(x, [&]<class T>(T*) {
    const auto layers = as_layers<T>(weights, biases, activations, slots);
    const Train<T> job{
        .layers = layers.data(),
        .layer_count = int64_t(layers.size()),
        .x = data<T>(x),
        .y = data<T>(y),
        .sample_weight = sample_weight ? data<T>(*sample_weight) : nullptr,
        .order = order ? data<int64_t>(*order) : nullptr,
        .x_stride = x.stride(x.dim() - 2),
        .samples = samples,
        .epoch_size = epoch_size,
        .batch_size = std::min(batch_size, epoch_size),  // so that no sum of them overflows
        .loss = loss,
        .update = update,
        .options = {o[0], o[1], o[2], o[3], o[4]},
        .learning_rates = data<double>(learning_rates),
        .steps_before = data<int64_t>(steps_before),
        .losses = mutable_data<T>(losses),
        .predictions = keep_predictions ? mutable_data<T>(predictions) : nullptr,
    };
    if (by_warps.rows || plan.rows) {
      const Tensor workspace = new_tensor<1>(x, {cuda::workspace_size(job, grid, plan.blocks)});
      T* const memory = mutable_data<T>(workspace);
      if (by_warps.rows)
        cuda::train_by_warps(job, grid, by_warps, memory, device.stream);
      else
        cuda::train(job, grid, plan, memory, device.stream);
    } else {
      train_by_layers(job, {x, y, sample_weight, order, weights, biases});
    }
  });
  *mutable_data<int64_t>(steps_done) += steps;
  return {losses, predictions};
}

// How train_ trains a single network where a block has that much shared memory, and so many blocks
// may work together: the rows of a batch that go through it at once, 0 if it trains layer by layer;
// the bytes that each block takes, or would take at the least; the most rows of a batch that do not
// go layer by layer; and the blocks.
std::tuple<int64_t, int64_t, int64_t, int64_t> cuda_plan(const std::vector<int64_t>& widths,
                                                         int64_t element_size, int64_t batch_size,
                                                         int64_t shared_bytes, int64_t blocks) {
  STD_TORCH_CHECK(widths.size() > 1 && *std::min_element(widths.begin(), widths.end()) > 0 &&
                      (element_size == 4 || element_size == 8) && batch_size > 0,
                  "there must be two positive widths or more, of 4 or 8 bytes, and a batch");
  STD_TORCH_CHECK(blocks >= 1 && blocks <= cuda::cluster_blocks, "there must be 1 to ",
                  cuda::cluster_blocks, " blocks");
  const cuda::Shape shape{widths, 0, element_size, blocks};
  const cuda::Plan plan = cuda::choose_plan(shape, batch_size, shared_bytes);
  return {plan.rows, plan.bytes, cuda::most_batch_rows(shape, shared_bytes), plan.blocks};
}

}  // namespace
}  // namespace torchnn

STABLE_TORCH_LIBRARY_FRAGMENT(torchnn, m) {
  m.def(
      "cuda_plan(int[] widths, int element_size, int batch_size, int shared_bytes, int blocks) -> "
      "(int rows, int bytes, int most_rows, int blocks)");
}

STABLE_TORCH_LIBRARY_IMPL(torchnn, CompositeExplicitAutograd, m) {
  m.impl("cuda_plan", TORCH_BOX(&torchnn::cuda_plan));
}

STABLE_TORCH_LIBRARY_IMPL(torchnn, CUDA, m) {
  m.impl("dense", TORCH_BOX(&torchnn::dense));
  m.impl("dense_forward", TORCH_BOX(&torchnn::dense));
  m.impl("dense_backward", TORCH_BOX(&torchnn::dense_backward));
  m.impl("train_", TORCH_BOX(&torchnn::train_));
  m.impl("predict", TORCH_BOX(&torchnn::predict));
}

// Importing the module loads the library, whose static initialisers register the kernels.
PyMODINIT_FUNC PyInit__cuda() {
  static PyModuleDef module{
      PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
