// Trains models in the lanes of every instruction set, also of those that this machine lacks (as
// check_train.cpp does): the results must agree with those of the baseline, which the Python tests
// compare with PyTorch, and no bit of a model may depend on its neighbours or on threads. Each
// array ends where its allocation ends. Built and run by tests/test_kernels.py.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <thread>
#include <vector>

#include "../../csrc/cpu/elementwise.cpp"
#include "../../csrc/cpu/lane_products.cpp"
#include "../../csrc/cpu/lane_update.cpp"
#include "../../csrc/cpu/measure.cpp"
#include "../../csrc/cpu/train_many.cpp"
#include "checks.h"

namespace torchnn::cpu {

// None of these models is so large that it trains alone.
template <class T>
void train(const Train<T>&, const Models&) {
  std::abort();
}
template <class T>
void predict(const Train<T>&) {
  std::abort();
}
template void train(const Train<float>&, const Models&);
template void train(const Train<double>&, const Models&);
template void predict(const Train<float>&);
template void predict(const Train<double>&);

}  // namespace torchnn::cpu

using namespace torchnn;
using namespace torchnn::cpu;

namespace {

template <class T>
Values<T> of_seed(int64_t count, double scale, int seed) {
  std::mt19937 generator(seed);
  return random_values<T>(count, scale, generator);
}

void in_threads(int64_t parts, void (*f)(void*, int64_t), void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < parts; ++i) threads.emplace_back(f, context, i);
  for (std::thread& thread : threads) thread.join();
}

int failures = 0;

// What of a problem differs between models follows from a model's number.
struct Problem {
  int64_t features = 7, outputs = 3, rows = 20, batch_size = 8, loss = 0, update = 0;
  int64_t activation = 1, hidden_layers = 1, epochs = 2;
  bool has_own_orders = true, has_penalties = false, drops = false, validates = true;
  double clip_norm = 0, global_clip_norm = 0;
  bool stops = false;  // of three models, one after two epochs; one of the others may

  bool is_positive() const { return loss == Losses::place<Poisson>(); }  // by a softplus

  std::vector<int64_t> widths(int64_t model) const {
    std::vector<int64_t> widths{features};
    for (int64_t l = 0; l < hidden_layers; ++l) widths.push_back(3 + (model + l) % 4);
    widths.push_back(outputs);
    return widths;
  }

  // Those end early that should, with what they then were; of the epochs behind, nothing is told.
  template <class Model>
  void check_stop(Model& own, int64_t m) const {
    const bool ends = m % 3 == 1, goes_on = m % 3 == 2;
    const StoppingState& state = own.stopping_state;
    failures += state.has_stopped != ends || state.epochs != (ends ? 2 : goes_on ? epochs : 0);
    for (size_t l = 0; goes_on && l < own.layers.size(); ++l)
      for (size_t is_bias = 0; is_bias < 2; ++is_bias)
        failures += own.best[2 * l + is_bias] != own.state[l * (2 + 2 * most_slots) + is_bias];
    for (auto* told : {&own.losses, &own.predictions, &own.validation_losses, &own.validation})
      if (ends) std::fill(told->begin() + int64_t(told->size()) * 2 / epochs, told->end(), 0);
  }

