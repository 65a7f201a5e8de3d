// Trains small networks in the kernels of csrc/cuda/train.cu and train_warp.cu, and takes the parts
// of a step of layers.cu; compares all that is left with a plain loop in double, and with the
// engine for the CPU if that is linked (TORCHNN_CPU_ENGINE). Each array ends where its allocation
// ends, so that a step too far is seen. tests/test_simt.py runs it on the CPU, under
// AddressSanitizer and ThreadSanitizer; benchmarks/gpu/run.sh on a GPU, under compute-sanitizer.
// With the argument "few" it runs the few cases that meet every barrier; with the name of a kernel
// file, such as "train_warp", those that meet the barriers of that file. TORCHNN_ONLY_FLOAT leaves
// all others out, to compile sooner.
#include <string>

#define TORCHNN_MOST_BLOCKS 2
#define TORCHNN_LAUNCH_MICROSECONDS 12  // a few steps
#if !defined(TORCHNN_TRAIN_THREADS)
#define TORCHNN_TRAIN_THREADS 64
#endif
#include "../../csrc/cuda/layers.cu"
#include "../../csrc/cuda/train.cu"
#include "../../csrc/cuda/train_warp.cu"
#include "checks.h"

namespace torchnn {
namespace {

std::string way;  // the kernel file whose kernels networks train in; all if empty

bool goes(const char* by) { return way.empty() || way == by; }

struct Case {
  std::vector<int64_t> widths;
  int64_t rows, batch_size;  // of x, and of a batch
  int64_t update = 0;
  int64_t activation = 1, last = 0;
  int64_t loss = 0;
  int64_t epochs = 1, extra = 0;  // and a part of one more
  int64_t models = 1;
  bool own_data = false;     // each model its own x, y, order and so on
  bool own_options = false;  // each model the numbers of its own optimizer
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
        rule.apply(w, slots, clip(grad, step.clip_value), step);
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
  std::vector<T> losses(step_count(job));
  std::vector<T> predictions(job.samples * c.widths.back());
  job.layers = layers.data(), job.losses = losses.data(), job.predictions = predictions.data();
  cpu::train(job);
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
    if (ours[i] == exact[i]) continue;  // if both are infinite
    if (std::abs(ours[i] - exact[i]) <=
        1000 * std::numeric_limits<T>::epsilon() * (1 + std::abs(exact[i])))
      continue;
    std::printf("%s[%d] is %g, not %g (%d layers, batch %d, rule %d, loss %d, float%d)\n", what,
                int(i), ours[i], exact[i], int(c.widths.size()) - 1, int(c.batch_size),
                int(c.update), int(c.loss), int(8 * sizeof(T)));
    ++failures;
    return;
  }
}

TrainOptions options_of(int64_t model) {
  const double other = 1 / double(1 + model);
  return {.momentum = 0.9 * other,
          .beta_1 = 0.9 * other,
          .beta_2 = 0.999,
          .epsilon = 1e-3,
          .weight_decay = 0.1 * other,
          .rho = 0.9 * other,
          .clip_value = model == 1 ? 0.05 : 0,
          .clip_norm = 0,
          .global_clip_norm = 0,
          .delta = delta};
}

template <class T>
void check(const Case& c) {
  const int64_t layers = int64_t(c.widths.size()) - 1, outputs = c.widths.back(), m = c.models;
  const int64_t targets = target_count(c.loss, outputs);
  const int64_t sets = c.own_data ? m : 1, samples = c.epochs * c.rows + c.extra;
  const int64_t stride = c.widths[0] + c.gap, steps = step_count(samples, c.rows, c.batch_size);
  auto x = Array<T>(sets * c.rows * stride, c.offset).fill(1);
  Array<T> y(sets * c.rows * targets), kept(m * samples * outputs);
  fill_targets(y, c.loss, outputs);
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
  job.options = options_of(0), job.steps_before = steps_before.data();
  std::vector<TrainOptions> option_values;
  for (int64_t model = 0; model < m; ++model)
    option_values.push_back(options_of(c.own_options ? model : 0));
  const Array<TrainOptions> options(option_values);
  Models models{.count = m, .rows = c.rows};
  if (c.own_options) models.options = options.data();
  if (c.own_data) {
    models.x = c.rows * stride, models.y = c.rows * targets, models.sample_weight = c.rows;
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
        const auto own = y.exact(row * targets, targets);
        loss_of_batch +=
            measure(c.loss, {a.back().data(), own.data(), outputs},
                    c.sample_weight ? sample_weight[row] : 1, end - first, grad.data());
        exact.predictions.insert(exact.predictions.end(), a.back().begin(), a.back().end());
        exact.add_gradients(c, a, grad, weight, bias);
      }
      exact.losses.push_back(loss_of_batch);
      const double rate = rates[(c.own_data ? model * steps : 0) + step];
      exact.step(c, UpdateStep<double>(option_values[model], rate, 3 + step + 1), weight, bias);
    }
  }

