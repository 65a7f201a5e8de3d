// Blocks that work together, on sm_90 and later: they run at the same time, wait for each other,
// and reach into each other's shared memory.
#pragma once

#include <cuda_runtime.h>

namespace torchnn::cuda {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
inline constexpr bool has_clusters = true;
#else
inline constexpr bool has_clusters = false;
#endif

#if defined(__CUDACC__)

__device__ inline int block_rank() {
#if __CUDA_ARCH__ >= 900
  return int(__clusterRelativeBlockRank());
#else
  return 0;
#endif
}

// What lies in the shared memory of that block where p does in ours.
template <class T>
__device__ T* of_block(T* p, [[maybe_unused]] int rank) {
#if __CUDA_ARCH__ >= 900
  return static_cast<T*>(__cluster_map_shared_rank(p, unsigned(rank)));
#else
  return p;
#endif
}

// A barrier for the threads of all of these blocks, who then see what the others have written.
__device__ inline void sync_cluster() {
#if __CUDA_ARCH__ >= 900
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
}

#else  // tests/simt/cuda_runtime.h

inline int block_rank() { return simt::self().block->rank; }

template <class T>
T* of_block(T* p, int rank) {
  return simt::of_block(p, rank);
}

#define sync_cluster() simt::sync_cluster(__FILE__, __LINE__)

#endif

}  // namespace torchnn::cuda