  // All numbers that these models come to, one model after the other.
  template <class T>
  std::vector<Values<T>> train(const std::vector<int64_t>& models, int64_t threads = 1) const {
    const int64_t targets = target_count(loss, outputs),
                  steps = epochs * step_count(rows, rows, batch_size);
    const int64_t batches = step_count(rows, rows, batch_size);
    const auto x = of_seed<T>(rows * features, 1, 1);
    auto y = of_seed<T>(rows * targets, 1, 2);
    if (has_labels(loss))
      for (int64_t i = 0; i < rows; ++i) y[i] = T(i % (outputs + 1) - 1);
    const auto weights = of_seed<T>(rows, 0.5, 3);
    struct Model {
      std::vector<Values<T>> state;
      std::vector<TrainLayer<T>> layers;
      std::vector<int64_t> order, validation_rows;
      std::vector<double> rates;
      Values<T> losses, predictions, validation_losses, validation;
      std::vector<Values<T>> best;
      StoppingState stopping_state{std::numeric_limits<double>::quiet_NaN(), -1, 0, 0, 0};
    };
    std::vector<Model> all(models.size());
    std::vector<Trial<T>> trials;
    for (size_t i = 0; i < models.size(); ++i) {
      Model& own = all[i];
      const int64_t m = models[i];
      const auto sizes = widths(m);
      for (size_t l = 1; l < sizes.size(); ++l) {
        own.state.push_back(of_seed<T>(sizes[l] * sizes[l - 1], 0.5, 10 * m + l));
        own.state.push_back(of_seed<T>(sizes[l], 0.1, 10 * m + l + 5));
        for (int s = 0; s < most_slots; ++s) {
          own.state.emplace_back(sizes[l] * sizes[l - 1], T(0));
          own.state.emplace_back(sizes[l], T(0));
        }
      }
      for (size_t l = 0; l + 1 < sizes.size(); ++l) {
        Values<T>* of_layer = &own.state[l * (2 + 2 * most_slots)];
        TrainLayer<T> layer{.in_features = sizes[l],
                            .units = sizes[l + 1],
                            .activation = l + 2 < sizes.size() ? activation
                                          : is_positive()      ? Activations::place<Softplus>()
                                                               : 0,
                            .weight = of_layer[0].data(),
                            .bias = of_layer[1].data(),
                            .weight_slots = {},
                            .bias_slots = {},
                            .dropout = drops ? 0.1 * (m % 4) : 0.0,
                            .seed = m};
        if (has_penalties)
          layer.weight_penalty = {T(0.01 * (1 + m % 3)), T(0.01)},
          layer.bias_penalty = {0, T(0.02)};
        for (int s = 0; s < most_slots; ++s) {
          layer.weight_slots[s] = of_layer[2 + 2 * s].data();
          layer.bias_slots[s] = of_layer[3 + 2 * s].data();
        }
        if (stops && m % 3) {
          own.best.emplace_back(sizes[l + 1] * sizes[l], T(0));
          own.best.emplace_back(sizes[l + 1], T(0));
          layer.best_weight = own.best[2 * l].data(), layer.best_bias = own.best[2 * l + 1].data();
        }
        own.layers.push_back(layer);
      }
      const int64_t shift = has_own_orders ? m : 0;
      for (int64_t k = 0; k < epochs * rows; ++k) own.order.push_back((k * 7 + shift) % rows);
      for (int64_t k = 0; k < rows; ++k) own.validation_rows.push_back((k + shift) % rows);
      for (int64_t k = 0; k < steps; ++k) own.rates.push_back(0.01 + 0.002 * (m % 5));
      own.losses.resize(steps), own.predictions.resize(epochs * rows * outputs);
      own.validation_losses.resize(epochs * batches);
      own.validation.resize(epochs * rows * outputs);
    }
    for (size_t i = 0; i < models.size(); ++i) {
      Model& own = all[i];
      const int64_t m = models[i];
      const Model& of_order = has_own_orders ? own : all[0];
      Stopping stopping{};
      stopping.patience = 1, stopping.of_validation = m % 2, stopping.sign = 1;
      stopping.baseline = std::numeric_limits<double>::quiet_NaN();
      stopping.min_delta = m % 3 == 1 ? 1e9 : -1e9;  // only the first epoch is better, or each is
      trials.push_back({.layers = own.layers.data(),
                        .y = y.data(),
                        .sample_weight = m % 2 ? weights.data() : nullptr,
                        .order = of_order.order.data(),
                        .options = {.momentum = 0.9 - 0.1 * (m % 3),
                                    .beta_1 = 0.9,
                                    .beta_2 = 0.999,
                                    .epsilon = 1e-7,
                                    .weight_decay = 0.01,
                                    .rho = 0.9,
                                    .clip_value = 0,
                                    .clip_norm = clip_norm,
                                    .global_clip_norm = global_clip_norm,
                                    .delta = 0.7},
                        .input_dropout = drops ? 0.2 : 0.0,
                        .input_seed = m,
                        .learning_rates = own.rates.data(),
                        .steps_before = m,
                        .losses = own.losses.data(),
                        .predictions = own.predictions.data(),
                        .validation_rows = of_order.validation_rows.data(),
                        .validation_y = y.data(),
                        .validation_weight = weights.data(),
                        .validation_losses = own.validation_losses.data(),
                        .validation_predictions = own.validation.data(),
                        .stopping = stopping,
                        .stopping_state = stops && m % 3 ? &own.stopping_state : nullptr});
    }
    train_many(Trials<T>{.trials = trials.data(),
                         .count = int64_t(trials.size()),
                         .layer_count = int64_t(all[0].layers.size()),
                         .x = x.data(),
                         .x_stride = features,
                         .samples = epochs * rows,
                         .epoch_size = rows,
                         .batch_size = batch_size,
                         .loss = loss,
                         .update = update,
                         .validation_x = validates ? x.data() : nullptr,
                         .validation_x_stride = features,
                         .validation_count = rows,
                         .validation_batch_size = batch_size,
                         .parallel = in_threads,
                         .threads = threads});
    std::vector<Values<T>> found;
    for (Model& own : all) {
      Values<T> numbers;
      if (stops) check_stop(own, models[&own - all.data()]);
      auto add = [&](const Values<T>& more) {
        numbers.insert(numbers.end(), more.begin(), more.end());
      };
      for (const Values<T>& values : own.state) add(values);
      for (const Values<T>& values : own.best) add(values);
      add(own.losses), add(own.predictions), add(own.validation_losses), add(own.validation);
      found.push_back(numbers);
    }
    return found;
  }
};

