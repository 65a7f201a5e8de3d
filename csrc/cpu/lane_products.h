// Products of models that lie side by side, one in each lane of a register. What is called a number
// in the files named lane_... is a register of them: one of each model.
#pragma once

#include <cstdint>

namespace torchnn::cpu {

// c = a @ b, for each model by itself, where the caller says what b is. An element is summed up in
// one order, whatever the product is cut into: to sum in parts, one adds to what is there.
template <class T>
struct LaneProduct {
  int64_t rows, columns, depth;
  const T* a;  // (rows, depth): stride and step are numbers to the next row, and to the next column
  int64_t a_stride, a_step;
  const T* bias = nullptr;  // (rows), or null for zeros: what the sums begin with
  T* c;                     // (rows, columns), the columns side by side
  int64_t c_stride;
  bool adds = false;  // they begin with c instead
};

// b of numbers, likewise: stride to the next column, step to the next row.
template <class T>
struct LaneOperand {
  const T* first;
  int64_t stride, step;
};

// b whose elements are the same for all models; a column of it lies side by side.
template <class T>
struct SharedColumns {
  const T* const* columns;
  int64_t offset = 0;  // to what is wanted of each
};

// The same where a row lies side by side.
template <class T>
struct SharedRows {
  const T* const* rows;
  int64_t offset = 0;
};

template <class T, class B>
void multiply_lanes(const LaneProduct<T>& product, const B& b);

// to[k * step + m] = from[m][k] for each model m, of `count` k: rows of models become numbers, that
// are `step` elements apart.
template <class T>
void gather_lanes(const T* const* from, int64_t count, T* to, int64_t step);

}  // namespace torchnn::cpu
