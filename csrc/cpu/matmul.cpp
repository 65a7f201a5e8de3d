// Blocks of a and b are packed so that the innermost loop reads both in the order it needs them,
// from the first-level cache and without a gap; what is used too seldom to repay that is read in
// place.
//
// Source: K. Goto and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
#include "matmul.h"

#include <algorithm>

#include "elementwise.h"
#include "memory.h"
#include "simd/isa.h"
#include "simd/rows.h"
#include "simd/tile.h"
#include "simd/transpose.h"

namespace torchnn::cpu {
namespace {

// How c is cut: into tiles of the registers that accumulate, and these into blocks for the caches.
template <class Isa, class T, int height, int registers>
struct Shape {
  using V = Register<Isa, T>;
  static constexpr int64_t rows = height, columns = registers * lanes<V>;
  // A panel of b, block_depth x columns, comes from the first-level cache, or at its largest, with
  // AVX-512, from the second as fast as it is needed; a block of a, block_rows x block_depth, some
  // 300 KB, from the second; a block of b, some 800 KB, from the third. c is read and written once
  // for each block of the depth (measured: docs/log.md).
  static constexpr int64_t block_depth = 384;
  static constexpr int64_t block_rows = 192 * 4 / sizeof(T), block_columns = 512 * 4 / sizeof(T);

  // c = start + a @ b for one tile. The element a[i][k] is at a[i * a_stride + k * a_step], one of
  // which is 1, and the rows of b lie b_stride apart.
  static TORCHNN_FN void multiply(int64_t depth, const T* a, int64_t a_stride, int64_t a_step,
                                  const T* b, int64_t b_stride, const T* start,
                                  int64_t start_stride, T* c, int64_t c_stride) {
    Tile<V, height, registers> tile;
    const StridedRows<T> b_rows{b, b_stride};
    if (a_stride == 1)
      tile.accumulate(depth, DenseColumn<T>{a, a_step}, b_rows);
    else
      tile.accumulate(depth, StridedColumn<T, height>(a, a_stride), b_rows);
    // start is added last, so that a rounding error grows with the block and not with the depth
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i)
#pragma GCC unroll 32
      for (int j = 0; j < registers; ++j)
        store(c + i * c_stride + j * lanes<V>,
              load<V>(start + i * start_stride + j * lanes<V>) + tile.sum[i][j]);
  }
};

// Packs `count` vectors of `depth` elements, `width` at a time, as (count / width, depth, width);
// what is missing from the last group becomes zero.
template <int64_t width, class T>
TORCHNN_FN void pack(const T* from, int64_t vector_stride, int64_t depth_stride, int64_t count,
                     int64_t depth, T* to) {
  using InRegister = Square<Vector<T, 16>>;
  constexpr int64_t side = InRegister::side, in_squares = width / side * side;
  for (int64_t first = 0; first < count; first += width, to += width * depth) {
    const T* source = from + first * vector_stride;
    const int64_t vectors = std::min(width, count - first);
    if (vectors < width) std::fill(to, to + width * depth, T(0));
    if (vector_stride == 1 && vectors == width) {
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t i = 0; i < width; ++i) to[k * width + i] = source[k * depth_stride + i];
      continue;
    }
    // Few vectors at a time, each from end to end: many at once would evict each other's cache
    // lines where they lie a power of two apart.
    const bool whole = depth_stride == 1 && vectors == width;
    const int64_t transposed = whole ? depth / side * side : 0;
    for (int64_t i = 0; i < (whole ? in_squares : 0); i += side)
      for (int64_t k = 0; k < transposed; k += side)
        InRegister::transpose(StridedRows<T>{source + i * vector_stride + k, vector_stride},
                              to + k * width + i, width);
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t i = k < transposed ? in_squares : 0; i < vectors; ++i)
        to[k * width + i] = source[i * vector_stride + k * depth_stride];
  }
}

template <class T, class Shape>
struct Blocks {
  const Product<T>& p;
  T *a_block, *b_block;

  static TORCHNN_FN void run(const Product<T>& p) {
    static thread_local Scratch<T> a_memory, b_memory;
    Blocks blocks{p, a_memory.get(Shape::block_rows * Shape::block_depth),
                  b_memory.get((Shape::block_columns + Shape::columns) * Shape::block_depth)};
    const EvenTiles depths(std::max<int64_t>(p.depth, 1), Shape::block_depth);
    // A shallow block of b is so much wider: rows of c are written on and on.
    const int64_t panels = Shape::block_columns / Shape::columns;
    const int64_t most_width = panels * (Shape::block_depth / depths.most()) * Shape::columns;
    for (int64_t column = 0; column < p.columns; column += most_width) {
      const int64_t width = std::min(most_width, p.columns - column);
      for (int64_t d = 0; d < depths.count; ++d) {  // once with no depth: c is the bias
        const int64_t k = std::min(depths.begin(d), p.depth);
        blocks.multiply(column, width, k, std::min(depths.begin(d + 1), p.depth) - k);
      }
    }
  }

