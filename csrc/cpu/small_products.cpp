#include "small_products.h"

#include "simd/dot.h"
#include "simd/isa.h"
#include "simd/tile.h"
#include "simd/transpose.h"

namespace torchnn::cpu {
namespace {

template <class Isa, class T, int registers>
struct ProductTile {
  const SmallProduct<T>& p;
  int64_t row, column, k, depth;

  template <int height>
  TORCHNN_FN void run() const {
    using V = Register<Isa, T>;
    const T* a = p.a + row * p.a_stride + k * p.a_step;
    const StridedRows<T> b{p.b + k * p.b_stride, p.b_stride};
    Tile<V, height, registers> tile;
    if (p.a_step == 1)
      tile.accumulate(depth, StridedColumn<T, height>(a, p.a_stride), b, column);
    else
      tile.accumulate(depth, DenseColumn<T>{a, p.a_step}, b, column);
    T* c = p.c + row * p.c_stride + column;
    const bool adds = p.adds || k > 0;
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i) {
      const T bias = p.bias && !adds ? p.bias[row + i] : T(0);
#pragma GCC unroll 4
      for (int j = 0; j < registers; ++j) {
        T* to = c + i * p.c_stride + j * lanes<V>;
        // Added last, so that a rounding error grows with the part of the depth.
        store<V>(to, tile.sum[i][j] + (adds ? load<V>(to) : V{} + bias));
      }
    }
  }
};

template <class T>
struct MultiplySmall {
  template <class Isa>
  static TORCHNN_FN void run(const SmallProduct<T>& p) {
    // A panel of b, two registers wide, has 16 KB, or 32 with AVX-512: what fits close by; a block
    // of a, the rows of some tiles, a part of the second-level cache.
    constexpr int64_t width = lanes<Register<Isa, T>>;
    constexpr int64_t most_depth = 256, block_rows = 128;
    const EvenTiles depths(p.depth, most_depth), tiles(p.rows, Isa::small_tile_rows);
    const EvenTiles blocks(tiles.count, std::max<int64_t>(1, block_rows / Isa::small_tile_rows));
    for (int64_t d = 0; d < depths.count; ++d)
      for (int64_t block = 0; block < blocks.count; ++block)
        for (int64_t column = 0; column < p.columns; column += 2 * width)
          for (int64_t t = blocks.begin(block); t < blocks.begin(block + 1); ++t) {
            const int64_t row = tiles.begin(t), height = tiles.begin(t + 1) - row;
            const int64_t k = depths.begin(d), depth = depths.begin(d + 1) - k;
            if (column + width < p.columns)
              with_height<Isa::small_tile_rows>(height,
                                                ProductTile<Isa, T, 2>{p, row, column, k, depth});
            else
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

#define TORCHNN_INSTANTIATE(T)                                                                     \
  template void multiply(const SmallProduct<T>&);                                                  \
  template void multiply_rows(int64_t, int64_t, int64_t, const ListedRows<T>&, const T*, int64_t,  \
                              const T*, T*, int64_t);                                              \
  template void multiply_rows(int64_t, int64_t, int64_t, const StridedRows<T>&, const T*, int64_t, \
                              const T*, T*, int64_t);                                              \
  template void transpose(int64_t, int64_t, const ListedRows<T>&, T*, int64_t);                    \
  template void transpose(int64_t, int64_t, const StridedRows<T>&, T*, int64_t);                   \
  template void add_up(int64_t, int64_t, int64_t, int64_t, int64_t, const T*, T*);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)
#undef TORCHNN_INSTANTIATE

}  // namespace torchnn::cpu
