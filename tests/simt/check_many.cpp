// Trains models of mixed sizes in the kernel of csrc/cuda/train_many.cu, shuffles rows in that of
// shuffle.cu, and compares all that is
// left with plain loops in double; and, bit for bit, with each model by itself, its steps cut into
// two calls. Each array ends where its allocation ends, so that a step too far is seen.
// tests/test_simt.py runs it on the CPU, under AddressSanitizer and ThreadSanitizer;
// benchmarks/gpu/run.sh on a GPU, under compute-sanitizer. With the argument "few" or "train_many"
// it runs the few cases that meet every barrier; TORCHNN_ONLY_FLOAT leaves all others out, to
// compile sooner.
#include <string>

#define TORCHNN_MOST_BLOCKS 2
#define TORCHNN_LAUNCH_MICROSECONDS 20  // a few steps
#define TORCHNN_MOST_STEPS 12           // of all trials
#include "../../csrc/cuda/shuffle.cu"
#include "../../csrc/cuda/train_many.cu"
#include "checks.h"

namespace torchnn {
namespace {

using Values = std::vector<double>;

struct Case {
  std::vector<std::vector<int64_t>> widths;  // of each trial
  int64_t rows, batch_size;                  // of x, and of a batch
  int64_t update = 0, activation = 1, last = 0, loss = 0;
  int64_t epochs = 1, extra = 0;                 // and a part of one more
  int64_t validation = 0, validation_batch = 4;  // rows
  bool penalties = false, dropout = false, clip_norm = false, global_clip_norm = false;
  bool sample_weight = true, predictions = true, bias = true;
  int64_t gap = 0, offset = 0;  // of the rows of x, and of its first
  bool stops = false;           // the second trial after two epochs, the third never

  Stopping stopping(int64_t trial) const {
    Stopping rule{};
    rule.patience = 1, rule.of_validation = trial == 0, rule.sign = 1;
    rule.baseline = std::numeric_limits<double>::quiet_NaN();
    rule.min_delta = trial == 1 ? 1e9 : -1e9;  // only the first epoch is better, or each is
    return rule;
  }
};

// What each trial has of its own.
TrainOptions options_of(const Case& c, int64_t trial) {
  const double other = 1 / double(1 + trial);
  TrainOptions options{};
  options.momentum = options.beta_1 = options.rho = 0.9 * other, options.beta_2 = 0.999;
  options.epsilon = 1e-3, options.weight_decay = trial == 2 ? 0 : 0.1 * other;
  options.clip_value = trial == 1 ? 0.05 : 0, options.delta = delta;
  if (c.clip_norm && trial != 1) options.clip_norm = 0.1 + 0.1 * double(trial);
  if (c.global_clip_norm && trial == 1) options.global_clip_norm = 0.2;
  return options;
}
double rate_of(const Case& c, int64_t trial, int64_t layer) {  // layer -1: of x
  return c.dropout && (trial + layer) % 3 != 1 ? 0.25 + 0.05 * double(trial % 2) : 0;
}

// One model, in double.
struct Exact {
  std::vector<Values> weights, biases, weight_slots[most_slots], bias_slots[most_slots];
  Values losses, predictions, validation, validation_losses;
  StoppingState state;
  std::vector<Values> best;  // weight and bias of each layer
};

template <class T>
class Check {
 public:
  explicit Check(const Case& of)
      : c(of),
        count(int64_t(c.widths.size())),
        layers(int64_t(c.widths[0].size()) - 1),
        outputs(c.widths[0].back()),
        targets(target_count(c.loss, outputs)),
        samples(c.epochs * c.rows + c.extra),
        steps(samples ? step_count(samples, c.rows, c.batch_size) : 0),
        stride(c.widths[0][0] + c.gap),
        x(c.rows * stride, c.offset),
        validation_x(c.rows * (stride + 1)) {
    x.fill(1), validation_x.fill(1);
    for (int64_t n = 0; n < count; ++n) trials.emplace_back(*this, n);
  }

