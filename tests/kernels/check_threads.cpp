// Trains networks with one thread and with several, and models one by one and side by side: every
// bit must be the same, whoever comes to help and when. Where memory runs out, whoever it is that
// asks for it, the call must come back with an error, or do without. Run under ThreadSanitizer, and
// built by tests/test_kernels.py, with the baseline's registers alone: four rows of floats.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "../../csrc/cpu/matmul.h"
#include "../../csrc/cpu/pace.h"
#include "../../csrc/errors.h"
#include "../../csrc/train.h"

using namespace torchnn;

// ---- memory that runs out: all that the engines keep comes from here ----

static std::atomic<int64_t> requests = 0, failing = 0;  // the one to refuse, counted from 1

void* operator new(size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  if (++requests == failing) return nullptr;
  return std::aligned_alloc(size_t(alignment), (size + 63) / 64 * 64);
}
void* operator new[](size_t size, std::align_val_t alignment, const std::nothrow_t& t) noexcept {
  return operator new(size, alignment, t);
}
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }

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

// ---- networks ----

using Values = std::vector<float>;

struct Problem {
  const char* name;
  std::vector<int64_t> widths;
  int64_t samples, batch_size, update;
  bool has_library = false;
};

// In place of a library for large matrices.
void add_product(const cpu::Product<float>& given, float scale) {
  cpu::Product<float> product = given;
  Values sums(given.rows * given.columns);
  product.c = sums.data(), product.c_stride = given.columns;
  cpu::multiply(product);
  for (int64_t i = 0; i < given.rows; ++i)
    for (int64_t k = 0; k < given.columns; ++k)
      given.c[i * given.c_stride + k] += scale * sums[i * given.columns + k];
}

// Models to train: what they share, and what each has of its own, one behind the other.
struct Sweep {
  Problem problem;
  int64_t models;
  std::mt19937 generator{0};
  Values x, y;
  std::vector<Values> state;  // weight, bias and slots of each layer in turn
  std::vector<double> rates;
  std::vector<TrainOptions> options;

  Sweep(const Problem& problem, int64_t models) : problem(problem), models(models) {
    const std::vector<int64_t>& widths = problem.widths;
    x = random(models * problem.samples * widths.front(), 1);
    y = random(problem.samples * widths.back(), 1);
    for (size_t l = 1; l < widths.size(); ++l) {
      const int64_t size = models * widths[l] * widths[l - 1];
      state.push_back(random(size, 1 / std::sqrt(double(widths[l - 1]))));
      state.push_back(random(models * widths[l], 0.1));
      for (int s = 0; s < most_slots; ++s) {
        state.emplace_back(size, 0.0f);
        state.emplace_back(models * widths[l], 0.0f);
      }
    }
    // large enough for a wrong gradient to show
    for (int64_t i = 0; i < models * steps(); ++i) rates.push_back(0.05 + 0.001 * (i % 7));
    for (int64_t m = 0; m < models; ++m)
      options.push_back({0.9 - 0.1 * m, 0.9, 0.999, 1e-7, 0.01 * m, 0.9});
  }

  Values random(int64_t count, double scale) {
    std::normal_distribution<float> normal;
    Values values(count);
    for (float& value : values) value = float(scale) * normal(generator);
    return values;
  }

  int64_t steps() const { return step_count(problem.samples, problem.samples, problem.batch_size); }

  // All numbers that training comes to: of the models first ... first + count - 1.
  Values train(int64_t threads, Parallel parallel, int64_t first, int64_t count) const {
    const std::vector<int64_t>& widths = problem.widths;
    const int64_t inputs = problem.samples * widths.front();
    std::vector<Values> own;
    for (const Values& values : state) {
      const int64_t size = values.size() / models;
      own.emplace_back(values.begin() + first * size, values.begin() + (first + count) * size);
    }
    std::vector<TrainLayer<float>> layers;
    for (size_t l = 1; l < widths.size(); ++l) {
      Values* of_layer = &own[(l - 1) * (2 + 2 * most_slots)];
      TrainLayer<float> layer{
          widths[l - 1], widths[l], l + 1 < widths.size(), nullptr, nullptr, {}, {}};
      layer.weight = of_layer[0].data(), layer.bias = of_layer[1].data();
      for (int s = 0; s < most_slots; ++s) {
        layer.weight_slots[s] = of_layer[2 + 2 * s].data();
        layer.bias_slots[s] = of_layer[3 + 2 * s].data();
      }
      layers.push_back(layer);
    }
    Values losses(count * steps()), predictions(count * problem.samples * widths.back());
    cpu::train(Train<float>{.layers = layers.data(),
                            .layer_count = int64_t(layers.size()),
                            .x = x.data() + first * inputs,
                            .y = y.data(),
                            .x_stride = widths.front(),
                            .samples = problem.samples,
                            .epoch_size = problem.samples,
                            .batch_size = problem.batch_size,
                            .loss = 0,
                            .update = problem.update,
                            .options = {},
                            .input_dropout = problem.update % 2 ? 0.25 : 0,
                            .learning_rates = rates.data() + first * steps(),
                            .losses = losses.data(),
                            .predictions = predictions.data(),
                            .parallel = parallel,
                            .threads = threads,
                            .add_product = problem.has_library ? add_product : nullptr},
               Models{.count = count,
                      .x = inputs,
                      .learning_rates = steps(),
                      .options = options.data() + first});
    own.push_back(losses), own.push_back(predictions);
    // model by model
    Values all;
    for (int64_t m = 0; m < count; ++m)
      for (const Values& values : own) {
        const int64_t size = values.size() / count;
        all.insert(all.end(), values.begin() + m * size, values.begin() + (m + 1) * size);
      }
    return all;
  }
};

