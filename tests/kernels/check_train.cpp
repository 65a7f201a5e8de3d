// Trains small networks in the register tiles of every instruction set, also of those that this
// machine lacks: compiled with an empty TORCHNN_TARGET, the compiler lowers a wide register to
// narrow ones. The results must agree with those of the baseline, which the Python tests compare
// with PyTorch. Each array ends where its allocation ends, so that AddressSanitizer sees a step too
// far. Built and run by tests/test_kernels.py.
#include <cmath>
#include <cstdio>
#include <vector>

#define TORCHNN_LARGE_PRODUCT (1 << 15)
#define TORCHNN_LARGE_SIDE 36

#include "../../csrc/cpu/elementwise.cpp"
#include "../../csrc/cpu/layer_update.cpp"
#include "../../csrc/cpu/matmul.cpp"
#include "../../csrc/cpu/measure.cpp"
#include "../../csrc/cpu/small_products.cpp"
#include "../../csrc/cpu/train.cpp"
#include "checks.h"

using namespace torchnn;
using namespace torchnn::cpu;

namespace {

template <class T>
Values<T> random_values(int64_t count, double scale) {
  static std::mt19937 generator(0);
  return cpu::random_values<T>(count, scale, generator);
}

// In place of a library for large matrices.
template <class T>
void add_product(const Product<T>& given, T scale) {
  Product<T> product = given;
  Values<T> sums(given.rows * given.columns);
  product.c = sums.data(), product.c_stride = given.columns;
  multiply(product);
  for (int64_t i = 0; i < given.rows; ++i)
    for (int64_t k = 0; k < given.columns; ++k)
      given.c[i * given.c_stride + k] += scale * sums[i * given.columns + k];
}

template <class T>
struct Problem {
  std::vector<int64_t> widths;
  int64_t rows, batch_size, loss, update, models;
  int64_t activation = 1;
  double penalty = 0, dropout = 0, slope = no_slope;  // of every layer
  bool has_library = false;
  // Of all models, one behind the other.
  Values<T> x, y, weight_of_rows;
  std::vector<int64_t> order;
  std::vector<double> rates;
  std::vector<TrainOptions> options;
  std::vector<Values<T>> state;  // weight, bias and slots of each layer in turn

  Problem(std::vector<int64_t> widths, int64_t rows, int64_t batch_size, int64_t loss,
          int64_t update, int64_t models = 1)
      : widths(widths),
        rows(rows),
        batch_size(batch_size),
        loss(loss),
        update(update),
        models(models) {
    x = random_values<T>(models * rows * widths.front(), 1);
    y = random_values<T>(models * rows * target_count(loss, widths.back()), 1);
    weight_of_rows = random_values<T>(models * rows, 0.5);
    for (int64_t i = 0; i < models * rows; ++i) order.push_back((i * 7) % rows);
    for (int64_t i = 0; i < models * steps(); ++i) rates.push_back(0.01 + 0.001 * (i % 3));
    for (int64_t m = 0; m < models; ++m)
      options.push_back({.momentum = 0.9 - 0.1 * m,
                         .beta_1 = 0.9,
                         .beta_2 = 0.999,
                         .epsilon = 1e-7,
                         .weight_decay = 0.01,
                         .rho = 0.9,
                         .clip_value = 0,
                         .clip_norm = 0,
                         .global_clip_norm = 0,
                         .delta = 0.7});
    for (size_t l = 1; l < widths.size(); ++l) {
      const int64_t size = models * widths[l] * widths[l - 1];
      state.push_back(random_values<T>(size, 1 / std::sqrt(widths[l - 1])));
      state.push_back(random_values<T>(models * widths[l], 0.1));
      for (int s = 0; s < most_slots; ++s) {
        state.emplace_back(size, T(0));
        state.emplace_back(models * widths[l], T(0));
      }
    }
  }

  int64_t steps() const { return step_count(rows, rows, batch_size); }

  // The part of an array that is of these models, in an allocation of its own.
  template <class Number>
  std::vector<Number> part(const std::vector<Number>& all, int64_t first, int64_t count) const {
    const int64_t size = int64_t(all.size()) / models;
    return {all.begin() + first * size, all.begin() + (first + count) * size};
  }

