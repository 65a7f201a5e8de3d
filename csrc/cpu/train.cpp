// Whole-network training on the CPU. One step is what the course notes call back-propagation and
// gradient descent, for a batch at once; the numbered steps stand in step().
#include "../train.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "../loss.h"
#include "dot.h"
#include "elementwise.h"
#include "isa.h"
#include "matmul.h"

namespace torchnn::cpu {
namespace {

// ---- kernels: always_inline, instantiated for every instruction set ----

template <class T>
struct DotKernel {  // out = bias + x @ weight.T
  template <class Isa>
  static TORCHNN_FN void run(int64_t rows, int64_t units, int64_t depth, const ListedRows<T>& x,
                             const T* const& weight, const T* const& bias, T* const& out,
                             int64_t out_stride) {
    Dot<Isa, T>::multiply(rows, units, depth, x, weight, depth, bias, out, out_stride);
  }
};

template <class T>
using DotCall = void (*)(int64_t rows, int64_t units, int64_t depth, ListedRows<T> x,
                         const T* weight, const T* bias, T* out, int64_t out_stride);

// A weight, what the update rule remembers of it, and the step it takes.
template <class T>
struct Weights {
  T* values;
  T* slots[most_slots];
  int64_t stride;  // from row to row, a multiple of the register

  Weights from_row(int64_t row) const {
    Weights w = *this;
    w.values += row * stride;
    for (T*& slot : w.slots)
      if (slot) slot += row * stride;
    return w;
  }
};

// weight[units, features] takes the step that its gradient grad_z.T @ x calls for. A tile of the
// gradient is summed in registers and used up there; only for large batches, which go through in
// chunks that fit the first-level cache, is it put aside in between.
template <class Update, class T>
struct UpdateWeight {
  static constexpr int64_t chunk = 128;  // rows

  template <class Isa>
  static TORCHNN_FN void run(int64_t units, int64_t features, int64_t rows, const T* const& grad_z,
                             int64_t grad_stride, const ListedRows<T>& x, const Weights<T>& weights,
                             T* const& aside, const UpdateStep<T>& step) {
    for (int64_t row = 0; row < rows; row += chunk) {
      const UpdateWeight part{.rows = std::min(chunk, rows - row),
                              .units = units,
                              .grad_z = grad_z + row * grad_stride,
                              .grad_stride = grad_stride,
                              .x = x.rows + row,
                              .weights = weights,
                              .aside = aside,
                              .is_first = row == 0,
                              .is_last = row + chunk >= rows,
                              .step = step};
      constexpr int64_t width = lanes<Vector<T, Isa::vector_bytes>>;
      int64_t k = 0;
      for (; k + 2 * width <= features; k += 2 * width) part.template all_units<Isa, 2>(k);
      if (k < features) part.template all_units<Isa, 1>(k);
    }
  }

  int64_t rows, units;
  const T* grad_z;
  int64_t grad_stride;
  const T* const* x;
  const Weights<T>& weights;
  T* aside;
  bool is_first, is_last;
  const UpdateStep<T>& step;

  template <class Isa, int registers>
  TORCHNN_FN void all_units(int64_t k) const {
    for (int64_t n = 0, height; n < units; n += height) {
      // tiles as even as they come: 25 units are 5 x 5, not 4 x 6 and 1
      const int64_t left = units - n, tiles = (left + Isa::tile_rows - 1) / Isa::tile_rows;
      height = (left + tiles - 1) / tiles;
      of_height<Isa, Isa::tile_rows, registers>(height, n, k);
    }
  }

  template <class Isa, int height, int registers>
  TORCHNN_FN void of_height(int64_t wanted, int64_t n, int64_t k) const {
    if constexpr (height > 0) {
      if (wanted == height)
        tile<Isa, height, registers>(n, k);
      else
        of_height<Isa, height - 1, registers>(wanted, n, k);
    }
  }

