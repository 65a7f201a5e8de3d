// Trains networks with one thread and with several: every bit must be the same, whoever comes to
// help and when. Run under ThreadSanitizer, and built by tests/test_kernels.py.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "../../csrc/train.h"

using namespace torchnn;

namespace {

// ---- ways to find threads ----

void at_once(int64_t parts, void (*f)(void*, int64_t), void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = 1; i < parts; ++i) threads.emplace_back(f, context, i);
  f(context, 0);
  for (auto& thread : threads) thread.join();
}

void helpers_first(int64_t parts, void (*f)(void*, int64_t), void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = parts - 1; i >= 0; --i) threads.emplace_back(f, context, i);
  for (auto& thread : threads) thread.join();
}

// Helpers that come in the middle of the work, and most probably of a batch.
template <int milliseconds>
void late(int64_t parts, void (*f)(void*, int64_t), void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = 1; i < parts; ++i)
    threads.emplace_back([=] {
      std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds * i));
      f(context, i);
    });
  f(context, 0);
  for (auto& thread : threads) thread.join();
}

// A pool without a free thread, as within another parallel region.
void one_after_the_other(int64_t parts, void (*f)(void*, int64_t), void* context) {
  for (int64_t i = 0; i < parts; ++i) f(context, i);
}

// ---- a network ----

struct Problem {
  const char* name;
  std::vector<int64_t> widths;
  int64_t samples, batch_size, update;
};

std::vector<float> train(const Problem& problem, int64_t threads, Parallel parallel) {
  std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  auto random = [&](int64_t count, double scale) {
    std::vector<float> values(count);
    for (float& value : values) value = float(scale) * normal(generator);
    return values;
  };
  const std::vector<int64_t>& widths = problem.widths;
  const auto x = random(problem.samples * widths.front(), 1);
  const auto y = random(problem.samples * widths.back(), 1);
  std::vector<std::vector<float>> state;
  state.reserve(6 * widths.size());
  std::vector<TrainLayer<float>> layers;
  for (size_t l = 1; l < widths.size(); ++l) {
    const int64_t size = widths[l] * widths[l - 1];
    TrainLayer<float> layer{
        widths[l - 1], widths[l], l + 1 < widths.size(), nullptr, nullptr, {}, {}};
    state.push_back(random(size, 1 / std::sqrt(double(widths[l - 1]))));
    layer.weight = state.back().data();
    state.push_back(random(widths[l], 0.1));
    layer.bias = state.back().data();
    for (int s = 0; s < most_slots; ++s) {
      state.emplace_back(size, 0.0f);
      layer.weight_slots[s] = state.back().data();
      state.emplace_back(widths[l], 0.0f);
      layer.bias_slots[s] = state.back().data();
    }
    layers.push_back(layer);
  }
  const int64_t steps = step_count(problem.samples, problem.samples, problem.batch_size);
  const std::vector<double> rates(steps, 0.05);  // large enough for a wrong gradient to show
  std::vector<float> losses(steps), predictions(problem.samples * widths.back());
  int64_t steps_done = 0;
  cpu::train(Train<float>{.layers = layers.data(),
                          .layer_count = int64_t(layers.size()),
                          .x = x.data(),
                          .y = y.data(),
                          .x_stride = widths.front(),
                          .samples = problem.samples,
                          .epoch_size = problem.samples,
                          .batch_size = problem.batch_size,
                          .loss = 0,
                          .update = problem.update,
                          .options = {0.9, 0.9, 0.999, 1e-7, 0.01},
                          .learning_rates = rates.data(),
                          .losses = losses.data(),
                          .predictions = predictions.data(),
                          .steps_done = &steps_done,
                          .parallel = parallel,
                          .threads = threads});
  std::vector<float> all = losses;
  all.insert(all.end(), predictions.begin(), predictions.end());
  for (const auto& values : state) all.insert(all.end(), values.begin(), values.end());
  all.push_back(float(steps_done));
  return all;
}

}  // namespace

int main() {
  const Problem problems[] = {
      {"the rest of the network in every thread", {200, 25, 25, 1}, 1500, 32, 0},
      {"the rest of the network with momentum", {70, 64, 20, 2}, 1500, 50, 1},
      {"rows and tiles shared", {100, 128, 130, 1}, 700, 128, 3},
      {"short batches that go by rows", {200, 25, 25, 1}, 1506, 19, 0},
      {"only batches that go by rows", {70, 64, 20, 2}, 800, 3, 2},
      {"shares of a large batch", {200, 25, 25, 1}, 24000, 1500, 0},
      {"few shares, and an odd number of chunks", {90, 200, 9, 1}, 4000, 900, 2},
      {"chunks of a large batch, one after the other", {300, 230, 1}, 3000, 300, 3},
  };
  int failures = 0;
  for (const Problem& problem : problems) {
    const auto expected = train(problem, 1, nullptr);
    for (const float value : expected) failures += !std::isfinite(value);
    for (const Parallel parallel :
         {at_once, helpers_first, late<1>, late<2>, late<4>, late<8>, one_after_the_other})
      for (const int64_t threads : {2, 3, 5})
        if (train(problem, threads, parallel) != expected) {
          std::printf("%s: %d threads give other bits\n", problem.name, int(threads));
          ++failures;
        }
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
