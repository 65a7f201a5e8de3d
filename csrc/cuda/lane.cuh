// The Lane of a CUDA thread: what an element is stored as, what it is computed in, and how 16 bytes
// of elements travel at once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "../math/activation.h"

namespace torchnn::cuda {

inline constexpr int warp_size = 32;

// Half types are for storage; sums and activations are in float.
template <class T>
struct LaneOf {
  using type = T;
};
template <>
struct LaneOf<__half> {
  using type = float;
};
template <>
struct LaneOf<__nv_bfloat16> {
  using type = float;
};
template <class T>
using Lane = typename LaneOf<T>::type;

TORCHNN_FN float widen(float x) { return x; }
TORCHNN_FN double widen(double x) { return x; }
TORCHNN_FN float widen(__half x) { return __half2float(x); }
TORCHNN_FN float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
TORCHNN_FN T narrow(Lane<T> x) {
  if constexpr (std::is_same_v<T, __half>)
    return __float2half_rn(x);
  else if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __float2bfloat16_rn(x);
  else
    return x;
}

// Calls f with the activation at that place, if backward takes its output. Those that keep z have a
// pass of their own on the way back, since they would take these kernels more registers than there
// are.
template <class Place, class F>
TORCHNN_FN void with_activation(Place place, const F& f) {
  Activations::with(place, [&](auto activation) {
    if constexpr (!keeps_z<decltype(activation)>) f(activation);
  });
}

// The widest access of a thread.
template <class T>
inline constexpr int pack = 16 / sizeof(T);
template <class T>
struct alignas(16) Pack {
  T values[pack<T>];
};

// Whether all rows begin where a Pack may: tensors may be slices, and have odd widths.
template <class T>
TORCHNN_FN bool is_aligned(const T* first, int64_t stride) {
  return (reinterpret_cast<uintptr_t>(first) | uint64_t(stride * sizeof(T))) % 16 == 0;
}

// The first `count` elements of a Pack, zeros behind them. The same elements in the same places
// whether aligned or not, so that alignment changes no bit of a sum.
template <class T>
TORCHNN_FN Pack<T> load(const T* p, int64_t count, bool aligned) {
  if (aligned && count >= pack<T>) return *reinterpret_cast<const Pack<T>*>(p);
  Pack<T> v;
#pragma unroll
  for (int i = 0; i < pack<T>; ++i) v.values[i] = i < count ? p[i] : narrow<T>(0);
  return v;
}

template <class T>
TORCHNN_FN void store(T* p, const Pack<T>& v, int64_t count, bool aligned) {
  if (aligned && count >= pack<T>) {
    *reinterpret_cast<Pack<T>*>(p) = v;
    return;
  }
#pragma unroll
  for (int i = 0; i < pack<T>; ++i)
    if (i < count) p[i] = v.values[i];
}

}  // namespace torchnn::cuda
