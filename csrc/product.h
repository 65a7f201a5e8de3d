// A product of two matrices on the CPU: computed by cpu/matmul.cpp, or by a library.
#pragma once

#include <cstdint>

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

// c (rows, columns) = bias + a @ b, or what else is asked for of these.
template <class T>
struct Product {
  int64_t rows, columns, depth;
  Matrix<T> a, b;
  const T* bias = nullptr;  // (columns), or null for zeros
  T* c;
  int64_t c_stride;
  // Called on every finished block of c while it is in the cache; may be null.
  void (*finish)(T* block, int64_t rows, int64_t columns, int64_t stride) = nullptr;
};

}  // namespace torchnn::cpu
