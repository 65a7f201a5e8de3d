#include "train_kernels.h"

#include <algorithm>

#include "../math/loss.h"
#include "simd/dot.h"
#include "simd/isa.h"
#include "simd/transpose.h"

namespace torchnn::cpu {
namespace {

template <class Isa, class T>
using Register = Vector<T, Isa::vector_bytes>;

// ---- tiles ----

// How n rows are cut into tiles of at most `most` rows, as even as they come: 25 are 13 and 12.
struct EvenTiles {
  int64_t n, count;
  EvenTiles(int64_t n, int64_t most) : n(n), count((n + most - 1) / most) {}
  int64_t begin(int64_t tile) const { return n * tile / count; }
};

// Calls f.template run<height>() with height known to the compiler.
template <int most, class F>
TORCHNN_FN void with_height(int64_t height, const F& f) {
  if constexpr (most > 0) {
    if (height == most)
      f.template run<most>();
    else
      with_height<most - 1>(height, f);
  }
}

// A tile of a @ b, `height` rows and `registers` registers, summed in registers.
template <class V, int height, int registers>
struct Sums {
  V sum[height][registers] = {};

  template <class Column, class Rows>
  TORCHNN_FN void add(int64_t depth, Column a, const Rows& b, int64_t offset) {
    for (int64_t k = 0; k < depth; ++k, a.next()) {
      const auto* row = b(k) + offset;
      V part[registers];
#pragma GCC unroll 4
      for (int j = 0; j < registers; ++j) part[j] = load<V>(row + j * lanes<V>);
#pragma GCC unroll 16
      for (int i = 0; i < height; ++i) {
        const Element<V> factor = a[i];
#pragma GCC unroll 4
        for (int j = 0; j < registers; ++j) sum[i][j] += factor * part[j];
      }
    }
  }
};

// ---- products ----

template <class Isa, class T, int registers>
struct ProductTile {
  const SmallProduct<T>& p;
  int64_t row, column, k, depth;

  template <int height>
  TORCHNN_FN void run() const {
    using V = Register<Isa, T>;
    const T* a = p.a + row * p.a_stride + k * p.a_step;
    const StridedRows<T> b{p.b + k * p.b_stride, p.b_stride};
    Sums<V, height, registers> sums;
    if (p.a_step == 1)
      sums.add(depth, StridedColumn<T, height>(a, p.a_stride), b, column);
    else
      sums.add(depth, DenseColumn<T>{a, p.a_step}, b, column);
    T* c = p.c + row * p.c_stride + column;
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i) {
      const T bias = p.bias ? p.bias[row + i] : T(0);
#pragma GCC unroll 4
      for (int j = 0; j < registers; ++j) {
        T* to = c + i * p.c_stride + j * lanes<V>;
        // Added last, so that a rounding error grows with the part of the depth.
        store<V>(to, sums.sum[i][j] + (k == 0 ? V{} + bias : load<V>(to)));
      }
    }
  }
};

template <class T>
struct MultiplySmall {
  template <class Isa>
  static TORCHNN_FN void run(const SmallProduct<T>& p) {
    constexpr int64_t most_depth = 256;  // 32 KB of b, in registers two wide: what fits close by
    constexpr int64_t width = lanes<Register<Isa, T>>;
    const EvenTiles depths(p.depth, most_depth), tiles(p.rows, Isa::small_tile_rows);
    for (int64_t d = 0; d < depths.count; ++d)
      for (int64_t t = 0; t < tiles.count; ++t) {
        const int64_t row = tiles.begin(t), height = tiles.begin(t + 1) - row;
        const int64_t k = depths.begin(d), depth = depths.begin(d + 1) - k;
        int64_t column = 0;
        for (; column + 2 * width <= p.columns; column += 2 * width)
          with_height<Isa::small_tile_rows>(height,
                                            ProductTile<Isa, T, 2>{p, row, column, k, depth});
        if (column < p.columns)
          with_height<Isa::small_tile_rows>(height,
                                            ProductTile<Isa, T, 1>{p, row, column, k, depth});
      }
  }
};

template <class T, class Rows>
struct MultiplyRows {
  template <class Isa>
  static TORCHNN_FN void run(int64_t rows, int64_t units, int64_t depth, const Rows& x,
                             const T* const& weight, int64_t weight_stride, const T* const& bias,
                             T* const& out, int64_t out_stride) {
    Dot<Isa, T>::multiply(rows, units, depth, x, weight, weight_stride, bias, out, out_stride);
  }
};

template <class T, class Rows>
struct Transpose {
  template <class Isa>
  static TORCHNN_FN void run(int64_t rows, int64_t columns, const Rows& from, T* const& to,
                             int64_t to_stride) {
    using InRegisters = Square<Register<Isa, T>>;
    for (int64_t k = 0; k < columns; k += InRegisters::side)
      for (int64_t i = 0; i < rows; i += InRegisters::side)
        InRegisters::transpose(Part{from, i, k}, to + k * to_stride + i, to_stride);
  }

