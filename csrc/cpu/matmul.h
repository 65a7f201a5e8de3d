// c = bias + a @ b on one thread: the product behind grad_x, grad_weight and large forwards.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

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

// c (rows, columns) = bias + a @ b.
template <class T>
struct Product {
  int64_t rows, columns, depth;
  Matrix<T> a, b;
  const T* bias;  // (columns), or null for zeros
  T* c;
  int64_t c_stride;
  // Called on every finished block of c while it is in the cache; may be null.
  void (*finish)(T* block, int64_t rows, int64_t columns, int64_t stride);
};

template <class T>
void multiply(const Product<T>& product);

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

}  // namespace torchnn::cpu
