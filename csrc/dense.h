// The contract of one dense layer, a = activation(x @ weight.T + bias), and of its derivative.
// All arrays are row-major and contiguous, except that the rows of x may lie x_stride apart.
// A call computes a rectangle of its outputs, so that the caller can share one out among threads;
// every element is summed in the same order whatever the rectangle, so threads change no bit.
#pragma once

#include <cstdint>

namespace torchnn {

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

template <class T>
struct DenseForward {
  const T* x;       // (rows, in_features)
  const T* weight;  // (units, in_features)
  const T* bias;    // (units), or null
  T* out;           // (rows, units)
  int64_t rows, in_features, units;
  int64_t x_stride;
  int64_t activation;  // place in Activations
};

template <class T>
struct DenseBackward {
  const T* grad_out;  // (rows, units)
  const T* out;       // (rows, units), what forward gave
  const T* x;         // (rows, in_features)
  const T* weight;    // (units, in_features)
  T* grad_z;          // (rows, units); may be grad_out itself for the identity
  T* grad_x;          // (rows, in_features)
  T* grad_weight;     // (units, in_features)
  T* grad_bias;       // (units), or null
  int64_t rows, in_features, units;
  int64_t x_stride;
  int64_t activation;  // place in Activations
};

namespace cpu {

// a[i] = activation(a[i]) for count elements
template <class T>
void activate(int64_t activation, T* a, int64_t count);

// out[rows, units] = activation(x @ weight.T + bias)
template <class T>
void dense_forward(const DenseForward<T>& layer, Range rows, Range units);

// grad_z[rows] = grad_out * da/dz
template <class T>
void dense_backward_z(const DenseBackward<T>& layer, Range rows);

// grad_bias[units] = grad_z.sum(0)
template <class T>
void dense_backward_bias(const DenseBackward<T>& layer, Range units);

// grad_x[rows, features] = grad_z @ weight
template <class T>
void dense_backward_x(const DenseBackward<T>& layer, Range rows, Range features);

// grad_weight[units, features] = grad_z.T @ x
template <class T>
void dense_backward_weight(const DenseBackward<T>& layer, Range units, Range features);

}  // namespace cpu
}  // namespace torchnn
