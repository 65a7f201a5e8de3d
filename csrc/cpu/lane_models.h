// Models that go through the same steps side by side, one in each lane of a register. Whatever is
// done, is done to a number of each; so no lane knows of another, and a model comes to the same
// bits whoever its neighbours are. Narrower models than others have weights of 0 in the place of
// those that they lack, and outputs of 0 there.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "../dense.h"
#include "../math/dropout.h"
#include "../math/loss.h"
#include "elementwise.h"
#include "lane_products.h"
#include "lane_update.h"
#include "measure.h"
#include "memory.h"
#include "work.h"

namespace torchnn::cpu {

template <class T>
struct LaneLayer {
  int64_t in_features, units;  // the most of any model
  ActivationCalls<T> calls;
  T slope;
  std::vector<int64_t> counts;      // of units, of each model
  std::vector<double> rates;        // of dropout, likewise
  std::vector<int64_t> seeds;       // of that
  std::vector<uint32_t> step_keys;  // of what is dropped in a step
  bool drops = false, has_bias = false, is_even = true;
  LaneParameter<T> w, b;
  T *out, *kept = nullptr, *grad;  // (units, rows): grad is grad_out, and then grad_z
};

// As many of the trials as there are lanes; where there are fewer, the last one is there several
// times.
template <class T>
class LaneModels {
 public:
  // What decides, apart from sizes, in which way a model is computed: models side by side are of
  // one kind.
  static int64_t kind(const Trials<T>& job, const Trial<T>& trial) {
    bool has_penalty = false;
    for (int64_t l = 0; l < job.layer_count; ++l) has_penalty |= trial.layers[l].has_penalty();
    return int64_t(has_penalty) | (trial.options.clip_value > 0) << 1 |
           trial.options.clips_norms() << 2 | (trial.input_dropout > 0) << 3 |
           stays_zero(job.update, trial.options) << 4;
  }

  // Whether a weight that is 0 stays 0 without a gradient, as those must that a model lacks: not
  // where the rule divides by what is 0 then.
  static bool stays_zero(int64_t update, const TrainOptions& options) {
    T w = 0, slots[most_slots] = {};
    Updates::with(update, [&](auto rule) {
      rule.apply(w, slots, T(0), UpdateStep<T>(options, 1, int64_t(1)));
    });
    return w == 0;
  }

  LaneModels(const Trials<T>& job, const Trial<T>* const* trials, int64_t count)
      : job_(job),
        lanes_(Padding<T>().lanes),
        count_(std::min(count, lanes_)),
        trials_(trials, trials + count_) {
    trials_.resize(lanes_, trials_.back());
    const Trial<T>& first = *trials[0];
    auto any = [&](auto is_so) { return std::any_of(trials, trials + count, is_so); };
    is_shared_ = !any([&](auto* t) { return t->order != first.order || t->input_dropout > 0; });
    is_validation_shared_ =
        !any([&](auto* t) { return t->validation_rows != first.validation_rows; });
    drops_inputs_ = any([](auto* t) { return t->input_dropout > 0; });
    clips_norms_ = any([](auto* t) { return t->options.clips_norms(); });
    const bool clips = clips_norms_ || any([](auto* t) { return t->options.clip_value > 0; });
    chunk_rows_ = std::min(most_chunk_rows, std::max(job.batch_size, job.validation_count));
    stride_ = chunk_rows_ | 1;  // whole powers of two would fall into the same sets of the cache
    keeps_gradients_ = clips_norms_ || job.batch_size > chunk_rows_;
    Updates::with(job.update, [&](auto rule) { slot_count_ = decltype(rule)::slots; });
    for (int64_t l = 0; l < job.layer_count; ++l) {
      LaneLayer<T> layer{};
      const TrainLayer<T>& model = first.layers[l];
      layer.calls = activation_calls<T>(model.activation), layer.slope = T(model.slope);
      bool has_penalty = false;
      for (int64_t m = 0; m < count; ++m) {
        const TrainLayer<T>& own = trials[m]->layers[l];
        layer.in_features = std::max(layer.in_features, own.in_features);
        layer.units = std::max(layer.units, own.units);
        layer.is_even &= own.units == model.units;
        layer.drops |= own.dropout > 0, layer.has_bias |= own.bias != nullptr;
        has_penalty |= own.has_penalty();
      }
      layer.w.is_adjusted = layer.b.is_adjusted = clips || has_penalty;
      has_penalties_ |= has_penalty;
      for (const Trial<T>* trial : trials_) {
        layer.counts.push_back(trial->layers[l].units);
        layer.rates.push_back(trial->layers[l].dropout);
        layer.seeds.push_back(trial->layers[l].seed);
      }
      layer.step_keys.resize(lanes_);
      layers_.push_back(layer);
    }
    for (const Trial<T>* trial : trials_) {
      input_rates_.push_back(trial->input_dropout), input_seeds_.push_back(trial->input_seed);
    }
    input_keys_.resize(lanes_);
    memory_.allocate(0, [&](Pieces<T>& memory) { take_memory(memory); });
  }

