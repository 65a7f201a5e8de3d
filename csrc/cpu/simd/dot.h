// Dot products of rows with rows, both read where they lie: out[r][c] = bias[c] + x[r] . weight[c].
#pragma once

#include <algorithm>

#include "../../math/lane.h"
#include "rows.h"

namespace torchnn::cpu {

template <class Isa, class T>
struct Dot {
  using V = Vector<T, Isa::vector_bytes>;
  using Mask = decltype(V{} < V{});
  static constexpr int rows = Isa::dot_rows, units = 4;

  // Keeps the lanes from `from` on.
  static TORCHNN_FN V keep_from(V v, int64_t from) {
    Mask lane;
    for (int i = 0; i < lanes<V>; ++i) lane[i] = i;
    return (V)((Mask)v & (lane >= (Mask{} + typename ExpConstants<T>::Integer(from))));
  }

  // One tile. row(r) is where row r of x begins; depth is at least one register.
  template <int rows, int units, class Row>
  static TORCHNN_FN void tile(int64_t depth, const Row& row, const T* weight, int64_t weight_stride,
                              const T* bias, T* out, int64_t out_stride) {
    const T* x[rows];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) x[r] = row(r);
    V sum[rows][units] = {};
    int64_t k = 0;
    for (; k + lanes<V> <= depth; k += lanes<V>) {
      V a[rows];
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) a[r] = load<V>(x[r] + k);
#pragma GCC unroll 8
      for (int c = 0; c < units; ++c) {
        const V w = load<V>(weight + c * weight_stride + k);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) sum[r][c] += a[r] * w;
      }
    }
    if (k < depth) {  // a register that ends at depth; its first lanes have been summed already
      const int64_t done = k - (depth - lanes<V>);
      k = depth - lanes<V>;
      V a[rows];
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) a[r] = keep_from(load<V>(x[r] + k), done);
#pragma GCC unroll 8
      for (int c = 0; c < units; ++c) {
        const V w = keep_from(load<V>(weight + c * weight_stride + k), done);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) sum[r][c] += a[r] * w;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      T* to = out + r * out_stride;
      if constexpr (units == 4)
        store_sums(to, sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
      else
        to[0] = torchnn::sum(sum[r][0]);
#pragma GCC unroll 8
      for (int c = 0; c < units; ++c)
        if (bias) to[c] += bias[c];
    }
  }

  // All of them: out (row_count, unit_count). row(i) is where row i of x begins. Blocks of rows
  // fill half of a first-level cache of 32 KB, in which each few rows of weight meet all of the
  // block.
  template <class Row>
  static TORCHNN_FN void multiply(int64_t row_count, int64_t unit_count, int64_t depth,
                                  const Row& row, const T* weight, int64_t weight_stride,
                                  const T* bias, T* out, int64_t out_stride) {
    const int64_t fitting = 16 * 1024 / (depth * int64_t(sizeof(T))) / rows * rows;
    const int64_t block = std::max<int64_t>(fitting, rows);
    for (int64_t first = 0; first < row_count; first += block) {
      const int64_t last = std::min(first + block, row_count);
      int64_t c = 0;
      for (; c + units <= unit_count; c += units)
        all_rows<units>(first, last, depth, row, weight + c * weight_stride, weight_stride,
                        bias ? bias + c : nullptr, out + c, out_stride);
      for (; c < unit_count; ++c)
        all_rows<1>(first, last, depth, row, weight + c * weight_stride, weight_stride,
                    bias ? bias + c : nullptr, out + c, out_stride);
    }
  }

 private:
  // A block of rows against some units: whole tiles, then a lower one.
  template <int units, class Row>
  static TORCHNN_FN void all_rows(int64_t i, int64_t end, int64_t depth, const Row& row,
                                  const T* weight, int64_t weight_stride, const T* bias, T* out,
                                  int64_t out_stride) {
    for (; i + rows <= end; i += rows)
      tile<rows, units>(depth, RowsFrom<Row>{row, i}, weight, weight_stride, bias,
                        out + i * out_stride, out_stride);
    last_rows<rows - 1, units>(end - i, depth, RowsFrom<Row>{row, i}, weight, weight_stride, bias,
                               out + i * out_stride, out_stride);
  }

  template <int rows, int units, class Row>
  static TORCHNN_FN void last_rows(int64_t left, int64_t depth, const Row& row, const T* weight,
                                   int64_t weight_stride, const T* bias, T* out,
                                   int64_t out_stride) {
    if constexpr (rows > 0) {
      if (left == rows)
        tile<rows, units>(depth, row, weight, weight_stride, bias, out, out_stride);
      else
        last_rows<rows - 1, units>(left, depth, row, weight, weight_stride, bias, out, out_stride);
    }
  }
};

}  // namespace torchnn::cpu