#if defined(TORCHNN_CPU_ENGINE)
  std::vector<Exact> on_cpu;
  for (int64_t model = 0; model < m; ++model) {
    const int64_t set = c.own_data ? model : 0;
    Train<T> own = job;
    own.x = x.copied() + set * c.rows * stride, own.y = y.copied() + set * c.rows * targets;
    if (c.sample_weight) own.sample_weight = sample_weight.copied() + set * c.rows;
    if (c.order) own.order = order.copied() + set * samples;
    own.learning_rates = rates.copied() + set * steps, own.steps_before = steps_before.copied();
    own.options = option_values[model];
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
  if (goes("train")) {
    train([&] { cuda::train(job, models, plan, workspace.data(), nullptr); });
    expect_all_same();
  }
  if (!goes("train_warp")) return;

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
      own.options = option_values[model];
      cuda::train_by_warps(own, Models{.count = 1, .rows = c.rows}, by_warps, workspace.data(),
                           nullptr);
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
          .own_options = true,
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

// Every rule, activation and loss that goes with many steps a launch.
template <class T, class CaseOf>
void check_lists(const CaseOf& case_of) {
  const int64_t most = std::max({Updates::size, Activations::size, Losses::size});
  for (int64_t i = 0; i < most; ++i) {
    const int64_t activation = i % Activations::size;
    check<T>(case_of(i % Updates::size, keeps_z_at(activation) ? 1 : activation, i % Losses::size));
  }
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
  Case classes = clustered(2);
  classes.widths.back() = 4, classes.loss = labels;
  check<T>(classes);
  check_lists<T>([](int64_t update, int64_t activation, int64_t loss) {
    return Case{.widths = {40, 26, 3},
                .rows = 7,
                .batch_size = 4,
                .update = update,
                .activation = activation,
                .last = last_for(loss),
                .loss = loss,
                .models = 2,
                .own_options = true,
                .blocks = 2};
  });
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
  for (int64_t loss : {Losses::place<SoftmaxCrossEntropy>(), labels})
    check<T>({.widths = {5, 6, 40}, .rows = 7, .batch_size = 4, .loss = loss});
  Case classes = everything(0.7);
  classes.widths.back() = 4, classes.loss = labels;
  check<T>(classes);
  check_lists<T>([](int64_t update, int64_t activation, int64_t loss) {
    return Case{.widths = {7, 5, 3},
                .rows = 10,
                .batch_size = 10,
                .update = update,
                .activation = activation,
                .last = last_for(loss, activation),
                .loss = loss,
                .models = 2,
                .own_options = true};
  });
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
    const Models models{.count = 1, .rows = 3};
    const cuda::Shape shape{{4, 1}, 0, sizeof(float)};
    Array<float> workspace(cuda::workspace_size(job, models));
    auto expect_nan = [&] {
      losses.fetch();
      expect(std::isfinite(losses[0]) && std::isnan(losses[1]), "a missing row makes a loss NaN");
    };
    if (goes("train")) {
      cuda::train(job, models, cuda::make_plan(shape, 2, 1 << 16), workspace.data(), nullptr);
      expect_nan();
    }
    if (!goes("train_warp")) continue;
    weight.fill(1), bias.fill(1);
    cuda::train_by_warps(job, models, cuda::make_warp_plan(shape, 2, 1 << 16), workspace.data(),
                         nullptr);
    expect_nan();
  }
}

