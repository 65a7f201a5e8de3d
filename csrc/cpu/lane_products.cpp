#include "lane_products.h"

#include <algorithm>
#include <limits>

#include "simd/isa.h"
#include "simd/tile.h"
#include "simd/transpose.h"

namespace torchnn::cpu {
namespace {

// `width` columns of b, as a tile goes through them: at(k, j) is element k of column j.
template <class V, int width>
struct LaneColumns {
  using T = Element<V>;
  const T* from;
  int64_t stride, step;
  TORCHNN_FN LaneColumns(const LaneOperand<T>& b, int64_t column)
      : from(b.first + column * b.stride * lanes<V>),
        stride(b.stride * lanes<V>),
        step(b.step * lanes<V>) {}
  TORCHNN_FN V at(int64_t k, int j) const { return load<V>(from + k * step + j * stride); }
};

template <class V, int width>
struct BroadcastColumns {
  using T = Element<V>;
  const T* from[width];
  TORCHNN_FN BroadcastColumns(const SharedColumns<T>& b, int64_t column) {
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j) from[j] = b.columns[column + j] + b.offset;
  }
  TORCHNN_FN T at(int64_t k, int j) const { return from[j][k]; }
};

template <class V, int width>
struct BroadcastRows {
  using T = Element<V>;
  const T* const* rows;
  int64_t offset;
  TORCHNN_FN BroadcastRows(const SharedRows<T>& b, int64_t column)
      : rows(b.rows), offset(b.offset + column) {}
  TORCHNN_FN T at(int64_t k, int j) const { return rows[k][offset + j]; }
};

template <class V, int width>
TORCHNN_FN auto columns_of(const LaneOperand<Element<V>>& b, int64_t column) {
  return LaneColumns<V, width>(b, column);
}
template <class V, int width>
TORCHNN_FN auto columns_of(const SharedColumns<Element<V>>& b, int64_t column) {
  return BroadcastColumns<V, width>(b, column);
}
template <class V, int width>
TORCHNN_FN auto columns_of(const SharedRows<Element<V>>& b, int64_t column) {
  return BroadcastRows<V, width>(b, column);
}

// A tile of c, as many numbers in registers.
template <class V, int height, int width, class B>
TORCHNN_FN void multiply_tile(const LaneProduct<Element<V>>& p, const B& b, int64_t row,
                              int64_t column) {
  using T = Element<V>;
  T* const c = p.c + (row * p.c_stride + column) * lanes<V>;
  const int64_t c_stride = p.c_stride * lanes<V>, step = p.a_step * lanes<V>;
  V sum[height][width];
#pragma GCC unroll 8
  for (int i = 0; i < height; ++i) {
    const V first = p.bias ? load<V>(p.bias + (row + i) * lanes<V>) : V{};
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j)
      sum[i][j] = p.adds ? load<V>(c + i * c_stride + j * lanes<V>) : first;
  }
  const T* a[height];
#pragma GCC unroll 8
  for (int i = 0; i < height; ++i) a[i] = p.a + (row + i) * p.a_stride * lanes<V>;
  const auto columns = columns_of<V, width>(b, column);
  for (int64_t k = 0; k < p.depth; ++k) {
    V factors[height];
#pragma GCC unroll 8
    for (int i = 0; i < height; ++i) factors[i] = load<V>(a[i] + k * step);
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j) {
      const auto number = columns.at(k, j);  // of all models, or of each
#pragma GCC unroll 8
      for (int i = 0; i < height; ++i) sum[i][j] += factors[i] * number;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < height; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j) store(c + i * c_stride + j * lanes<V>, sum[i][j]);
}

// Some columns of so many rows: as many at a time as leave registers for the operands, but for the
// last few.
template <class V, int registers, class B>
struct MultiplyColumns {
  const LaneProduct<Element<V>>& p;
  const B& b;
  int64_t row, begin, end;

  template <int height>
  TORCHNN_FN void run() const {
    constexpr int widest = height * 8 <= registers ? 8 : 4;
    int64_t column = begin;
    for (; column + widest <= end; column += widest)
      multiply_tile<V, height, widest>(p, b, row, column);
    if constexpr (widest > 4)
      for (; column + 4 <= end; column += 4) multiply_tile<V, height, 4>(p, b, row, column);
    if (column + 2 <= end) multiply_tile<V, height, 2>(p, b, row, column), column += 2;
    if (column < end) multiply_tile<V, height, 1>(p, b, row, column);
  }
};

// Columns of b that stay in the nearest cache while all of a goes by.
template <class V>
int64_t columns_at_once(const LaneOperand<Element<V>>&, int64_t depth) {
  return std::max<int64_t>(16384 / int64_t(sizeof(V)) / std::max<int64_t>(depth, 1) / 8, 1) * 8;
}
template <class V, class B>
int64_t columns_at_once(const B&, int64_t) {
  return std::numeric_limits<int64_t>::max() / 2;
}

template <class T, class B>
struct MultiplyLanes {
  template <class Isa>
  static TORCHNN_FN void run(const LaneProduct<T>& p, const B& b) {
    using V = Register<Isa, T>;
    constexpr int most = Isa::lane_tile_rows;
    const EvenTiles tiles(p.rows, most);
    const int64_t columns = columns_at_once<V>(b, p.depth);
    for (int64_t j = 0; j < p.columns; j += columns)
      for (int64_t t = 0; t < tiles.count; ++t)
        with_height<most>(tiles.begin(t + 1) - tiles.begin(t),
                          MultiplyColumns<V, 4 * most, B>{p, b, tiles.begin(t), j,
                                                          std::min(j + columns, p.columns)});
  }
};

template <class T>
struct GatherLanes {
  template <class Isa>
  static TORCHNN_FN void run(const T* const* const& from, int64_t count, T* const& to,
                             int64_t step) {
    using InRegisters = Square<Register<Isa, T>>;
    int64_t k = 0;
    for (; k + InRegisters::side <= count; k += InRegisters::side)
      InRegisters::transpose(Columns{from, k}, to + k * step, step);
    for (; k < count; ++k)
      for (int m = 0; m < InRegisters::side; ++m) to[k * step + m] = from[m][k];
  }

  struct Columns {
    const T* const* from;
    int64_t first;
    TORCHNN_FN const T* operator()(int64_t m) const { return from[m] + first; }
  };
};

}  // namespace

template <class T, class B>
void multiply_lanes(const LaneProduct<T>& product, const B& b) {
  run<MultiplyLanes<T, B>>(product, b);
}

template <class T>
void gather_lanes(const T* const* from, int64_t count, T* to, int64_t step) {
  run<GatherLanes<T>>(from, count, to, step);
}

#define TORCHNN_INSTANTIATE(T)                                                  \
  template void multiply_lanes(const LaneProduct<T>&, const LaneOperand<T>&);   \
  template void multiply_lanes(const LaneProduct<T>&, const SharedColumns<T>&); \
  template void multiply_lanes(const LaneProduct<T>&, const SharedRows<T>&);    \
  template void gather_lanes(const T* const*, int64_t, T*, int64_t);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)
#undef TORCHNN_INSTANTIATE

}  // namespace torchnn::cpu
