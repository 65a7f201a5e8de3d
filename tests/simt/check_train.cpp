// Trains small networks in the kernels of csrc/cuda/train.cu and train_warp.cu, and compares all
// that is left with a plain loop in double, and with the engine for the CPU if that is linked
// (TORCHNN_CPU_ENGINE).
// Each array ends where its allocation ends, so that a step too far is seen.
// tests/test_simt.py runs it on the CPU, under AddressSanitizer and ThreadSanitizer;
// benchmarks/gpu/run.sh on a GPU, under compute-sanitizer. With the argument "few" it runs the few
// cases that meet every barrier.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#define TORCHNN_MOST_BLOCKS 2
#define TORCHNN_LAUNCH_MICROSECONDS 12  // a few steps
#if !defined(TORCHNN_TRAIN_THREADS)
#define TORCHNN_TRAIN_THREADS 64
#endif
#include "../../csrc/cuda/train.cu"
#include "../../csrc/cuda/train_warp.cu"

namespace torchnn {
namespace {

std::mt19937 generator(0);
int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  ++failures;
}

void expect_success(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("%s\n", cudaGetErrorString(error));
  std::exit(1);
}

// An array on the device, `offset` elements into aligned memory, and its copy on the host.
template <class T>
struct Array {
  explicit Array(int64_t size, int64_t offset = 0) : offset(offset), host(offset + size) {
    T* memory;
    expect_success(cudaMalloc(&memory, host.size() * sizeof(T)));
    device = std::shared_ptr<T>(memory, [](T* p) { expect_success(cudaFree(p)); });
  }
  explicit Array(const std::vector<T>& values) : Array(int64_t(values.size())) {
    host = values;
    copy(device.get(), host.data());
  }

  T* data() const { return device.get() + offset; }
  const T* copied() const { return host.data() + offset; }
  double operator[](int64_t i) const { return double(host[offset + i]); }
  int64_t size() const { return int64_t(host.size()) - offset; }
  Array& fill(double scale) {
    std::normal_distribution<double> normal;
    for (T& value : host) value = T(scale * normal(generator));
    copy(device.get(), host.data());
    return *this;
  }
  Array& zero() {
    std::fill(host.begin(), host.end(), T(0));
    copy(device.get(), host.data());
    return *this;
  }
  void send() { copy(device.get(), host.data()); }
  void fetch() {
    expect_success(cudaDeviceSynchronize());
    copy(host.data(), device.get());
  }
  std::vector<double> exact(int64_t first, int64_t count) const {
    return {host.begin() + offset + first, host.begin() + offset + first + count};
  }

  int64_t offset;
  std::vector<T> host;
  std::shared_ptr<T> device;

 private:
  void copy(T* to, const T* from) {
    if (!host.empty())
      expect_success(cudaMemcpy(to, from, host.size() * sizeof(T), cudaMemcpyDefault));
  }
};

struct Case {
  std::vector<int64_t> widths;
  int64_t rows, batch_size;  // of x, and of a batch
  int64_t update = 0;
  int64_t activation = 1, last = 0;
  int64_t loss = 0;
  int64_t epochs = 1, extra = 0;  // and a part of one more
  int64_t models = 1;
  bool own_data = false;  // each model its own x, y, order and so on
  bool order = true, sample_weight = true, predictions = true, bias = true;
  int64_t gap = 0, offset = 0;  // of the rows of x, and of its first
  double memory = 1;            // of what one chunk for the whole batch takes
  int64_t blocks = 1;           // that train a model together
};

// A network of one model, in double.
struct Exact {
  std::vector<std::vector<double>> weights, biases;
  std::vector<std::vector<double>> weight_slots[most_slots], bias_slots[most_slots];
  std::vector<double> losses, predictions;