// A batch whose loss is summed in parts, and one of a single part without weights.
template <class T>
void check_measure(int64_t loss) {
  constexpr int64_t units = 3;
  const int64_t targets = target_count(loss, units);
  expect(cuda::loss_parts(1301 * units) > 2 && cuda::loss_parts(1) == 1,
         "a large batch's loss is summed in parts");
  for (int64_t rows : {1301, 7}) {
    auto out = Array<T>(rows * units).fill(1), weight = Array<T>(rows).fill(1);
    if (loss == Losses::place<Poisson>())
      for (T& a : out.host) a = std::abs(a);
    out.send();
    Array<T> y(rows * targets);
    fill_targets(y, loss, units);
    Array<T> grad(rows * units), sums(cuda::loss_parts(rows * units)), of_batch(1);
    Array<T> kept(rows * units);
    const bool is_large = rows > units * 10;
    cuda::measure(cuda::BatchLoss<T>{.out = out.data(),
                                     .y = y.data(),
                                     .sample_weight = is_large ? weight.data() : nullptr,
                                     .grad_out = grad.data(),
                                     .sums = sums.data(),
                                     .loss = of_batch.data(),
                                     .predictions = is_large ? kept.data() : nullptr,
                                     .rows = rows,
                                     .units = units,
                                     .place = loss,
                                     .delta = T(delta)},
                  nullptr);
    for (auto* array : {&grad, &of_batch, &kept}) array->fetch();
    double sum = 0;
    std::vector<double> exact(rows * units);
    for (int64_t row = 0; row < rows; ++row) {
      const auto a = out.exact(row * units, units), own = y.exact(row * targets, targets);
      const Sample sample{a.data(), own.data(), units};
      sum += measure(loss, sample, is_large ? weight[row] : 1, rows, &exact[row * units]);
    }
    Case about{};
    about.loss = loss;
    expect_close<T>(about, "measure: loss", {sum}, {of_batch[0]});
    expect_close<T>(about, "measure: grad_out", exact, grad.exact(0, rows * units));
    if (is_large)
      expect_close<T>(about, "measure: predictions", out.exact(0, rows * units),
                      kept.exact(0, rows * units));
  }
}

// What a layer gives, and what of it is dropped: of a step whose number takes more than 32 bits.
template <class T>
void check_finish(int64_t activation, double dropout) {
  constexpr int64_t rows = 37, units = 29, seed = -5, before = int64_t(1) << 33, step = 2;
  const Array<int64_t> steps_before(std::vector<int64_t>{before});
  auto z = Array<T>(rows * units).fill(1);
  Array<T> out(rows * units);
  const int64_t number = before + step + 1;
  std::vector<double> exact, scales;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t unit = 0; unit < units; ++unit) {
      const uint32_t key = row_key(step_key(seed, number), row) + unit_key(unit);
      const bool is_left = (mixed(key) >> 1) >= dropout * double(1u << 31);
      scales.push_back(is_left ? 1 / (1 - dropout) : 0);
      Activations::with(activation, [&](auto each) {
        exact.push_back(scales.back() * each.forward(z[row * units + unit]));
      });
    }
  const double left =
      double(std::count_if(scales.begin(), scales.end(), [](double s) { return s; }));
  expect(std::abs(left / double(rows * units) - (1 - dropout)) < 0.05,
         "the rate is what is dropped");
  auto finish = [&](int64_t place, const T* from, T* to) {
    cuda::finish(cuda::LayerOutputs<T>{.from = from,
                                       .to = to,
                                       .rows = rows,
                                       .units = units,
                                       .activation = place,
                                       .dropout = dropout,
                                       .seed = seed,
                                       .step = step,
                                       .steps_before = steps_before.data()},
                 nullptr);
  };
  finish(activation, z.data(), out.data());
  out.fetch();
  expect_close<T>({}, "finish", exact, out.exact(0, rows * units));
  for (int64_t i = 0; i < rows * units; ++i) exact[i] = scales[i] * z[i];
  finish(Activations::place<Identity>(), z.data(), z.data());  // as it is done on the way back
  z.fetch();
  expect_close<T>({}, "finish, in place", exact, z.exact(0, rows * units));
}

