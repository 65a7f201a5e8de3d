// The operator train_, for every device: what it is given, the checks that memory safety rests on,
// what it returns, and the job that it hands to the kernels.
//
// A check's message names the argument as Python spells it, says what is allowed, and what came.
#pragma once

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../math/loss.h"
#include "../train.h"
#include "binding.h"

namespace torchnn {

// Weights, biases (without elements where there is none), slots and steps_done change in place.
// slots holds, for each slot of the update rule, weight and bias of each layer in turn. Weights,
// biases and slots of models that train side by side have a leading dimension of models, as have
// the results then; x, y, sample_weight, order, learning_rates and options have it too, or are
// shared by all. slopes has that of each layer's activation just below 0, negative for its usual
// one, or no elements if all are usual. regularization has a row of numbers for each layer: l1 and
// l2 of its weight, l1 and l2 of its bias, and the dropout of its outputs, whose seeds are in
// seeds; without elements there is none. input_dropout is that of x. What changes must not share
// memory with anything else. snapshots holds a tensor for each weight, bias and slot, in the order
// in which slots has them, with a leading dimension of the whole epochs of the call, after each of
// which the state is kept there; or none.
inline constexpr char train_schema[] =
    "train_(Tensor x, Tensor y, Tensor? sample_weight, Tensor? order, int epoch_size, "
    "int batch_size, Tensor learning_rates, int loss, int update, Tensor options, "
    "Tensor steps_before, int[] activations, Tensor slopes, Tensor regularization, int[] seeds, "
    "float input_dropout, int input_seed, "
    "Tensor(a!)[] weights, Tensor(b!)[] biases, Tensor(c!)[] slots, Tensor(d!)[] snapshots, "
    "bool keep_predictions, Tensor(e!) steps_done) "
    "-> (Tensor losses, Tensor predictions)";

using Tensors = std::span<const Tensor>;  // of a list of the caller's

// A network, or models of one shape.
struct Network {
  const std::vector<int64_t>& activations;
  const Tensor& slopes;
  Tensors weights, biases;
  const char* kind = "";  // what messages put in front of "weight" and "bias"

  int64_t layer_count() const { return int64_t(weights.size()); }
  bool has_models() const { return !weights.empty() && weights[0].dim() == 3; }
  int64_t models() const { return has_models() ? weights[0].size(0) : 1; }
  int64_t units(int64_t l) const { return weights[l].size(weights[l].dim() - 2); }
  int64_t in_features(int64_t l) const { return weights[l].size(weights[l].dim() - 1); }
  int64_t outputs() const { return units(layer_count() - 1); }
  bool has_bias(int64_t l) const { return biases[l].numel() > 0; }
  std::optional<Tensor> bias(int64_t l) const {
    return has_bias(l) ? std::optional(biases[l]) : std::nullopt;
  }
  double slope(int64_t l) const { return slopes.numel() ? data<double>(slopes)[l] : no_slope; }
};

// ---- checks ----

inline std::string as_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + ")";
}

// A part of the state that the kernels change, of that shape behind the models.
inline void check_state(const char* name, int64_t l, const Tensor& t, const Network& network,
                        std::initializer_list<int64_t> shape, const Tensor& x) {
  STD_TORCH_CHECK(is_like(t, x) && t.is_contiguous(), network.kind, name, " ", l,
                  " must be contiguous, on the device of x, of its dtype");
  const bool lead = network.has_models();
  bool fits = t.dim() == lead + int64_t(shape.size()) && (!lead || t.size(0) == network.models());
  for (int64_t i = lead; fits && i < t.dim(); ++i) fits = t.size(i) == shape.begin()[i - lead];
  if (fits) return;
  std::vector<int64_t> wanted(shape);
  if (lead) wanted.insert(wanted.begin(), network.models());
  STD_TORCH_CHECK(false, network.kind, name, " ", l, " must have shape ", as_text(wanted), ", got ",
                  as_text({t.sizes().begin(), t.sizes().end()}));
}

