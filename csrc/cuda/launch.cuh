// How kernels are launched, the one place: the number of blocks, the memory they share, and what is
// said when a launch fails.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "../dense.h"
#include "../math/lane.h"

namespace torchnn::cuda {

// Enough for any GPU. Blocks go on to further tiles, so that there may be more tiles than this.
#if !defined(TORCHNN_MOST_BLOCKS)  // tests make do with few
#define TORCHNN_MOST_BLOCKS 65536
#endif

// An output cut into rectangles. A block takes one after the other, gridDim.x apart.
struct Tiles {
  int64_t rows, columns;
  int64_t tile_rows, tile_columns;

  TORCHNN_FN int64_t across() const { return (columns + tile_columns - 1) / tile_columns; }
  TORCHNN_FN int64_t count() const { return (rows + tile_rows - 1) / tile_rows * across(); }
  TORCHNN_FN Range rows_of(int64_t tile) const {
    return cut(tile / across() * tile_rows, tile_rows, rows);
  }
  TORCHNN_FN Range columns_of(int64_t tile) const {
    return cut(tile % across() * tile_columns, tile_columns, columns);
  }

 private:
  static TORCHNN_FN Range cut(int64_t begin, int64_t size, int64_t end) {
    return {begin, begin + size < end ? begin + size : end};
  }
};

// The memory that the threads of a block share, as much as the launch asked for.
template <class T>
__device__ T* shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ int4 memory[];
#else
  void* memory = simt::shared_memory();  // tests/simt/cuda_runtime.h
#endif
  return reinterpret_cast<T*>(memory);
}

inline void check(const char* call, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // forget it, or PyTorch would find it and blame another kernel
  throw std::runtime_error(std::string(call) + " failed: " + cudaGetErrorString(error));
}

// Of the current device.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device, value;
  check("cudaGetDevice", cudaGetDevice(&device));
  check("cudaDeviceGetAttribute", cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}
inline int64_t most_shared_bytes_of_a_block() {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

// For kernels whose blocks share little memory each: lets a multiprocessor use all it has for them.
template <class Kernel>
void prefer_shared_memory(const char* name, Kernel kernel) {
  check(name, cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared));
}

// Runs the kernel on so many tiles, each by so many blocks that work together; of none there is
// nothing to compute.
template <class... Parameters, class... Arguments>
void launch_clusters(const char* name, void (*kernel)(Parameters...), int64_t tiles, int cluster,
                     int threads, size_t shared_bytes, cudaStream_t stream,
                     const Arguments&... arguments) {
  if (tiles == 0) return;
  cudaLaunchConfig_t config{};
  const int64_t most = std::max(1, TORCHNN_MOST_BLOCKS / cluster);
  config.gridDim = dim3(unsigned(std::min<int64_t>(tiles, most) * cluster));
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute together{};
  if (cluster > 1) {
    together.id = cudaLaunchAttributeClusterDimension;
    together.val.clusterDim = {unsigned(cluster), 1, 1};
    config.attrs = &together, config.numAttrs = 1;
  }
  const std::string what = std::string("the launch of the CUDA kernel ") + name;
  constexpr size_t most_unasked = 48 << 10;
  if (shared_bytes > most_unasked)
    check(what.c_str(), cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             int(shared_bytes)));
  check(what.c_str(), cudaLaunchKernelEx(&config, kernel, arguments...));
}

// Each tile by one block.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), int64_t tiles, int threads,
            size_t shared_bytes, cudaStream_t stream, const Arguments&... arguments) {
  launch_clusters(name, kernel, tiles, 1, threads, shared_bytes, stream, arguments...);
}

}  // namespace torchnn::cuda
