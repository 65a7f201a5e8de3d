// Where the numbers of a matrix lie: rows(i) is the address of row i; column[i] is number i of a
// column, for a register tile that goes from column to column.
#pragma once

#include <cstdint>

#include "../../math/lane.h"

namespace torchnn::cpu {

// `stride` apart.
template <class T>
struct StridedRows {
  const T* first;
  int64_t stride;
  TORCHNN_FN const T* operator()(int64_t i) const { return first + i * stride; }
};

// Anywhere.
template <class T>
struct ListedRows {
  const T* const* rows;
  int64_t offset = 0;
  TORCHNN_FN const T* operator()(int64_t i) const { return rows[i] + offset; }
};

// The rows of others from the first-th on.
template <class Rows>
struct RowsFrom {
  const Rows& rows;
  int64_t first;
  TORCHNN_FN auto operator()(int64_t i) const { return rows(first + i); }
};

// A column of rows that lie far apart: every third one has a pointer, and an address reaches the
// two after it. (With an index for each row, a tile would run out of registers for addresses.)
template <class T, int height>
struct StridedColumn {
  static constexpr int pointers = (height + 2) / 3;
  const T* from[pointers];
  int64_t stride;
  TORCHNN_FN StridedColumn(const T* a, int64_t stride) : stride(stride) {
#pragma GCC unroll 8
    for (int i = 0; i < pointers; ++i) from[i] = a + 3 * i * stride;
  }
  TORCHNN_FN T operator[](int i) const { return from[i / 3][i % 3 * stride]; }
  TORCHNN_FN void next() {
#pragma GCC unroll 8
    for (int i = 0; i < pointers; ++i) ++from[i];
  }
};

// A column whose numbers lie side by side.
template <class T>
struct DenseColumn {
  const T* from;
  int64_t step;
  TORCHNN_FN T operator[](int i) const { return from[i]; }
  TORCHNN_FN void next() { from += step; }
};

}  // namespace torchnn::cpu