inline void check_network(const Tensor& x, const Network& network, DeviceType device) {
  const int64_t count = network.layer_count(), lead = network.has_models(), last = x.dim() - 1;
  const Tensor& slopes = network.slopes;
  STD_TORCH_CHECK(count > 0 && int64_t(network.biases.size()) == count &&
                      int64_t(network.activations.size()) == count,
                  "there must be a weight, a bias and an activation for each layer");
  STD_TORCH_CHECK(slopes.is_cpu() && slopes.is_contiguous() &&
                      slopes.scalar_type() == ScalarType::Double && slopes.dim() == 1 &&
                      (slopes.numel() == 0 || slopes.numel() == count),
                  "slopes must be contiguous float64, on the CPU, one number for each of ", count,
                  " layers, or none");
  STD_TORCH_CHECK(x.device().type() == device, "x must be on the device of these kernels");
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double,
                  "x must be float32 or float64");
  STD_TORCH_CHECK(last == 1 || last == 1 + lead, "x must have 2 dimensions",
                  lead ? ", or one more of as many models as weights" : "", ", got ", last + 1);
  STD_TORCH_CHECK(x.stride(last) == 1 || x.size(last) == 1,
                  "the features of a row of x must lie side by side");
  STD_TORCH_CHECK(network.models() > 0, "there must be at least one model");
  int64_t features = x.size(last);
  STD_TORCH_CHECK(features > 0, "x must have features");
  for (int64_t l = 0; l < count; ++l) {
    const Tensor& bias = network.biases[l];
    STD_TORCH_CHECK(network.weights[l].dim() == 2 + lead, network.kind, "weight ", l, " must have ",
                    2 + lead, " dimensions");
    check_state("weight", l, network.weights[l], network, {network.units(l), features}, x);
    features = network.units(l);
    STD_TORCH_CHECK(features > 0, "weight ", l, " must have units");
    if (bias.numel()) check_state("bias", l, bias, network, {features}, x);
    STD_TORCH_CHECK(network.activations[l] >= 0 && network.activations[l] < Activations::size,
                    "no activation ", network.activations[l]);
  }
}

inline void check_slots(const Tensor& x, const Network& network, Tensors slots, int64_t update) {
  STD_TORCH_CHECK(update >= 0 && update < Updates::size, "no update rule ", update);
  const int64_t count = network.layer_count();
  int64_t slot_count = 0;
  Updates::with(update, [&](auto rule) { slot_count = rule.slots; });
  STD_TORCH_CHECK(int64_t(slots.size()) == 2 * count * slot_count, "the update rule needs ",
                  slot_count, " slots for each ", network.kind, "weight and bias");
  for (int64_t i = 0; i < slot_count * count; ++i) {
    const int64_t l = i % count;
    check_state("slot of weight", l, slots[2 * i], network,
                {network.units(l), network.in_features(l)}, x);
    if (network.has_bias(l))
      check_state("slot of bias", l, slots[2 * i + 1], network, {network.units(l)}, x);
  }
}

// The state of a network after each epoch, as models of that shape: its weights, biases and slots.
struct Snapshots {
  std::vector<Tensor> weights, biases, slots;

  Snapshots(const std::vector<Tensor>& tensors, const Network& network) {
    for (size_t i = 0; i < tensors.size(); ++i)
      (i >= 2 * network.weights.size() ? slots : i % 2 ? biases : weights).push_back(tensors[i]);
  }

  Network network(const Network& of) const {
    return {of.activations, of.slopes, weights, biases, "snapshot of "};
  }
};

inline void check_snapshots(const Tensor& x, const Snapshots& snapshots, const Network& of,
                            int64_t update, int64_t samples, int64_t epoch_size) {
  STD_TORCH_CHECK(!of.has_models(), "snapshots are of a single model");
  STD_TORCH_CHECK(samples > 0 && samples % epoch_size == 0,
                  "snapshots need whole epochs, got samples ", samples, " of epoch_size ",
                  epoch_size);
  const Network network = snapshots.network(of);
  const int64_t epochs = samples / epoch_size;
  check_network(x, network, x.device().type());
  check_slots(x, network, snapshots.slots, update);
  for (int64_t l = 0; l < of.layer_count(); ++l) {
    check_state("weight", l, network.weights[l], network, {of.units(l), of.in_features(l)}, x);
    STD_TORCH_CHECK(network.has_models() && network.models() == epochs, "snapshot of weight ", l,
                    " must have room for ", epochs, " epochs");
    STD_TORCH_CHECK(network.has_bias(l) == of.has_bias(l), "snapshot of bias ", l,
                    " must be there if the bias is");
  }
}

