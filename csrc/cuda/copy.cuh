// Copies from the device's memory to that of a block, which go on while its threads compute: of a
// few bytes by the thread that asks for them, of whole rows by the copy engine of sm_90 and later.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

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

// ---- the copy engine ----
//
// It counts the bytes that it brings in an object in shared memory, the arrivals: of one load of
// rows after the other, each of which one thread announces and all wait for.

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
inline constexpr bool has_copy_engine = true;
#else
inline constexpr bool has_copy_engine = false;
#endif

__device__ inline unsigned shared_place(const void* p) {
#if defined(__CUDACC__)
  return unsigned(__cvta_generic_to_shared(p));
#else
  return unsigned(reinterpret_cast<uintptr_t>(p));
#endif
}

// By one thread; a barrier must follow.
__device__ inline void begin_arrivals([[maybe_unused]] uint64_t* arrivals) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_place(arrivals)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

__device__ inline void end_arrivals([[maybe_unused]] uint64_t* arrivals) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_place(arrivals)) : "memory");
#elif !defined(__CUDACC__)
  simt::end_arrivals(arrivals);
#endif
}

// Between ordinary writes of a thread to shared memory and copies to the same place by the engine,
// which another thread asks for behind a barrier.
__device__ inline void let_engine_see_writes() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// By one thread: so many bytes will come.
__device__ inline void announce(uint64_t* arrivals, unsigned bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_place(arrivals)),
      "r"(bytes)
      : "memory");
#elif !defined(__CUDACC__)
  simt::announce(arrivals, bytes);
#endif
}

// Begins a copy of a multiple of 16 bytes, to and from a multiple of 16.
__device__ inline void copy_row(void* to, const void* from, unsigned bytes, uint64_t* arrivals) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const size_t source = __cvta_generic_to_global(from);
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_place(to)),
      "l"(source), "r"(bytes), "r"(shared_place(arrivals))
      : "memory");
#elif !defined(__CUDACC__)
  simt::copy_later(to, from, bytes, arrivals);
#endif
}

// Waits until all is there that the n-th announcement spoke of, n = 0, 1, ... being odd or not.
__device__ inline void wait_for_arrivals([[maybe_unused]] uint64_t* arrivals,
                                         [[maybe_unused]] bool odd) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred there;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 there, [%0], %1;\n"
      "@!there bra again;\n"
      "}\n" ::"r"(shared_place(arrivals)),
      "r"(unsigned(odd))
      : "memory");
#elif !defined(__CUDACC__)
  simt::finish_rows();
#endif
}

}  // namespace torchnn::cuda