  void run() {
    std::vector<Trial<T>> all;
    for (Own& own : trials) all.push_back(own.trial());
    train(all, samples, c.rows);
    for (int64_t n = 0; n < count; ++n) {
      trials[n].fetch();
      compare(trials[n], exact_of(trials[n], n));
    }
    // Each by itself, and in two calls.
    const int64_t first = c.epochs > 1 ? c.rows : samples, first_steps = steps_of(first);
    for (Own& own : trials) {
      const std::vector<std::vector<T>> together = own.numbers();
      own.send();
      train({own.trial()}, first, c.rows);
      if (first < samples) {
        Trial<T> rest = own.trial();
        rest.order += first, rest.learning_rates += first_steps, rest.losses += first_steps;
        rest.steps_before += first_steps;
        if (rest.predictions) rest.predictions += first * outputs;
        if (rest.validation_predictions)
          rest.validation_predictions += first / c.rows * c.validation * outputs,
              rest.validation_losses += first / c.rows * validation_batches();
        train({rest}, samples - first, c.rows);
      }
      own.fetch();
      expect(own.numbers() == together, "a model among others has the bits of one alone");
    }
  }

 private:
  struct Own {
    Own(const Check& check, int64_t n)
        : check(check),
          n(n),
          y(check.c.rows * check.targets),
          sample_weight(check.c.rows),
          losses(check.steps),
          kept(check.c.predictions ? check.samples * check.outputs : 0),
          validation(validations() * check.c.validation * check.outputs),
          validation_losses(validations() * check.validation_batches()),
          stopping_state(numbers_of_stopping_state) {
      const Case& c = check.c;
      fill_targets(y, c.loss, check.outputs);
      sample_weight.fill(1);
      for (int64_t i = 0; i < check.samples; ++i) numbers_of.push_back(generator() % c.rows);
      for (int64_t i = 0; i < c.validation; ++i) validated.push_back(generator() % c.rows);
      for (int64_t i = 0; i < check.steps; ++i) rate_values.push_back(0.1 / double(1 + i % 3 + n));
      order = std::make_shared<Array<int64_t>>(numbers_of);
      validation_rows = std::make_shared<Array<int64_t>>(validated);
      rates = std::make_shared<Array<double>>(rate_values);
      for (int64_t l = 0; l < check.layers; ++l) {
        const int64_t in = c.widths[n][l], units = c.widths[n][l + 1];
        state.push_back(Array<T>(in * units).fill(1 / std::sqrt(double(in))));
        state.push_back(Array<T>(units).fill(c.bias ? 0.1 : 0));
        for (int s = 0; s < most_slots; ++s)
          state.push_back(Array<T>(in * units).zero()), state.push_back(Array<T>(units).zero());
        TrainLayer<T> layer{};
        layer.in_features = in, layer.units = units;
        layer.activation = l + 1 < check.layers ? c.activation : c.last;
        const Array<T>* const first = &state[state.size() - 2 - 2 * most_slots];
        layer.weight = first[0].data(), layer.bias = c.bias ? first[1].data() : nullptr;
        for (int s = 0; s < most_slots; ++s)
          layer.weight_slots[s] = first[2 + 2 * s].data(),
          layer.bias_slots[s] = first[3 + 2 * s].data();
        if (c.penalties && n != 1)
          layer.weight_penalty = {T(0.01) * T(l), T(0.02)}, layer.bias_penalty = {T(0.03), 0};
        layer.dropout = rate_of(c, n, l), layer.seed = 7 * n + l;
        if (c.stops && n < 2) {
          best.push_back(Array<T>(in * units).zero()), best.push_back(Array<T>(units).zero());
          layer.best_weight = best[2 * l].data();
          if (c.bias) layer.best_bias = best[2 * l + 1].data();
        }
        network.push_back(layer);
      }
      begin();
    }

    int64_t validations() const { return check.samples ? check.c.epochs : 1; }

    Trial<T> trial() const {
      Trial<T> own{};
      own.layers = network.data(), own.y = y.data();
      if (check.c.sample_weight) own.sample_weight = sample_weight.data();
      own.order = order->data(), own.options = options_of(check.c, n);
      own.input_dropout = rate_of(check.c, n, -1), own.input_seed = -3 - n;
      own.learning_rates = rates->data(), own.steps_before = 3 + n, own.losses = losses.data();
      if (check.c.predictions) own.predictions = kept.data();
      if (check.c.validation)
        own.validation_rows = validation_rows->data(), own.validation_y = y.data(),
        own.validation_weight = own.sample_weight, own.validation_predictions = validation.data(),
        own.validation_losses = validation_losses.data();
      if (check.c.stops && n < 2)
        own.stopping = check.c.stopping(n),
        own.stopping_state = reinterpret_cast<StoppingState*>(stopping_state.data());
      return own;
    }