  // All numbers after one epoch, model by model.
  Values<T> train(int64_t first, int64_t count) const {
    std::vector<Values<T>> own;
    for (const Values<T>& values : state) own.push_back(part(values, first, count));
    std::vector<TrainLayer<T>> layers;
    for (size_t l = 0; l + 1 < widths.size(); ++l) {
      Values<T>* of_layer = &own[l * (2 + 2 * most_slots)];
      TrainLayer<T> layer{.in_features = widths[l],
                          .units = widths[l + 1],
                          .activation = l + 2 < widths.size() ? activation : 0,
                          .weight = of_layer[0].data(),
                          .bias = of_layer[1].data(),
                          .weight_slots = {},
                          .bias_slots = {},
                          .weight_penalty = {T(penalty), T(penalty)},
                          .bias_penalty = {T(penalty), T(0)},
                          .slope = slope,
                          .dropout = dropout,
                          .seed = int64_t(l)};
      for (int s = 0; s < most_slots; ++s) {
        layer.weight_slots[s] = of_layer[2 + 2 * s].data();
        layer.bias_slots[s] = of_layer[3 + 2 * s].data();
      }
      layers.push_back(layer);
    }
    const auto x = part(this->x, first, count), y = part(this->y, first, count);
    const auto weight_of_rows = part(this->weight_of_rows, first, count);
    const auto order = part(this->order, first, count);
    const auto rates = part(this->rates, first, count);
    const auto options = part(this->options, first, count);
    Values<T> losses(count * steps()), predictions(count * rows * widths.back());
    cpu::train(Train<T>{.layers = layers.data(),
                        .layer_count = int64_t(layers.size()),
                        .x = x.data(),
                        .y = y.data(),
                        .sample_weight = weight_of_rows.data(),
                        .order = order.data(),
                        .x_stride = widths.front(),
                        .samples = rows,
                        .epoch_size = rows,
                        .batch_size = batch_size,
                        .loss = loss,
                        .update = update,
                        .input_dropout = dropout,
                        .learning_rates = rates.data(),
                        .losses = losses.data(),
                        .predictions = predictions.data(),
                        .add_product = has_library ? add_product<T> : nullptr},
               Models{.count = count,
                      .x = rows * widths.front(),
                      .y = rows * target_count(loss, widths.back()),
                      .sample_weight = rows,
                      .order = rows,
                      .learning_rates = steps(),
                      .options = options.data()});
    own.push_back(predictions), own.push_back(losses);
    Values<T> all;
    for (int64_t m = 0; m < count; ++m)
      for (const Values<T>& values : own) {
        const int64_t size = int64_t(values.size()) / count;
        all.insert(all.end(), values.begin() + m * size, values.begin() + (m + 1) * size);
      }
    return all;
  }
};

int failures = 0;

template <class T>
void check(const char* what, Problem<T> problem, bool has_library = false) {
  forced = Capability::baseline;
  const Values<T> expected = problem.train(0, problem.models);
  problem.has_library = has_library;
  for (Capability capability : {Capability::baseline, Capability::avx2, Capability::avx512}) {
    if (capability == Capability::baseline && !has_library) continue;
    forced = capability;
    const Values<T> found = problem.train(0, problem.models);
    double worst = 0;
    for (size_t i = 0; i < found.size(); ++i)
      worst = std::max(
          worst, std::abs(double(found[i] - expected[i])) / (1 + std::abs(double(expected[i]))));
    if (!(worst <= 2000 * std::numeric_limits<T>::epsilon())) {
      std::printf("%s, capability %d, loss %d, update %d: off by %g\n", what, int(capability),
                  int(problem.loss), int(problem.update), worst);
      ++failures;
    }
    if (problem.models == 1) continue;
    Values<T> one_by_one;
    for (int64_t m = 0; m < problem.models; ++m) {
      const Values<T> alone = problem.train(m, 1);
      one_by_one.insert(one_by_one.end(), alone.begin(), alone.end());
    }
    if (found != one_by_one) {
      std::printf("%s, capability %d: models change one another\n", what, int(capability));
      ++failures;
    }
  }
}

template <class T>
void check_all(const char* what) {
  for (int64_t update = 0; update < Updates::size; ++update) {
    check(what, Problem<T>({7, 5, 3}, 20, 8, 0, update, 3));
    check(what, Problem<T>({16, 25, 13, 1}, 33, 16, 0, update));
    check(what, Problem<T>({33, 40, 2}, 10, 1, 0, update));
  }
  for (int64_t loss = 0; loss < Losses::size; ++loss) {
    check(what, Problem<T>({7, 5, 3}, 20, 8, loss, 0));
    check(what, Problem<T>({33, 40, 2}, 10, 1, loss, 0));  // by rows
  }
  for (int64_t activation = 0; activation < Activations::size; ++activation)
    for (int64_t batch_size : {1, 16, 300}) {  // by rows, in registers, in shares
      Problem<T> problem({33, 17, 9, 2}, batch_size == 300 ? 300 : 20, batch_size, 0, 0, 2);
      problem.activation = activation, problem.penalty = 0.01, problem.dropout = 0.25;
      problem.slope = 0.3;
      check(what, problem);
      for (TrainOptions& options : problem.options) options.clip_norm = 0.1;
      check(what, problem);
    }
  for (int64_t update : {0, 1, 4})  // a library's products in some layers, and a short last batch
    for (int64_t batch_size : {70, 600}) {
      Problem<T> problem({35, 43, 37, 3}, batch_size + 30, batch_size, 0, update, 2);
      check(what, problem, true);
      problem.penalty = 0.01, problem.dropout = 0.25;
      check(what, problem, true);
      for (TrainOptions& options : problem.options) options.global_clip_norm = 0.1;
      check(what, problem, true);
    }
  check(what, Problem<T>({32, 17, 1}, 300, 300, 0, 0, 2));  // shares of a large batch
  check(what, Problem<T>({300, 230, 1}, 150, 150, 0, 1));   // chunks of a larger network
  check(what, Problem<T>({300, 300, 1}, 9, 9, 0, 0));       // a product in parts of its depth
}

}  // namespace

int main() {
  check_all<float>("float");
  check_all<double>("double");
  std::printf("%d failures\n", failures);
  return failures != 0;
}
