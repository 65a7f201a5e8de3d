// CUDA's runtime, as much of it as our kernels use, for a compiler without CUDA: a fiber runs each
// CUDA thread. The kernels' own source compiles against it, so that AddressSanitizer sees every
// index and ThreadSanitizer every missing barrier.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fibers.h"

#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

inline dim3 blockDim, gridDim;

namespace simt {

constexpr int warp_size = 32;
constexpr int most_shared = 227 << 10;  // bytes, as on an H100

// The threads of a warp hand values to each other. Two slots, in turn: a thread can be one exchange
// ahead of its neighbours, and no further.
struct Warp {
  Barrier barrier{warp_size};
  uint64_t values[2][warp_size];
};

// What the threads of a block share. It has as much memory as the launch asked for, and not a byte
// more; each block finds it full of NaN.
struct Block {
  Block(int threads, size_t shared_bytes, int rank,
        const std::vector<std::unique_ptr<Block>>& cluster, Barrier& of_cluster)
      : barrier(threads),
        rank(rank),
        cluster(cluster),
        of_cluster(of_cluster),
        warps(threads / warp_size),
        shared(new unsigned char[shared_bytes]),
        shared_bytes(shared_bytes) {}
  Barrier barrier;
  int rank;
  const std::vector<std::unique_ptr<Block>>& cluster;  // that work together, by their ranks
  Barrier& of_cluster;
  std::vector<Warp> warps;  // (threads / warp_size)
  std::unique_ptr<unsigned char[]> shared;
  size_t shared_bytes;
};

// Asynchronous copies are made when they are waited for, by the thread that began them, and not a
// moment earlier.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Thread {
  Warp& warp() const { return block->warps[index.x / warp_size]; }

  dim3 index, block_index;
  Block* block;
  int exchanges = 0;
  std::vector<Copy> copies{}, row_copies{};
};
inline std::vector<Thread> all;  // of a launch

SIMT_UNSEEN inline Thread& self() { return all[current->number]; }

inline void* shared_memory() { return self().block->shared.get(); }

// SIMT_SKIP=dense.cu:123 takes away the __syncthreads of that line, SIMT_SKIP=NAME a guard of
// tests/test_simt.py.
inline const char* const skipped = std::getenv("SIMT_SKIP");

inline bool is_skipped(const char* name) { return skipped && !std::strcmp(name, skipped); }

inline bool is_skipped(const char* file, int line) {
  if (!skipped) return false;
  const char* const name = std::strrchr(file, '/');
  return is_skipped((std::string(name ? name + 1 : file) + ":" + std::to_string(line)).c_str());
}

inline void sync_threads(const char* file, int line) {
  if (!is_skipped(file, line)) self().block->barrier.wait();
}

inline void sync_warp(const char* file, int line) {
  if (!is_skipped(file, line)) self().warp().barrier.wait();
}

inline void sync_cluster(const char* file, int line) {
  if (!is_skipped(file, line)) self().block->of_cluster.wait();
}

template <class T>
T* of_block(T* p, int rank) {
  const Block& own = *self().block;
  const auto place = reinterpret_cast<unsigned char*>(p) - own.shared.get();
  if (place < 0 || size_t(place) >= own.shared_bytes) std::abort();
  return reinterpret_cast<T*>(own.cluster[rank]->shared.get() + place);
}

inline void copy_later(void* to, const void* from, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
    std::abort();
  self().copies.push_back({to, from, bytes});
}

inline void finish(std::vector<Copy>& begun) {
  for (const Copy& copy : begun) std::memcpy(copy.to, copy.from, copy.bytes);
  begun.clear();
}
inline void finish_copies() { finish(self().copies); }
inline void finish_rows() { finish(self().row_copies); }

// Those of rows must come to as many bytes as were announced.
inline void announce(uint64_t* arrivals, unsigned bytes) {
  std::atomic_ref(*arrivals).fetch_add(bytes, std::memory_order_relaxed);
}
inline void copy_later(void* to, const void* from, unsigned bytes, uint64_t* arrivals) {
  if (bytes % 16 || reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16)
    std::abort();
  std::atomic_ref(*arrivals).fetch_sub(bytes, std::memory_order_relaxed);
  self().row_copies.push_back({to, from, bytes});
}
inline void end_arrivals(const uint64_t* arrivals) {
  if (*arrivals != 0) std::abort();
}