  // c[:, column...] += a[:, k...] @ b[k..., column...]
  TORCHNN_FN void multiply(int64_t column, int64_t width, int64_t k, int64_t depth) const {
    const bool b_in_place = p.b.column_stride == 1 && p.rows <= 4 * Shape::rows;
    const bool a_in_place = p.a.column_stride == 1 && p.columns <= 32 * Shape::columns;
    // 1. pack b: all of it, or only what is narrower than a tile
    const int64_t b_packed = b_in_place ? width / Shape::columns * Shape::columns : 0;
    pack<Shape::columns>(p.b.at(k, column + b_packed), p.b.column_stride, p.b.row_stride,
                         width - b_packed, depth, b_block);
    for (int64_t row = 0; row < p.rows; row += Shape::block_rows) {
      const int64_t height = std::min(Shape::block_rows, p.rows - row);
      // 2. pack a likewise
      const int64_t a_packed = a_in_place ? height / Shape::rows * Shape::rows : 0;
      pack<Shape::rows>(p.a.at(row + a_packed, k), p.a.row_stride, p.a.column_stride,
                        height - a_packed, depth, a_block);
      // 3. multiply, tile by tile
      for (int64_t j = 0; j < width; j += Shape::columns) {
        const T* b = j < b_packed ? p.b.at(k, column + j) : b_block + (j - b_packed) * depth;
        const int64_t b_stride = j < b_packed ? p.b.row_stride : Shape::columns;
        const int64_t columns = std::min(Shape::columns, width - j);
        T start[Shape::columns] = {};
        if (p.bias) std::copy(p.bias + column + j, p.bias + column + j + columns, start);
        for (int64_t i = 0; i < height; i += Shape::rows) {
          const T* a = i < a_packed ? p.a.at(row + i, k) : a_block + (i - a_packed) * depth;
          const int64_t a_stride = i < a_packed ? p.a.row_stride : 1;
          const int64_t a_step = i < a_packed ? 1 : Shape::rows;
          tile(depth, a, a_stride, a_step, b, b_stride, k == 0 ? start : nullptr,
               p.c + (row + i) * p.c_stride + column + j, std::min(Shape::rows, height - i),
               columns);
        }
      }
      // 4. finish the block
      if (p.finish && k + depth == p.depth)
        p.finish(p.c + row * p.c_stride + column, height, width, p.c_stride);
    }
  }

  // A tile over the edge of c is computed aside. Without a row to start from, c is added to.
  TORCHNN_FN void tile(int64_t depth, const T* a, int64_t a_stride, int64_t a_step, const T* b,
                       int64_t b_stride, const T* start, T* c, int64_t rows,
                       int64_t columns) const {
    T aside[Shape::rows * Shape::columns];
    const bool whole = rows == Shape::rows && columns == Shape::columns;
    T* to = whole ? c : aside;
    const int64_t stride = whole ? p.c_stride : Shape::columns;
    if (!whole && !start)
      for (int64_t r = 0; r < rows; ++r)
        std::copy(c + r * p.c_stride, c + r * p.c_stride + columns, aside + r * stride);
    Shape::multiply(depth, a, a_stride, a_step, b, b_stride, start ? start : to, start ? 0 : stride,
                    to, stride);
    if (!whole)
      for (int64_t r = 0; r < rows; ++r)
        std::copy(aside + r * stride, aside + r * stride + columns, c + r * p.c_stride);
  }
};

template <class T>
struct Multiply {
  template <class Isa>
  static TORCHNN_FN void run(const Product<T>& p) {
    Blocks<T, Shape<Isa, T, Isa::tile_rows, 2>>::run(p);
  }
};

// A batch of one sample uses nothing twice: one row at a time, as far as the registers reach.
template <class T>
struct MultiplyRow {
  template <class Isa>
  static TORCHNN_FN void run(const Product<T>& p) {
    Blocks<T, Shape<Isa, T, 1, 2 * Isa::tile_rows>>::run(p);
  }
};

// A depth of one: each row of c is a multiple of the one row of b, and only its stores take time.
template <class T>
struct MultiplyOuter {
  template <class Isa>
  static TORCHNN_FN void run(const Product<T>& p) {
    using V = Register<Isa, T>;
    const int64_t block = std::max<int64_t>(1, 16 * 1024 / (p.columns * int64_t(sizeof(T))));
    for (int64_t first = 0; first < p.rows; first += block) {
      const int64_t rows = std::min(block, p.rows - first);
      T* const c = p.c + first * p.c_stride;
      for (int64_t row = 0; row < rows; ++row) {
        const T factor = *p.a.at(first + row, 0);
        T* to = c + row * p.c_stride;
        int64_t i = 0;
        for (; i + lanes<V> <= p.columns; i += lanes<V>)
          store(to + i, factor * load<V>(p.b.data + i) + (p.bias ? load<V>(p.bias + i) : V{}));
        if (const int64_t left = p.columns - i; left > 0)
          store_part(to + i,
                     factor * load_part<V>(p.b.data + i, left) +
                         (p.bias ? load_part<V>(p.bias + i, left) : V{}),
                     left);
      }
      if (p.finish) p.finish(c, rows, p.columns, p.c_stride);
    }
  }
};

}  // namespace

template <class T>
void multiply(const Product<T>& product) {
  constexpr int64_t wide = 64;  // columns: what is narrower is mostly a rest
  if (product.depth == 1 && product.b.column_stride == 1 && product.columns >= wide)
    run<MultiplyOuter<T>>(product);
  else if (product.rows == 1 || product.depth == 1)
    run<MultiplyRow<T>>(product);
  else
    run<Multiply<T>>(product);
}
template void multiply(const Product<float>&);
template void multiply(const Product<double>&);

}  // namespace torchnn::cpu
