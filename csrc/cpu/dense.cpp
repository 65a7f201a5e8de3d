// One dense layer on the CPU. cuda/dense.cu is its twin: the same functions, order and steps.
#include "../dense.h"

#include <algorithm>

#include "elementwise.h"
#include "matmul.h"
#include "memory.h"
#include "simd/dot.h"
#include "simd/isa.h"
#include "simd/subnormals.h"

namespace torchnn::cpu {
namespace {

// What may stay in half of a second-level cache of 512 KB.
template <class T>
bool is_small(int64_t rows, int64_t columns) {
  return rows * columns * int64_t(sizeof(T)) <= 256 * 1024;
}

template <class T>
struct ForwardInPlace {
  template <class Isa>
  static TORCHNN_FN void run(const DenseForward<T>& layer, Range rows, Range units) {
    Dot<Isa, T>::multiply(rows.size(), units.size(), layer.in_features,
                          StridedRows<T>{layer.x + rows.begin * layer.x_stride, layer.x_stride},
                          layer.weight + units.begin * layer.in_features, layer.in_features,
                          layer.bias ? layer.bias + units.begin : nullptr,
                          layer.out + rows.begin * layer.units + units.begin, layer.units);
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
void activate(int64_t activation, T* a, int64_t count) {
  const FlushSubnormals flush;
  if (const auto activate = activation_calls<T>(activation).usual_forward)
    activate(a, 1, count, count);
}

template <class T>
void dense_forward(const DenseForward<T>& layer, Range rows, Range units) {
  const FlushSubnormals flush;
  const auto activate = activation_calls<T>(layer.activation).usual_forward;
  T* out = layer.out + rows.begin * layer.units + units.begin;
  if (read_in_place(layer)) {
    // 1. start from the bias
    // 2. accumulate x @ weight.T
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
  const FlushSubnormals flush;
  const int64_t first = rows.begin * layer.units, count = rows.size() * layer.units;
  activation_calls<T>(layer.activation)
      .backward(layer.grad_out + first, layer.out + first, layer.grad_z + first, 1, count, count,
                T(no_slope));
}

template <class T>
void dense_backward_bias(const DenseBackward<T>& layer, Range units) {
  const FlushSubnormals flush;
  // So many rows are summed on their own, so that rounding errors grow with the block.
  constexpr int64_t block = 128;
  if (units.size() == 0) return;
  static thread_local Scratch<T> memory;
  T* part = memory.get(units.size());
  T* total = layer.grad_bias + units.begin;
  std::fill(total, total + units.size(), T(0));
  for (int64_t begin = 0; begin < layer.rows; begin += block) {
    // 1. sum a block of rows
    std::fill(part, part + units.size(), T(0));
    for (int64_t row = begin; row < std::min(begin + block, layer.rows); ++row) {
      const T* grad_z = layer.grad_z + row * layer.units + units.begin;
      for (int64_t i = 0; i < units.size(); ++i) part[i] += grad_z[i];
    }
    // 2. add the blocks up
    for (int64_t i = 0; i < units.size(); ++i) total[i] += part[i];
  }
}

template <class T>
void dense_backward_x(const DenseBackward<T>& layer, Range rows, Range features) {
  const FlushSubnormals flush;
  multiply(Product<T>{
      .rows = rows.size(),
      .columns = features.size(),
      .depth = layer.units,
      .a = {layer.grad_z + rows.begin * layer.units, layer.units, 1},
      .b = {layer.weight + features.begin, layer.in_features, 1},
      .c = layer.grad_x + rows.begin * layer.in_features + features.begin,
      .c_stride = layer.in_features,
  });
}

template <class T>
void dense_backward_weight(const DenseBackward<T>& layer, Range units, Range features) {
  const FlushSubnormals flush;
  multiply(Product<T>{
      .rows = units.size(),
      .columns = features.size(),
      .depth = layer.rows,
      .a = {layer.grad_z + units.begin, 1, layer.units},
      .b = {layer.x + features.begin, layer.x_stride, 1},
      .c = layer.grad_weight + units.begin * layer.in_features + features.begin,
      .c_stride = layer.in_features,
  });
}

#define TORCHNN_INSTANTIATE(T)                                           \
  template void activate(int64_t, T*, int64_t);                          \
  template void dense_forward(const DenseForward<T>&, Range, Range);     \
  template void dense_backward_z(const DenseBackward<T>&, Range);        \
  template void dense_backward_bias(const DenseBackward<T>&, Range);     \
  template void dense_backward_x(const DenseBackward<T>&, Range, Range); \
  template void dense_backward_weight(const DenseBackward<T>&, Range, Range);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)
#undef TORCHNN_INSTANTIATE

}  // namespace torchnn::cpu