constexpr int64_t numbers_of_regularization = 5;

// Penalties and dropout of each layer, and the seeds of what is dropped.
inline void check_regularization(const Tensor& t, const std::vector<int64_t>& seeds,
                                 const Network& network) {
  const int64_t count = network.layer_count();
  STD_TORCH_CHECK(t.is_cpu() && t.is_contiguous() && t.scalar_type() == ScalarType::Double,
                  "regularization must be contiguous float64, on the CPU");
  STD_TORCH_CHECK(t.numel() == 0 || (t.dim() == 2 && t.size(0) == count &&
                                     t.size(1) == numbers_of_regularization),
                  "regularization must have ", numbers_of_regularization, " numbers for each of ",
                  count, " layers, or none");
  STD_TORCH_CHECK(seeds.empty() || int64_t(seeds.size()) == count,
                  "seeds must have one number for each of ", count, " layers, or none, got ",
                  seeds.size());
}

// How many elements it is from one model's part of t to the next's, 0 where all share the one there
// is; a part has that many dimensions.
inline int64_t model_stride(const char* name, const Tensor& t, int64_t dim,
                            const Network& network) {
  STD_TORCH_CHECK(t.dim() == dim ||
                      (network.has_models() && t.dim() == dim + 1 && t.size(0) == network.models()),
                  name, " must have ", dim, dim == 1 ? " dimension" : " dimensions",
                  ", or one more of as many models as weights");
  return t.dim() == dim ? 0 : t.stride(0);
}

// A tensor of its own dtype: contiguous, on a device, with parts of `size` elements: so many of a
// kind.
inline int64_t check_numbers(const char* name, const Tensor& t, ScalarType dtype,
                             const Tensor& like, int64_t size, const char* kind,
                             const Network& network) {
  STD_TORCH_CHECK(t.is_contiguous() && t.scalar_type() == dtype, name, " must be contiguous ",
                  dtype == ScalarType::Long     ? "int64"
                  : dtype == ScalarType::Double ? "float64"
                                                : "float32");
  STD_TORCH_CHECK(t.device() == like.device(), name, " must be on the ",
                  like.is_cpu() ? "CPU" : "device of x");
  const int64_t stride = model_stride(name, t, 1, network);
  const int64_t given = t.size(t.dim() - 1);
  STD_TORCH_CHECK(given == size, name, " must have one number for each of ", size, " ", kind,
                  ", got ", given);
  return stride;
}

// One int64; and if it can be read here, it must leave room to count so many steps more.
inline void check_counter(const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.numel() == 1 && t.scalar_type() == ScalarType::Long, name,
                  " must be one int64");
}

inline void check_room(const char* name, const Tensor& t, int64_t steps) {
  check_range(name, *data<int64_t>(t), 0, std::numeric_limits<int64_t>::max() - steps);
}

// ---- where the arguments lie ----

struct Extent {
  const char* name;
  int64_t layer;  // of a weight, a bias or a slot; else -1
  const char *begin, *end;
  bool is_written;

  std::string called() const {
    return layer < 0 ? name : std::string(name) + " " + std::to_string(layer);
  }
};

// Adds where t reaches from and to, if it has numbers. Its storage may have been made smaller than
// that, which no other check would see.
inline void add_extent(std::vector<Extent>& extents, const char* name, int64_t layer,
                       const Tensor& t, bool is_written) {
  if (t.numel() == 0) return;
  int64_t count = 1, offset, bytes;
  for (int64_t i = 0; i < t.dim(); ++i) count += (t.size(i) - 1) * t.stride(i);
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(t.get(), &offset));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(t.get(), &bytes));
  const int64_t size = t.element_size();
  const char* begin = is_written ? mutable_data<char>(t) : data<char>(t);
  const Extent extent{name, layer, begin, begin + count * size, is_written};
  STD_TORCH_CHECK((offset + count) * size <= bytes, extent.called(), " reaches beyond its storage");
  extents.push_back(extent);
}

