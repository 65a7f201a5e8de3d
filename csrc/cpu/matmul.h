// c = start + a @ b on one thread, for a rectangle of c: the product behind grad_x, grad_weight
// and large forwards. Blocks of a and b are packed so that the innermost loop reads both in the
// order it needs them, from the first-level cache and without a gap.
//
// Source: K. Goto and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
#pragma once

#include <algorithm>
#include <memory>

#include "../lane.h"

namespace torchnn::cpu {

// An element is at data[row * row_stride + column * column_stride].
template <class T>
struct Matrix {
  const T* data;
  int64_t row_stride, column_stride;
  const T* at(int64_t row, int64_t column) const {
    return data + row * row_stride + column * column_stride;
  }
};

// 64-byte aligned memory of a thread, kept from call to call. It only grows.
template <class T>
class Scratch {
 public:
  T* get(int64_t size) {
    if (size > size_) {
      data_.reset(static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64))));
      size_ = size;
    }
    return data_.get();
  }

 private:
  struct Delete {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Delete> data_;
  int64_t size_ = 0;
};

// Sizes in elements of 4 bytes: a panel of b (block_depth x 2 registers) stays in the first-level
// cache (16 to 32 KB), a block of a (block_rows x block_depth, 72 KB) in the second.
inline constexpr int64_t block_depth = 256, block_rows = 72, block_columns = 1024;

template <class Isa, class T>
struct Tile {
  using V = Vector<T, Isa::vector_bytes>;
  static constexpr int rows = Isa::tile_rows, registers = 2, columns = registers * lanes<V>;

  // c[rows, columns] = start + a @ b: a packed as (depth, rows), b's rows b_stride apart.
  static TORCHNN_FN void multiply(int64_t depth, const T* a, const T* b, int64_t b_stride,
                                  const T* start, int64_t start_stride, T* c, int64_t c_stride) {
    V sum[rows][registers];
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < registers; ++j)
        sum[i][j] = load<V>(start + i * start_stride + j * lanes<V>);
    for (int64_t k = 0; k < depth; ++k, a += rows, b += b_stride) {
      V b0 = load<V>(b), b1 = load<V>(b + lanes<V>);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        sum[i][0] += a[i] * b0;
        sum[i][1] += a[i] * b1;
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < registers; ++j) store(c + i * c_stride + j * lanes<V>, sum[i][j]);
  }
};

