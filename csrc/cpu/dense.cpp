// One dense layer on the CPU. cuda/dense.cu is its twin: the same functions, order and steps.
#include "../dense.h"

#include <algorithm>
#include <cstring>

#include "../activation.h"
#include "isa.h"
#include "matmul.h"

namespace torchnn::cpu {
namespace {

// ---- elementwise: the last, partial register goes through a copy ----

template <class V>
TORCHNN_FN V load_part(const Element<V>* p, int64_t count) {
  V v{};
  std::memcpy(&v, p, count * sizeof(Element<V>));
  return v;
}

template <class Activation, class T>
struct Activate {  // a[rows, columns] = activation(a), in place
  template <class Isa>
  static TORCHNN_FN void run(T* const& first, int64_t rows, int64_t columns, int64_t stride) {
    using V = Vector<T, Isa::vector_bytes>;
    if (stride == columns) columns *= rows, rows = 1;
    for (int64_t row = 0; row < rows; ++row) {
      T* a = first + row * stride;
      int64_t i = 0;
      for (; i + lanes<V> <= columns; i += lanes<V>)
        store(a + i, Activation::forward(load<V>(a + i)));
      if (i < columns) {
        V last = Activation::forward(load_part<V>(a + i, columns - i));
        std::memcpy(a + i, &last, (columns - i) * sizeof(T));
      }
    }
  }
};

template <class Activation, class T>
struct ActivateBackward {  // grad_z[i] = grad_out[i] * da/dz(out[i]) for count elements
  template <class Isa>
  static TORCHNN_FN void run(const T* const& grad_out, const T* const& out, T* const& grad_z,
                             int64_t count) {
    using V = Vector<T, Isa::vector_bytes>;
    int64_t i = 0;
    for (; i + lanes<V> <= count; i += lanes<V>)
      store(grad_z + i, Activation::backward(load<V>(grad_out + i), load<V>(out + i)));
    if (i < count) {
      V last = Activation::backward(load_part<V>(grad_out + i, count - i),
                                    load_part<V>(out + i, count - i));
      std::memcpy(grad_z + i, &last, (count - i) * sizeof(T));
    }
  }
};

// The activation is called through a pointer, so that the matrix product is compiled once for all.
template <class T>
struct ActivationCalls {
  // Null for the identity.
  void (*forward)(T* a, int64_t rows, int64_t columns, int64_t stride);
  void (*backward)(const T* grad_out, const T* out, T* grad_z, int64_t count);
};

template <class T>
ActivationCalls<T> activation_calls(int64_t place) {
  ActivationCalls<T> calls{};
  Activations::with(place, [&](auto activation) {
    using A = decltype(activation);
    if constexpr (!std::is_same_v<A, Identity>)
      calls.forward = [](T* a, int64_t rows, int64_t columns, int64_t stride) {
        run<Activate<A, T>>(a, rows, columns, stride);
      };
    calls.backward = [](const T* grad_out, const T* out, T* grad_z, int64_t count) {
      run<ActivateBackward<A, T>>(grad_out, out, grad_z, count);
    };
  });
  return calls;
}

// ---- forward of small layers: rows of x against rows of weight, both read where they lie ----

template <class Isa, class T>
struct Dot {
  using V = Vector<T, Isa::vector_bytes>;
  using Mask = decltype(V{} < V{});

  // Keeps the lanes from `from` on.
  static TORCHNN_FN V keep_from(V v, int64_t from) {
    Mask lane;
    for (int i = 0; i < lanes<V>; ++i) lane[i] = i;
    return (V)((Mask)v & (lane >= (Mask{} + typename ExpConstants<T>::Integer(from))));
  }

