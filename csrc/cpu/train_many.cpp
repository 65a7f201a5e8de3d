// Models at once: small ones in the lanes of registers, as many side by side as there are; of large
// ones, each thread trains one after the other.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "../dense.h"
#include "../train.h"
#include "lane_models.h"
#include "threads.h"

namespace torchnn::cpu {
namespace {

template <class T>
struct ManyModels {
  const Trials<T>& job;
  std::vector<const Trial<T>*> in_lanes, alone;
  std::vector<Range> groups;  // of those in lanes

  explicit ManyModels(const Trials<T>& job) : job(job) {
    std::vector<Placed> placed;
    for (int64_t i = 0; i < job.count; ++i) {
      const Trial<T>& trial = job.trials[i];
      if (is_wide(trial))
        alone.push_back(&trial);
      else
        placed.push_back({&trial, LaneModels<T>::kind(job, trial)});
    }
    // Those of a kind and size lie side by side; the largest come first, so that no thread is left
    // alone with one of them.
    std::stable_sort(placed.begin(), placed.end(),
                     [&](auto& a, auto& b) { return compare(a, b) < 0; });
    const int64_t lanes = Padding<T>().lanes;
    for (const Placed& each : placed) {
      const int64_t i = int64_t(in_lanes.size());
      in_lanes.push_back(each.trial);
      if (!groups.empty() && groups.back().size() < lanes &&
          may_join(placed[groups.back().begin], each))
        ++groups.back().end;
      else
        groups.push_back({i, i + 1});
    }
  }

  struct Placed {
    const Trial<T>* trial;
    int64_t kind;
  };

  // Measured: docs/log.md. It must follow from the model alone.
  bool is_wide(const Trial<T>& trial) const {
    int64_t weights = 0;
    for (int64_t l = 0; l < job.layer_count; ++l)
      weights += trial.layers[l].in_features * trial.layers[l].units;
    return weights > most_weights_in_lanes;
  }

  // Below 0 if a comes first.
  int64_t compare(const Placed& a, const Placed& b) const {
    auto sign = [](auto a, auto b) { return a < b ? -1 : b < a ? 1 : 0; };
    if (int64_t s = sign(a.kind, b.kind)) return s;
    for (int64_t l = 0; l < job.layer_count; ++l)
      if (int64_t s = sign(b.trial->layers[l].units, a.trial->layers[l].units)) return s;
    if (int64_t s = sign(a.trial->order, b.trial->order)) return s;
    return sign(a.trial->validation_rows, b.trial->validation_rows);
  }

  // Whether both may be in one group, though one may be narrower.
  bool may_join(const Placed& a, const Placed& b) const {
    if (a.kind != b.kind) return false;
    if (LaneModels<T>::stays_zero(job.update, a.trial->options)) return true;
    for (int64_t l = 0; l < job.layer_count; ++l)
      if (a.trial->layers[l].units != b.trial->layers[l].units) return false;
    return true;
  }

  void train_group(int64_t i) const {
    LaneModels<T>(job, in_lanes.data() + groups[i].begin, groups[i].size()).train();
  }

  // Takes the memory that this thread needs for any group; it stays the thread's.
  void reserve() const {
    if (!groups.empty()) LaneModels<T>(job, in_lanes.data(), int64_t(in_lanes.size()));
  }