// to[k * to_stride + i] = from[i * from_stride + k] for a square as wide as a 16-byte register.
TORCHNN_FN void transpose_square(const float* from, int64_t from_stride, float* to,
                                 int64_t to_stride) {
  using V = Vector<float, 16>;
  const V a = load<V>(from), b = load<V>(from + from_stride);
  const V c = load<V>(from + 2 * from_stride), d = load<V>(from + 3 * from_stride);
  const V ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const V ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const V cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const V cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store<V>(to, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  store<V>(to + to_stride, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  store<V>(to + 2 * to_stride, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  store<V>(to + 3 * to_stride, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

TORCHNN_FN void transpose_square(const double* from, int64_t from_stride, double* to,
                                 int64_t to_stride) {
  using V = Vector<double, 16>;
  const V a = load<V>(from), b = load<V>(from + from_stride);
  store<V>(to, __builtin_shufflevector(a, b, 0, 2));
  store<V>(to + to_stride, __builtin_shufflevector(a, b, 1, 3));
}

// Packs `count` vectors of `depth` elements, `width` at a time, as (count / width, depth, width);
// what is missing from the last group becomes zero.
template <int width, class T>
TORCHNN_FN void pack(const T* from, int64_t vector_stride, int64_t depth_stride, int64_t count,
                     int64_t depth, T* to) {
  constexpr int64_t square = 16 / sizeof(T), in_squares = width / square * square;
  for (int64_t first = 0; first < count; first += width, to += width * depth) {
    const T* source = from + first * vector_stride;
    const int64_t vectors = std::min<int64_t>(width, count - first);
    if (vectors < width) std::fill(to, to + width * depth, T(0));
    int64_t k = 0;
    if (vector_stride == 1 && vectors == width) {
      for (; k < depth; ++k)
        for (int64_t i = 0; i < width; ++i) to[k * width + i] = source[k * depth_stride + i];
      continue;
    }
    if (depth_stride == 1 && vectors == width)
      for (; k + square <= depth; k += square)
        for (int64_t i = 0; i < in_squares; i += square)
          transpose_square(source + i * vector_stride + k, vector_stride, to + k * width + i, width);
    const int64_t transposed = k;
    for (k = 0; k < depth; ++k)
      for (int64_t i = k < transposed ? in_squares : 0; i < vectors; ++i)
        to[k * width + i] = source[i * vector_stride + k * depth_stride];
  }
}

// Does nothing to a finished block.
struct KeepBlock {
  template <class T>
  void operator()(T*, int64_t, int64_t, int64_t) const {}
};

// c (rows, columns) = bias + a @ b, then finish(block, rows, columns, c_stride) on every block of c
// while it is in the cache. bias is a row, or null for zeros.
template <class Isa, class T, class Finish = KeepBlock>
TORCHNN_FN void matmul(int64_t rows, int64_t columns, int64_t depth, Matrix<T> a, Matrix<T> b,
                       const T* bias, T* c, int64_t c_stride, Finish finish = {}) {
  using Tile = cpu::Tile<Isa, T>;
  static thread_local Scratch<T> a_memory, b_memory;
  T* a_block = a_memory.get(block_rows * block_depth);
  T* b_block = b_memory.get((block_columns + Tile::columns) * block_depth);
  T start[Tile::columns], edge[Tile::rows * Tile::columns];
  // Rows of b are used where they lie if they are too few uses to repay the packing.
  const bool b_in_place = b.column_stride == 1 && rows <= 4 * Tile::rows;

  for (int64_t column = 0; column < columns; column += block_columns) {
    const int64_t width = std::min(block_columns, columns - column);
    int64_t k = 0;
    do {  // at least once: with no depth, c is the bias
      const int64_t length = std::min(block_depth, depth - k);
      const bool first = k == 0;
      // 1. pack b, or only the part of it that is narrower than a tile
      const int64_t packed_from = b_in_place ? width / Tile::columns * Tile::columns : 0;
      pack<Tile::columns>(b.at(k, column + packed_from), b.column_stride, b.row_stride,
                          width - packed_from, length, b_block);
      for (int64_t row = 0; row < rows; row += block_rows) {
        const int64_t height = std::min(block_rows, rows - row);
        // 2. pack a
        pack<Tile::rows>(a.at(row, k), a.row_stride, a.column_stride, height, length, a_block);
        // 3. multiply, tile by tile
        for (int64_t j = 0; j < width; j += Tile::columns) {
          const int64_t n = std::min<int64_t>(Tile::columns, width - j);
          const T* b_panel = j < packed_from ? b.at(k, column + j)
                                             : b_block + (j - packed_from) * length;
          const int64_t b_stride = j < packed_from ? b.row_stride : Tile::columns;
          for (int64_t x = 0; x < Tile::columns; ++x)
            start[x] = bias && x < n ? bias[column + j + x] : T(0);
          for (int64_t i = 0; i < height; i += Tile::rows) {
            const int64_t m = std::min<int64_t>(Tile::rows, height - i);
            const T* a_panel = a_block + i * length;
            T* to = c + (row + i) * c_stride + column + j;
            if (m == Tile::rows && n == Tile::columns) {
              Tile::multiply(length, a_panel, b_panel, b_stride, first ? start : to,
                             first ? 0 : c_stride, to, c_stride);
              continue;
            }
            if (!first)
              for (int64_t r = 0; r < m; ++r)
                std::copy(to + r * c_stride, to + r * c_stride + n, edge + r * Tile::columns);
            Tile::multiply(length, a_panel, b_panel, b_stride, first ? start : edge,
                           first ? 0 : Tile::columns, edge, Tile::columns);
            for (int64_t r = 0; r < m; ++r)
              std::copy(edge + r * Tile::columns, edge + r * Tile::columns + n, to + r * c_stride);
          }
        }
        if (k + length == depth) finish(c + row * c_stride + column, height, width, c_stride);
      }
      k += length;
    } while (k < depth);
  }
}

}  // namespace torchnn::cpu