  struct Part {
    const Rows& from;
    int64_t row, column;
    TORCHNN_FN const T* operator()(int64_t i) const { return from(row + i) + column; }
  };
};

template <class T>
struct AddUp {
  template <class Isa>
  static TORCHNN_FN void run(int64_t count, int64_t term, int64_t rows, int64_t columns,
                             int64_t stride, const T* const& terms, T* const& sum) {
    using V = Register<Isa, T>;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t at = row * stride; at < row * stride + columns; at += lanes<V>) {
        V total = load<V>(terms + at);
        for (int64_t i = 1; i < count; ++i) total += load<V>(terms + i * term + at);
        store(sum + at, total);
      }
  }
};

// ---- updates ----

// Registers of a parameter take the step that their gradient calls for.
template <class Rule, class V, class T>
TORCHNN_FN void take_step(const Parameter<T>& parameter, int64_t at, V gradient,
                          const UpdateStep<T>& step) {
  V w = load<V>(parameter.values + at) * step.decay, slots[most_slots];
#pragma GCC unroll 2
  for (int s = 0; s < Rule::slots; ++s) slots[s] = load<V>(parameter.slots[s] + at);
  Rule::apply(w, slots, gradient, step);
  store(parameter.values + at, w);
#pragma GCC unroll 2
  for (int s = 0; s < Rule::slots; ++s) store(parameter.slots[s] + at, slots[s]);
}

// The same for a rectangle whose gradient has been put aside.
template <class Rule, class T>
struct TakeSteps {
  template <class Isa>
  static TORCHNN_FN void run(const Parameter<T>& parameter, const T* const& gradient, int64_t at,
                             int64_t rows, int64_t columns, const UpdateStep<T>& step) {
    using V = Register<Isa, T>;
    for (int64_t i = 0; i < rows; ++i, at += parameter.stride)
      for (int64_t k = 0; k < columns; k += lanes<V>)
        take_step<Rule>(parameter, at + k, load<V>(gradient + at + k), step);
  }
};

template <class T>
void take_steps(int64_t update, const Parameter<T>& parameter, const T* gradient, int64_t at,
                int64_t rows, int64_t columns, const UpdateStep<T>& step) {
  Updates::with(update, [&](auto rule) {
    run<TakeSteps<decltype(rule), T>>(parameter, gradient, at, rows, columns, step);
  });
}

template <class Isa, class T, class Rows, int registers>
struct UpdateTile {
  const LayerUpdate<T>& layer;
  const Rows& x;
  int64_t unit, feature;

  template <int height>
  TORCHNN_FN void run() const {
    using V = Register<Isa, T>;
    Sums<V, height, registers> sums;
    sums.add(layer.rows, DenseColumn<T>{layer.grad + unit, layer.grad_stride}, x, feature);
    // Gradient descent remembers nothing and is done at once; a rule with slots goes over what has
    // been put aside, which is in the cache.
    const bool at_once = layer.is_last && layer.update == Updates::place<GradientDescent>();
    const int64_t first = unit * layer.weight.stride + feature;
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < registers; ++j) {
        const int64_t at = first + i * layer.weight.stride + j * lanes<V>;
        V gradient = sums.sum[i][j];
        if (!layer.is_first) gradient += load<V>(layer.weight_gradient + at);
        if (at_once)
          take_step<GradientDescent>(layer.weight, at, gradient, layer.step);
        else
          store(layer.weight_gradient + at, gradient);
      }
    if (layer.is_last && !at_once)
      take_steps<T>(layer.update, layer.weight, layer.weight_gradient, first, height,
                    registers * lanes<V>, layer.step);
  }
};

template <class T, class Rows>
struct UpdateTiles {
  template <class Isa>
  static TORCHNN_FN void run(const LayerUpdate<T>& layer, const Rows& x, int64_t begin,
                             int64_t end) {
    constexpr int64_t width = lanes<Register<Isa, T>>;
    const EvenTiles tiles(layer.units, Isa::small_tile_rows);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t feature = tile / tiles.count * 2 * width, t = tile % tiles.count;
      const int64_t unit = tiles.begin(t), height = tiles.begin(t + 1) - unit;
      for (int64_t i = t; i < layer.next_rows; i += tiles.count) {
        __builtin_prefetch(layer.next_x[i] + feature, 0, 2);
        __builtin_prefetch(layer.next_x[i] + feature + width, 0, 2);
      }
      if (feature + width < layer.in_features)
        with_height<Isa::small_tile_rows>(height,
                                          UpdateTile<Isa, T, Rows, 2>{layer, x, unit, feature});
      else
        with_height<Isa::small_tile_rows>(height,
                                          UpdateTile<Isa, T, Rows, 1>{layer, x, unit, feature});
      if (tile == 0 && layer.has_bias) update_bias<Isa>(layer);
    }
  }

  template <class Isa>
  static TORCHNN_FN void update_bias(const LayerUpdate<T>& layer) {
    using V = Register<Isa, T>;
    for (int64_t unit = 0; unit < layer.units; unit += lanes<V>) {
      V sum = layer.is_first ? V{} : load<V>(layer.bias_gradient + unit);
      const T* grad = layer.grad + unit;
      for (int64_t row = 0; row < layer.rows; ++row, grad += layer.grad_stride)
        sum += load<V>(grad);
      store(layer.bias_gradient + unit, sum);
    }
    if (layer.is_last)
      take_steps<T>(layer.update, layer.bias, layer.bias_gradient, 0, 1, layer.bias.stride,
                    layer.step);
  }
};