  template <class Isa, int height, int registers>
  TORCHNN_FN void tile(int64_t n, int64_t k) const {
    using V = Vector<T, Isa::vector_bytes>;
    V grad[height][registers] = {};
    const T* factor = grad_z + n;
    for (int64_t row = 0; row < rows; ++row, factor += grad_stride) {
      const T* from = x[row] + k;
      V a[registers];
#pragma GCC unroll 2
      for (int j = 0; j < registers; ++j) a[j] = load<V>(from + j * lanes<V>);
#pragma GCC unroll 16
      for (int i = 0; i < height; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < registers; ++j) grad[i][j] += factor[i] * a[j];
    }
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < registers; ++j) {
        const int64_t at = (n + i) * weights.stride + k + j * lanes<V>;
        const V sum = is_first ? grad[i][j] : grad[i][j] + load<V>(aside + at);
        if (is_last)
          take_step<Update, V>(weights, at, sum, step);
        else
          store(aside + at, sum);
      }
  }

  template <class Rule, class V>
  static TORCHNN_FN void take_step(const Weights<T>& weights, int64_t at, V grad,
                                   const UpdateStep<T>& step) {
    V w = load<V>(weights.values + at) * step.decay, slots[most_slots];
#pragma GCC unroll 2
    for (int s = 0; s < Rule::slots; ++s) slots[s] = load<V>(weights.slots[s] + at);
    Rule::apply(w, slots, grad, step);
    store(weights.values + at, w);
#pragma GCC unroll 2
    for (int s = 0; s < Rule::slots; ++s) store(weights.slots[s] + at, slots[s]);
  }
};

// The same with a gradient that exists as an array, rows `grad_stride` apart: for the large layers,
// whose gradient is a packed product, and for biases.
template <class Update, class T>
struct UpdateFromGradient {
  template <class Isa>
  static TORCHNN_FN void run(int64_t rows, int64_t columns, const T* const& grad,
                             int64_t grad_stride, const Weights<T>& weights,
                             const UpdateStep<T>& step) {
    using V = Vector<T, Isa::vector_bytes>;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < columns; k += lanes<V>)
        UpdateWeight<Update, T>::template take_step<Update, V>(
            weights, i * weights.stride + k, load<V>(grad + i * grad_stride + k), step);
  }
};

template <class T>
struct UpdateCalls {
  void (*weight)(int64_t units, int64_t features, int64_t rows, const T* grad_z,
                 int64_t grad_stride, ListedRows<T> x, const Weights<T>& weights, T* aside,
                 const UpdateStep<T>& step);
  void (*from_gradient)(int64_t rows, int64_t columns, const T* grad, int64_t grad_stride,
                        const Weights<T>& weights, const UpdateStep<T>& step);
  int slots;
};

template <class T>
UpdateCalls<T> update_calls(int64_t place) {
  UpdateCalls<T> calls{};
  Updates::with(place, [&](auto update) {
    using U = decltype(update);
    calls.weight = [](int64_t units, int64_t features, int64_t rows, const T* grad_z,
                      int64_t grad_stride, ListedRows<T> x, const Weights<T>& weights, T* aside,
                      const UpdateStep<T>& step) {
      run<UpdateWeight<U, T>>(units, features, rows, grad_z, grad_stride, x, weights, aside, step);
    };
    calls.from_gradient = [](int64_t rows, int64_t columns, const T* grad, int64_t grad_stride,
                             const Weights<T>& weights, const UpdateStep<T>& step) {
      run<UpdateFromGradient<U, T>>(rows, columns, grad, grad_stride, weights, step);
    };
    calls.slots = U::slots;
  });
  return calls;
}

// Returns sum of scale * l(a, y) and replaces a by scale * dl/da, for count elements.
template <class Loss, class T>
struct LossKernel {
  template <class Isa>
  static TORCHNN_FN void run(T* const& a, const T* const& y, const T* const& scale, int64_t count,
                             T* const& total) {
    using V = Vector<T, Isa::vector_bytes>;
    V values{};
    for (int64_t i = 0; i < count; i += lanes<V>) {  // the arrays are padded to whole registers
      const V output = load<V>(a + i), target = load<V>(y + i), factor = load<V>(scale + i);
      values += factor * Loss::value(output, target);
      store(a + i, factor * Loss::gradient(output, target));
    }
    *total = sum(values);
  }
};

template <class T>
using LossCall = void (*)(T* a, const T* y, const T* scale, int64_t count, T* total);

template <class T>
LossCall<T> loss_call(int64_t place) {
  LossCall<T> call = nullptr;
  Losses::with(place, [&](auto loss) {
    call = [](T* a, const T* y, const T* scale, int64_t count, T* total) {
      run<LossKernel<decltype(loss), T>>(a, y, scale, count, total);
    };
  });
  return call;
}

// ---- the network: weights and activations padded to whole registers, so that no tile has a tail
// ----

