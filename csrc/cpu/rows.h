// Where the rows of a matrix lie: rows(i) is the address of row i.
#pragma once

#include <cstdint>

#include "../lane.h"

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

}  // namespace torchnn::cpu