  // out[r][c] = bias[c] + x[r] . weight[c] for a tile; depth is at least one register.
  template <int rows, int units>
  static TORCHNN_FN void tile(int64_t depth, const T* x, int64_t x_stride, const T* weight,
                              const T* bias, T* out, int64_t out_stride) {
    V sum[rows][units] = {};
    int64_t k = 0;
    for (; k + lanes<V> <= depth; k += lanes<V>) {
      V a[rows];
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) a[r] = load<V>(x + r * x_stride + k);
#pragma GCC unroll 8
      for (int c = 0; c < units; ++c) {
        V w = load<V>(weight + c * depth + k);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) sum[r][c] += a[r] * w;
      }
    }
    if (k < depth) {  // a register that ends at depth; its first lanes have been summed already
      const int64_t done = k - (depth - lanes<V>);
      k = depth - lanes<V>;
      V a[rows];
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) a[r] = keep_from(load<V>(x + r * x_stride + k), done);
#pragma GCC unroll 8
      for (int c = 0; c < units; ++c) {
        V w = keep_from(load<V>(weight + c * depth + k), done);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) sum[r][c] += a[r] * w;
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < units; ++c)
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r)
        out[r * out_stride + c] = torchnn::sum(sum[r][c]) + (bias ? bias[c] : T(0));
  }

  // Tiles of dot_rows x dot_units, then single units, then fewer rows.
  template <int rows>
  static TORCHNN_FN void row_tile(const DenseForward<T>& layer, int64_t row, Range units) {
    constexpr int width = Isa::dot_units;
    const T* x = layer.x + row * layer.x_stride;
    T* out = layer.out + row * layer.units;
    int64_t c = units.begin;
    for (; c + width <= units.end; c += width)
      tile<rows, width>(layer.in_features, x, layer.x_stride, layer.weight + c * layer.in_features,
                        layer.bias ? layer.bias + c : nullptr, out + c, layer.units);
    for (; c < units.end; ++c)
      tile<rows, 1>(layer.in_features, x, layer.x_stride, layer.weight + c * layer.in_features,
                    layer.bias ? layer.bias + c : nullptr, out + c, layer.units);
  }

  template <int rows>
  static TORCHNN_FN void last_rows(const DenseForward<T>& layer, Range left, Range units) {
    if constexpr (rows > 0) {
      if (left.size() == rows)
        row_tile<rows>(layer, left.begin, units);
      else
        last_rows<rows - 1>(layer, left, units);
    }
  }
};

// What may stay in half of a second-level cache of 512 KB.
template <class T>
bool is_small(int64_t rows, int64_t columns) {
  return rows * columns * int64_t(sizeof(T)) <= 256 * 1024;
}

template <class T>
struct ForwardInPlace {
  // All rows against each few units if x is the one to stay in the cache; else the other way round.
  template <class Isa>
  static TORCHNN_FN void run(const DenseForward<T>& layer, Range rows, Range units) {
    const int64_t step = is_small<T>(layer.rows, layer.in_features) ? Isa::dot_units : units.size();
    for (int64_t unit = units.begin; unit < units.end; unit += step)
      all_rows<Isa>(layer, rows, {unit, std::min(unit + step, units.end)});
  }

  template <class Isa>
  static TORCHNN_FN void all_rows(const DenseForward<T>& layer, Range rows, Range units) {
    using Dot = cpu::Dot<Isa, T>;
    int64_t row = rows.begin;
    for (; row + Isa::dot_rows <= rows.end; row += Isa::dot_rows)
      Dot::template row_tile<Isa::dot_rows>(layer, row, units);
    Dot::template last_rows<Isa::dot_rows - 1>(layer, {row, rows.end}, units);
  }
};

// The crossover between the two forwards, the one place (measured: docs/log.md). Packing is repaid
// by many rows and units; reading rows of weight where they lie needs rows long enough to bear the
// sum over a register at their end, and one operand that stays in the cache.
template <class T>
bool read_in_place(const DenseForward<T>& layer) {
  const int64_t lanes = vector_bytes() / sizeof(T);
  if (layer.in_features < lanes) return false;
  if (layer.rows <= 6 || layer.units <= 3) return true;
  return layer.in_features >= 8 * lanes && (is_small<T>(layer.rows, layer.in_features) ||
                                            is_small<T>(layer.units, layer.in_features));
}

}  // namespace