template <class T>
class Network {
 public:
  explicit Network(const Train<T>& job)
      : job_(job), update_(update_calls<T>(job.update)), loss_(loss_call<T>(job.loss)) {
    const int64_t lanes = vector_bytes() / int64_t(sizeof(T));
    auto padded = [&](int64_t n) { return (n + lanes - 1) / lanes * lanes; };
    batch_ = std::min(job.batch_size, job.samples);
    layers_.resize(job.layer_count);
    for (int64_t l = 0; l < job.layer_count; ++l) {
      Layer& layer = layers_[l];
      static_cast<TrainLayer<T>&>(layer) = job.layers[l];
      layer.is_last = l + 1 == job.layer_count;
      layer.in_stride = padded(layer.in_features);
      // The last layer's outputs lie densely, so that the loss runs over whole registers.
      layer.out_stride = layer.is_last ? layer.units : odd_lines(padded(layer.units));
      // Beyond half of a second-level cache of 512 KB, a packed product is faster.
      layer.is_large = layer.units * layer.in_stride * int64_t(sizeof(T)) > 256 * 1024;
      layer.inputs_stride = l > 0 ? layers_[l - 1].out_stride : layer.in_stride;
      layer.calls = activation_calls<T>(layer.activation);
    }
    allocate(padded);
    each_weight([](T* user, int64_t rows, int64_t columns, T* own, int64_t stride) {
      for (int64_t i = 0; i < rows; ++i)
        std::copy(user + i * columns, user + (i + 1) * columns, own + i * stride);
    });
  }

  void write_back() {
    each_weight([](T* user, int64_t rows, int64_t columns, T* own, int64_t stride) {
      for (int64_t i = 0; i < rows; ++i)
        std::copy(own + i * stride, own + i * stride + columns, user + i * columns);
    });
  }

  // One step of gradient descent on some rows, from the begin-th in order on.
  void step(int64_t number, int64_t begin, int64_t rows) {
    const UpdateStep<T> update(job_.options, job_.learning_rates[number],
                               job_.steps_before + number + 1);
    Layer& last = layers_.back();
    // 1. fetch the batch
    fetch_inputs(begin, rows);
    fetch_targets(begin, rows);
    // 2. forward: a = activation(x @ weight.T + bias), layer by layer
    for (Layer& layer : layers_) forward(layer, rows);
    // 3. loss, and its derivative with respect to the outputs
    if (job_.predictions)
      std::copy(last.out, last.out + rows * last.units,
                job_.predictions + number * job_.batch_size * last.units);
    if (last.calls.forward) std::copy(last.out, last.out + rows * last.units, last.grad);
    T* grad = last.calls.forward ? last.grad : last.out;
    loss_(grad, targets_, scales_, rows * last.units, &job_.losses[number]);
    if (last.calls.forward) last.calls.backward(grad, last.out, grad, rows * last.units);
    // 4. backward: grad_z of each layer from that of the next, then update weight and bias
    for (int64_t l = job_.layer_count - 1; l >= 0; --l) {
      Layer& layer = layers_[l];
      if (l > 0) backward_x(layer, grad, layers_[l - 1], rows);
      update_layer(layer, grad, rows, update);
      if (l > 0) grad = layers_[l - 1].grad;
    }
  }

  // The network's output for the same.
  void predict(int64_t begin, int64_t rows, T* to) {
    fetch_inputs(begin, rows);
    for (Layer& layer : layers_) forward(layer, rows);
    std::copy(layers_.back().out, layers_.back().out + rows * layers_.back().units, to);
  }

 private:
  struct Layer : TrainLayer<T> {
    bool is_last, is_large;
    int64_t in_stride, out_stride, inputs_stride;
    ActivationCalls<T> calls;
    const T** inputs;  // (batch): where each row of x begins
    T* out;            // (batch, out_stride)
    T* grad;           // (batch, out_stride): grad_z
    Weights<T> w;      // (units, in_stride)
    Weights<T> b;      // (1, units)
    T* grad_bias;
    T* aside;  // (units, in_stride), for large batches
  };

  // Long rows lie an odd number of cache lines apart, or they would fall into the same few sets of
  // the cache.
  static int64_t odd_lines(int64_t padded) {
    const int64_t line = 64 / sizeof(T), lines = (padded + line - 1) / line;
    return lines < 4 ? padded : (lines | 1) * line;
  }