  // Forward through all layers: what each gives, the input first.
  std::vector<std::vector<double>> outputs(const Case& c, std::vector<double> x) const {
    std::vector<std::vector<double>> all{x};
    for (size_t l = 0; l < weights.size(); ++l) {
      const int64_t in_features = c.widths[l], units = c.widths[l + 1];
      std::vector<double> a(units);
      Activations::with(l + 1 < weights.size() ? c.activation : c.last, [&](auto activation) {
        for (int64_t n = 0; n < units; ++n) {
          double z = biases[l][n];
          for (int64_t k = 0; k < in_features; ++k)
            z += all[l][k] * weights[l][n * in_features + k];
          a[n] = activation.forward(z);
        }
      });
      all.push_back(a);
    }
    return all;
  }

  // Adds the gradients of one sample.
  void add_gradients(const Case& c, const std::vector<std::vector<double>>& a,
                     std::vector<double> grad, std::vector<std::vector<double>>& weight,
                     std::vector<std::vector<double>>& bias) const {
    for (size_t l = weights.size(); l-- > 0;) {
      const int64_t in_features = c.widths[l], units = c.widths[l + 1];
      std::vector<double> before(in_features, 0.0);
      Activations::with(l + 1 < weights.size() ? c.activation : c.last, [&](auto activation) {
        for (int64_t n = 0; n < units; ++n) {
          const double grad_z = activation.backward(grad[n], a[l + 1][n]);
          bias[l][n] += grad_z;
          for (int64_t k = 0; k < in_features; ++k) {
            weight[l][n * in_features + k] += grad_z * a[l][k];
            before[k] += grad_z * weights[l][n * in_features + k];
          }
        }
      });
      grad = before;
    }
  }

