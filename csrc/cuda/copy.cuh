// Copies from the device's memory to that of a block, which go on while its threads compute.
#pragma once

#include <cuda_runtime.h>

namespace torchnn::cuda {

// Begins a copy of 4, 8 or 16 bytes, to and from a multiple of as many.
template <int bytes>
__device__ void copy_async(void* to, const void* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800  // which has no such copies
  struct alignas(bytes) Words {
    int values[bytes / sizeof(int)];
  };
  *static_cast<Words*>(to) = *static_cast<const Words*>(from);
#elif defined(__CUDACC__)
  const unsigned place = unsigned(__cvta_generic_to_shared(to));
  const size_t source = __cvta_generic_to_global(from);
  if constexpr (bytes == 16)  // past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(source) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(place), "l"(source), "n"(bytes)
                 : "memory");
#else
  simt::copy_later(to, from, bytes);  // tests/simt/cuda_runtime.h
#endif
}

// Waits for the copies that this thread has begun; for those of others, a barrier must follow.
__device__ inline void wait_for_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#elif defined(__CUDACC__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#else
  simt::finish_copies();
#endif
}

}  // namespace torchnn::cuda