    void begin() {
      stopping_state.host = {std::numeric_limits<double>::quiet_NaN(), -1, 0, 0, 0};
      stopping_state.send();
    }

    // The parameter of a layer: weight, bias, and then the slots of both in turn.
    const Array<T>& of_layer(int64_t l, int64_t which) const {
      return state[l * (2 + 2 * most_slots) + which];
    }
    void send() {
      for (size_t i = 0; i < state.size(); ++i) state[i].host = begun[i], state[i].send();
      begin();
    }
    void fetch() {
      if (begun.empty())
        for (const Array<T>& array : state) begun.push_back(array.host);
      for (Array<T>& array : state) array.fetch();
      for (Array<T>& array : best) array.fetch();
      stopping_state.fetch();
      for (auto* array : {&losses, &kept, &validation, &validation_losses}) array->fetch();
    }
    std::vector<std::vector<T>> numbers() const {
      std::vector<std::vector<T>> all{losses.host, kept.host, validation.host,
                                      validation_losses.host};
      for (const Array<T>& array : state) all.push_back(array.host);
      for (const Array<T>& array : best) all.push_back(array.host);
      all.emplace_back(stopping_state.host.begin(), stopping_state.host.end());
      for (std::vector<T>& numbers : all)  // of epochs that there were not, for a comparison
        std::replace_if(
            numbers.begin(), numbers.end(), [](T number) { return std::isnan(number); }, T(-1e30));
      return all;
    }

    const Check& check;
    int64_t n;
    Array<T> y, sample_weight, losses, kept, validation, validation_losses;
    Array<double> stopping_state;
    std::vector<Array<T>> best;
    std::vector<int64_t> numbers_of, validated;
    Values rate_values;
    std::shared_ptr<Array<int64_t>> order, validation_rows;
    std::shared_ptr<Array<double>> rates;
    std::vector<Array<T>> state;
    std::vector<std::vector<T>> begun;  // what it was before the first call
    std::vector<TrainLayer<T>> network;
  };

  int64_t validation_batches() const {
    return (c.validation + c.validation_batch - 1) / c.validation_batch;
  }

  int64_t steps_of(int64_t of_samples) const {
    return of_samples ? step_count(of_samples, c.rows, c.batch_size) : 0;
  }

  void train(const std::vector<Trial<T>>& all, int64_t of_samples, int64_t epoch_size) {
    Trials<T> job{};
    job.trials = all.data(), job.count = int64_t(all.size()), job.layer_count = layers;
    job.x = x.data(), job.x_stride = stride, job.samples = of_samples;
    job.epoch_size = epoch_size, job.batch_size = c.batch_size;
    job.loss = c.loss, job.update = c.update, job.rows = job.validation_x_rows = c.rows;
    job.validation_x = validation_x.data(), job.validation_x_stride = stride + 1;
    job.validation_count = c.validation, job.validation_batch_size = c.validation_batch;
    Array<T> workspace(cuda::workspace_size(job));
    cuda::train_many(job, workspace.data(), nullptr);
    workspace.fetch();  // it waits
  }

  // What a row gives in each layer, the input first: what goes on, and what backward takes.
  struct Row {
    std::vector<Values> out, kept, scale;
  };
  Row forward(const Exact& exact, const Own& own, Values in, int64_t step, int64_t row) const {
    auto drop = [&](Values& values, double rate, int64_t seed) {
      Values scales(values.size(), 1.0);
      if (rate > 0 && step > 0)
        for (size_t i = 0; i < values.size(); ++i) {
          const uint32_t key = row_key(step_key(seed, step), row) + unit_key(int64_t(i));
          scales[i] = (mixed(key) >> 1) >= rate * double(1u << 31) ? 1 / (1 - rate) : 0;
        }
      for (size_t i = 0; i < values.size(); ++i) values[i] *= scales[i];
      return scales;
    };
    Row all;
    all.scale.push_back(drop(in, rate_of(c, own.n, -1), -3 - own.n));
    all.out.push_back(in), all.kept.push_back(in);
    for (int64_t l = 0; l < layers; ++l) {
      const TrainLayer<T>& layer = own.network[l];
      Values a(layer.units), kept(layer.units);
      Activations::with(layer.activation, [&](auto activation) {
        for (int64_t n = 0; n < layer.units; ++n) {
          double z = exact.biases[l][n];
          for (int64_t k = 0; k < layer.in_features; ++k)
            z += all.out[l][k] * exact.weights[l][n * layer.in_features + k];
          a[n] = activation.forward(z);
          kept[n] = keeps_z<decltype(activation)> ? z : a[n];
        }
      });
      all.kept.push_back(kept);
      all.scale.push_back(drop(a, layer.dropout, layer.seed));
      all.out.push_back(a);
    }
    return all;
  }

