// The contract of one dense layer, a = activation(x @ weight.T + bias), and of its derivative.
// All arrays are row-major and contiguous, except that the rows of x may lie x_stride apart.
// A call computes a rectangle of its outputs, so that the caller can share one out among threads;
// every element is summed in the same order whatever the rectangle, so threads change no bit. On
// the CPU, numbers below the smallest normal one are zeros (csrc/cpu/simd/subnormals.h).
#pragma once

#include <cstdint>

struct CUstream_st;  // CUDA's, so that this file needs none of its headers

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
  const T* out;       // (rows, units), what forward gave; or z, if the activation keeps it
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

// Each launches kernels on a stream and returns; a launch that fails throws. Inside the kernels, a
// block of threads computes rectangles, by functions of the same names as on the CPU. T may also be
// __half or __nv_bfloat16, which are computed in float.
namespace cuda {

using Stream = CUstream_st*;  // cudaStream_t

// The crossovers between these kernels and PyTorch's products.
bool fuses_forward(int64_t rows, int64_t in_features, int64_t units, int64_t element_size);
bool fuses_backward(int64_t rows, int64_t in_features, int64_t units, int64_t element_size);
// And whether the bias is left to activate there.
bool adds_bias_apart(int64_t rows, int64_t element_size);

// a[i] = activation(a[i] + bias[i % units]) for count elements; bias may be null
template <class T>
void activate(int64_t activation, T* a, const T* bias, int64_t units, int64_t count, Stream stream);

// grad_z[i] = grad_out[i] * da/dz(z[i]) for count elements, of an activation that keeps z; what
// follows takes the others alone
template <class T>
void activate_backward(int64_t activation, const T* grad_out, const T* z, T* grad_z, int64_t count,
                       Stream stream);

// out = activation(x @ weight.T + bias)
template <class T>
void dense_forward(const DenseForward<T>& layer, Stream stream);

// grad_z, if it is not null, and what leads to grad_bias, if that is not null: sums of some rows
// each, (bias_sums, units); or grad_bias itself if there is one sum alone, then sums is null
template <class T, class Sum>
void dense_backward_z(const DenseBackward<T>& layer, Sum* sums, Stream stream);
template <class T>
int64_t bias_sums(int64_t rows, int64_t units);

// grad_bias = sums.sum(0)
template <class T, class Sum>
void dense_backward_bias(const DenseBackward<T>& layer, const Sum* sums, Stream stream);

// grad_x, grad_weight and grad_bias, those that are not null, in one kernel; grad_z is never stored
template <class T>
void dense_backward(const DenseBackward<T>& layer, Stream stream);

}  // namespace cuda
}  // namespace torchnn