  void step(const Case& c, const UpdateStep<double>& step,
            const std::vector<std::vector<double>>& weight,
            const std::vector<std::vector<double>>& bias) {
    Updates::with(c.update, [&](auto rule) {
      auto take = [&](double& w, double* slots, double grad) {
        w *= step.decay;
        rule.apply(w, slots, grad, step);
      };
      auto take_all = [&](auto& values, auto* slots, auto& grads) {
        for (size_t l = 0; l < values.size(); ++l)
          for (size_t i = 0; i < values[l].size(); ++i) {
            double own[most_slots] = {slots[0][l][i], slots[1][l][i]};
            take(values[l][i], own, grads[l][i]);
            for (int s = 0; s < most_slots; ++s) slots[s][l][i] = own[s];
          }
      };
      take_all(weights, weight_slots, weight);
      if (c.bias) take_all(biases, bias_slots, bias);
    });
  }
};

#if defined(TORCHNN_CPU_ENGINE)
// Trains a network by the engine for the CPU; of the job, all but layers and results is as it is.
template <class T>
void train_on_cpu(const Case& c, Train<T> job, Exact& network) {
  auto as_own = [](const std::vector<double>& values) {
    return std::vector<T>(values.begin(), values.end());
  };
  using Arrays = std::vector<std::vector<T>>;
  Arrays weights, biases, weight_slots[most_slots], bias_slots[most_slots];
  const size_t count = network.weights.size();
  for (size_t l = 0; l < count; ++l) {
    weights.push_back(as_own(network.weights[l])), biases.push_back(as_own(network.biases[l]));
    for (int s = 0; s < most_slots; ++s) {
      weight_slots[s].push_back(as_own(network.weight_slots[s][l]));
      bias_slots[s].push_back(as_own(network.bias_slots[s][l]));
    }
  }
  std::vector<TrainLayer<T>> layers;
  for (size_t l = 0; l < count; ++l)
    layers.push_back({c.widths[l],
                      c.widths[l + 1],
                      job.layers[l].activation,
                      weights[l].data(),
                      c.bias ? biases[l].data() : nullptr,
                      {weight_slots[0][l].data(), weight_slots[1][l].data()},
                      {bias_slots[0][l].data(), bias_slots[1][l].data()}});
  std::vector<T> losses(step_count(job.samples, job.epoch_size, job.batch_size));
  std::vector<T> predictions(job.samples * c.widths.back());
  int64_t steps_done = 0;
  job.layers = layers.data(), job.losses = losses.data(), job.predictions = predictions.data();
  job.steps_done = &steps_done;
  cpu::train(job);
  expect(steps_done == int64_t(losses.size()), "the engine for the CPU takes every step");
  auto widen = [](const auto& values) { return std::vector<double>(values.begin(), values.end()); };
  network.losses = widen(losses), network.predictions = widen(predictions);
  for (size_t l = 0; l < count; ++l) {
    network.weights[l] = widen(weights[l]), network.biases[l] = widen(biases[l]);
    for (int s = 0; s < most_slots; ++s) {
      network.weight_slots[s][l] = widen(weight_slots[s][l]);
      network.bias_slots[s][l] = widen(bias_slots[s][l]);
    }
  }
}
#endif

template <class T>
void expect_close(const Case& c, const char* what, const std::vector<double>& exact,
                  const std::vector<double>& ours) {
  for (size_t i = 0; i < exact.size(); ++i) {
    if (std::abs(ours[i] - exact[i]) <=
        1000 * std::numeric_limits<T>::epsilon() * (1 + std::abs(exact[i])))
      continue;
    std::printf("%s[%d] is %g, not %g (%d layers, batch %d, rule %d, float%d)\n", what, int(i),
                ours[i], exact[i], int(c.widths.size()) - 1, int(c.batch_size), int(c.update),
                int(8 * sizeof(T)));
    ++failures;
    return;
  }
}

template <class T>
void check(const Case& c) {
  const int64_t layers = int64_t(c.widths.size()) - 1, outputs = c.widths.back(), m = c.models;
  const int64_t sets = c.own_data ? m : 1, samples = c.epochs * c.rows + c.extra;
  const int64_t stride = c.widths[0] + c.gap, steps = step_count(samples, c.rows, c.batch_size);
  auto x = Array<T>(sets * c.rows * stride, c.offset).fill(1);
  auto y = Array<T>(sets * c.rows * outputs).fill(1), kept = Array<T>(m * samples * outputs);
  auto sample_weight = Array<T>(sets * c.rows).fill(1);
  std::vector<int64_t> numbers(sets * samples);
  for (int64_t& number : numbers) number = int64_t(generator() % c.rows);
  const Array<int64_t> order(numbers);
  Array<T> losses(m * steps);
  std::vector<Array<T>> weights, biases, weight_slots[most_slots], bias_slots[most_slots];
  std::vector<TrainLayer<T>> network;
  for (int64_t l = 0; l < layers; ++l) {
    const int64_t size = c.widths[l] * c.widths[l + 1];
    weights.push_back(Array<T>(m * size).fill(1 / std::sqrt(double(c.widths[l]))));
    biases.push_back(Array<T>(m * c.widths[l + 1]).fill(c.bias ? 0.1 : 0));
    TrainLayer<T> layer{.in_features = c.widths[l],
                        .units = c.widths[l + 1],
                        .activation = l + 1 < layers ? c.activation : c.last,
                        .weight = weights[l].data(),
                        .bias = c.bias ? biases[l].data() : nullptr,
                        .weight_slots = {},
                        .bias_slots = {}};
    for (int s = 0; s < most_slots; ++s) {
      layer.weight_slots[s] = weight_slots[s].emplace_back(Array<T>(m * size).zero()).data();
      layer.bias_slots[s] = bias_slots[s].emplace_back(Array<T>(m * c.widths[l + 1]).zero()).data();
    }
    network.push_back(layer);
  }
  std::vector<double> rate_values(sets * steps);
  for (size_t i = 0; i < rate_values.size(); ++i) rate_values[i] = 0.1 / double(1 + i % 3);
  const Array<double> rates(rate_values);
  const Array<int64_t> steps_before(std::vector<int64_t>{3});
  Train<T> job{.layers = network.data(),
               .layer_count = layers,
               .x = x.data(),
               .x_stride = stride,
               .samples = samples,
               .batch_size = c.batch_size};
  job.y = y.data(), job.losses = losses.data(), job.epoch_size = c.rows;
  if (c.sample_weight) job.sample_weight = sample_weight.data();
  if (c.order) job.order = order.data();
  if (c.predictions) job.predictions = kept.data();
  job.loss = c.loss, job.update = c.update, job.learning_rates = rates.data();
  job.options = {0.9, 0.9, 0.999, 1e-3, 0.1}, job.steps_before = steps_before.data();
  cuda::Models models{.count = m, .rows = c.rows};
  if (c.own_data) {
    models.x = c.rows * stride, models.y = c.rows * outputs, models.sample_weight = c.rows;
    models.order = samples, models.learning_rates = steps;
  }

  // What the plain loop starts from is what the kernels start from.
  auto exact_of = [&](int64_t model) {
    Exact exact;
    for (int64_t l = 0; l < layers; ++l) {
      const int64_t size = c.widths[l] * c.widths[l + 1], units = c.widths[l + 1];
      exact.weights.push_back(weights[l].exact(model * size, size));
      exact.biases.push_back(biases[l].exact(model * units, units));
      for (int s = 0; s < most_slots; ++s) {
        exact.weight_slots[s].push_back(weight_slots[s][l].exact(model * size, size));
        exact.bias_slots[s].push_back(bias_slots[s][l].exact(model * units, units));
      }
    }
    return exact;
  };
  std::vector<Exact> all;
  for (int64_t model = 0; model < m; ++model) {
    Exact& exact = all.emplace_back(exact_of(model));
    const int64_t set = c.own_data ? model : 0;
    for (int64_t first = 0, step = 0, end; first < samples; first = end, ++step) {
      end = std::min({first + c.batch_size, (first / c.rows + 1) * c.rows, samples});
      auto weight = exact.weights, bias = exact.biases;
      for (auto* grads : {&weight, &bias})
        for (auto& grad : *grads) std::fill(grad.begin(), grad.end(), 0.0);
      double loss_of_batch = 0;
      for (int64_t i = first; i < end; ++i) {
        const int64_t row = set * c.rows + (c.order ? numbers[set * samples + i] : i);
        std::vector<double> grad(outputs);
        const auto a = exact.outputs(c, x.exact(row * stride, c.widths[0]));
        const double scale =
            (c.sample_weight ? sample_weight[row] : 1) / double(end - first) / double(outputs);
        Losses::with(c.loss, [&](auto loss) {
          for (int64_t n = 0; n < outputs; ++n) {
            const double target = y[row * outputs + n];
            loss_of_batch += scale * loss.value(a.back()[n], target);
            grad[n] = scale * loss.gradient(a.back()[n], target);
          }
        });
        exact.predictions.insert(exact.predictions.end(), a.back().begin(), a.back().end());
        exact.add_gradients(c, a, grad, weight, bias);
      }
      exact.losses.push_back(loss_of_batch);
      const double rate = rates[(c.own_data ? model * steps : 0) + step];
      exact.step(c, UpdateStep<double>(job.options, rate, 3 + step + 1), weight, bias);
    }
  }

#if defined(TORCHNN_CPU_ENGINE)
  std::vector<Exact> on_cpu;
  for (int64_t model = 0; model < m; ++model) {
    const int64_t set = c.own_data ? model : 0;
    Train<T> own = job;
    own.x = x.copied() + set * c.rows * stride, own.y = y.copied() + set * c.rows * outputs;
    if (c.sample_weight) own.sample_weight = sample_weight.copied() + set * c.rows;
    if (c.order) own.order = order.copied() + set * samples;
    own.learning_rates = rates.copied() + set * steps, own.steps_before = steps_before.copied();
    train_on_cpu(c, own, on_cpu.emplace_back(exact_of(model)));
  }
#endif

  int64_t slots = 0;
  Updates::with(c.update, [&](auto rule) { slots = rule.slots; });
  const cuda::Shape shape{c.widths, slots, sizeof(T), c.blocks};
  Array<T> workspace(cuda::workspace_size(job, models, c.blocks));
  const std::vector<std::vector<Array<T>>*> parameters{
      &weights, &biases, &weight_slots[0], &weight_slots[1], &bias_slots[0], &bias_slots[1]};
  // The same memory of the device, and the numbers that are in it now.
  std::vector<std::vector<Array<T>>> untrained{{losses, kept}};
  for (auto* arrays : parameters) untrained.push_back(*arrays);

  // Trains all models from the start.
  auto train = [&](auto launch) {
    for (auto& arrays : untrained)
      for (auto& array : arrays) array.send();
    launch();
    for (auto* array : {&losses, &kept}) array->fetch();
    for (auto* arrays : parameters)
      for (auto& array : *arrays) array.fetch();
  };
  auto expect_same = [&](int64_t model, const Exact& ours, const Exact& exact) {
    expect_close<T>(c, "losses", exact.losses, losses.exact(model * steps, steps));
    if (c.predictions)
      expect_close<T>(c, "predictions", exact.predictions,
                      kept.exact(model * samples * outputs, samples * outputs));
    for (int64_t l = 0; l < layers; ++l) {
      expect_close<T>(c, "weight", exact.weights[l], ours.weights[l]);
      expect_close<T>(c, "bias", exact.biases[l], ours.biases[l]);
      for (int64_t s = 0; s < slots; ++s) {
        expect_close<T>(c, "weight slot", exact.weight_slots[s][l], ours.weight_slots[s][l]);
        expect_close<T>(c, "bias slot", exact.bias_slots[s][l], ours.bias_slots[s][l]);
      }
    }
  };
  auto expect_all_same = [&] {
    for (int64_t model = 0; model < m; ++model) {
      expect_same(model, exact_of(model), all[model]);
#if defined(TORCHNN_CPU_ENGINE)
      expect_same(model, exact_of(model), on_cpu[model]);
#endif
    }
  };

  const int64_t whole = cuda::lay_out(shape, std::max<int64_t>(c.batch_size, 4), true).bytes;
  const int64_t limit = std::min<int64_t>(int64_t(c.memory * double(whole)), cuda::shared_limit());
  const cuda::Plan plan = cuda::make_plan(shape, c.batch_size, limit);
  expect(plan.rows > 0, "the network fits");
  train([&] { cuda::train(job, models, plan, workspace.data(), nullptr); });
  expect_all_same();

  const cuda::WarpPlan by_warps = cuda::make_warp_plan(
      shape, c.batch_size, cuda::fewest_warps * (cuda::shared_limit() + cuda::bytes_of_a_block));
  expect(by_warps.rows > 0, "the network fits a warp");
  train([&] { cuda::train_by_warps(job, models, by_warps, workspace.data(), nullptr); });
  expect_all_same();

  // One after the other, bit for bit.
  const std::vector<T> losses_together = losses.host, kept_together = kept.host;
  std::vector<Array<T>> left;
  for (auto* arrays : parameters) left.insert(left.end(), arrays->begin(), arrays->end());
  train([&] {
    for (int64_t model = 0; model < m; ++model) {
      const int64_t set = c.own_data ? model : 0;
      std::vector<TrainLayer<T>> own_network = network;
      for (TrainLayer<T>& layer : own_network) {
        const int64_t size = model * layer.units * layer.in_features, biases = model * layer.units;
        layer.weight += size, layer.bias += layer.bias ? biases : 0;
        for (int s = 0; s < most_slots; ++s)
          layer.weight_slots[s] += size, layer.bias_slots[s] += biases;
      }
      Train<T> own = job;
      own.layers = own_network.data();
      own.x += set * models.x, own.y += set * models.y;
      if (own.sample_weight) own.sample_weight += set * models.sample_weight;
      if (own.order) own.order += set * models.order;
      own.learning_rates += set * models.learning_rates, own.losses += model * steps;
      if (own.predictions) own.predictions += model * samples * outputs;
      cuda::train_by_warps(own, {.count = 1, .rows = c.rows}, by_warps, workspace.data(), nullptr);
    }
  });
  bool same = losses_together == losses.host && kept_together == kept.host;
  size_t next = 0;
  for (auto* arrays : parameters)
    for (auto& array : *arrays) same = same && array.host == left[next++].host;
  expect(same, "a model among others has the bits of one alone");
}

// Three layers, a chunk and a short one a batch, several batches, epochs and launches, more models
// than blocks, and the slots beside the weights or not.
Case everything(double memory) {
  return {.widths = {9, 6, 5, 2},
          .rows = 21,
          .batch_size = 14,
          .update = 3,
          .activation = 1,
          .epochs = 1,
          .extra = 3,
          .models = 3,
          .own_data = true,
          .memory = memory};
}

// Two layers that all warps share, one that goes row by row, and rows that are copied whole.
// Without biases, whose sums would keep the lanes of a warp together.
Case wide(int64_t blocks = 1) {
  return {.widths = {36, 40, 36, 2}, .rows = 7, .batch_size = 5, .bias = false, .blocks = blocks};
}

// Several blocks a model: everything() with a first layer that they share out, and a slice of it
// that is not whole.
Case clustered(int64_t blocks) {
  Case c = everything(0.9);
  c.widths[0] = 63, c.widths[1] = 17, c.blocks = blocks;
  return c;
}

// With more blocks than slices, with fewer rows than blocks, with one unit, and with many chunks.
template <class T>
void check_clusters() {
  for (int64_t blocks : {2, 3}) check<T>(clustered(blocks)), check<T>(wide(blocks));
  check<T>({.widths = {61, 33, 1}, .rows = 9, .batch_size = 9, .update = 1, .blocks = 4});
  check<T>({.widths = {8, 130, 1}, .rows = 3, .batch_size = 2, .update = 3, .blocks = 4});
  check<T>({.widths = {1100, 1, 1}, .rows = 5, .batch_size = 3, .blocks = 2});
  check<T>({.widths = {100, 25, 2},
            .rows = 30,
            .batch_size = 28,
            .update = 2,
            .memory = 0.8,
            .blocks = 2});
}

template <class T>
void check_all() {
  for (double memory : {1.0, 0.85, 0.7}) check<T>(everything(memory));
  check<T>(wide());
  check<T>({.widths = {36, 44, 70, 6}, .rows = 42, .batch_size = 40, .update = 3});
  check<T>(
      {.widths = {64, 25, 25, 1}, .rows = 19, .batch_size = 17, .models = 2, .own_data = true});
  for (int64_t update = 0; update < Updates::size; ++update)
    check<T>({.widths = {16, 25, 13, 1}, .rows = 33, .batch_size = 16, .update = update});
  for (int64_t activation = 0; activation < Activations::size; ++activation)
    for (int64_t loss = 0; loss < Losses::size; ++loss)
      check<T>({.widths = {7, 5, 3},
                .rows = 10,
                .batch_size = 10,
                .activation = activation,
                .last = (activation + loss) % Activations::size,
                .loss = loss});
  check<T>({.widths = {1, 1},
            .rows = 5,
            .batch_size = 2,
            .order = false,
            .sample_weight = false,
            .predictions = false,
            .bias = false});
  check<T>({.widths = {33, 40, 2}, .rows = 6, .batch_size = 1, .update = 1, .gap = 1});
  check<T>({.widths = {12, 3, 3, 3, 3, 3, 1}, .rows = 9, .batch_size = 4, .models = 4, .gap = 4});
  check<T>(
      {.widths = {8, 4, 1}, .rows = 5, .batch_size = 4, .update = 2, .order = false, .offset = 1});
  check_clusters<T>();
  check<T>({.widths = {6, 17, 1},
            .rows = 300,
            .batch_size = 300,
            .update = 3,
            .epochs = 2,
            .memory = 0.3});
}

// A row that is not there is not read, and cannot go unnoticed.
void check_a_row_that_is_not_there() {
  auto x = Array<float>(3 * 4).fill(1), y = Array<float>(3).fill(1);
  for (int64_t bad : {int64_t(-1), int64_t(3), int64_t(1) << 40}) {
    auto weight = Array<float>(4).fill(1), bias = Array<float>(1).fill(1);
    const Array<int64_t> order(std::vector<int64_t>{0, 1, bad, 2});
    Array<float> losses(2);
    const TrainLayer<float> layer{4, 1, 0, weight.data(), bias.data(), {}, {}};
    const Array<double> rates(std::vector<double>{0, 0});
    Train<float> job{.layers = &layer,
                     .layer_count = 1,
                     .x = x.data(),
                     .x_stride = 4,
                     .samples = 4,
                     .batch_size = 2};
    job.y = y.data(), job.order = order.data(), job.losses = losses.data();
    job.epoch_size = 4, job.learning_rates = rates.data();
    const cuda::Models models{.count = 1, .rows = 3};
    const cuda::Shape shape{{4, 1}, 0, sizeof(float)};
    Array<float> workspace(cuda::workspace_size(job, models));
    auto expect_nan = [&] {
      losses.fetch();
      expect(std::isfinite(losses[0]) && std::isnan(losses[1]), "a missing row makes a loss NaN");
    };
    cuda::train(job, models, cuda::make_plan(shape, 2, 1 << 16), workspace.data(), nullptr);
    expect_nan();
    weight.fill(1), bias.fill(1);
    cuda::train_by_warps(job, models, cuda::make_warp_plan(shape, 2, 1 << 16), workspace.data(),
                         nullptr);
    expect_nan();
  }
}

void check_the_parts_of_a_step() {
  const int64_t rows = 1301, units = 3, parts = cuda::loss_parts(rows * units);
  expect(parts > 2 && cuda::loss_parts(1) == 1, "a large batch's loss is summed in parts");
  auto out = Array<double>(rows * units).fill(1), y = Array<double>(rows * units).fill(1);
  auto weight = Array<double>(rows).fill(1);
  Array<double> grad(rows * units), sums(parts), loss(1), kept(rows * units);
  const cuda::BatchLoss<double> batch{.out = out.data(),
                                      .y = y.data(),
                                      .sample_weight = weight.data(),
                                      .grad_out = grad.data(),
                                      .sums = sums.data(),
                                      .loss = loss.data(),
                                      .predictions = kept.data(),
                                      .rows = rows,
                                      .units = units,
                                      .place = 1};
  cuda::measure(batch, nullptr);
  for (auto* array : {&grad, &loss, &kept}) array->fetch();
  double sum = 0;
  std::vector<double> exact;
  for (int64_t i = 0; i < rows * units; ++i) {
    const double scale = weight[i / units] / double(rows * units);
    sum += scale * SigmoidCrossEntropy::value(out[i], y[i]);
    exact.push_back(scale * SigmoidCrossEntropy::gradient(out[i], y[i]));
  }
  expect_close<double>({}, "measure: loss", {sum}, {loss[0]});
  expect_close<double>({}, "measure: predictions", out.exact(0, rows * units),
                       kept.exact(0, rows * units));
  expect_close<double>({}, "measure: grad_out", exact, grad.exact(0, rows * units));

  const Array<double> rates(std::vector<double>{0.3, 0.1});
  const TrainLayer<double> layer{units, units, 0, nullptr, nullptr, {}, {}};
  Train<double> job{.layers = &layer,
                    .layer_count = 1,
                    .x = nullptr,
                    .x_stride = units,
                    .samples = 2,
                    .batch_size = 1};
  job.epoch_size = 2, job.learning_rates = rates.data();
  job.options = {0.9, 0.9, 0.999, 1e-3, 0.1};
  Array<double> numbers(2 * cuda::numbers_a_step);
  auto* const steps = reinterpret_cast<UpdateStep<double>*>(numbers.data());
  cuda::make_steps(job, {}, steps, nullptr);
  const UpdateStep<double> step(job.options, rates[1], 2);
  auto m = Array<double>(rows * units).fill(1), v = Array<double>(rows * units).zero();
  std::vector<double> values;
  for (int64_t i = 0; i < rows * units; ++i) {
    double w = out[i] * step.decay, slots[most_slots] = {m[i], v[i]};
    Adam::apply(w, slots, grad[i], step);
    values.push_back(w);
  }
  std::vector<cuda::Parameter<double>> parameters;  // of 1, 32, 63 ... numbers: several launches
  for (int64_t at = 0, size = 1; at < rows * units; at += size, size += 31) {
    size = std::min(size, rows * units - at);
    parameters.push_back({out.data() + at, {m.data() + at, v.data() + at}, grad.data() + at, size});
  }
  expect(parameters.size() > 16, "more parameters than a launch takes");
  cuda::update(parameters.data(), int64_t(parameters.size()), 3, steps + 1, nullptr);
  out.fetch();
  expect_close<double>({}, "update", values, out.exact(0, rows * units));
}

void check_plans() {
  auto plan = [](std::vector<int64_t> widths, int64_t limit, int64_t batch_size) {
    return cuda::make_plan({widths, 0, sizeof(float)}, batch_size, limit);
  };
  constexpr int64_t hopper = 227 << 10;
  expect(plan({400, 25, 25, 1}, hopper, 32).rows == 32, "the notes' network takes 32 rows at once");
  expect(plan({400, 25, 25, 1}, hopper, 1000).rows < 128, "1000 rows go through in chunks");
  expect(plan({784, 512, 512, 1}, hopper, 128).rows == 0, "784-512-512-1 does not fit");
  expect(plan({784, 512, 512, 1}, hopper, 128).bytes > hopper,
         "and it is known what it would take");
  expect(plan(std::vector<int64_t>(66, 4), hopper, 4).rows == 0, "65 layers are too many");
  auto chosen = [](std::vector<int64_t> widths, int64_t batch_size, int64_t blocks = 8) {
    return cuda::choose_plan({widths, 0, sizeof(float), blocks}, batch_size, hopper);
  };
  expect(chosen({400, 25, 25, 1}, 32).blocks == 8, "several blocks share a wide first layer");
  expect(chosen({400, 25, 25, 1}, 32, 1).blocks == 1, "if there may be several");
  expect(chosen({8, 16, 1}, 32).blocks == 1, "a small one stays in one block");
  expect(chosen({400, 25, 25, 1}, 1000).rows == 0, "a large batch goes layer by layer");
  expect(chosen({784, 64, 64, 1}, 64, 1).rows == 0 && chosen({784, 64, 64, 1}, 64).rows == 64,
         "together they have room for more");
  const cuda::Shape notes{{400, 25, 25, 1}, 0, sizeof(float), 8};
  const int64_t most = cuda::most_batch_rows(notes, hopper);
  expect(chosen(notes.widths, most).rows && !chosen(notes.widths, most + 1).rows,
         "the most rows are the most");
  expect(cuda::most_batch_rows({{int64_t(1) << 40, 1 << 20}, 0, 4, 8}, hopper) == 0,
         "and no product overflows");
  expect(plan({int64_t(1) << 40, 1 << 20}, hopper, 4).rows == 0, "no width overflows");
  for (int64_t limit = 1 << 12; limit <= hopper; limit += 1 << 12)
    expect(plan({100, 30, 1}, limit, 200).bytes <= limit || !plan({100, 30, 1}, limit, 200).rows,
           "a plan keeps to its limit");

  auto warps = [](std::vector<int64_t> widths, int64_t limit, int64_t slots = 0) {
    const cuda::WarpPlan one = cuda::make_warp_plan({widths, slots, sizeof(float)}, 32, limit);
    return one.rows ? limit / (one.bytes + cuda::bytes_of_a_block) : 0;
  };
  expect(warps({8, 16, 1}, hopper) >= 16, "tiny models fill the registers of a multiprocessor");
  expect(warps({64, 25, 25, 1}, hopper, 2) >= 4, "64-25-25-1 has a warp, with Adam too");
  expect(warps({400, 25, 25, 1}, hopper) == 0, "the notes' network has a block");
  expect(warps({int64_t(1) << 40, 1 << 20}, hopper) == 0, "no width overflows in a warp");
  expect(warps(std::vector<int64_t>(66, 1), hopper) == 0, "65 layers are too many for a warp");
}

}  // namespace

int check_everything(bool few) {
  if (few) {
    check<float>(everything(0.7));
    check<float>(wide());
    check<float>(clustered(2));
    check<float>(wide(2));
    check_a_row_that_is_not_there();
    check_the_parts_of_a_step();
  } else {
    check_all<float>();
    check_all<double>();
    check_a_row_that_is_not_there();
    check_the_parts_of_a_step();
    check_plans();
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}

}  // namespace torchnn

int main(int count, char** arguments) {
  return torchnn::check_everything(count > 1 && std::string(arguments[1]) == "few");
}