  Exact exact_of(const Own& own, int64_t n) const {
    Exact exact;
    exact.state = {std::numeric_limits<double>::quiet_NaN(), -1, 0, 0, 0};
    for (int64_t l = 0; l < layers; ++l) {
      auto begun = [&](int64_t which) {
        const std::vector<T>& values = own.begun[l * (2 + 2 * most_slots) + which];
        return Values(values.begin(), values.end());
      };
      exact.weights.push_back(begun(0)), exact.biases.push_back(begun(1));
      for (int s = 0; s < most_slots; ++s)
        exact.weight_slots[s].push_back(begun(2 + 2 * s)),
            exact.bias_slots[s].push_back(begun(3 + 2 * s));
    }
    auto validate = [&] {
      double penalty = 0;
      for (int64_t l = 0; l < layers; ++l) {
        const Penalty<T>&w = own.network[l].weight_penalty, &b = own.network[l].bias_penalty;
        for (double value : exact.weights[l]) penalty += Penalty<double>{w.l1, w.l2}.value(value);
        for (double value : exact.biases[l])
          penalty += c.bias ? Penalty<double>{b.l1, b.l2}.value(value) : 0;
      }
      for (int64_t i = 0; i < c.validation; ++i) {
        const int64_t number = own.validated[i];
        const int64_t of_batch = std::min(
            c.validation_batch, c.validation - i / c.validation_batch * c.validation_batch);
        const Values in = validation_x.exact(number * (stride + 1), c.widths[0][0]);
        const Values out = forward(exact, own, in, 0, 0).out.back();
        exact.validation.insert(exact.validation.end(), out.begin(), out.end());
        const Values y = own.y.exact(number * targets, targets);
        Values grad(outputs);
        if (i % c.validation_batch == 0) exact.validation_losses.push_back(penalty);
        exact.validation_losses.back() +=
            measure(c.loss, {out.data(), y.data(), outputs},
                    c.sample_weight ? own.sample_weight[number] : 1, of_batch, grad.data());
      }
    };
    for (int64_t first = 0, step = 0, end; first < samples; first = end, ++step) {
      end = std::min({first + c.batch_size, (first / c.rows + 1) * c.rows, samples});
      std::vector<Values> weight = exact.weights, bias = exact.biases;
      for (auto* grads : {&weight, &bias})
        for (auto& grad : *grads) std::fill(grad.begin(), grad.end(), 0.0);
      double loss = 0;
      const int64_t number = 3 + n + step + 1;
      for (int64_t i = first; i < end; ++i) {
        const int64_t row = own.numbers_of[i];
        const Row a = forward(exact, own, x.exact(row * stride, c.widths[0][0]), number, i - first);
        const Values y = own.y.exact(row * targets, targets);
        Values grad(outputs);
        loss += measure(c.loss, {a.out.back().data(), y.data(), outputs},
                        c.sample_weight ? own.sample_weight[row] : 1, end - first, grad.data());
        exact.predictions.insert(exact.predictions.end(), a.out.back().begin(), a.out.back().end());
        add_gradients(exact, own, a, grad, weight, bias);
      }
      exact.losses.push_back(loss + take_step(exact, own, rate_step(own, n, step), weight, bias));
      if (end % c.rows != 0) continue;
      validate();
      if (c.stops && n < 2 && end_epoch(exact, n)) break;
    }
    if (!samples) validate();
    return exact;
  }

  // Whether it is the last one.
  bool end_epoch(Exact& exact, int64_t n) const {
    const Stopping rule = c.stopping(n);
    const bool validated = rule.of_validation != 0;
    const int64_t rows = validated ? c.validation : c.rows;
    const int64_t size = validated ? c.validation_batch : c.batch_size;
    const Values& losses = validated ? exact.validation_losses : exact.losses;
    double sum = 0;
    for (int64_t i = (rows - 1) / size, at = int64_t(losses.size()); i >= 0; --i)
      sum += losses[--at] * double(std::min(size, rows - i * size));
    const auto verdict = exact.state.take(rule, sum / double(rows));
    if (!verdict.is_best) return verdict.stops;
    exact.best.clear();
    for (int64_t l = 0; l < layers; ++l)
      exact.best.push_back(exact.weights[l]), exact.best.push_back(exact.biases[l]);
    return verdict.stops;
  }