  void train() {
    memory_.clear();
    each_parameter([&](auto get, LaneParameter<T>& p, int64_t rows, int64_t columns) {
      read(get, p, rows, columns);
    });
    for (LaneLayer<T>& layer : layers_) set_penalties(layer);
    going_on_.clear();
    for (int64_t m = 0; m < count_; ++m)
      if (const StoppingState* state = trials_[m]->stopping_state; !state || !state->has_stopped)
        going_on_.push_back(m);
    if (job_.samples == 0) validate(0);
    for (Chunk chunk = chunk_after(job_, Chunk{}, chunk_rows_); chunk.rows && !going_on_.empty();
         chunk = chunk_after(job_, chunk, chunk_rows_)) {
      advance(chunk);
      if (!chunk.is_last() || chunk.end != chunk.end_of_epoch) continue;
      const int64_t epoch = chunk.end / job_.epoch_size - 1;
      validate(epoch);
      end_epoch(epoch);
    }
    for (int64_t m : going_on_) write_back(m);
  }

 private:
  static constexpr int64_t most_chunk_rows = 32;
  // Features whose weights, of a few units, or whose rows, of a chunk, stay in the cache.
  static constexpr int64_t features_at_once = 128;
  static constexpr int64_t panel_size = 512;  // numbers of a gradient that take their step at once

  // ---- memory, and what models have in it ----

  T* take(Pieces<T>& memory, int64_t numbers) { return memory.take(numbers * lanes_); }

  void take_memory(Pieces<T>& memory) {
    int64_t panel = panel_size;
    for (LaneLayer<T>& layer : layers_) {
      take_parameter(memory, layer.w, layer.units * layer.in_features, keeps_gradients_);
      take_parameter(memory, layer.b, layer.units, true);
      layer.out = take(memory, layer.units * stride_);
      layer.grad = take(memory, layer.units * stride_);
      if (layer.drops || layer.calls.keeps_z) layer.kept = take(memory, layer.units * stride_);
      panel = std::max(panel, 4 * layer.units);
    }
    panel_ = take(memory, panel);
    const LaneLayer<T>& last = layers_.back();
    targets_ = take(memory, target_count(job_.loss, last.units) * stride_);
    scales_ = take(memory, stride_), values_ = take(memory, stride_);
    loss_ = take(memory, 1), penalty_ = take(memory, 1), square_ = take(memory, 1);
    step_ = take(memory, step_size<T>);
    if (!is_shared_ || (job_.validation_x && !is_validation_shared_))
      x_ = take(memory, std::min(layers_[0].in_features, features_at_once) * stride_);
    x_rows_.resize(stride_ * lanes_);
  }

  void take_parameter(Pieces<T>& memory, LaneParameter<T>& p, int64_t size, bool keeps_gradient) {
    p.size = size;
    p.values = take(memory, size);
    for (int64_t s = 0; s < slot_count_; ++s) p.slots[s] = take(memory, size);
    p.gradient = keeps_gradient ? take(memory, size) : nullptr;
    p.penalty = take(memory, 2), p.scale = take(memory, 1);
  }