  template <class Padded>
  void allocate(const Padded& padded) {
    // Twice over the same list: first for the size, then for the places.
    for (bool measuring : {true, false}) {
      T* next = measuring ? nullptr : memory_.get(size_);
      if (!measuring) std::fill(next, next + size_, T(0));
      int64_t used = 0;
      auto take = [&](int64_t count) {
        T* place = measuring ? nullptr : next + used;
        used += padded(count) + 64 / sizeof(T);
        return place;
      };
      for (Layer& layer : layers_) {
        layer.w = {take(layer.units * layer.in_stride), {}, layer.in_stride};
        layer.b = {take(layer.units), {}, padded(layer.units)};
        for (int s = 0; s < update_.slots; ++s) {
          layer.w.slots[s] = take(layer.units * layer.in_stride);
          layer.b.slots[s] = take(layer.units);
        }
        layer.out = take(batch_ * layer.out_stride);
        layer.grad = take(batch_ * layer.out_stride);
        layer.grad_bias = take(layer.units);
        layer.aside = batch_ > UpdateWeight<GradientDescent, T>::chunk
                          ? take(layer.units * layer.in_stride)
                          : nullptr;
      }
      targets_ = take(batch_ * layers_.back().units);
      scales_ = take(batch_ * layers_.back().units);
      if (is_copied()) copied_ = take(batch_ * layers_.front().in_stride);
      size_ = used;
    }
    rows_.resize(job_.layer_count * batch_);
    for (int64_t l = 0; l < job_.layer_count; ++l) {
      layers_[l].inputs = rows_.data() + l * batch_;
      for (int64_t i = 0; i < batch_ && l > 0; ++i)
        layers_[l].inputs[i] = layers_[l - 1].out + i * layers_[l - 1].out_stride;
    }
  }

  // Inputs are read where they lie if their rows are whole registers, one by one.
  bool is_copied() const {
    const Layer& first = layers_.front();
    return first.in_stride != first.in_features || first.is_large;
  }

  template <class Copy>
  void each_weight(const Copy& copy) {
    for (Layer& layer : layers_) {
      copy(layer.weight, layer.units, layer.in_features, layer.w.values, layer.in_stride);
      if (layer.bias) copy(layer.bias, 1, layer.units, layer.b.values, layer.units);
      for (int s = 0; s < update_.slots; ++s) {
        copy(layer.weight_slots[s], layer.units, layer.in_features, layer.w.slots[s],
             layer.in_stride);
        if (layer.bias) copy(layer.bias_slots[s], 1, layer.units, layer.b.slots[s], layer.units);
      }
    }
  }

  int64_t row_of(int64_t i) const { return job_.order ? job_.order[i] : i; }

  void fetch_inputs(int64_t begin, int64_t rows) {
    Layer& first = layers_.front();
    for (int64_t i = 0; i < rows; ++i) {
      const T* row = job_.x + row_of(begin + i) * job_.x_stride;
      if (is_copied()) {
        T* to = copied_ + i * first.in_stride;
        std::copy(row, row + first.in_features, to);
        row = to;
      }
      first.inputs[i] = row;
    }
  }

