// The operator train_many_, for every device: many models at once, each by numbers of its own.
#pragma once

#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "training.h"

namespace torchnn {

// Weights, biases (without elements where there is none), slots and steps_done change in place. All
// lists are those of train_ for the first model, then for the second, and so on; layers may be of
// other sizes in each, but for the features of x and the units of the last. y and sample_weight
// have a leading dimension of models, or are shared by all, as have validation_y and
// validation_weight. orders holds the orders of rows that there are, each of all samples of the
// call, and order_of the number of each model's; validation_rows and validation_of likewise for the
// rows of validation_x that go through each model after each epoch, or once as it is if there are
// no samples. learning_rates (models, steps), options (models, options), steps_before (models),
// regularization (models, layers, 5) or none, seeds (models, layers
// + 1), the last being that of the features, and input_dropout (models) are each model's own.
// stopping (models, 6) or none says when each may end early, by stopping_state (models, 5), which
// changes in place (math/stopping.h), as does best: for weight and bias of each layer in turn, of
// one model after the other, where those of the best epoch are kept; without elements where they
// are not, or none at all.
inline constexpr char train_many_schema[] =
    "train_many_(Tensor x, Tensor y, Tensor? sample_weight, Tensor orders, Tensor order_of, "
    "int epoch_size, int batch_size, Tensor learning_rates, int loss, int update, Tensor options, "
    "Tensor steps_before, int[] activations, Tensor slopes, Tensor regularization, Tensor seeds, "
    "Tensor input_dropout, Tensor(a!)[] weights, Tensor(b!)[] biases, Tensor(c!)[] slots, "
    "Tensor? validation_x, Tensor? validation_y, Tensor? validation_weight, "
    "Tensor? validation_rows, Tensor? validation_of, Tensor stopping, Tensor(e!) stopping_state, "
    "Tensor(f!)[] best, bool keep_predictions, Tensor(d!) steps_done) -> (Tensor losses, "
    "Tensor predictions, Tensor validation_losses, Tensor validation_predictions)";

// A tensor of that shape and dtype, contiguous.
inline void check_table(const char* name, const Tensor& t, ScalarType dtype, bool fits_device,
                        const std::vector<int64_t>& shape) {
  STD_TORCH_CHECK(t.is_contiguous() && t.scalar_type() == dtype && fits_device, name,
                  " must be contiguous ", dtype == ScalarType::Long ? "int64" : "float64",
                  ", on the device that it is for");
  STD_TORCH_CHECK(std::vector<int64_t>(t.sizes().begin(), t.sizes().end()) == shape, name,
                  " must have shape ", as_text(shape), ", got ",
                  as_text({t.sizes().begin(), t.sizes().end()}));
}

// Numbers of rows in sets, and the set of each model.
inline void check_sets(const char* name, const Tensor& sets, const char* of_name, const Tensor& of,
                       const Tensor& x, int64_t models) {
  STD_TORCH_CHECK(sets.dim() == 2, name, " must have 2 dimensions");
  check_table(name, sets, ScalarType::Long, sets.device() == x.device(),
              {sets.size(0), sets.size(1)});
  check_table(of_name, of, ScalarType::Long, of.is_cpu(), {models});
}

// Whether each number is that of a set; of memory that is known to be there.
inline void check_numbers_of_sets(const char* name, const Tensor& sets, const char* of_name,
                                  const Tensor& of) {
  const int64_t* set = data<int64_t>(of);
  for (int64_t m = 0; m < of.size(0); ++m)
    STD_TORCH_CHECK(set[m] >= 0 && set[m] < sets.size(0), of_name, "[", m, "] is ", set[m], ", of ",
                    sets.size(0), " in ", name);
}

// Rows (orders, samples) change in place, by the seed of each, (orders).
inline constexpr char shuffle_schema[] = "shuffle_(Tensor(a!) rows, Tensor seeds) -> ()";

inline void check_shuffle(const Tensor& rows, const Tensor& seeds, DeviceType device) {
  STD_TORCH_CHECK(rows.dim() == 2 && rows.device().type() == device,
                  "rows must have 2 dimensions, on the device of this operator");
  check_table("rows", rows, ScalarType::Long, true, {rows.size(0), rows.size(1)});
  check_table("seeds", seeds, ScalarType::Long, seeds.device() == rows.device(), {rows.size(0)});
  check_range("the number of rows", rows.size(1), 0, std::numeric_limits<uint32_t>::max());
  std::vector<Extent> extents;
  add_extent(extents, "rows", -1, rows, true), add_extent(extents, "seeds", -1, seeds, false);
  check_overlaps(extents);
}

// The model's own part of y or of sample_weight, of that shape behind the models.
inline int64_t check_targets(const char* name, const Tensor& t, const Tensor& x, int64_t models,
                             std::vector<int64_t> shape) {
  const bool is_shared = t.dim() == int64_t(shape.size());
  int64_t size = 1;
  for (int64_t n : shape) size *= n;
  if (!is_shared) shape.insert(shape.begin(), models);
  STD_TORCH_CHECK(is_like(t, x) && t.is_contiguous() &&
                      std::vector<int64_t>(t.sizes().begin(), t.sizes().end()) == shape,
                  name, " must be contiguous, on the device of x, of its dtype and of shape ",
                  as_text(shape), " or without the models, got ",
                  as_text({t.sizes().begin(), t.sizes().end()}));
  return is_shared ? 0 : size;
}

// Device: as for train_, but train_many(job, tensors).
template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> train_many_(
    const Tensor& x, const Tensor& y, const std::optional<Tensor>& sample_weight,
    const Tensor& orders, const Tensor& order_of, int64_t epoch_size, int64_t batch_size,
    const Tensor& learning_rates, int64_t loss, int64_t update, const Tensor& options,
    const Tensor& steps_before, const std::vector<int64_t>& activations, const Tensor& slopes,
    const Tensor& regularization, const Tensor& seeds, const Tensor& input_dropout,
    const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
    const std::vector<Tensor>& slots, const std::optional<Tensor>& validation_x,
    const std::optional<Tensor>& validation_y, const std::optional<Tensor>& validation_weight,
    const std::optional<Tensor>& validation_rows, const std::optional<Tensor>& validation_of,
    const Tensor& stopping, const Tensor& stopping_state, const std::vector<Tensor>& best,
    bool keep_predictions, const Tensor& steps_done) {
  const int64_t layer_count = int64_t(activations.size());
  STD_TORCH_CHECK(layer_count > 0 && !weights.empty() && weights.size() % layer_count == 0 &&
                      biases.size() == weights.size(),
                  "there must be a weight and a bias for each layer of each model");
  const int64_t models = int64_t(weights.size()) / layer_count;
  STD_TORCH_CHECK(slots.size() % models == 0, "there must be as many slots for each model");
  STD_TORCH_CHECK(loss >= 0 && loss < Losses::size, "no loss ", loss);
  STD_TORCH_CHECK(update >= 0 && update < Updates::size, "no update rule ", update);
  STD_TORCH_CHECK(batch_size > 0, "batch_size must be positive, got ", batch_size);
  STD_TORCH_CHECK(epoch_size > 0, "epoch_size must be positive, got ", epoch_size);
  STD_TORCH_CHECK(x.dim() == 2, "x must have 2 dimensions, got ", x.dim());

  // ---- each model by itself ----
  const int64_t slot_count = int64_t(slots.size()) / models;
  auto network_of = [&](int64_t m) {
    const size_t first = m * layer_count;
    return Network{activations, slopes, Tensors(weights).subspan(first, layer_count),
                   Tensors(biases).subspan(first, layer_count)};
  };
  auto slots_of = [&](int64_t m) { return Tensors(slots).subspan(m * slot_count, slot_count); };
  const Network first = network_of(0);
  std::vector<Extent> extents;
  extents.reserve(2 * weights.size() + slots.size() + best.size() + 20);
  for (int64_t m = 0; m < models; ++m) {
    const Network network = network_of(m);
    const Tensors own_slots = slots_of(m);
    STD_TORCH_CHECK(!network.has_models(), "each weight must have 2 dimensions");
    check_network(x, network, Device::type);
    check_slots(x, network, own_slots, update);
    STD_TORCH_CHECK(network.outputs() == first.outputs(),
                    "models must have as many units as each other in the last layer");
    for (int64_t l = 0; l < layer_count; ++l)
      STD_TORCH_CHECK(network.has_bias(l) == first.has_bias(l),
                      "models must have biases in the same layers");
    add_network(extents, network, true);
    for (int64_t i = 0; i < slot_count; ++i)
      add_extent(extents, i % 2 ? "slot of bias" : "slot of weight", i / 2 % layer_count,
                 own_slots[i], true);
  }

  // ---- what they have in common ----
  const int64_t rows = x.size(0), units = weights.back().size(0);
  const int64_t samples = orders.dim() == 2 ? orders.size(1) : 0;
  check_sets("orders", orders, "order_of", order_of, x, models);
  const int64_t of_y = check_targets("y", y, x, models, {rows, target_count(loss, units)});
  const int64_t of_weight =
      sample_weight ? check_targets("sample_weight", *sample_weight, x, models, {rows}) : 0;
  const int64_t given_batch_size = batch_size;
  batch_size = std::min({batch_size, epoch_size, std::max<int64_t>({rows, samples, 1})});
  epoch_size = std::min(epoch_size, std::max<int64_t>(samples, 1));
  const int64_t steps = step_count(samples, epoch_size, batch_size);
  check_table("learning_rates", learning_rates, ScalarType::Double,
              learning_rates.device() == x.device(), {models, steps});
  check_table("options", options, ScalarType::Double, options.is_cpu(), {models, option_count});
  check_table("steps_before", steps_before, ScalarType::Long, steps_before.is_cpu(), {models});
  check_table("seeds", seeds, ScalarType::Long, seeds.is_cpu(), {models, layer_count + 1});
  check_table("input_dropout", input_dropout, ScalarType::Double, input_dropout.is_cpu(), {models});
  const bool regularizes = regularization.numel() > 0;
  if (regularizes)
    check_table("regularization", regularization, ScalarType::Double, regularization.is_cpu(),
                {models, layer_count, numbers_of_regularization});
  const bool may_stop = stopping.numel() > 0;
  if (may_stop) {
    check_table("stopping", stopping, ScalarType::Double, stopping.is_cpu(),
                {models, numbers_of_stopping});
    check_table("stopping_state", stopping_state, ScalarType::Double,
                stopping_state.device() == x.device(), {models, numbers_of_stopping_state});
  }
  const auto* const rules =
      may_stop ? reinterpret_cast<const Stopping*>(data<double>(stopping)) : nullptr;
  STD_TORCH_CHECK(best.empty() || best.size() == 2 * weights.size(),
                  "best must have one for the weight and the bias of each layer of each model");
  for (size_t i = 0; i < best.size(); ++i) {
    const Tensor& like = i % 2 ? biases[i / 2] : weights[i / 2];
    const std::vector<int64_t> sizes(best[i].sizes().begin(), best[i].sizes().end());
    STD_TORCH_CHECK(
        best[i].numel() == 0 ||
            (is_like(best[i], x) && best[i].is_contiguous() &&
             sizes == std::vector<int64_t>(like.sizes().begin(), like.sizes().end())),
        "each of best must be contiguous and like its weight or bias, or without elements");
    add_extent(extents, i % 2 ? "best bias" : "best weight", int64_t(i / 2) % layer_count, best[i],
               true);
  }
  add_extent(extents, "stopping_state", -1, stopping_state, true);
  check_counter("steps_done", steps_done);
  STD_TORCH_CHECK(steps_done.is_cpu(), "steps_done must be on the CPU");
  int64_t validation_count = 0, epochs = 0, of_validation_y = 0, of_validation_weight = 0;
  STD_TORCH_CHECK(bool(validation_x) == bool(validation_y),
                  "validation_x and validation_y go together");
  if (validation_x) {
    const int64_t own_rows = validation_x->dim() ? validation_x->size(0) : 0;
    of_validation_y = check_targets("validation_y", *validation_y, x, models,
                                    {own_rows, target_count(loss, units)});
    if (validation_weight)
      of_validation_weight =
          check_targets("validation_weight", *validation_weight, x, models, {own_rows});
    STD_TORCH_CHECK(is_like(*validation_x, x) && validation_x->dim() == 2 &&
                        validation_x->size(1) == x.size(1) &&
                        (validation_x->stride(1) == 1 || validation_x->size(1) == 1),
                    "validation_x must be (rows, in_features), on the device of x, of its dtype");
    STD_TORCH_CHECK(samples % epoch_size == 0, "validation_x needs whole epochs, got ", samples,
                    " samples of epoch_size ", epoch_size);
    STD_TORCH_CHECK(bool(validation_rows) == bool(validation_of),
                    "validation_rows and validation_of go together");
    epochs = std::max<int64_t>(samples / epoch_size, 1);
    if (validation_rows)
      check_sets("validation_rows", *validation_rows, "validation_of", *validation_of, x, models);
    validation_count = validation_rows ? validation_rows->size(1) : validation_x->size(0);
  } else {
    STD_TORCH_CHECK(!validation_rows && !validation_of && !validation_weight,
                    "validation_rows and validation_weight need validation_x");
  }
  auto reads = [&](const char* name, const std::optional<Tensor>& t) {
    if (t) add_extent(extents, name, -1, *t, false);
  };
  reads("x", x), reads("y", y), reads("sample_weight", sample_weight), reads("orders", orders);
  reads("learning_rates", learning_rates), reads("validation_x", validation_x);
  reads("validation_y", validation_y), reads("validation_weight", validation_weight);
  reads("validation_rows", validation_rows), reads("order_of", order_of);
  reads("options", options), reads("steps_before", steps_before), reads("seeds", seeds);
  reads("regularization", regularization), reads("input_dropout", input_dropout);
  reads("validation_of", validation_of), reads("slopes", slopes), reads("stopping", stopping);
  add_extent(extents, "steps_done", -1, steps_done, true);
  check_overlaps(extents);
  // Now that memory is known to be there, the numbers in it.
  check_room("steps_done", steps_done, steps);
  const auto* const all_options = reinterpret_cast<const TrainOptions*>(data<double>(options));
  for (int64_t m = 1; m < models; ++m)
    STD_TORCH_CHECK(all_options[m].delta == all_options[0].delta,
                    "models must have the same delta");
  for (int64_t m = 0; may_stop && m < models; ++m)
    STD_TORCH_CHECK(rules[m].patience < 0 || rules[m].of_validation == 0 || validation_x,
                    "stopping looks at the loss of validation rows, which there are none of");
  check_numbers_of_sets("orders", orders, "order_of", order_of);
  if (validation_rows)
    check_numbers_of_sets("validation_rows", *validation_rows, "validation_of", *validation_of);
  for (int64_t m = 0; m < models; ++m)
    check_range("steps_before", data<int64_t>(steps_before)[m], 0,
                std::numeric_limits<int64_t>::max() - steps);
  Device::check_order("orders", orders, rows);
  if (validation_rows)
    Device::check_order("validation_rows", *validation_rows, validation_x->size(0));

  const int64_t kept = keep_predictions ? samples : 0;
  Tensor losses = new_tensor<2>(x, {models, steps});
  Tensor predictions = new_tensor<3>(x, {models, kept, units});
  const int64_t validation_batch_size =
      std::min(given_batch_size, std::max<int64_t>(validation_count, 1));
  const int64_t batches =
      validation_count ? step_count(validation_count, validation_count, validation_batch_size) : 0;
  Tensor validation_losses = new_tensor<3>(x, {models, epochs, batches});
  const int64_t kept_rows = keep_predictions ? validation_count : 0;
  Tensor validation_predictions = new_tensor(x, {models, epochs, kept_rows, units});
  dispatch_network(x, [&]<class T>(T*) {
    std::vector<TrainLayer<T>> layers;
    layers.reserve(models * layer_count);  // trials point there
    std::vector<Trial<T>> trials;
    trials.reserve(models);
    for (int64_t m = 0; m < models; ++m) {
      TrainLayer<T>* const own_layers = layers.data() + layers.size();
      add_layers(layers, network_of(m), slots_of(m));
      const int64_t* seed = data<int64_t>(seeds) + m * (layer_count + 1);
      regularize<T>({own_layers, size_t(layer_count)},
                    regularizes
                        ? data<double>(regularization) + m * layer_count * numbers_of_regularization
                        : nullptr,
                    seed);
      for (int64_t l = 0; !best.empty() && l < layer_count; ++l) {
        const Tensor* const own_best = &best[2 * (m * layer_count + l)];
        if (own_best[0].numel()) own_layers[l].best_weight = mutable_data<T>(own_best[0]);
        if (own_best[1].numel()) own_layers[l].best_bias = mutable_data<T>(own_best[1]);
      }
      const double dropout = data<double>(input_dropout)[m];
      STD_TORCH_CHECK(dropout >= 0 && dropout < 1,
                      "input_dropout must be at least 0 and below 1, got ", dropout);
      trials.push_back({
          .layers = own_layers,
          .y = data<T>(y) + m * of_y,
          .sample_weight = sample_weight ? data<T>(*sample_weight) + m * of_weight : nullptr,
          .order = data<int64_t>(orders) + data<int64_t>(order_of)[m] * samples,
          .options = all_options[m],
          .input_dropout = dropout,
          .input_seed = seed[layer_count],
          .learning_rates = data<double>(learning_rates) + m * steps,
          .steps_before = data<int64_t>(steps_before)[m],
          .losses = mutable_data<T>(losses) + m * steps,
          .predictions =
              keep_predictions ? mutable_data<T>(predictions) + m * samples * units : nullptr,
          .validation_rows = validation_rows
                                 ? data<int64_t>(*validation_rows) +
                                       data<int64_t>(*validation_of)[m] * validation_count
                                 : nullptr,
          .validation_y = validation_y ? data<T>(*validation_y) + m * of_validation_y : nullptr,
          .validation_weight =
              validation_weight ? data<T>(*validation_weight) + m * of_validation_weight : nullptr,
          .validation_losses = mutable_data<T>(validation_losses) + m * epochs * batches,
          .validation_predictions =
              kept_rows ? mutable_data<T>(validation_predictions) + m * epochs * kept_rows * units
                        : nullptr,
          .stopping = may_stop ? rules[m] : Stopping{},
          .stopping_state =
              may_stop && rules[m].patience >= 0
                  ? reinterpret_cast<StoppingState*>(mutable_data<double>(stopping_state)) + m
                  : nullptr,
      });
    }
    Device::train_many(
        Trials<T>{
            .trials = trials.data(),
            .count = models,
            .layer_count = layer_count,
            .x = data<T>(x),
            .x_stride = x.stride(0),
            .samples = samples,
            .epoch_size = epoch_size,
            .batch_size = batch_size,
            .loss = loss,
            .update = update,
            .validation_x = validation_x ? data<T>(*validation_x) : nullptr,
            .validation_x_stride = validation_x ? validation_x->stride(0) : 0,
            .validation_count = validation_count,
            .validation_batch_size = validation_batch_size,
            .rows = rows,
            .validation_x_rows = validation_x ? validation_x->size(0) : 0,
        },
        x);
  });
  *mutable_data<int64_t>(steps_done) += steps * models;
  return {losses, predictions, validation_losses, validation_predictions};
}

}  // namespace torchnn
