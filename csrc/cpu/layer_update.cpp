#include "layer_update.h"

#include "elementwise.h"
#include "simd/isa.h"
#include "simd/step.h"
#include "simd/tile.h"

namespace torchnn::cpu {
namespace {

// Whether a gradient is more than that of the loss.
template <class T>
TORCHNN_FN bool is_adjusted(const Parameter<T>& parameter, const UpdateStep<T>& step) {
  return parameter.penalty || parameter.scale != 1 || step.clip_value < T(INFINITY);
}

template <class V, class T>
TORCHNN_FN V adjusted(V gradient, const Parameter<T>& parameter, int64_t at,
                      const UpdateStep<T>& step) {
  return adjusted(gradient, load<V>(parameter.values + at), parameter.penalty, parameter.scale,
                  step);
}

// Steps of a rectangle that begins at `at`, and whose gradient is known.
template <class Rule, class T>
struct TakeSteps {
  template <class Isa>
  static TORCHNN_FN void run(const Parameter<T>& parameter, int64_t at, int64_t rows,
                             int64_t columns, const T* const& gradient, int64_t gradient_stride,
                             const UpdateStep<T>& step) {
    using V = Register<Isa, T>;
    const bool adjusts = is_adjusted(parameter, step);
    for (int64_t i = 0; i < rows; ++i, at += parameter.stride)
      for (int64_t k = 0; k < columns; k += lanes<V>) {
        V grad = load<V>(gradient + i * gradient_stride + k);
        if (adjusts) grad = adjusted(grad, parameter, at + k, step);
        take_step<Rule>(parameter, at + k, grad, step);
      }
  }
};

template <class T>
void take_steps(int64_t update, const Parameter<T>& parameter, int64_t at, int64_t rows,
                int64_t columns, const T* gradient, int64_t gradient_stride,
                const UpdateStep<T>& step) {
  Updates::with(update, [&](auto rule) {
    run<TakeSteps<decltype(rule), T>>(parameter, at, rows, columns, gradient, gradient_stride,
                                      step);
  });
}

// How a layer's weights take a step, decided once for all tiles.
template <class T>
struct Manner {
  // Plain gradient descent remembers nothing and is done at once; what needs more goes over what
  // has been put aside, which is in the cache.
  bool at_once, adjusts;
  bool is_plain;  // at once, and with nothing but the sum of the tile

  explicit Manner(const LayerUpdate<T>& layer)
      : at_once(layer.step && layer.update == Updates::place<GradientDescent>()),
        adjusts(at_once && is_adjusted(layer.weight, *layer.step)),
        is_plain(at_once && layer.is_first && !adjusts) {}
};

template <class Isa, class T, class Rows, int registers>
struct UpdateTile {
  const LayerUpdate<T>& layer;
  const Rows& x;
  const Manner<T>& manner;
  int64_t unit, feature;

  template <int height>
  TORCHNN_FN void run() const {
    using V = Register<Isa, T>;
    Tile<V, height, registers> tile;
    const int64_t first = unit * layer.weight.stride + feature;
    if (layer.is_far) fetch(first, height);  // all is wanted when the sums are there
    const T* grad = layer.grad + unit * layer.grad_stride;
    if (layer.grad_step == 1)
      tile.accumulate(layer.rows, StridedColumn<T, height>(grad, layer.grad_stride), x, feature);
    else
      tile.accumulate(layer.rows, DenseColumn<T>{grad, layer.grad_step}, x, feature);
    if (manner.is_plain) {
      const UpdateStep<T> step = *layer.step;  // a copy: what is stored cannot change it
#pragma GCC unroll 16
      for (int i = 0; i < height; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < registers; ++j)
          take_step<GradientDescent>(layer.weight, first + i * layer.weight.stride + j * lanes<V>,
                                     tile.sum[i][j], step);
      return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < registers; ++j) {
        const int64_t at = first + i * layer.weight.stride + j * lanes<V>;
        V gradient = tile.sum[i][j];
        if (!layer.is_first) gradient += load<V>(layer.weight_gradient + at);
        if (manner.adjusts) gradient = adjusted(gradient, layer.weight, at, *layer.step);
        if (manner.at_once)
          take_step<GradientDescent>(layer.weight, at, gradient, *layer.step);
        else
          store(layer.weight_gradient + at, gradient);
      }
  }

  TORCHNN_FN void fetch(int64_t first, int64_t height) const {
    for (int64_t i = 0; i < height; ++i) {
      const int64_t at = first + i * layer.weight.stride;
      __builtin_prefetch(layer.weight.values + at, 1, 3);
      if (manner.is_plain) continue;
      __builtin_prefetch(layer.weight_gradient + at, 1, 3);
      for (int64_t s = 0; s < layer.slot_count; ++s)
        __builtin_prefetch(layer.weight.slots[s] + at, 1, 3);
    }
  }
};

template <class T>
struct UpdateBias {
  template <class Isa>
  static TORCHNN_FN void run(const LayerUpdate<T>& layer) {
    for (int64_t unit = 0; unit < layer.units; ++unit) {
      const T sum = sum_over_rows<Isa>(layer, layer.grad + unit * layer.grad_stride);
      layer.bias_gradient[unit] = layer.is_first ? sum : layer.bias_gradient[unit] + sum;
    }
    if (layer.step)
      take_steps<T>(layer.update, layer.bias, 0, 1, layer.bias.stride, layer.bias_gradient, 0,
                    *layer.step);
  }