template <class T>
void dense_forward(const DenseForward<T>& layer, Range rows, Range units) {
  const auto activate = activation_calls<T>(layer.activation).forward;
  T* out = layer.out + rows.begin * layer.units + units.begin;
  if (read_in_place(layer)) {
    // 1. to 2. start from the bias, accumulate x @ weight.T
    run<ForwardInPlace<T>>(layer, rows, units);
    // 3. activate and store
    if (activate) activate(out, rows.size(), units.size(), layer.units);
    return;
  }
  multiply(Product<T>{
      .rows = rows.size(),
      .columns = units.size(),
      .depth = layer.in_features,
      .a = {layer.x + rows.begin * layer.x_stride, layer.x_stride, 1},
      .b = {layer.weight + units.begin * layer.in_features, 1, layer.in_features},
      .bias = layer.bias ? layer.bias + units.begin : nullptr,
      .c = out,
      .c_stride = layer.units,
      .finish = activate,
  });
}

template <class T>
void dense_backward_z(const DenseBackward<T>& layer, Range rows) {
  const int64_t first = rows.begin * layer.units, count = rows.size() * layer.units;
  activation_calls<T>(layer.activation)
      .backward(layer.grad_out + first, layer.out + first, layer.grad_z + first, count);
}

template <class T>
void dense_backward_bias(const DenseBackward<T>& layer, Range units) {
  // Blocks of rows are summed on their own, so that rounding errors grow with the block.
  constexpr int64_t block = 128;
  static thread_local Scratch<T> memory;
  T* part = memory.get(units.size());
  T* total = layer.grad_bias + units.begin;
  std::fill(total, total + units.size(), T(0));
  for (int64_t begin = 0; begin < layer.rows; begin += block) {
    std::fill(part, part + units.size(), T(0));
    for (int64_t row = begin; row < std::min(begin + block, layer.rows); ++row) {
      const T* grad_z = layer.grad_z + row * layer.units + units.begin;
      for (int64_t i = 0; i < units.size(); ++i) part[i] += grad_z[i];
    }
    for (int64_t i = 0; i < units.size(); ++i) total[i] += part[i];
  }
}

template <class T>
void dense_backward_x(const DenseBackward<T>& layer, Range rows, Range features) {
  multiply(Product<T>{
      .rows = rows.size(),
      .columns = features.size(),
      .depth = layer.units,
      .a = {layer.grad_z + rows.begin * layer.units, layer.units, 1},
      .b = {layer.weight + features.begin, layer.in_features, 1},
      .bias = nullptr,
      .c = layer.grad_x + rows.begin * layer.in_features + features.begin,
      .c_stride = layer.in_features,
      .finish = nullptr,
  });
}

template <class T>
void dense_backward_weight(const DenseBackward<T>& layer, Range units, Range features) {
  multiply(Product<T>{
      .rows = units.size(),
      .columns = features.size(),
      .depth = layer.rows,
      .a = {layer.grad_z + units.begin, 1, layer.units},
      .b = {layer.x + features.begin, layer.x_stride, 1},
      .bias = nullptr,
      .c = layer.grad_weight + units.begin * layer.in_features + features.begin,
      .c_stride = layer.in_features,
      .finish = nullptr,
  });
}

#define TORCHNN_INSTANTIATE(T)                                           \
  template void dense_forward(const DenseForward<T>&, Range, Range);     \
  template void dense_backward_z(const DenseBackward<T>&, Range);        \
  template void dense_backward_bias(const DenseBackward<T>&, Range);     \
  template void dense_backward_x(const DenseBackward<T>&, Range, Range); \
  template void dense_backward_weight(const DenseBackward<T>&, Range, Range);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)

}  // namespace torchnn::cpu
