// Trains small networks in the register tiles of every instruction set, also of those that this
// machine lacks: compiled with an empty TORCHNN_TARGET, the compiler lowers a wide register to
// narrow ones. The results must agree with those of the baseline, which the Python tests compare
// with PyTorch. Each array ends where its allocation ends, so that AddressSanitizer sees a step too
// far. Built and run by tests/test_kernels.py.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "../../csrc/cpu/elementwise.cpp"
#include "../../csrc/cpu/matmul.cpp"
#include "../../csrc/cpu/train.cpp"
#include "../../csrc/cpu/train_kernels.cpp"

namespace torchnn::cpu {

Capability forced = Capability::baseline;
Capability capability_in_use() { return forced; }
int64_t vector_bytes() { return 16 << int(forced); }

}  // namespace torchnn::cpu

using namespace torchnn;
using namespace torchnn::cpu;

namespace {

template <class T>
using Values = std::vector<T>;

template <class T>
Values<T> random_values(int64_t count, double scale) {
  static std::mt19937 generator(0);
  std::normal_distribution<double> normal;
  Values<T> values(count);
  for (T& value : values) value = T(scale * normal(generator));
  return values;
}

template <class T>
struct Problem {
  std::vector<int64_t> widths;
  int64_t rows, batch_size, update;
  Values<T> x, y, weight_of_rows;
  std::vector<int64_t> order;
  std::vector<Values<T>> weights, biases;

  Problem(std::vector<int64_t> widths, int64_t rows, int64_t batch_size, int64_t update)
      : widths(widths), rows(rows), batch_size(batch_size), update(update) {
    x = random_values<T>(rows * widths.front(), 1);
    y = random_values<T>(rows * widths.back(), 1);
    weight_of_rows = Values<T>(rows, T(0.5));
    for (int64_t i = 0; i < rows; ++i) order.push_back((i * 7) % rows);
    for (size_t l = 1; l < widths.size(); ++l) {
      weights.push_back(random_values<T>(widths[l] * widths[l - 1], 1 / std::sqrt(widths[l - 1])));
      biases.push_back(random_values<T>(widths[l], 0.1));
    }
  }

  // All weights after one epoch.
  Values<T> train() const {
    auto w = weights, b = biases;
    std::vector<Values<T>> slots;
    std::vector<TrainLayer<T>> layers;
    const size_t count = w.size();
    slots.reserve(4 * count);
    for (size_t l = 0; l < count; ++l) {
      TrainLayer<T> layer{.in_features = widths[l],
                          .units = widths[l + 1],
                          .activation = l + 1 < count ? 1 : 0,
                          .weight = w[l].data(),
                          .bias = b[l].data(),
                          .weight_slots = {},
                          .bias_slots = {}};
      for (int s = 0; s < most_slots; ++s) {
        slots.emplace_back(w[l].size(), T(0));
        layer.weight_slots[s] = slots.back().data();
        slots.emplace_back(b[l].size(), T(0));
        layer.bias_slots[s] = slots.back().data();
      }
      layers.push_back(layer);
    }
    const int64_t steps = (rows + batch_size - 1) / batch_size;
    const std::vector<double> rates(steps, 0.01);
    Values<T> losses(steps), predictions(rows * widths.back());
    int64_t steps_done = 0;
    cpu::train(Train<T>{.layers = layers.data(),
                        .layer_count = int64_t(count),
                        .x = x.data(),
                        .y = y.data(),
                        .sample_weight = weight_of_rows.data(),
                        .order = order.data(),
                        .x_stride = widths.front(),
                        .samples = rows,
                        .epoch_size = rows,
                        .batch_size = batch_size,
                        .loss = 0,
                        .update = update,
                        .options = {0.9, 0.9, 0.999, 1e-7, 0.01},
                        .learning_rates = rates.data(),
                        .losses = losses.data(),
                        .predictions = predictions.data(),
                        .steps_done = &steps_done});
    Values<T> all = predictions;
    for (const auto& values : {w, b, slots})
      for (const auto& v : values) all.insert(all.end(), v.begin(), v.end());
    all.insert(all.end(), losses.begin(), losses.end());
    all.push_back(T(steps_done));
    return all;
  }
};

template <class T>
int check(const char* what, const Problem<T>& problem) {
  forced = Capability::baseline;
  const Values<T> expected = problem.train();
  int failures = 0;
  for (Capability capability : {Capability::avx2, Capability::avx512}) {
    forced = capability;
    const Values<T> found = problem.train();
    double worst = 0;
    for (size_t i = 0; i < found.size(); ++i)
      worst = std::max(
          worst, std::abs(double(found[i] - expected[i])) / (1 + std::abs(double(expected[i]))));
    if (!(worst <= 2000 * std::numeric_limits<T>::epsilon())) {
      std::printf("%s, capability %d: off by %g\n", what, int(capability), worst);
      ++failures;
    }
  }
  return failures;
}

template <class T>
int check_all(const char* what) {
  int failures = 0;
  for (int64_t update = 0; update < Updates::size; ++update) {
    failures += check(what, Problem<T>({7, 5, 3}, 20, 8, update));
    failures += check(what, Problem<T>({16, 25, 13, 1}, 33, 16, update));
    failures += check(what, Problem<T>({33, 40, 2}, 10, 1, update));
  }
  failures += check(what, Problem<T>({32, 17, 1}, 300, 300, 0));    // shares of a large batch
  failures += check(what, Problem<T>({300, 230, 1}, 200, 200, 1));  // chunks of a larger network
  failures += check(what, Problem<T>({300, 300, 1}, 9, 9, 0));      // a packed layer
  return failures;
}

}  // namespace

int main() {
  const int failures = check_all<float>("float") + check_all<double>("double");
  std::printf("%d failures\n", failures);
  return failures != 0;
}