int failures = 0;

void expect(bool is_right, const char* name, const char* what, int64_t threads) {
  if (is_right) return;
  std::printf("%s: %s, with %d threads\n", name, what, int(threads));
  ++failures;
}

// Helpers that come one after the other find a team of each size.
void check_threads(const Problem& problem) {
  const Sweep sweep(problem, 1);
  const Values expected = sweep.train(1, nullptr, 0, 1);
  for (const float value : expected) failures += !std::isfinite(value);
  const struct {
    Parallel parallel;
    int64_t threads;
  } ways[] = {{at_once, 2}, {at_once, 3}, {at_once, 5}, {helpers_first, 3},      {late<1>, 5},
              {late<2>, 5}, {late<4>, 5}, {late<8>, 2}, {one_after_the_other, 3}};
  for (const auto& way : ways)
    expect(sweep.train(way.threads, way.parallel, 0, 1) == expected, problem.name, "other bits",
           way.threads);
}

void check_models(const Problem& problem) {
  constexpr int64_t models = 5;
  const Sweep sweep(problem, models);
  Values expected;
  for (int64_t m = 0; m < models; ++m) {
    const Values alone = sweep.train(1, nullptr, m, 1);
    for (const float value : alone) failures += !std::isfinite(value);
    expected.insert(expected.end(), alone.begin(), alone.end());
  }
  for (const int64_t threads : {1, 2, 3})
    for (const Parallel parallel : {at_once, late<2>, one_after_the_other})
      if (threads > 1 || parallel == at_once)
        expect(sweep.train(threads, parallel, 0, models) == expected, problem.name,
               "models change one another", threads);
}

// Each request for memory fails once, in threads that have none yet.
void check_memory(const Problem& problem, int64_t models, int64_t most_errors) {
  const Sweep sweep(problem, models);
  const Values expected = sweep.train(1, nullptr, 0, models);
  int64_t errors = 0;
  for (int64_t at = 1; requests >= at - 1; ++at) {
    requests = 0, failing = at;
    std::thread([&] {
      try {
        expect(sweep.train(3, at_once, 0, models) == expected, problem.name, "other bits", 3);
      } catch (const OutOfMemory&) {
        ++errors;
      }
    }).join();
  }
  failing = 0;
  expect(sweep.train(3, at_once, 0, models) == expected, problem.name, "no recovery", 3);
  expect(errors > 0 && errors <= most_errors, problem.name, "errors for others' memory", 3);
}

// A clock that stands still unless it is told to go on.
struct Clock {
  using time_point = std::chrono::steady_clock::time_point;
  static inline time_point time{};
  static time_point now() { return time; }
  static void go_on(int microseconds) { time += std::chrono::microseconds(microseconds); }
};

// Calls of one step each, of which being alone takes four times as long; every fourth is over at
// once and tells nothing.
void check_pace() {
  cpu::PaceBy<Clock> pace;
  int64_t alone = 0, steps = 0;
  for (int call = 0; call < 100; ++call) {
    pace.begin_call();
    const int64_t threads = pace.threads(2, 1);
    if (call % 4 != 3) {
      alone += threads == 1, ++steps;
      Clock::go_on(threads == 1 ? 4000 : 1000);
    }
    pace.end_call();
    Clock::go_on(700);  // what comes between two calls
  }
  expect(alone > 0, "pace", "alone is never tried", 2);
  expect(alone * 5 < steps, "pace", "alone is tried too often", 2);

  cpu::PaceBy<Clock> other;  // a trial begins in a call, which is over at once
  while (other.threads(2, 1) == 2) Clock::go_on(600);
  other.end_call();
  other.begin_call();
  expect(other.threads(2, 1) == 2, "pace", "a trial outlives its call", 2);
}

}  // namespace

int main() {
  check_pace();
  // As few samples as make a call long enough for several threads.
  check_threads({"the rest of the network in every thread", {200, 25, 25, 1}, 612, 32, 0});
  check_threads({"the rest of the network with momentum", {70, 64, 20, 2}, 620, 50, 1});
  check_threads({"rows and tiles shared", {100, 128, 130, 1}, 300, 128, 3});
  check_threads({"short batches, the last one by rows", {200, 25, 25, 1}, 610, 19, 0});
  check_threads({"only batches that go by rows", {70, 64, 20, 2}, 600, 2, 2});
  check_threads({"shares of a large batch", {200, 25, 25, 1}, 4060, 1500, 0});
  check_threads({"few shares, and an odd number of chunks", {90, 200, 9, 1}, 1830, 900, 2});
  check_threads({"chunks of a large batch, one after the other", {300, 230, 1}, 640, 300, 3});
  check_threads({"large layers", {150, 210, 140, 3}, 420, 150, 0, true});
  check_threads({"large layers, chunks of a batch", {150, 210, 3}, 720, 700, 3, true});
  check_models({"large layers", {150, 210, 3}, 420, 100, 1, true});
  check_models({"small models", {20, 16, 16, 1}, 1200, 32, 1});
  check_models({"models with shares of a large batch", {20, 16, 1}, 2100, 900, 4});
  check_memory({"no memory for shares of a large batch", {200, 25, 25, 1}, 4060, 1500, 0}, 1, 4);
  check_memory({"no memory for a replica", {200, 25, 25, 1}, 612, 32, 0}, 1, 2);
  check_memory({"no memory for models", {20, 16, 16, 1}, 1200, 32, 1}, 5, 1);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