inline void check_overlaps(std::vector<Extent>& extents) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  const Extent *farthest = nullptr, *farthest_written = nullptr;  // of those that begin before
  for (const Extent& extent : extents) {
    const Extent* other = extent.is_written ? farthest : farthest_written;
    if (other && extent.begin < other->end) {
      const bool is_second = extent.is_written;
      STD_TORCH_CHECK(false, (is_second ? extent : *other).called(), " shares memory with ",
                      (is_second ? *other : extent).called(), ", and would change it");
    }
    if (!farthest || extent.end > farthest->end) farthest = &extent;
    if (extent.is_written && (!farthest_written || extent.end > farthest_written->end))
      farthest_written = &extent;
  }
}

inline void add_network(std::vector<Extent>& extents, const Network& network, bool is_written) {
  for (int64_t l = 0; l < network.layer_count(); ++l) {
    add_extent(extents, "weight", l, network.weights[l], is_written);
    add_extent(extents, "bias", l, network.biases[l], is_written);
  }
}

// Of training: all that it is given, and of that what it changes.
inline void check_memory(const Network& network, Tensors slots, Tensors snapshots,
                         const Tensor& steps_done,
                         std::initializer_list<std::pair<const char*, const Tensor*>> read) {
  std::vector<Extent> extents;
  extents.reserve(2 * network.layer_count() + slots.size() + snapshots.size() + 1 + read.size());
  add_network(extents, network, true);
  auto add_pairs = [&](Tensors pairs, const char* weight, const char* bias) {
    for (size_t i = 0; i < pairs.size(); ++i) {
      const int64_t l = int64_t(i / 2) % network.layer_count();
      if (i % 2 == 0) add_extent(extents, weight, l, pairs[i], true);
      if (i % 2 == 1 && network.has_bias(l)) add_extent(extents, bias, l, pairs[i], true);
    }
  };
  add_pairs(slots, "slot of weight", "slot of bias");
  add_pairs(snapshots, "snapshot of weight", "snapshot of bias");
  add_extent(extents, "steps_done", -1, steps_done, true);
  for (const auto& [name, t] : read)
    if (t) add_extent(extents, name, -1, *t, false);
  check_overlaps(extents);
}

inline void check_prediction(const Tensor& x, const Network& network, DeviceType device) {
  check_network(x, network, device);
  std::vector<Extent> extents;
  extents.reserve(2 * network.layer_count() + 1);
  add_extent(extents, "x", -1, x, false);
  add_network(extents, network, false);
}

// ---- the job ----

// Calls f with a null pointer of the element type that networks are trained in.
template <class F>
void dispatch_network(const Tensor& t, F&& f) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return f(static_cast<float*>(nullptr));
    case ScalarType::Double: return f(static_cast<double*>(nullptr));
    default: STD_TORCH_CHECK(false, "x must be float32 or float64");
  }
}

// What regularization and seeds say, for layers that are there already; null if they say nothing.
template <class T>
void regularize(std::span<TrainLayer<T>> layers, const double* regularization,
                const int64_t* seeds) {
  for (size_t l = 0; l < layers.size(); ++l) {
    TrainLayer<T>& layer = layers[l];
    if (seeds) layer.seed = seeds[l];
    if (!regularization) continue;
    const double* const numbers = regularization + l * numbers_of_regularization;
    layer.weight_penalty = {T(numbers[0]), T(numbers[1])};
    layer.bias_penalty = {T(numbers[2]), T(numbers[3])};
    layer.dropout = numbers[4];
    STD_TORCH_CHECK(layer.dropout >= 0 && layer.dropout < 1, "the dropout of layer ", l,
                    " must be at least 0 and below 1, got ", layer.dropout);
  }
}