// Penalties, and what brings norms down: of so many parameters, the last of which is large.
template <class T>
void check_sum_up(int64_t count, double clip_norm, double global_clip_norm) {
  constexpr int64_t large = 40'000;
  std::vector<Array<T>> w, grads;
  std::vector<cuda::Parameter<T>> parameters;
  std::vector<double> squares;
  double loss = 0.5, all = 0;
  for (int64_t n = 0; n < count; ++n) {
    const int64_t size = n + 1 == count ? large : 1 + 7 * n;
    const Penalty<T> penalty{T(0.01) * T(n % 3), T(0.02) * T(n % 2)};
    w.push_back(Array<T>(size).fill(1)), grads.push_back(Array<T>(size).fill(0.1));
    parameters.push_back({w[n].data(), {}, grads[n].data(), size, penalty});
    const Penalty<double> wide{penalty.l1, penalty.l2};
    squares.push_back(0);
    for (int64_t i = 0; i < size; ++i) {
      const double grad = grads[n][i] + wide.gradient(w[n][i]);
      squares[n] += grad * grad, loss += wide.value(w[n][i]);
    }
    all += squares[n];
  }
  std::vector<double> exact;
  for (double square : squares) {
    const double norm = std::sqrt(clip_norm > 0 ? square : all);
    exact.push_back(std::min(1.0, (clip_norm > 0 ? clip_norm : global_clip_norm) / norm));
  }
  Array<T> workspace(cuda::sums_of_parameters(count)), of_batch(std::vector<T>{T(0.5)});
  TrainOptions options{};
  options.clip_norm = clip_norm, options.global_clip_norm = global_clip_norm;
  cuda::sum_up(parameters.data(), count, options, workspace.data(), of_batch.data(), nullptr);
  of_batch.fetch(), workspace.fetch();
  expect_close<T>({}, "sum_up: loss", {loss}, {of_batch[0]});
  if (options.clips_norms())
    expect_close<T>({}, "sum_up: scales", exact, workspace.exact(0, count));
}

// What meets every barrier of a kernel file.
void check_few(const std::string& kernels) {
  if (kernels == "layers") {
    check_measure<float>(0);
    check_sum_up<float>(1, 0.1, 0);
    return;
  }
  way = kernels;
  check<float>(wide());
  check<float>(everything(0.7));
  if (kernels == "train") check<float>(wide(2)), check<float>(clustered(2));
  check_a_row_that_is_not_there();
}

#if !defined(TORCHNN_ONLY_FLOAT)

// Of each model and of all, with learning rates and options of their own or the same.
void check_the_numbers_of_a_step() {
  constexpr int64_t models = 3, steps = 2, before = 5;
  const Array<int64_t> steps_before(std::vector<int64_t>{before});
  const Array<double> rates(std::vector<double>{0.3, 0.1, 0.2, 0.4, 0.5, 0.6});
  std::vector<TrainOptions> own{options_of(0), options_of(1), options_of(2)};
  const Array<TrainOptions> options(own);
  for (bool own_rates : {false, true})
    for (bool own_options : {false, true}) {
      Train<double> job{.layers = nullptr,
                        .layer_count = 0,
                        .x = nullptr,
                        .x_stride = 0,
                        .samples = 4,
                        .epoch_size = 4,
                        .batch_size = 2,
                        .options = own[0]};
      job.learning_rates = rates.data(), job.steps_before = steps_before.data();
      const Models grid{.count = models,
                        .learning_rates = own_rates ? steps : 0,
                        .options = own_options ? options.data() : nullptr};
      const int64_t sets = own_rates || own_options ? models : 1;
      Array<double> numbers(cuda::step_numbers(job, grid));
      expect(numbers.size() == sets * steps * cuda::numbers_a_step, "each set of steps has room");
      cuda::make_steps(job, grid, reinterpret_cast<UpdateStep<double>*>(numbers.data()), nullptr);
      numbers.fetch();
      std::vector<double> exact;
      for (int64_t i = 0; i < sets * steps; ++i) {
        const int64_t model = i / steps, n = i % steps;
        const UpdateStep<double> step(own[own_options ? model : 0],
                                      rates[(own_rates ? model * steps : 0) + n], before + n + 1);
        const double* const first = &step.learning_rate;
        exact.insert(exact.end(), first, first + cuda::numbers_a_step);
      }
      expect_close<double>({}, "make_steps", exact, numbers.exact(0, numbers.size()));
    }
}