template <class T>
void check(const char* what, const Problem& problem) {
  std::vector<int64_t> models;
  for (int64_t m = 0; m < 19; ++m) models.push_back(m);
  forced = Capability::baseline;
  const auto expected = problem.train<T>(models);
  for (Capability capability : {Capability::baseline, Capability::avx2, Capability::avx512}) {
#if defined(TORCHNN_BASELINE_ALONE)
    if (capability != Capability::baseline) continue;
#endif
    forced = capability;
    const auto found = problem.train<T>(models);
    double worst = 0;
    for (size_t m = 0; m < found.size(); ++m)
      for (size_t i = 0; i < found[m].size(); ++i)
        worst = std::max(worst, std::abs(double(found[m][i] - expected[m][i])) /
                                    (1 + std::abs(double(expected[m][i]))));
    const auto in_threads = problem.train<T>(models, 3);
    const auto apart = problem.train<T>({17, 4, 11});
    const bool are_same = found == in_threads && apart[0] == found[17] && apart[1] == found[4] &&
                          apart[2] == found[11];
    if (!(worst <= 2000 * std::numeric_limits<T>::epsilon()) || !are_same) {
      std::printf("%s, capability %d, loss %d, update %d, activation %d: off by %g%s\n", what,
                  int(capability), int(problem.loss), int(problem.update), int(problem.activation),
                  worst, are_same ? "" : ", models change one another");
      ++failures;
    }
  }
}

template <class T>
void check_all(const char* what) {
  for (int64_t update = 0; update < Updates::size; ++update) check<T>(what, {.update = update});
  for (int64_t loss = 0; loss < Losses::size; ++loss) check<T>(what, {.loss = loss, .update = 1});
  for (int64_t activation = 0; activation < Activations::size; ++activation)
    check<T>(what, {.activation = activation, .hidden_layers = 2, .drops = activation % 2 == 0});
  check<T>(what, {.features = 141, .rows = 9, .has_own_orders = false});
  check<T>(what, {.features = 141, .rows = 9, .batch_size = 1});
  check<T>(what, {.rows = 75, .batch_size = 70, .update = 3, .has_penalties = true});
  check<T>(what, {.update = 3, .has_penalties = true, .drops = true, .clip_norm = 0.1});
  check<T>(what, {.outputs = 1, .has_own_orders = false, .global_clip_norm = 0.1});
  check<T>(what, {.update = 3, .epochs = 4, .stops = true});
}

}  // namespace

int main() {
  check_all<float>("float");
  check_all<double>("double");
  std::printf("%d failures\n", failures);
  return failures != 0;
}