  // Also each output's share in the loss: weight / (rows * units), and 0 beyond the last row.
  void fetch_targets(int64_t begin, int64_t rows) {
    const int64_t units = layers_.back().units, count = rows * units;
    const T share = T(1) / T(count);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = row_of(begin + i);
      const T weight = job_.sample_weight ? job_.sample_weight[row] * share : share;
      for (int64_t j = 0; j < units; ++j) {
        targets_[i * units + j] = job_.y[row * units + j];
        scales_[i * units + j] = weight;
      }
    }
    std::fill(scales_ + count, scales_ + batch_ * units, T(0));
  }

  void forward(Layer& layer, int64_t rows) {
    share(layer.units, rows * layer.units * layer.in_features, [&](int64_t begin, int64_t end) {
      const T* weight = layer.w.values + begin * layer.in_stride;
      const T* bias = layer.bias ? layer.b.values + begin : nullptr;
      T* out = layer.out + begin;
      if (!layer.is_large)
        return run<DotKernel<T>>(rows, end - begin, layer.in_stride, ListedRows<T>{layer.inputs},
                                 weight, bias, out, layer.out_stride);
      multiply(Product<T>{
          .rows = rows,
          .columns = end - begin,
          .depth = layer.in_features,
          .a = {layer.inputs[0], layer.inputs_stride, 1},
          .b = {weight, 1, layer.in_stride},
          .bias = bias,
          .c = out,
          .c_stride = layer.out_stride,
          .finish = nullptr,
      });
    });
    if (!layer.calls.forward) return;
    layer.calls.forward(layer.out, 1, rows * layer.out_stride, rows * layer.out_stride);
    if (layer.is_last) return;
    for (int64_t i = 0; i < rows; ++i)  // the padding is an input of the next layer: keep it zero
      std::fill(layer.out + i * layer.out_stride + layer.units,
                layer.out + (i + 1) * layer.out_stride, T(0));
  }

  // grad_z of the layer before: (grad_z @ weight) * da/dz
  void backward_x(const Layer& layer, const T* grad, Layer& before, int64_t rows) {
    share(layer.in_features, rows * layer.units * layer.in_features,
          [&](int64_t begin, int64_t end) {
            multiply(Product<T>{
                .rows = rows,
                .columns = end - begin,
                .depth = layer.units,
                .a = {grad, layer.out_stride, 1},
                .b = {layer.w.values + begin, layer.in_stride, 1},
                .bias = nullptr,
                .c = before.grad + begin,
                .c_stride = before.out_stride,
                .finish = nullptr,
            });
          });
    before.calls.backward(before.grad, before.out, before.grad, rows * before.out_stride);
  }

  void update_layer(Layer& layer, const T* grad, int64_t rows, const UpdateStep<T>& step) {
    share(layer.units, rows * layer.units * layer.in_features, [&](int64_t begin, int64_t end) {
      update_.weight(end - begin, layer.in_stride, rows, grad + begin, layer.out_stride,
                     ListedRows<T>{layer.inputs}, layer.w.from_row(begin),
                     layer.aside ? layer.aside + begin * layer.in_stride : nullptr, step);
    });
    if (!layer.bias) return;
    std::fill(layer.grad_bias, layer.grad_bias + layer.units, T(0));
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t n = 0; n < layer.units; ++n)
        layer.grad_bias[n] += grad[i * layer.out_stride + n];
    update_.from_gradient(1, layer.units, layer.grad_bias, 0, layer.b, step);
  }

  // Calls f(begin, end) for all of count, in parts on several threads if the work repays waking
  // them.
  template <class F>
  void share(int64_t count, int64_t products, const F& f) const {
    constexpr int64_t serial = 1 << 20;  // products a thread: 10 to 20 us
    constexpr int64_t multiple = 12;     // whole register tiles
    const int64_t most = std::min(job_.threads, products / serial);
    const int64_t parts = std::min(most, count / multiple);
    if (parts <= 1) return f(0, count);
    const int64_t size = ((count + parts - 1) / parts + multiple - 1) / multiple * multiple;
    auto part = [&](int64_t i) { f(std::min(i * size, count), std::min((i + 1) * size, count)); };
    job_.parallel(
        parts, [](void* context, int64_t i) { (*static_cast<decltype(part)*>(context))(i); },
        &part);
  }

  const Train<T>& job_;
  UpdateCalls<T> update_;
  LossCall<T> loss_;
  int64_t batch_, size_ = 0;
  std::vector<Layer> layers_;
  std::vector<const T*> rows_;
  Scratch<T> memory_;
  T *targets_, *scales_, *copied_ = nullptr;
};

}  // namespace

template <class T>
void train(const Train<T>& job) {
  Network<T> network(job);
  for (int64_t begin = 0, number = 0; begin < job.samples; begin += job.batch_size, ++number) {
    network.step(number, begin, std::min(job.batch_size, job.samples - begin));
    std::atomic_ref<int64_t>(*job.steps_done).fetch_add(1, std::memory_order_relaxed);
  }
  network.write_back();
}

template <class T>
void predict(const Train<T>& job) {
  Network<T> network(job);
  const int64_t units = job.layers[job.layer_count - 1].units;
  for (int64_t begin = 0; begin < job.samples; begin += job.batch_size)
    network.predict(begin, std::min(job.batch_size, job.samples - begin),
                    job.predictions + begin * units);
}

template void train(const Train<float>&);
template void train(const Train<double>&);
template void predict(const Train<float>&);
template void predict(const Train<double>&);

}  // namespace torchnn::cpu