  bool can_reserve() const {
    try {
      reserve();
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  }

  // With the threads that it is given.
  void train_alone(const Trial<T>& trial, int64_t threads) const {
    Train<T> own{.layers = trial.layers,
                 .layer_count = job.layer_count,
                 .x = job.x,
                 .y = trial.y,
                 .sample_weight = trial.sample_weight,
                 .order = trial.order,
                 .x_stride = job.x_stride,
                 .samples = job.samples,
                 .epoch_size = job.epoch_size,
                 .batch_size = job.batch_size,
                 .loss = job.loss,
                 .update = job.update,
                 .options = trial.options,
                 .input_dropout = trial.input_dropout,
                 .input_seed = trial.input_seed,
                 .learning_rates = trial.learning_rates,
                 .losses = trial.losses,
                 .predictions = trial.predictions,
                 .parallel = job.parallel,
                 .threads = threads,
                 .add_product = job.add_product};
    int64_t steps_before = trial.steps_before;
    own.steps_before = &steps_before;
    StoppingState* const state = trial.stopping_state;
    if (!job.validation_x && !state) return train(own);
    if (job.samples == 0 && job.validation_x) return validate(trial, 0);
    if (state && state->has_stopped) return;
    own.samples = job.epoch_size;
    const int64_t steps = step_count(own);
    const int64_t outputs = trial.layers[job.layer_count - 1].units;
    for (int64_t epoch = 0; epoch < job.samples / job.epoch_size; ++epoch) {
      train(own);
      if (job.validation_x) validate(trial, epoch);
      if (state) {
        const auto verdict = end_epoch(job, trial, epoch);
        if (verdict.is_best) keep_best(trial);
        if (verdict.stops) return;
      }
      own.order += own.samples, own.learning_rates += steps, own.losses += steps;
      if (own.predictions) own.predictions += own.samples * outputs;
      steps_before += steps;
    }
    own.samples = job.samples % job.epoch_size;
    if (own.samples > 0) train(own);
  }

  void keep_best(const Trial<T>& trial) const {
    for (int64_t l = 0; l < job.layer_count; ++l) {
      const TrainLayer<T>& layer = trial.layers[l];
      if (layer.best_weight)
        std::copy_n(layer.weight, layer.units * layer.in_features, layer.best_weight);
      if (layer.best_bias) std::copy_n(layer.bias, layer.units, layer.best_bias);
    }
  }

  void validate(const Trial<T>& trial, int64_t epoch) const {
    const FlushSubnormals flush;  // no thread begins here
    const auto rows = validation_of(job);
    const int64_t units = trial.layers[job.layer_count - 1].units;
    std::vector<T> own(trial.validation_predictions ? 0 : rows.samples * units);
    T* outputs = trial.validation_predictions
                     ? trial.validation_predictions + epoch * rows.samples * units
                     : own.data();
    std::vector<TrainLayer<T>> layers(trial.layers, trial.layers + job.layer_count);
    for (TrainLayer<T>& layer : layers) layer.dropout = 0;
    predict(Train<T>{.layers = layers.data(),
                     .layer_count = job.layer_count,
                     .x = job.validation_x,
                     .order = trial.validation_rows,
                     .x_stride = job.validation_x_stride,
                     .samples = rows.samples,
                     .batch_size = rows_at_once,
                     .predictions = outputs});
    T* losses = trial.validation_losses + epoch * step_count(rows);
    T penalty = 0;
    for (int64_t l = 0; l < job.layer_count; ++l) penalty += penalty_of(trial.layers[l]);
    for (Chunk batch = chunk_after(rows, Chunk{}, rows.samples); batch.rows;
         batch = chunk_after(rows, batch, rows.samples))
      losses[batch.step] = loss_of(trial, outputs, batch) + penalty;
  }

  static T penalty_of(const TrainLayer<T>& layer) {
    T sum = 0;
    for (int64_t i = 0; layer.weight_penalty && i < layer.units * layer.in_features; ++i)
      sum += layer.weight_penalty.value(layer.weight[i]);
    for (int64_t i = 0; layer.bias && layer.bias_penalty && i < layer.units; ++i)
      sum += layer.bias_penalty.value(layer.bias[i]);
    return sum;
  }

  // The mean loss of a batch of the validation rows, given the outputs of all, (rows, units).
  T loss_of(const Trial<T>& trial, const T* outputs, const Chunk& batch) const {
    const int64_t units = trial.layers[job.layer_count - 1].units,
                  targets = target_count(job.loss, units), columns = Padding<T>()(batch.rows);
    std::vector<T> out(units * columns), y(targets * columns), scales(columns), values(columns);
    const int64_t* const order = trial.validation_rows;
    const T share = share_of_output<T>(
        job.loss, counted_rows(job.loss, trial.validation_y, order, batch), units);
    for (int64_t i = 0; i < batch.rows; ++i) {
      const int64_t row = row_of(order, batch.first + i);
      scales[i] = trial.validation_weight ? share * trial.validation_weight[row] : share;
      for (int64_t n = 0; n < units; ++n)
        out[n * columns + i] = outputs[(batch.first + i) * units + n];
      for (int64_t n = 0; n < targets; ++n)
        y[n * columns + i] = trial.validation_y[row * targets + n];
    }
    measure_loss(LossOfOutputs<T>{.units = units,
                                  .columns = columns,
                                  .stride = columns,
                                  .out = out.data(),
                                  .targets = y.data(),
                                  .scales = scales.data(),
                                  .grad = out.data(),
                                  .values = values.data(),
                                  .loss = job.loss,
                                  .delta = T(trial.options.delta)});
    return std::accumulate(values.begin(), values.begin() + batch.rows, T(0));
  }

  static constexpr int64_t most_weights_in_lanes = 2400;
  static constexpr int64_t rows_at_once = 64;
};

}  // namespace

template <class T>
void train_many(const Trials<T>& job) {
  const ManyModels<T> models(job);
  const int64_t groups = int64_t(models.groups.size()), alone = int64_t(models.alone.size());
  const bool is_each_alone = alone < job.threads;  // with all threads, one after the other
  const int64_t parts = groups + (is_each_alone ? 0 : alone);
  models.reserve();  // so that what can fail does so before any model has changed
  std::atomic<int64_t> next = 0;
  auto train_parts = [&] {  // whoever is free takes the next
    for (int64_t i; (i = next++) < parts;) {
      if (i < groups)
        models.train_group(i);
      else
        models.train_alone(*models.alone[i - groups], 1);
    }
  };
  if (is_each_alone)
    for (const Trial<T>* trial : models.alone) models.train_alone(*trial, job.threads);
  const int64_t threads = std::min(job.threads, parts);
  if (threads > 1) {
    Train<T> of_threads{};
    of_threads.parallel = job.parallel;
    run_parallel(of_threads, threads, [&](int64_t) {  // for whom there is no memory leaves it
      if (models.can_reserve()) train_parts();
    });
  }
  const FlushSubnormals flush;
  train_parts();
}

template void train_many(const Trials<float>&);
template void train_many(const Trials<double>&);

}  // namespace torchnn::cpu
