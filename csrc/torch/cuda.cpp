// The CUDA registration of the operators that cpu.cpp defines: how a network is trained; no
// arithmetic. It is a library of its own, built where nvcc is, which also loads beside a PyTorch
// without CUDA.
#include <Python.h>

#include <cstdlib>
#include <limits>
#include <string_view>
#include <tuple>

#include "../cuda/plan.h"
#include "../cuda/trial_plan.h"
#include "../cuda/warp_plan.h"
#include "cuda_dense.h"
#include "cuda_layers.h"
#include "many.h"

namespace torchnn {
namespace {

// ---- whole networks ----

// CUDA knows the usual ones. What Python trains there has no other.
void check_slopes(const Network& network) {
  for (int64_t l = 0; l < network.layer_count(); ++l) {
    const double usual = usual_slope_at(network.activations[l]), slope = network.slope(l);
    STD_TORCH_CHECK(usual < 0 || slope < 0 || slope == usual, "activation ", l,
                    " must have its usual slope on CUDA, got ", slope);
  }
}

Tensor predict(const Tensor& x, const std::vector<int64_t>& activations, const Tensor& slopes,
               const std::vector<Tensor>& weights, const std::vector<Tensor>& biases) {
  const Network network{activations, slopes, weights, biases};
  check_prediction(x, network, DeviceType::CUDA);
  STD_TORCH_CHECK(!network.has_models(), "weights must have two dimensions on CUDA");
  check_slopes(network);
  Tensor a = x;
  for (int64_t l = 0; l < network.layer_count(); ++l)
    a = cuda_dense(a, weights[l], network.bias(l), activations[l]);
  return a;
}

cuda::Shape shape_of(const Network& network, int64_t update, int64_t element_size) {
  cuda::Shape shape{{network.in_features(0)}, 0, element_size};
  Updates::with(update, [&](auto rule) { shape.slots = rule.slots; });
  for (int64_t l = 0; l < network.layer_count(); ++l) shape.widths.push_back(network.units(l));
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

// Whether a network has what layers.cu alone knows. The same in Python: only_by_layers.
template <class T>
bool needs_layers(const Train<T>& job) {
  auto needs = [](const TrainLayer<T>& layer) {
    return layer.has_penalty() || layer.dropout > 0 || keeps_z_at(layer.activation);
  };
  return job.options.clips_norms() || job.input_dropout > 0 ||
         std::any_of(job.layers, job.layers + job.layer_count, needs);
}

// For train_ in training.h.
struct Cuda {
  static constexpr DeviceType type = DeviceType::CUDA;
  static constexpr bool takes_snapshots = false;

  // Its numbers are the device's: the kernels look at them.
  static void check_order(const char* name, const Tensor& order, int64_t rows) {
    STD_TORCH_CHECK(rows > 0 || order.numel() == 0, name, " must be empty, as x is");
  }

  template <class T>
  static void train(const Train<T>& job, const Models& models, const TrainTensors& tensors) {
    const OnDevice device(tensors.x);
    const Network& network = tensors.network;
    const bool many = network.has_models();
    check_slopes(network);
    if (needs_layers(job)) {
      STD_TORCH_CHECK(!many,
                      "models with penalties, dropout, clipped norms, or activations whose "
                      "derivative needs z, cannot be trained at once on CUDA");
      return train_by_layers(job, tensors, device.stream);
    }
    const cuda::Shape shape = shape_of(network, job.update, sizeof(T));
    const int64_t rows = std::max<int64_t>(1, job.batch_size);
    const cuda::WarpPlan by_warps = warp_plan_of(shape, rows, many);
    const cuda::Plan plan = by_warps.rows ? cuda::Plan{} : plan_of(shape, rows, many);
    if (!by_warps.rows && !plan.rows) {
      STD_TORCH_CHECK(!many, "models must fit in shared memory to be trained at once");
      return train_by_layers(job, tensors, device.stream);
    }
    const Tensor workspace =
        new_tensor<1>(tensors.x, {cuda::workspace_size(job, models, plan.blocks)});
    T* const memory = mutable_data<T>(workspace);
    if (by_warps.rows)
      cuda::train_by_warps(job, models, by_warps, memory, device.stream);
    else
      cuda::train(job, models, plan, memory, device.stream);
  }

  template <class T>
  static void train_many(const Trials<T>& job, const Tensor& x) {
    const OnDevice device(x);
    const Tensor workspace = new_tensor<1>(x, {cuda::workspace_size(job)});
    cuda::train_many(job, mutable_data<T>(workspace), device.stream);
  }
};

// For shuffle_schema in many.h.
void shuffle_(const Tensor& rows, const Tensor& seeds) {
  check_shuffle(rows, seeds, DeviceType::CUDA);
  const OnDevice device(rows);
  cuda::shuffle(mutable_data<int64_t>(rows), rows.size(1), data<int64_t>(seeds), rows.size(0),
                device.stream);
}

void check_widths(const std::vector<int64_t>& widths) {
  STD_TORCH_CHECK(widths.size() > 1, "widths must be two or more, got ", widths.size());
  for (int64_t width : widths) check_range("each width", width, 1, cuda::most_units);
}

// How train_ trains a single network where a block has that much shared memory, and so many blocks
// may work together: the rows of a batch that go through it at once, 0 if it trains layer by layer;
// the bytes that each block takes, or would take at the least; the most rows of a batch that do not
// go layer by layer; and the blocks.
std::tuple<int64_t, int64_t, int64_t, int64_t> cuda_plan(const std::vector<int64_t>& widths,
                                                         int64_t element_size, int64_t batch_size,
                                                         int64_t shared_bytes, int64_t blocks) {
  check_widths(widths);
  STD_TORCH_CHECK(element_size == 4 || element_size == 8, "element_size must be 4 or 8, got ",
                  element_size);
  check_range("batch_size", batch_size, 1, std::numeric_limits<int64_t>::max());
  check_range("shared_bytes", shared_bytes, 0, cuda::most_shared_bytes);
  check_range("blocks", blocks, 1, cuda::cluster_blocks);
  const cuda::Shape shape{widths, 0, element_size, blocks};
  const cuda::Plan plan = cuda::choose_plan(shape, batch_size, shared_bytes);
  return {plan.rows, plan.bytes, cuda::most_batch_rows(shape, shared_bytes), plan.blocks};
}

// How train_many_ trains a model where a block has that much shared memory: the rows of a batch
// that go through it at once, 0 if there is no room for it; the bytes that its block takes; and the
// blocks that a multiprocessor has. dropped says which layers drop outputs.
std::tuple<int64_t, int64_t, int64_t> cuda_trial_plan(const std::vector<int64_t>& widths,
                                                      const std::vector<int64_t>& activations,
                                                      const std::vector<bool>& dropped,
                                                      int64_t loss, int64_t update,
                                                      int64_t element_size, int64_t batch_size,
                                                      int64_t shared_bytes) {
  check_widths(widths);
  const size_t layers = widths.size() - 1;
  STD_TORCH_CHECK(activations.size() == layers && dropped.size() == layers,
                  "activations and dropped must have one for each of ", layers, " layers");
  for (int64_t activation : activations)
    check_range("each activation", activation, 0, Activations::size - 1);
  check_range("loss", loss, 0, Losses::size - 1);
  check_range("update", update, 0, Updates::size - 1);
  STD_TORCH_CHECK(element_size == 4 || element_size == 8, "element_size must be 4 or 8, got ",
                  element_size);
  check_range("batch_size", batch_size, 1, std::numeric_limits<int64_t>::max());
  check_range("shared_bytes", shared_bytes, 0, cuda::most_shared_bytes);
  cuda::TrialShape shape{};
  shape.widths = widths, shape.activations = activations, shape.element_size = element_size;
  shape.has_bias.assign(layers, true), shape.drops.assign(dropped.begin(), dropped.end());
  shape.targets = target_count(loss, widths.back());
  Updates::with(update, [&](auto rule) { shape.slots = rule.slots; });
  const cuda::TrialPlan plan = cuda::make_trial_plan(shape, batch_size, shared_bytes);
  if (!plan.rows) return {0, 0, 0};
  return {plan.rows, plan.bytes, cuda::blocks_of_trials(plan.bytes, shared_bytes)};
}

}  // namespace
}  // namespace torchnn

STABLE_TORCH_LIBRARY_FRAGMENT(torchnn, m) {
  m.def(
      "cuda_plan(int[] widths, int element_size, int batch_size, int shared_bytes, int blocks) -> "
      "(int rows, int bytes, int most_rows, int blocks)");
  m.def(
      "cuda_trial_plan(int[] widths, int[] activations, bool[] dropped, int loss, int update, int "
      "element_size, int batch_size, int shared_bytes) -> (int rows, int bytes, int blocks)");
}

STABLE_TORCH_LIBRARY_IMPL(torchnn, CompositeExplicitAutograd, m) {
  m.impl("cuda_plan", TORCH_BOX(&torchnn::cuda_plan));
  m.impl("cuda_trial_plan", TORCH_BOX(&torchnn::cuda_trial_plan));
}

STABLE_TORCH_LIBRARY_IMPL(torchnn, CUDA, m) {
  m.impl("dense_forward", TORCH_BOX(&torchnn::cuda_dense));
  m.impl("dense_backward", TORCH_BOX(&torchnn::cuda_dense_backward));
  m.impl("train_", TORCH_BOX(&torchnn::train_<torchnn::Cuda>));
  m.impl("train_many_", TORCH_BOX(&torchnn::train_many_<torchnn::Cuda>));
  m.impl("shuffle_", TORCH_BOX(&torchnn::shuffle_));
  m.impl("predict", TORCH_BOX(&torchnn::predict));
}

// Importing the module loads the library, whose static initialisers register the kernels.
PyMODINIT_FUNC PyInit__cuda() {
  static PyModuleDef module{
      PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