  // grad: that of a unit in the first row.
  template <class Isa>
  static TORCHNN_FN T sum_over_rows(const LayerUpdate<T>& layer, const T* grad) {
    using V = Register<Isa, T>;
    if (layer.grad_step != 1) {  // a few rows
      T sum = 0;
      for (int64_t row = 0; row < layer.rows; ++row) sum += grad[row * layer.grad_step];
      return sum;
    }
    V sum{};
    int64_t row = 0;
    for (; row + lanes<V> <= layer.rows; row += lanes<V>) sum += load<V>(grad + row);
    if (row < layer.rows) sum += load_part<V>(grad + row, layer.rows - row);
    return torchnn::sum(sum);
  }
};

template <class T, class Rows>
struct UpdateTiles {
  template <class Isa>
  static TORCHNN_FN void run(const LayerUpdate<T>& layer, const Rows& x, int64_t begin,
                             int64_t end) {
    constexpr int64_t width = lanes<Register<Isa, T>>;
    constexpr int64_t many = 128;  // units, of which all that a rule needs is in the nearest cache
    const EvenTiles tiles(layer.units, Isa::small_tile_rows);
    const Manner<T> manner(layer);
    int64_t feature = begin / tiles.count * 2 * width, t = begin % tiles.count;
    int64_t waiting = tiles.begin(t);  // for their step: units from here on
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t unit = tiles.begin(t), height = tiles.begin(t + 1) - unit;
      for (int64_t i = t; i < layer.next_rows; i += tiles.count)
        for (int64_t k = 0; k < 2 * width; k += 64 / int64_t(sizeof(T)))  // each cache line
          __builtin_prefetch(layer.next_x[i] + feature + k, 0, 2);
      const bool is_whole = feature + width < layer.in_features;
      if (is_whole)
        with_height<Isa::small_tile_rows>(
            height, UpdateTile<Isa, T, Rows, 2>{layer, x, manner, unit, feature});
      else
        with_height<Isa::small_tile_rows>(
            height, UpdateTile<Isa, T, Rows, 1>{layer, x, manner, unit, feature});
      if (tile == 0 && layer.has_bias) UpdateBias<T>::template run<Isa>(layer);
      const int64_t units = unit + height - waiting;
      if (layer.step && !manner.at_once &&
          (units >= many || t + 1 == tiles.count || tile + 1 == end)) {
        const int64_t at = waiting * layer.weight.stride + feature;
        take_steps<T>(layer.update, layer.weight, at, units, is_whole ? 2 * width : width,
                      layer.weight_gradient + at, layer.weight.stride, *layer.step);
        waiting = unit + height;
      }
      if (++t == tiles.count) t = 0, feature += 2 * width, waiting = 0;
    }
  }
};

// The sum over all of a parameter of term(w, gradient), which is 0 where both are; row by row, each
// in one order.
template <class Term, class T>
struct SumUp {
  template <class Isa>
  static TORCHNN_FN void run(const Parameter<T>& parameter, const T* const& gradient, int64_t rows,
                             T* const& sum) {
    using V = Register<Isa, T>;
    V sums{};
    for (int64_t i = 0; i < rows * parameter.stride; i += lanes<V>)
      sums += Term::of(parameter, load<V>(parameter.values + i),
                       gradient ? load<V>(gradient + i) : V{});
    *sum = torchnn::sum(sums);
  }
};

struct PenaltyOf {
  template <class V, class T>
  static TORCHNN_FN V of(const Parameter<T>& parameter, V w, V) {
    return parameter.penalty.value(w);
  }
};

struct SquareOf {
  template <class V, class T>
  static TORCHNN_FN V of(const Parameter<T>& parameter, V w, V gradient) {
    const V all = gradient + parameter.penalty.gradient(w);
    return all * all;
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

}  // namespace

template <class T>
T penalty_of(const Parameter<T>& parameter, int64_t rows) {
  T sum = 0;
  const T* const none = nullptr;
  if (parameter.penalty) run<SumUp<PenaltyOf, T>>(parameter, none, rows, &sum);
  return sum;
}

template <class T>
T squared_norm(const Parameter<T>& parameter, const T* gradient, int64_t rows) {
  T sum;
  run<SumUp<SquareOf, T>>(parameter, gradient, rows, &sum);
  return sum;
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

template <class T>
bool is_plain(const LayerUpdate<T>& layer) {
  return Manner<T>(layer).is_plain && layer.step->decay == 1;
}

template <class T>
void update_rectangle(const LayerUpdate<T>& layer, Range units, Range features, const T* gradient,
                      int64_t gradient_stride) {
  take_steps<T>(layer.update, layer.weight, units.begin * layer.weight.stride + features.begin,
                units.size(), features.size(), gradient, gradient_stride, *layer.step);
}

template <class T>
void update_bias(const LayerUpdate<T>& layer) {
  if (layer.has_bias) run<UpdateBias<T>>(layer);
}

template <class T, class Rows>
void update_tiles(const LayerUpdate<T>& layer, const Rows& x, int64_t begin, int64_t end) {
  if (begin < end) run<UpdateTiles<T, Rows>>(layer, x, begin, end);
}

#define TORCHNN_INSTANTIATE(T)                                                               \
  template T penalty_of(const Parameter<T>&, int64_t);                                       \
  template T squared_norm(const Parameter<T>&, const T*, int64_t);                           \
  template int64_t block_features<T>();                                                      \
  template int64_t update_tile_count<T>(int64_t, int64_t);                                   \
  template bool is_plain(const LayerUpdate<T>&);                                             \
  template void update_rectangle(const LayerUpdate<T>&, Range, Range, const T*, int64_t);    \
  template void update_bias(const LayerUpdate<T>&);                                          \
  template void update_tiles(const LayerUpdate<T>&, const ListedRows<T>&, int64_t, int64_t); \
  template void update_tiles(const LayerUpdate<T>&, const StridedRows<T>&, int64_t, int64_t);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)
#undef TORCHNN_INSTANTIATE

}  // namespace torchnn::cpu