template <class T>
T shuffle(T value, int source) {
  Thread& own = self();
  uint64_t* const values = own.warp().values[own.exchanges++ % 2];
  std::memcpy(&values[own.index.x % warp_size], &value, sizeof(T));
  own.warp().barrier.wait();
  std::memcpy(&value, &values[source], sizeof(T));
  return value;
}

// Two blocks at a time, or one cluster of them, each with threads of its own, so that blocks that
// get in each other's way are seen as well; they go on to the next blocks until the grid is done.
template <class Kernel>
void run(dim3 grid, unsigned cluster, dim3 threads, size_t shared_bytes, const Kernel& kernel) {
  const unsigned at_once = std::min(grid.x, std::max(cluster, 2u));
  std::vector<std::unique_ptr<Block>> blocks;
  Barrier of_cluster(int(cluster * threads.x));
  all.clear();
  for (unsigned first = 0; first < at_once; ++first) {
    blocks.push_back(
        std::make_unique<Block>(threads.x, shared_bytes, int(first % cluster), blocks, of_cluster));
    for (unsigned i = 0; i < threads.x; ++i)
      all.push_back({.index = {i}, .block_index = {first}, .block = blocks.back().get()});
  }
  blockDim = threads, gridDim = grid;
  run_fibers(int(all.size()), [&](int number) {
    Thread& own = all[number];
    for (; own.block_index.x < grid.x; own.block_index.x += at_once) {
      own.block->barrier.wait();
      if (own.index.x == 0) std::memset(own.block->shared.get(), 0xff, shared_bytes);
      own.block->barrier.wait();
      if (cluster > 1) of_cluster.wait();
      kernel();
    }
  });
}

}  // namespace simt

#define threadIdx simt::self().index
#define blockIdx simt::self().block_index
#define __syncthreads() simt::sync_threads(__FILE__, __LINE__)
#define __syncwarp() simt::sync_warp(__FILE__, __LINE__)

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return simt::shuffle(value, lane);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return simt::shuffle(value, int(threadIdx.x % simt::warp_size) ^ mask);
}

inline int atomicAdd(int* p, int value) {
  return std::atomic_ref(*p).fetch_add(value, std::memory_order_relaxed);
}

// ---- the host's side ----

using cudaStream_t = struct CUstream_st*;

enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };
enum cudaMemcpyKind { cudaMemcpyDefault, cudaMemcpyHostToDevice };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributePreferredSharedMemoryCarveout
};
enum cudaSharedCarveout { cudaSharedmemCarveoutMaxShared = 100 };

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "invalid configuration argument"; }

// As on a GPU, what is allocated has no values yet; here it is full of NaN.
template <class T>
cudaError_t cudaMalloc(T** p, size_t bytes) {
  *p = static_cast<T*>(std::malloc(bytes));
  std::memset(*p, 0xff, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* p) {
  std::free(p);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 2 : simt::most_shared;
  return cudaSuccess;
}

struct cudaFuncAttributes {
  int ptxVersion;
};

template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel) {
  attributes->ptxVersion = 90;
  return cudaSuccess;
}

// How much memory the blocks of a kernel may share: 48 KB, unless more was asked for.
template <class Kernel>
size_t& allowed_shared(Kernel kernel) {
  static std::map<Kernel, size_t> allowed;
  return allowed.emplace(kernel, 48 << 10).first->second;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute attribute, int bytes) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (bytes > simt::most_shared) return cudaErrorInvalidConfiguration;
  allowed_shared(kernel) = bytes;
  return cudaSuccess;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeIgnore, cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    dim3 clusterDim;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  const cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  constexpr unsigned most_threads = 1024;
  if (config->gridDim.x == 0 || config->blockDim.x == 0 || config->blockDim.x > most_threads ||
      config->blockDim.x % simt::warp_size != 0 ||
      config->dynamicSmemBytes > allowed_shared(kernel))
    return cudaErrorInvalidConfiguration;
  unsigned cluster = 1;
  for (unsigned i = 0; i < config->numAttrs; ++i)
    if (config->attrs[i].id == cudaLaunchAttributeClusterDimension)
      cluster = config->attrs[i].val.clusterDim.x;
  if (cluster == 0 || cluster > 8 || config->gridDim.x % cluster != 0)
    return cudaErrorInvalidConfiguration;
  simt::run(config->gridDim, cluster, config->blockDim, config->dynamicSmemBytes,
            [&] { kernel(arguments...); });
  return cudaSuccess;
}