template <class T>
void add_layers(std::vector<TrainLayer<T>>& layers, const Network& network, Tensors slots) {
  const int64_t count = network.layer_count(), slot_count = int64_t(slots.size()) / (2 * count);
  for (int64_t l = 0; l < count; ++l) {
    const Tensor& bias = network.biases[l];
    STD_TORCH_CHECK(network.slope(l) < INFINITY, "slope ", l, " must be finite, got ",
                    network.slope(l));
    TrainLayer<T> layer{.in_features = network.in_features(l),
                        .units = network.units(l),
                        .activation = network.activations[l],
                        .weight = mutable_data<T>(network.weights[l]),
                        .bias = bias.numel() ? mutable_data<T>(bias) : nullptr,
                        .weight_slots = {},
                        .bias_slots = {},
                        .slope = network.slope(l)};
    for (int64_t s = 0; s < slot_count; ++s) {
      layer.weight_slots[s] = mutable_data<T>(slots[2 * (s * count + l)]);
      if (layer.bias) layer.bias_slots[s] = mutable_data<T>(slots[2 * (s * count + l) + 1]);
    }
    layers.push_back(layer);
  }
}

template <class T>
std::vector<TrainLayer<T>> as_layers(const Network& network, Tensors slots) {
  std::vector<TrainLayer<T>> layers;
  add_layers(layers, network, slots);
  return layers;
}

// What a job has as pointers, as tensors.
struct TrainTensors {
  const Tensor &x, &y;
  const std::optional<Tensor>&sample_weight, &order;
  const Network& network;
};