  // Calls f(which array of a model's layer, which of ours, the most rows and columns) for weights
  // and biases.
  template <class F>
  void each_parameter(const F& f) {
    for (size_t l = 0; l < layers_.size(); ++l) {
      LaneLayer<T>& layer = layers_[l];
      f(
          [l](const Trial<T>& trial, int64_t slot) {
            const TrainLayer<T>& own = trial.layers[l];
            return Array{slot < 0 ? own.weight : own.weight_slots[slot], own.units,
                         own.in_features};
          },
          layer.w, layer.units, layer.in_features);
      f(
          [l](const Trial<T>& trial, int64_t slot) {
            const TrainLayer<T>& own = trial.layers[l];
            return Array{slot < 0 ? own.bias : own.bias_slots[slot], own.bias ? 1 : 0, own.units};
          },
          layer.b, 1, layer.units);
    }
  }

  struct Array {
    T* values;
    int64_t rows, columns;
  };

  template <class Get>
  void read(const Get& get, LaneParameter<T>& p, int64_t rows, int64_t columns) {
    for (int64_t s = -1; s < slot_count_; ++s) {
      T* to = s < 0 ? p.values : p.slots[s];
      for (int64_t m = 0; m < lanes_; ++m) {
        const Array own = get(*trials_[m], s);
        for (int64_t i = 0; i < std::min(rows, own.rows); ++i)
          for (int64_t k = 0; k < own.columns; ++k)
            to[(i * columns + k) * lanes_ + m] = own.values[i * own.columns + k];
      }
    }
  }

  // What a model has become.
  void write_back(int64_t m) {
    each_parameter([&](auto get, LaneParameter<T>& p, int64_t rows, int64_t columns) {
      for (int64_t s = -1; s < slot_count_; ++s)
        write(m, s < 0 ? p.values : p.slots[s], get(*trials_[m], s), rows, columns);
    });
  }

  void write(int64_t m, const T* from, const Array& own, int64_t rows, int64_t columns) const {
    for (int64_t i = 0; i < std::min(rows, own.rows); ++i)
      for (int64_t k = 0; k < own.columns; ++k)
        own.values[i * own.columns + k] = from[(i * columns + k) * lanes_ + m];
  }

  // Models whose training ends here stay as they are now, though their lanes go on.
  void end_epoch(int64_t epoch) {
    std::erase_if(going_on_, [&](int64_t m) {
      if (!trials_[m]->stopping_state) return false;
      const auto verdict = torchnn::end_epoch(job_, *trials_[m], epoch);
      if (verdict.is_best) keep_best(m);
      if (verdict.stops) write_back(m);
      return verdict.stops;
    });
  }

  void keep_best(int64_t m) {
    for (size_t l = 0; l < layers_.size(); ++l) {
      const LaneLayer<T>& layer = layers_[l];
      const TrainLayer<T>& own = trials_[m]->layers[l];
      if (own.best_weight)
        write(m, layer.w.values, {own.best_weight, own.units, own.in_features}, layer.units,
              layer.in_features);
      if (own.best_bias) write(m, layer.b.values, {own.best_bias, 1, own.units}, 1, layer.units);
    }
  }

  void set_penalties(LaneLayer<T>& layer) {
    const int64_t l = &layer - layers_.data();
    auto set = [&](LaneParameter<T>& p, int64_t m, const Penalty<T>& penalty) {
      p.penalty[m] = penalty.l1, p.penalty[lanes_ + m] = penalty.l2, p.scale[m] = 1;
    };
    for (int64_t m = 0; m < lanes_; ++m) {
      const TrainLayer<T>& own = trials_[m]->layers[l];
      set(layer.w, m, own.weight_penalty);
      set(layer.b, m, own.bias ? own.bias_penalty : Penalty<T>{});
    }
  }

  // ---- a chunk of rows ----

