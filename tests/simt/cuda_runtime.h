// CUDA's runtime, as much of it as our kernels use, for a compiler without CUDA: a std::thread runs
// each CUDA thread, a std::barrier is __syncthreads. The kernels' own source compiles against it,
// so that AddressSanitizer sees every index and ThreadSanitizer every missing barrier.
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace simt {

constexpr int warp_size = 32;
constexpr int most_shared = 227 << 10;  // bytes, as on an H100
using Barrier = std::barrier<>;

// The threads of a warp hand values to each other. Two slots, in turn: a thread can be one exchange
// ahead of its neighbours, and no further.
struct Warp {
  Barrier barrier{warp_size};
  uint64_t values[2][warp_size];
};

// What the threads of a block share. It has as much memory as the launch asked for, and not a byte
// more; each block finds it full of NaN.
struct Block {
  Block(int threads, size_t shared_bytes)
      : barrier(threads),
        warps(threads / warp_size),
        shared(new unsigned char[shared_bytes]),
        shared_bytes(shared_bytes) {}
  Barrier barrier;
  std::vector<Warp> warps;  // (threads / warp_size)
  std::unique_ptr<unsigned char[]> shared;
  size_t shared_bytes;
};

inline thread_local Block* block;
inline thread_local int exchanges;

inline void* shared_memory() { return block->shared.get(); }

// SIMT_SKIP=dense.cu:123 takes away the __syncthreads of that line.
inline bool is_skipped(const char* file, int line) {
  static const char* const skipped = std::getenv("SIMT_SKIP");
  if (!skipped) return false;
  const char* const name = std::strrchr(file, '/');
  return std::string(name ? name + 1 : file) + ":" + std::to_string(line) == skipped;
}

inline void sync_threads(const char* file, int line) {
  if (!is_skipped(file, line)) block->barrier.arrive_and_wait();
}

inline void sync_warp(const char* file, int line) {
  if (!is_skipped(file, line)) block->warps[threadIdx.x / warp_size].barrier.arrive_and_wait();
}

// Asynchronous copies are made when they are waited for, by the thread that began them, and not a
// moment earlier.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};
inline thread_local std::vector<Copy> copies, row_copies;

inline void copy_later(void* to, const void* from, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
    std::abort();
  copies.push_back({to, from, bytes});
}

inline void finish(std::vector<Copy>& begun) {
  for (const Copy& copy : begun) std::memcpy(copy.to, copy.from, copy.bytes);
  begun.clear();
}
inline void finish_copies() { finish(copies); }
inline void finish_rows() { finish(row_copies); }

// Those of rows must come to as many bytes as were announced.
inline void announce(uint64_t* arrivals, unsigned bytes) {
  std::atomic_ref(*arrivals).fetch_add(bytes);
}
inline void copy_later(void* to, const void* from, unsigned bytes, uint64_t* arrivals) {
  if (bytes % 16 || reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16)
    std::abort();
  std::atomic_ref(*arrivals).fetch_sub(bytes);
  row_copies.push_back({to, from, bytes});
}
inline void end_arrivals(const uint64_t* arrivals) {
  if (*arrivals != 0) std::abort();
}

template <class T>
T shuffle(T value, int source) {
  Warp& warp = block->warps[threadIdx.x / warp_size];
  uint64_t* const values = warp.values[exchanges++ % 2];
  std::memcpy(&values[threadIdx.x % warp_size], &value, sizeof(T));
  warp.barrier.arrive_and_wait();
  std::memcpy(&value, &values[source], sizeof(T));
  return value;
}

// Two blocks at a time, each with threads of its own, so that blocks that get in each other's way
// are seen as well; they go on to the next blocks until the grid is done.
template <class Kernel>
void run(dim3 grid, dim3 threads, size_t shared_bytes, const Kernel& kernel) {
  constexpr unsigned at_once = 2;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::thread> running;
  for (unsigned first = 0; first < at_once; ++first) {
    blocks.push_back(std::make_unique<Block>(threads.x, shared_bytes));
    for (unsigned i = 0; i < threads.x; ++i)
      running.emplace_back([=, &kernel, own = blocks.back().get()] {
        block = own;
        threadIdx.x = i, blockDim = threads, gridDim = grid;
        for (blockIdx.x = first; blockIdx.x < grid.x; blockIdx.x += at_once) {
          own->barrier.arrive_and_wait();
          if (i == 0) std::memset(own->shared.get(), 0xff, shared_bytes);
          own->barrier.arrive_and_wait();
          kernel();
        }
      });
  }
  for (std::thread& thread : running) thread.join();
}

}  // namespace simt

#define __syncthreads() simt::sync_threads(__FILE__, __LINE__)
#define __syncwarp() simt::sync_warp(__FILE__, __LINE__)

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return simt::shuffle(value, int(threadIdx.x % simt::warp_size) ^ mask);
}

// ---- the host's side ----

using cudaStream_t = struct CUstream_st*;

enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };
enum cudaMemcpyKind { cudaMemcpyDefault };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
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
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = simt::most_shared;
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

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  constexpr unsigned most_threads = 1024;
  if (config->gridDim.x == 0 || config->blockDim.x == 0 || config->blockDim.x > most_threads ||
      config->blockDim.x % simt::warp_size != 0 ||
      config->dynamicSmemBytes > allowed_shared(kernel))
    return cudaErrorInvalidConfiguration;
  simt::run(config->gridDim, config->blockDim, config->dynamicSmemBytes,
            [&] { kernel(arguments...); });
  return cudaSuccess;
}
