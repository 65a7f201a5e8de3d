// CUDA's __half, as much of it as our kernels use.
#pragma once

struct __half {
  _Float16 value;
};

inline float __half2float(__half x) { return x.value; }
inline __half __float2half_rn(float x) { return {_Float16(x)}; }