  UpdateStep<double> rate_step(const Own& own, int64_t n, int64_t step) const {
    return {options_of(c, n), own.rate_values[step], 3 + n + step + 1};
  }

  void add_gradients(const Exact& exact, const Own& own, const Row& a, Values grad,
                     std::vector<Values>& weight, std::vector<Values>& bias) const {
    for (int64_t l = layers; l-- > 0;) {
      const TrainLayer<T>& layer = own.network[l];
      Values before(layer.in_features, 0.0);
      Activations::with(layer.activation, [&](auto activation) {
        for (int64_t n = 0; n < layer.units; ++n) {
          const double grad_z = activation.backward(grad[n] * a.scale[l + 1][n], a.kept[l + 1][n]);
          bias[l][n] += grad_z;
          for (int64_t k = 0; k < layer.in_features; ++k) {
            weight[l][n * layer.in_features + k] += grad_z * a.out[l][k];
            before[k] += grad_z * exact.weights[l][n * layer.in_features + k];
          }
        }
      });
      grad = before;
    }
  }

  // Returns what the penalties add to the loss.
  double take_step(Exact& exact, const Own& own, const UpdateStep<double>& step,
                   std::vector<Values>& weight, std::vector<Values>& bias) const {
    const TrainOptions options = options_of(c, own.n);
    double loss = 0, all = 0;
    Values squares;
    auto each = [&](auto f) {
      for (int64_t l = 0; l < layers; ++l) {
        auto wide = [](const Penalty<T>& p) { return Penalty<double>{p.l1, p.l2}; };
        f(exact.weights[l], exact.weight_slots, l, weight[l], wide(own.network[l].weight_penalty));
        if (c.bias)
          f(exact.biases[l], exact.bias_slots, l, bias[l], wide(own.network[l].bias_penalty));
      }
    };
    each([&](Values& values, auto&, int64_t, Values& grads, const Penalty<double>& penalty) {
      squares.push_back(0);
      for (size_t i = 0; i < values.size(); ++i) {
        const double grad = grads[i] + penalty.gradient(values[i]);
        loss += penalty.value(values[i]), squares.back() += grad * grad;
      }
      all += squares.back();
    });
    size_t next = 0;
    each(
        [&](Values& values, auto& slots, int64_t l, Values& grads, const Penalty<double>& penalty) {
          const double norm = std::sqrt(options.clip_norm > 0 ? squares[next] : all);
          const double most = options.clip_norm > 0 ? options.clip_norm : options.global_clip_norm;
          const double scale = most > 0 && norm > most ? most / norm : 1;
          ++next;
          Updates::with(c.update, [&](auto rule) {
            for (size_t i = 0; i < values.size(); ++i) {
              double kept[most_slots] = {slots[0][l][i], slots[1][l][i]}, w = values[i];
              const double grad = adjusted(grads[i], w, penalty, scale, step);
              w *= step.decay;
              rule.apply(w, kept, grad, step);
              values[i] = w;
              for (int s = 0; s < most_slots; ++s) slots[s][l][i] = kept[s];
            }
          });
        });
    return loss;
  }