// Device: `type`; takes_snapshots; check_order(name, order, rows), for numbers that it can read;
// and train(job, models, tensors), which takes the steps.
template <class Device>
std::tuple<Tensor, Tensor> train_(
    const Tensor& x, const Tensor& y, const std::optional<Tensor>& sample_weight,
    const std::optional<Tensor>& order, int64_t epoch_size, int64_t batch_size,
    const Tensor& learning_rates, int64_t loss, int64_t update, const Tensor& options,
    const Tensor& steps_before, const std::vector<int64_t>& activations, const Tensor& slopes,
    const Tensor& regularization, const std::vector<int64_t>& seeds, double input_dropout,
    int64_t input_seed, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
    const std::vector<Tensor>& slots, const std::vector<Tensor>& snapshots, bool keep_predictions,
    const Tensor& steps_done) {
  const Network network{activations, slopes, weights, biases};
  check_network(x, network, Device::type);
  check_slots(x, network, slots, update);
  STD_TORCH_CHECK(loss >= 0 && loss < Losses::size, "no loss ", loss);
  STD_TORCH_CHECK(batch_size > 0, "batch_size must be positive, got ", batch_size);
  STD_TORCH_CHECK(epoch_size > 0, "epoch_size must be positive, got ", epoch_size);
  check_regularization(regularization, seeds, network);
  STD_TORCH_CHECK(input_dropout >= 0 && input_dropout < 1,
                  "input_dropout must be at least 0 and below 1, got ", input_dropout);
  check_counter("steps_before", steps_before);
  check_counter("steps_done", steps_done);
  STD_TORCH_CHECK(steps_before.device() == x.device(), "steps_before must be on the device of x");
  STD_TORCH_CHECK(steps_done.is_cpu(), "steps_done must be on the CPU");

  const int64_t rows = x.size(x.dim() - 2), units = network.outputs();
  const int64_t targets = target_count(loss, units);
  Models models{.count = network.models(), .rows = rows};
  models.x = model_stride("x", x, 2, network);
  models.y = model_stride("y", y, 2, network);
  STD_TORCH_CHECK(is_like(y, x) && y.is_contiguous() && y.size(y.dim() - 2) == rows &&
                      y.size(y.dim() - 1) == targets,
                  "y must be contiguous, on the device of x, of shape (", rows, ", ", targets, ")");
  if (sample_weight)
    models.sample_weight = check_numbers("sample_weight", *sample_weight, x.scalar_type(), x, rows,
                                         "rows of x", network);
  int64_t samples = rows;
  if (order) {
    STD_TORCH_CHECK(order->dim() > 0, "order must have a dimension");
    samples = order->size(order->dim() - 1);
    models.order = check_numbers("order", *order, ScalarType::Long, x, samples, "samples", network);
  }
  // So that no sum of them overflows. The engines go by batch_size, whose rounding must be the same
  // for the end of an epoch alone: it is not clamped to what comes of the epoch in this call.
  batch_size = std::min({batch_size, epoch_size, std::max<int64_t>({rows, samples, 1})});
  epoch_size = std::min(epoch_size, std::max<int64_t>(samples, 1));
  const int64_t steps = step_count(samples, epoch_size, batch_size);
  STD_TORCH_CHECK(Device::takes_snapshots || snapshots.empty(), "snapshots are taken on the CPU");
  const Snapshots states(snapshots, network);
  if (!snapshots.empty()) check_snapshots(x, states, network, update, samples, epoch_size);
  models.learning_rates =
      check_numbers("learning_rates", learning_rates, ScalarType::Double, x, steps,
                    samples ? "steps" : "steps, as of no samples", network);
  const bool has_own_options = options.dim() == 2;  // if not, they are read here
  check_numbers("options", options, ScalarType::Double, has_own_options ? x : steps_done,
                option_count, "names in train_options()", network);
  check_memory(network, slots, snapshots, steps_done,
               {{"x", &x},
                {"y", &y},
                {"sample_weight", sample_weight ? &*sample_weight : nullptr},
                {"order", order ? &*order : nullptr},
                {"learning_rates", &learning_rates},
                {"options", &options},
                {"slopes", &slopes},
                {"regularization", &regularization},
                {"steps_before", &steps_before}});
  // Now that memory is known to be there, the numbers in it.
  check_room("steps_done", steps_done, steps);
  if (steps_before.is_cpu()) check_room("steps_before", steps_before, steps);
  if (order) Device::check_order("order", *order, rows);

  const bool many = network.has_models();
  Tensor losses = many ? new_tensor<2>(x, {models.count, steps}) : new_tensor<1>(x, {steps});
  const int64_t kept = keep_predictions ? samples : 0;
  Tensor predictions =
      many ? new_tensor<3>(x, {models.count, kept, units}) : new_tensor<2>(x, {kept, units});
  const auto* numbers = reinterpret_cast<const TrainOptions*>(data<double>(options));
  if (has_own_options) models.options = numbers;
  dispatch_network(x, [&]<class T>(T*) {
    auto layers = as_layers<T>(network, slots);
    regularize<T>(layers, regularization.numel() ? data<double>(regularization) : nullptr,
                  seeds.empty() ? nullptr : seeds.data());
    std::vector<TrainLayer<T>> snapshot_layers;
    if (!snapshots.empty()) snapshot_layers = as_layers<T>(states.network(network), states.slots);
    const Train<T> job{
        .layers = layers.data(),
        .layer_count = network.layer_count(),
        .x = data<T>(x),
        .y = data<T>(y),
        .sample_weight = sample_weight ? data<T>(*sample_weight) : nullptr,
        .order = order ? data<int64_t>(*order) : nullptr,
        .x_stride = x.stride(x.dim() - 2),
        .samples = samples,
        .epoch_size = epoch_size,
        .batch_size = batch_size,
        .loss = loss,
        .update = update,
        .options = has_own_options ? TrainOptions{} : *numbers,
        .input_dropout = input_dropout,
        .input_seed = input_seed,
        .learning_rates = data<double>(learning_rates),
        .steps_before = data<int64_t>(steps_before),
        .losses = mutable_data<T>(losses),
        .snapshots = snapshots.empty() ? nullptr : snapshot_layers.data(),
        .predictions = keep_predictions ? mutable_data<T>(predictions) : nullptr,
    };
    Device::train(job, models, TrainTensors{x, y, sample_weight, order, network});
  });
  *mutable_data<int64_t>(steps_done) += steps;
  return {losses, predictions};
}

}  // namespace torchnn