  void advance(const Chunk& chunk) {
    // 1. the rows of x: of one order, or of each model
    list_rows(job_.x, job_.x_stride, &Trial<T>::order, is_shared_, chunk.first, chunk.rows);
    first_row_ = chunk.first - chunk.begin;
    if (chunk.is_first()) make_keys(chunk.step);
    // 2. forward: a = activation(x @ weight.T + bias), layer by layer
    forward(chunk.rows, is_shared_, true);
    store_outputs(chunk.first, chunk.rows, &Trial<T>::predictions);
    // 3. loss, and its derivative with respect to the outputs
    measure(chunk);
    // 4. backward: grad_z of each layer, from the last to the first
    backward(chunk);
    // 5. update weight and bias
    if (chunk.is_last()) end_batch(chunk.step);
    for (LaneLayer<T>& layer : layers_) update(layer, chunk);
    if (chunk.is_last() && keeps_gradients_) take_steps();
  }

  // Rows that all models train on are read where they lie; others are gathered from there.
  void list_rows(const T* x, int64_t x_stride, const int64_t* Trial<T>::* order, bool is_shared,
                 int64_t first, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t m = 0; m < (is_shared ? 1 : lanes_); ++m) {
        const int64_t* own = trials_[m]->*order;
        x_rows_[is_shared ? i : i * lanes_ + m] = x + row_of(own, first + i) * x_stride;
      }
    gathered_ = {0, 0};
  }