  void compare(const Own& own, const Exact& exact) {
    auto close = [&](const char* what, const Values& wanted, const Array<T>& got) {
      expect(int64_t(wanted.size()) == got.size() || c.stops, what);
      for (size_t i = 0; i < wanted.size() && int64_t(i) < got.size(); ++i) {
        if (got[i] == wanted[i]) continue;  // if both are infinite
        if (std::abs(got[i] - wanted[i]) <=
            1000 * std::numeric_limits<T>::epsilon() * (1 + std::abs(wanted[i])))
          continue;
        std::printf("%s[%d] of trial %d is %g, not %g (%d features, %d layers, batch %d, rule %d, ",
                    what, int(i), int(own.n), got[i], wanted[i], int(c.widths[0][0]), int(layers),
                    int(c.batch_size), int(c.update));
        std::printf("loss %d, activation %d, float%d)\n", int(c.loss), int(c.activation),
                    int(8 * sizeof(T)));
        ++failures;
        return;
      }
    };
    close("losses", exact.losses, own.losses);
    if (c.predictions) close("predictions", exact.predictions, own.kept);
    if (c.validation) close("validation", exact.validation, own.validation);
    if (c.validation) close("validation losses", exact.validation_losses, own.validation_losses);
    for (size_t i = 0; i < own.best.size(); ++i)
      if (c.bias || i % 2 == 0) close("best", exact.best[i], own.best[i]);
    if (!own.best.empty())
      for (int i : {1, 2, 3, 4})
        expect(own.stopping_state[i] == reinterpret_cast<const double*>(&exact.state)[i],
               "a model ends early, or not");
    int slots = 0;
    Updates::with(c.update, [&](auto rule) { slots = rule.slots; });
    for (int64_t l = 0; l < layers; ++l) {
      close("weight", exact.weights[l], own.of_layer(l, 0));
      close("bias", exact.biases[l], own.of_layer(l, 1));
      for (int s = 0; s < slots; ++s) {
        close("weight slot", exact.weight_slots[s][l], own.of_layer(l, 2 + 2 * s));
        if (c.bias) close("bias slot", exact.bias_slots[s][l], own.of_layer(l, 3 + 2 * s));
      }
    }
  }