template <class T>
struct TileShape {
  int64_t units, features;
  template <class Isa>
  static TORCHNN_FN void run(TileShape* const& shape) {
    *shape = {Isa::small_tile_rows, 2 * lanes<Register<Isa, T>>};
  }
  static TileShape get() {
    TileShape shape;
    torchnn::cpu::run<TileShape>(&shape);
    return shape;
  }
};

// ---- losses ----

template <class Loss, class T>
struct MeasureLoss {
  template <class Isa>
  static TORCHNN_FN void run(const LossOfOutputs<T>& o) {
    using V = Register<Isa, T>;
    for (int64_t row = 0; row < o.columns; row += lanes<V>) {
      const V scale = load<V>(o.scales + row);
      V value{};
      for (int64_t at = row; at < o.units * o.stride; at += o.stride) {
        const V output = load<V>(o.out + at), target = load<V>(o.targets + at);
        value += scale * Loss::value(output, target);
        store(o.grad + at, scale * Loss::gradient(output, target));
      }
      store(o.values + row, value);
    }
  }
};

}  // namespace

template <class T>
void multiply(const SmallProduct<T>& product) {
  run<MultiplySmall<T>>(product);
}

template <class T, class Rows>
void multiply_rows(int64_t rows, int64_t units, int64_t depth, const Rows& x, const T* weight,
                   int64_t weight_stride, const T* bias, T* out, int64_t out_stride) {
  run<MultiplyRows<T, Rows>>(rows, units, depth, x, weight, weight_stride, bias, out, out_stride);
}

template <class T, class Rows>
void transpose(int64_t rows, int64_t columns, const Rows& from, T* to, int64_t to_stride) {
  run<Transpose<T, Rows>>(rows, columns, from, to, to_stride);
}

template <class T>
void add_up(int64_t count, int64_t term, int64_t rows, int64_t columns, int64_t stride,
            const T* terms, T* sum) {
  run<AddUp<T>>(count, term, rows, columns, stride, terms, sum);
}

template <class T>
int64_t block_features() {
  return TileShape<T>::get().features;
}

template <class T>
int64_t update_tile_count(int64_t units, int64_t in_features) {
  const auto shape = TileShape<T>::get();
  return EvenTiles(units, shape.units).count * EvenTiles(in_features, shape.features).count;
}

template <class T, class Rows>
void update_tiles(const LayerUpdate<T>& layer, const Rows& x, int64_t begin, int64_t end) {
  if (begin < end) run<UpdateTiles<T, Rows>>(layer, x, begin, end);
}

template <class T>
void measure_loss(const LossOfOutputs<T>& outputs) {
  Losses::with(outputs.loss, [&](auto loss) { run<MeasureLoss<decltype(loss), T>>(outputs); });
}

#define TORCHNN_INSTANTIATE(T)                                                                     \
  template void multiply(const SmallProduct<T>&);                                                  \
  template void multiply_rows(int64_t, int64_t, int64_t, const ListedRows<T>&, const T*, int64_t,  \
                              const T*, T*, int64_t);                                              \
  template void multiply_rows(int64_t, int64_t, int64_t, const StridedRows<T>&, const T*, int64_t, \
                              const T*, T*, int64_t);                                              \
  template void transpose(int64_t, int64_t, const ListedRows<T>&, T*, int64_t);                    \
  template void transpose(int64_t, int64_t, const StridedRows<T>&, T*, int64_t);                   \
  template void add_up(int64_t, int64_t, int64_t, int64_t, int64_t, const T*, T*);                 \
  template int64_t block_features<T>();                                                            \
  template int64_t update_tile_count<T>(int64_t, int64_t);                                         \
  template void update_tiles(const LayerUpdate<T>&, const ListedRows<T>&, int64_t, int64_t);       \
  template void update_tiles(const LayerUpdate<T>&, const StridedRows<T>&, int64_t, int64_t);      \
  template void measure_loss(const LossOfOutputs<T>&);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)

}  // namespace torchnn::cpu