  // Some features of the rows that have been listed, in lanes; of which some are dropped.
  const T* gathered(int64_t feature, int64_t count, int64_t rows, bool is_training) {
    if (feature < gathered_.begin || feature + count > gathered_.end) {
      const int64_t first = feature / features_at_once * features_at_once;
      gathered_ = {first, std::min(first + features_at_once, layers_[0].in_features)};
      std::array<const T*, 64> from;  // the most lanes there are
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t m = 0; m < lanes_; ++m) from[m] = x_rows_[i * lanes_ + m] + first;
        gather_lanes(from.data(), gathered_.size(), x_ + i * lanes_, stride_ * lanes_);
      }
      if (is_training && drops_inputs_)
        drop_lanes<T>({input_keys_.data(), input_rates_.data()}, first_row_, first, x_,
                      gathered_.size(), rows, stride_);
    }
    return x_ + (feature - gathered_.begin) * stride_ * lanes_;
  }

  void make_keys(int64_t step) {
    auto make = [&](const std::vector<int64_t>& seeds, std::vector<uint32_t>& keys) {
      for (int64_t m = 0; m < lanes_; ++m)
        keys[m] = step_key(seeds[m], trials_[m]->steps_before + step + 1);
    };
    if (drops_inputs_) make(input_seeds_, input_keys_);
    for (LaneLayer<T>& layer : layers_)
      if (layer.drops) make(layer.seeds, layer.step_keys);
  }

  void forward(int64_t rows, bool is_shared, bool is_training) {
    for (size_t l = 0; l < layers_.size(); ++l) {
      LaneLayer<T>& layer = layers_[l];
      for (int64_t k = 0; k < layer.in_features; k += features_at_once) {
        const LaneProduct<T> product{.rows = layer.units,
                                     .columns = rows,
                                     .depth = std::min(features_at_once, layer.in_features - k),
                                     .a = layer.w.values + k * lanes_,
                                     .a_stride = layer.in_features,
                                     .a_step = 1,
                                     .bias = layer.b.values,
                                     .c = layer.out,
                                     .c_stride = stride_,
                                     .adds = k > 0};
        if (l == 0 && is_shared)
          multiply_lanes(product, SharedColumns<T>{x_rows_.data(), k});
        else if (l == 0)
          multiply_lanes(product,
                         LaneOperand<T>{gathered(k, product.depth, rows, is_training), 1, stride_});
        else
          multiply_lanes(product,
                         LaneOperand<T>{layers_[l - 1].out + k * stride_ * lanes_, 1, stride_});
      }
      finish(layer, rows, is_training);
    }
  }

  // From z to what goes on from here.
  void finish(LaneLayer<T>& layer, int64_t rows, bool is_training) {
    auto keep = [&] {
      for (int64_t n = 0; n < layer.units; ++n)
        std::copy_n(layer.out + n * stride_ * lanes_, rows * lanes_,
                    layer.kept + n * stride_ * lanes_);
    };
    if (is_training && layer.calls.keeps_z) keep();
    if (layer.calls.forward)
      layer.calls.forward(layer.out, layer.units, rows * lanes_, stride_ * lanes_, layer.slope);
    if (!layer.is_even) clear_missing(layer.counts.data(), layer.out, layer.units, rows, stride_);
    if (!is_training || !layer.drops) return;
    if (!layer.calls.keeps_z) keep();
    drop(layer, layer.out, rows);
  }

  void drop(LaneLayer<T>& layer, T* values, int64_t rows) {
    drop_lanes<T>({layer.step_keys.data(), layer.rates.data()}, first_row_, 0, values, layer.units,
                  rows, stride_);
  }

  // Into (..., units) of each model that wants them, from that row on.
  void store_outputs(int64_t first, int64_t rows, T* Trial<T>::* array) const {
    const LaneLayer<T>& last = layers_.back();
    for (int64_t m = 0; m < count_; ++m)
      if (T* to = trials_[m]->*array)
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t n = 0; n < last.units; ++n)
            to[(first + i) * last.units + n] = last.out[(n * stride_ + i) * lanes_ + m];
  }

  // What the outputs of rows are compared with, for each model.
  struct Targets {
    const T *y, *weight;
    const int64_t* rows;
    bool operator==(const Targets&) const = default;
  };

  void measure(const Chunk& chunk) {
    measure(chunk, [](const Trial<T>& t) { return Targets{t.y, t.sample_weight, t.order}; });
  }

  // The loss of a chunk, added to that of its batch, and grad_out of the last layer.
  template <class Of>
  void measure(const Chunk& chunk, const Of& targets_of) {
    LaneLayer<T>& last = layers_.back();
    const Targets first = targets_of(*trials_[0]);
    const bool are_same = std::all_of(trials_.begin(), trials_.end(),
                                      [&](auto* trial) { return targets_of(*trial) == first; });
    if (are_same) {  // those of one model for all
      take_targets(chunk, first, 0, [&](T* to, T value) { std::fill_n(to, lanes_, value); });
    } else {
      for (int64_t m = 0; m < lanes_; ++m)
        take_targets(chunk, targets_of(*trials_[m]), m, [](T* to, T value) { *to = value; });
    }
    measure_loss(LossOfOutputs<T>{.units = last.units,
                                  .columns = chunk.rows * lanes_,
                                  .stride = stride_ * lanes_,
                                  .out = last.out,
                                  .targets = targets_,
                                  .scales = scales_,
                                  .grad = last.grad,
                                  .values = values_,
                                  .loss = job_.loss,
                                  .delta = T(trials_[0]->options.delta)});
    sum_rows(values_, 1, chunk.rows, stride_, !chunk.is_first(), loss_);
  }

  // Of a model: put(where its number lies, it) for targets and scales.
  template <class Put>
  void take_targets(const Chunk& chunk, const Targets& own, int64_t model, const Put& put) {
    const int64_t units = layers_.back().units, count = target_count(job_.loss, units);
    const T share =
        share_of_output<T>(job_.loss, counted_rows(job_.loss, own.y, own.rows, chunk), units);
    for (int64_t i = 0; i < chunk.rows; ++i) {
      const int64_t row = row_of(own.rows, chunk.first + i);
      put(scales_ + i * lanes_ + model, own.weight ? share * own.weight[row] : share);
      for (int64_t n = 0; n < count; ++n)
        put(targets_ + (n * stride_ + i) * lanes_ + model, own.y[row * count + n]);
    }
  }

  void backward(const Chunk& chunk) {
    backward_z(layers_.back(), chunk.rows);
    for (size_t l = layers_.size() - 1; l > 0; --l) {
      const LaneLayer<T>& layer = layers_[l];
      LaneLayer<T>& before = layers_[l - 1];
      multiply_lanes(LaneProduct<T>{.rows = layer.in_features,
                                    .columns = chunk.rows,
                                    .depth = layer.units,
                                    .a = layer.w.values,
                                    .a_stride = 1,
                                    .a_step = layer.in_features,
                                    .c = before.grad,
                                    .c_stride = stride_},
                     LaneOperand<T>{layer.grad, 1, stride_});
      backward_z(before, chunk.rows);
    }
  }

  // From grad_out to grad_z
  void backward_z(LaneLayer<T>& layer, int64_t rows) {
    if (layer.drops) drop(layer, layer.grad, rows);
    layer.calls.backward(layer.grad, layer.kept ? layer.kept : layer.out, layer.grad, layer.units,
                         rows * lanes_, stride_ * lanes_, layer.slope);
    if (!layer.is_even) clear_missing(layer.counts.data(), layer.grad, layer.units, rows, stride_);
  }

  // ---- steps ----

  // Makes the numbers of the step that ends a batch, and stores its loss.
  void end_batch(int64_t i) {
    steps_.clear();
    const TrainOptions* last = nullptr;
    ZeroStart start(TrainOptions{}, 1);
    int64_t last_number = 0;
    for (const Trial<T>* trial : trials_) {
      const TrainOptions& own = trial->options;
      const int64_t number = trial->steps_before + i + 1;
      if (!last || number != last_number || own.beta_1 != last->beta_1 ||
          own.beta_2 != last->beta_2)
        start = ZeroStart(own, number);
      steps_.emplace_back(own, trial->learning_rates[i], start);
      last = &own, last_number = number;
    }
    spread_steps(steps_.data(), lanes_, step_);
    store_losses(i, &Trial<T>::losses);
  }

  // Of a batch, with the penalties of all parameters as they are.
  void store_losses(int64_t i, T* Trial<T>::* array) {
    std::fill_n(penalty_, lanes_, T(0));
    if (has_penalties_)
      for (const LaneLayer<T>& layer : layers_)
        add_penalty(layer.w, penalty_), add_penalty(layer.b, penalty_);
    for (int64_t m = 0; m < count_; ++m) (trials_[m]->*array)[i] = loss_[m] + penalty_[m];
  }

  void update(LaneLayer<T>& layer, const Chunk& chunk) {
    const size_t l = &layer - layers_.data();
    if (l == 0 && is_shared_)
      update(layer, chunk, [&](int64_t k, int64_t) { return SharedRows<T>{x_rows_.data(), k}; });
    else if (l == 0)
      update(layer, chunk, [&](int64_t k, int64_t count) {
        return LaneOperand<T>{gathered(k, count, chunk.rows, true), stride_, 1};
      });
    else
      update(layer, chunk, [&](int64_t k, int64_t) {
        return LaneOperand<T>{layers_[l - 1].out + k * stride_ * lanes_, stride_, 1};
      });
    if (!layer.has_bias) return;
    sum_rows(layer.grad, layer.units, chunk.rows, stride_, !chunk.is_first(), layer.b.gradient);
    if (!keeps_gradients_) take_whole_step(layer.b);
  }

  // x(k, count): that many of the inputs, from feature k on.
  template <class X>
  void update(LaneLayer<T>& layer, const Chunk& chunk, const X& x) {
    const int64_t features = layer.in_features;
    // A power of two, so that none goes beyond what is gathered at a time.
    const int64_t most = std::clamp<int64_t>(std::bit_floor(uint64_t(panel_size / layer.units)), 4,
                                             features_at_once);
    for (int64_t k = 0; k < features; k += most) {
      const int64_t columns = std::min(most, features - k);
      const bool keeps = keeps_gradients_;
      T* gradient = keeps ? layer.w.gradient + k * lanes_ : panel_;
      const int64_t gradient_stride = keeps ? features : columns;
      multiply_lanes(LaneProduct<T>{.rows = layer.units,
                                    .columns = columns,
                                    .depth = chunk.rows,
                                    .a = layer.grad,
                                    .a_stride = stride_,
                                    .a_step = 1,
                                    .c = gradient,
                                    .c_stride = gradient_stride,
                                    .adds = keeps && !chunk.is_first()},
                     x(k, columns));
      if (!keeps)
        take_lane_step(job_.update, LaneStep<T>{.parameter = layer.w,
                                                .at = k,
                                                .rows = layer.units,
                                                .columns = columns,
                                                .stride = features,
                                                .gradient = gradient,
                                                .gradient_stride = gradient_stride,
                                                .step = step_});
    }
  }

  void take_whole_step(LaneParameter<T>& p) {
    take_lane_step(job_.update, LaneStep<T>{.parameter = p,
                                            .at = 0,
                                            .rows = 1,
                                            .columns = p.size,
                                            .stride = p.size,
                                            .gradient = p.gradient,
                                            .gradient_stride = p.size,
                                            .step = step_});
  }

  // Of gradients that have been kept.
  void take_steps() {
    if (clips_norms_) clip_norms();
    for (LaneLayer<T>& layer : layers_) {
      take_whole_step(layer.w);
      if (layer.has_bias) take_whole_step(layer.b);
    }
  }

  void clip_norms() {
    auto scale_to = [](double most, T square) { return clip_scale(T(most), std::sqrt(square)); };
    std::vector<T> all(lanes_, T(0));
    auto each = [&](const auto& f) {
      for (LaneLayer<T>& layer : layers_) {
        f(layer.w);
        if (layer.has_bias) f(layer.b);
      }
    };
    each([&](LaneParameter<T>& p) {
      std::fill_n(square_, lanes_, T(0));
      add_squares(p, square_);
      for (int64_t m = 0; m < lanes_; ++m) {
        all[m] += square_[m];
        const double most = trials_[m]->options.clip_norm;
        p.scale[m] = most > 0 ? scale_to(most, square_[m]) : T(1);
      }
    });
    each([&](LaneParameter<T>& p) {
      for (int64_t m = 0; m < lanes_; ++m)
        if (const TrainOptions& own = trials_[m]->options;
            own.clip_norm == 0 && own.global_clip_norm > 0)
          p.scale[m] = scale_to(own.global_clip_norm, all[m]);
    });
  }

  // ---- validation ----

  void validate(int64_t epoch) {
    if (!job_.validation_x) return;
    const auto rows = validation_of(job_);
    const int64_t batches = step_count(rows);
    for (Chunk chunk = chunk_after(rows, Chunk{}, chunk_rows_); chunk.rows;
         chunk = chunk_after(rows, chunk, chunk_rows_)) {
      list_rows(job_.validation_x, job_.validation_x_stride, &Trial<T>::validation_rows,
                is_validation_shared_, chunk.first, chunk.rows);
      forward(chunk.rows, is_validation_shared_, false);
      store_outputs(epoch * rows.samples + chunk.first, chunk.rows,
                    &Trial<T>::validation_predictions);
      measure(chunk, [](const Trial<T>& t) {
        return Targets{t.validation_y, t.validation_weight, t.validation_rows};
      });
      if (chunk.is_last()) store_losses(epoch * batches + chunk.step, &Trial<T>::validation_losses);
    }
  }

  const Trials<T>& job_;
  const int64_t lanes_, count_;
  std::vector<const Trial<T>*> trials_;  // (lanes)
  std::vector<int64_t> going_on_;        // those that have not ended early
  std::vector<LaneLayer<T>> layers_;
  std::vector<double> input_rates_;
  std::vector<int64_t> input_seeds_;
  std::vector<uint32_t> input_keys_;
  std::vector<UpdateStep<T>> steps_;
  bool is_shared_, is_validation_shared_, drops_inputs_, clips_norms_, keeps_gradients_;
  bool has_penalties_ = false;
  int64_t chunk_rows_, stride_, slot_count_ = 0;
  int64_t first_row_ = 0;  // of a chunk, in its batch
  Pieces<T> memory_;
  std::vector<const T*> x_rows_;
  T* x_ = nullptr;        // (features, rows)
  Range gathered_{0, 0};  // of these features
  T *panel_, *targets_, *scales_, *values_, *loss_, *penalty_, *square_, *step_;
};

}  // namespace torchnn::cpu