// With penalties, scaled, and clipped, or plain.
void check_update(int64_t rule, bool is_plain) {
  constexpr int64_t size = 3903;
  TrainOptions options = options_of(0);
  options.clip_value = is_plain ? 0 : 0.5;
  const UpdateStep<double> step(options, 0.1, 2);
  const double* const first = &step.learning_rate;
  const Array<double> numbers(std::vector<double>(first, first + cuda::numbers_a_step));
  auto w = Array<double>(size).fill(1), grad = Array<double>(size).fill(1);
  std::vector<double> first_values, second_values;  // may be means of squares, and of gradients
  for (int64_t i = 0; i < size; ++i) {
    first_values.push_back(grad[i] * grad[i] / 2);
    second_values.push_back(std::abs(grad[i]) / 2);
  }
  Array<double> first_slots(first_values), second_slots(second_values);
  std::vector<double> exact[1 + most_slots], scales;
  std::vector<cuda::Parameter<double>> parameters;  // of 1, 32, 63 ... numbers: several launches
  for (int64_t at = 0, count = 1; at < size; at += count, count += 31) {
    count = std::min(count, size - at);
    const double n = is_plain ? 0 : double(parameters.size());
    parameters.push_back({w.data() + at,
                          {first_slots.data() + at, second_slots.data() + at},
                          grad.data() + at,
                          count,
                          {0.01 * n, 0.02 * n}});
    scales.push_back(1 / (1 + n));
    for (int64_t i = at; i < at + count; ++i) {
      double value = w[i] * step.decay, slots[most_slots] = {first_values[i], second_values[i]};
      const double sign = w[i] > 0 ? 1 : -1, g = grad[i] + n * (0.01 * sign + 0.04 * w[i]);
      const double clipped = is_plain ? g : std::clamp(scales.back() * g, -0.5, 0.5);
      Updates::with(rule, [&](auto each) { each.apply(value, slots, clipped, step); });
      exact[0].push_back(value);
      for (int s = 0; s < most_slots; ++s) exact[1 + s].push_back(slots[s]);
    }
  }
  expect(parameters.size() > 16, "more parameters than a launch takes");
  const Array<double> scaled(scales);
  cuda::update(parameters.data(), int64_t(parameters.size()), rule,
               reinterpret_cast<const UpdateStep<double>*>(numbers.data()),
               is_plain ? nullptr : scaled.data(), nullptr);
  for (auto* array : {&w, &first_slots, &second_slots}) array->fetch();
  Case about{};
  about.update = rule;
  expect_close<double>(about, "update", exact[0], w.exact(0, size));
  expect_close<double>(about, "update: first slot", exact[1], first_slots.exact(0, size));
  expect_close<double>(about, "update: second slot", exact[2], second_slots.exact(0, size));
}

void check_the_parts_of_a_step() {
  check_the_numbers_of_a_step();
  for (int64_t loss = 0; loss < Losses::size; ++loss) check_measure<double>(loss);
  for (int64_t rule = 0; rule < Updates::size; ++rule)
    check_update(rule, true), check_update(rule, false);
  for (int64_t activation = 0; activation < Activations::size; ++activation)
    for (double dropout : {0.0, 0.3})
      check_finish<float>(activation, dropout), check_finish<double>(activation, dropout);
  check_sum_up<double>(19, 0, 0), check_sum_up<double>(19, 3, 0), check_sum_up<double>(3, 0, 4);
  check_sum_up<float>(5, 0, 1000);  // which is not reached
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

// As absurd as the operator cuda_plan lets them be: no number overflows.
void check_absurd_plans() {
  std::mt19937_64 random(0);
  auto up_to = [&](int64_t most) {  // of any magnitude
    return std::max<int64_t>(1, most >> random() % 64) - int64_t(random() % 2 && most > 1);
  };
  for (int i = 0; i < 3000; ++i) {
    std::vector<int64_t> widths(2 + random() % (i % 10 ? 5 : 80));
    for (int64_t& width : widths) width = std::max<int64_t>(1, up_to(cuda::most_units));
    const int64_t limit = up_to(cuda::most_shared_bytes);
    const int64_t rows = std::max<int64_t>(1, up_to(std::numeric_limits<int64_t>::max()));
    const cuda::Shape shape{widths, i % 3, i % 2 ? 4 : 8, 1 + i % cuda::cluster_blocks};
    const cuda::Plan plan = cuda::choose_plan(shape, rows, limit);
    expect(!plan.rows || plan.bytes <= limit, "an absurd plan keeps to its limit");
    const cuda::WarpPlan one = cuda::make_warp_plan(shape, rows, limit);
    expect(!one.rows || one.bytes <= limit, "an absurd plan of a warp keeps to its limit");
    if (i % 100 == 0) expect(cuda::most_batch_rows(shape, limit) >= 0, "there is a most of rows");
  }
}

void check_everything() {
  check_all<float>();
  check_all<double>();
  check_a_row_that_is_not_there();
  check_the_parts_of_a_step();
  check_plans();
  check_absurd_plans();
}

#endif

}  // namespace
}  // namespace torchnn

int main(int count, char** arguments) {
  using namespace torchnn;
  const std::string what = count > 1 ? arguments[1] : "";
#if !defined(TORCHNN_ONLY_FLOAT)
  if (what.empty()) check_everything();
#endif
  for (const char* kernels : {"layers", "train", "train_warp"})
    if (what == "few" || what == kernels) check_few(kernels);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
