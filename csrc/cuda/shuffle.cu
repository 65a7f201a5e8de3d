// The orders of rows of many epochs, a thread each: a step of one waits for memory, and not for the
// step before it in another.
#include "../math/shuffle.h"
#include "../train.h"
#include "launch.cuh"

namespace torchnn::cuda {
namespace {

constexpr int shuffle_threads = 32;  // a warp, so that the multiprocessors share out few orders

__global__ void __launch_bounds__(shuffle_threads)
    shuffle_kernel(int64_t* rows, int64_t size, const int64_t* seeds, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t(shuffle_threads) + threadIdx.x; i < count;
       i += gridDim.x * int64_t(shuffle_threads))
    torchnn::shuffle(rows + i * size, size, uint32_t(seeds[i]));
}

}  // namespace

void shuffle(int64_t* rows, int64_t size, const int64_t* seeds, int64_t count, Stream stream) {
  launch("shuffle", shuffle_kernel, (count + shuffle_threads - 1) / shuffle_threads,
         shuffle_threads, 0, stream, rows, size, seeds, count);
}

}  // namespace torchnn::cuda