  const Case c;
  const int64_t count, layers, outputs, targets, samples, steps, stride;
  Array<T> x, validation_x;
  std::vector<Own> trials;
};

template <class T>
void check(const Case& c) {
  Check<T>(c).run();
}

// Mixed widths, more trials than blocks, a short batch, part of an epoch, and all that a trial can
// have of its own.
Case everything() {
  Case c{.widths = {{9, 6, 5, 2}, {9, 26, 3, 2}, {9, 1, 8, 2}}, .rows = 13, .batch_size = 10};
  c.update = 3, c.epochs = 4, c.extra = 3, c.stops = true, c.validation = 23,
  c.validation_batch = 20, c.penalties = c.dropout = true;
  c.clip_norm = c.global_clip_norm = true;
  return c;
}

// A row that is not there is not read, and cannot go unnoticed.
void check_rows_that_are_not_there() {
  auto x = Array<float>(3 * 4).fill(1), y = Array<float>(3).fill(1);
  for (int64_t bad : {int64_t(-1), int64_t(3), int64_t(1) << 40}) {
    auto weight = Array<float>(4).fill(1);
    const Array<int64_t> order(std::vector<int64_t>{0, 1, bad, 2});
    Array<float> losses(2), validation(4);
    TrainLayer<float> layer{};
    layer.in_features = 4, layer.units = 1, layer.weight = weight.data();
    const Array<double> rates(std::vector<double>{0, 0});
    Trial<float> trial{};
    trial.layers = &layer, trial.y = y.data(), trial.order = order.data();
    trial.learning_rates = rates.data(), trial.losses = losses.data();
    trial.validation_rows = order.data(), trial.validation_losses = validation.data();
    trial.validation_y = y.data();
    Trials<float> job{};
    job.trials = &trial, job.count = job.layer_count = 1, job.x = job.validation_x = x.data();
    job.x_stride = job.validation_x_stride = 4, job.samples = job.epoch_size = 2;
    job.batch_size = 2, job.validation_count = 4, job.rows = job.validation_x_rows = 3;
    Array<float> workspace(cuda::workspace_size(job));
    cuda::train_many(job, workspace.data(), nullptr);
    validation.fetch();
    for (int i = 0; i < 4; ++i)
      expect(std::isnan(validation[i]) == (i == 2), "a missing row makes its batch's loss NaN");
    job.samples = job.epoch_size = 4;
    cuda::train_many(job, workspace.data(), nullptr);
    losses.fetch();
    expect(std::isfinite(losses[0]) && std::isnan(losses[1]), "a missing row makes a loss NaN");
  }
}

// More orders than threads, each that of torch.randperm.
void check_orders() {
  for (int64_t size : {0, 1, 2, 7, 700}) {
    constexpr int64_t count = 70;
    std::vector<int64_t> seeds(count), rows(count * size);
    for (int64_t i = 0; i < count; ++i) seeds[i] = i * 0x1'2345'6789;
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = int64_t(3 * i);
    const Array<int64_t> of_device(seeds);
    Array<int64_t> shuffled(rows);
    cuda::shuffle(shuffled.data(), size, of_device.data(), count, nullptr);
    shuffled.fetch();
    for (int64_t i = 0; i < count; ++i) {
      std::mt19937 numbers{uint32_t(seeds[i])};
      int64_t* const own = rows.data() + i * size;
      for (int64_t k = 0; k + 1 < size; ++k) std::swap(own[k], own[k + numbers() % (size - k)]);
    }
    expect(shuffled.host == rows, "orders are those of their seeds");
  }
}

#if !defined(TORCHNN_ONLY_FLOAT)

template <class T>
void check_all() {
  check<T>(everything());
  Case plain{.widths = {{16, 5, 1}, {16, 33, 1}}, .rows = 41, .batch_size = 40};
  plain.update = 1, plain.sample_weight = plain.predictions = false, plain.epochs = 2;
  check<T>(plain);
  plain.stops = true, plain.validation = 5, plain.epochs = 3;
  check<T>(plain);
  // Several chunks a batch, with gradients put aside and norms clipped or not.
  Case large{.widths = {{7, 40, 3}}, .rows = 150, .batch_size = 140};
  check<T>(large);
  large.clip_norm = large.penalties = true, large.bias = false, large.widths = {{5, 4, 3}};
  check<T>(large);
  Case one{.widths = {{1, 1}, {1, 1}}, .rows = 5, .batch_size = 2};
  one.bias = false, one.gap = 2, one.offset = 1;
  check<T>(one);
  Case deep{.widths = {{12, 3, 3, 3, 3, 1}, {12, 4, 20, 9, 2, 1}}, .rows = 9, .batch_size = 4};
  deep.gap = 4, deep.validation = 3;
  check<T>(deep);
  Case none{.widths = {{4, 3, 2}}, .rows = 9, .batch_size = 4, .epochs = 0};
  none.validation = 141, none.dropout = true;
  check<T>(none);
  const int64_t most = std::max({Updates::size, Activations::size, Losses::size});
  for (int64_t i = 0; i < most; ++i) {
    Case c{.widths = {{7, 5, 3}, {7, 9, 3}}, .rows = 10, .batch_size = 10};
    c.update = i % Updates::size, c.loss = i % Losses::size, c.activation = i % Activations::size;
    c.last = last_for(c.loss, c.activation), c.dropout = i % 2;
    check<T>(c);
  }
}

void check_plans() {
  constexpr int64_t hopper = 227 << 10;
  auto plan = [](std::vector<int64_t> widths, int64_t batch_size, int64_t slots = 0) {
    cuda::TrialShape shape{};
    shape.widths = widths, shape.slots = slots, shape.targets = widths.back();
    shape.element_size = sizeof(float);
    for (size_t l = 1; l < widths.size(); ++l)
      shape.activations.push_back(1), shape.has_bias.push_back(1), shape.drops.push_back(0);
    return cuda::make_trial_plan(shape, batch_size, hopper);
  };
  auto blocks = [&](std::vector<int64_t> widths, int64_t slots = 0) {
    return cuda::blocks_of_trials(plan(widths, 32, slots).bytes, hopper);
  };
  expect(plan({64, 25, 25, 1}, 32).rows == 32 && plan({400, 25, 25, 1}, 32).rows == 32,
         "a batch of 32 goes through at once");
  expect(blocks({64, 25, 25, 1}) == 4, "four models of 64-25-25-1 share a multiprocessor");
  expect(blocks({400, 25, 25, 1}) == 2, "two of the notes' network do");
  expect(plan({64, 25, 25, 1}, 1000).rows >= 32, "large batches go through in chunks");
  expect(plan({784, 512, 512, 1}, 32).rows == 0, "784-512-512-1 does not fit");
  expect(plan({int64_t(1) << 40, 1 << 20}, 32).rows == 0, "and no width overflows");
  expect(plan({55'000, 55'000, 1}, 32).rows == 0, "nor do their products");
  expect(plan(std::vector<int64_t>(66, 1), 4).rows == 0, "65 layers are too many");
}

#endif

}  // namespace
}  // namespace torchnn

int main(int count, char** arguments) {
  using namespace torchnn;
  const std::string what = count > 1 ? arguments[1] : "";
#if !defined(TORCHNN_ONLY_FLOAT)
  if (what.empty()) check_all<float>(), check_all<double>(), check_plans();
#endif
  if (what == "few" || what == "train_many") check<float>(everything());
  check_rows_that_are_not_there();
  check_orders();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
