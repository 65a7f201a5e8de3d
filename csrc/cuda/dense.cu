// One dense layer on CUDA. cpu/dense.cpp is its twin: the same functions, order and steps. What a
// thread does there, a block of threads does here: it computes a rectangle of an output. Every sum
// is taken in one order, whatever the grid, so results are the same from run to run.
#include "../dense.h"

#include "../activation.h"
#include "lane.cuh"
#include "launch.cuh"

namespace torchnn::cuda {
namespace {

// Forward: tiles of 4 x 4 outputs, for which a thread keeps 16 sums over its share of in_features.
constexpr int forward_tile = 4, forward_sums = forward_tile * forward_tile;
constexpr int forward_warps = 16;  // at most: 16 x 32 threads cover 2048 floats of a row at once

// Everything else: 8 warps, and a tile is a Pack wide for each lane of a warp.
constexpr int warps = 8, threads = warps * warp_size;
template <class T>
constexpr int wide = warp_size * pack<T>;

// Products of backward: 4 rows, and a column for each lane of a warp.
constexpr int product_rows = 4;
constexpr int depth_step = 256;  // of the left factor are in shared memory at a time
constexpr int product_shared = product_rows * depth_step;
static_assert(product_shared >= warps * product_rows * warp_size, "sums take the same memory");

// Rows of a pass over (rows, units) that one block takes: 8 for each warp.
constexpr int64_t pass_rows = 8 * warps;

// The rows that are summed on their own for grad_bias, so that rounding errors grow with the block;
// at most 256 of these blocks, since one block of threads adds them up.
TORCHNN_FN int64_t bias_rows(int64_t rows) {
  constexpr int64_t most_parts = 256;
  const int64_t even = (rows + most_parts - 1) / most_parts;
  return even > pass_rows ? even : pass_rows;
}

TORCHNN_FN int64_t parts_of(int64_t rows) { return (rows + bias_rows(rows) - 1) / bias_rows(rows); }

// Of 2 half values, lanes whose number has the bit `half` keep the upper half, the others the
// lower, each added to its partner's; and so on with the rest. A lane ends with the sum of value
// lane % (2 half) in values[0]. A template, not a loop, so that values stay in registers.
template <int half, class L>
__device__ void sum_halves(L* values, int lane) {
  const bool upper = lane & half;
#pragma unroll
  for (int i = 0; i < half; ++i) {
    const L kept = upper ? values[i + half] : values[i],
            given = upper ? values[i] : values[i + half];
    values[i] = kept + __shfl_xor_sync(~0u, given, half);
  }
  if constexpr (half > 1) sum_halves<half / 2>(values, lane);
}

// The sums over the threads of a block of 16 values each; thread i < 16 returns the i-th.
template <class L>
__device__ L sum_over_block(L (&values)[forward_sums]) {
  L* parts = shared_memory<L>();  // (warps, 16)
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  sum_halves<forward_sums / 2>(values, lane);
  const L sum = values[0] + __shfl_xor_sync(~0u, values[0], forward_sums);
  if (lane < forward_sums) parts[warp * forward_sums + lane] = sum;
  __syncthreads();
  L total{};
  if (threadIdx.x < forward_sums)
    for (int i = threadIdx.x; i < int(blockDim.x) / warp_size * forward_sums; i += forward_sums)
      total += parts[i];
  __syncthreads();  // the next tile writes where this one is read
  return total;
}

// c[4, 32] = a @ b for element functions a(row, d) and b(d, column), and store(row, column, c).
template <class L, class A, class B, class Store>
__device__ void multiply(int64_t depth, const A& a, const B& b, const Store& store) {
  L* shared = shared_memory<L>();  // a (4, depth_step), then the sums (warps, 4, 32)
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  L sums[product_rows] = {};
  for (int64_t begin = 0; begin < depth; begin += depth_step) {
    const int size = depth - begin < depth_step ? int(depth - begin) : depth_step;
    for (int i = threadIdx.x; i < product_shared; i += threads)
      if (i % depth_step < size) shared[i] = a(i / depth_step, begin + i % depth_step);
    __syncthreads();
    for (int d = warp; d < size; d += warps) {
      const L right = b(begin + d, lane);
#pragma unroll
      for (int row = 0; row < product_rows; ++row)
        sums[row] += shared[row * depth_step + d] * right;
    }
    __syncthreads();
  }
#pragma unroll
  for (int row = 0; row < product_rows; ++row)
    shared[(warp * product_rows + row) * warp_size + lane] = sums[row];
  __syncthreads();
  if (warp < product_rows) {
    L sum{};
    for (int i = 0; i < warps; ++i) sum += shared[(i * product_rows + warp) * warp_size + lane];
    store(warp, lane, sum);
  }
  __syncthreads();  // the next tile writes where this one is read
}

// One element of grad_z.
template <class T>
__device__ Lane<T> grad_z_at(const DenseBackward<T>& layer, int64_t row, int64_t unit) {
  const int64_t i = row * layer.units + unit;
  Lane<T> grad_z{};
  Activations::with(layer.activation, [&](auto activation) {
    grad_z = activation.backward(widen(layer.grad_out[i]), widen(layer.out[i]));
  });
  return grad_z;
}

TORCHNN_FN int64_t within(int64_t i, Range range) { return i < range.end ? i : range.end - 1; }

// ---- what a block computes ----

// out[rows, units] = activation(out + bias)
template <class T>
__device__ void activate(const DenseForward<T>& layer, Range rows, Range units) {
  using L = Lane<T>;
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int64_t unit = units.begin + lane * pack<T>, count = units.end - unit;
  if (count <= 0) return;
  L bias[pack<T>] = {};
  if (layer.bias) {
    const Pack<T> b = load(layer.bias + unit, count, is_aligned(layer.bias, 0));
#pragma unroll
    for (int i = 0; i < pack<T>; ++i) bias[i] = widen(b.values[i]);
  }
  const bool aligned = is_aligned(layer.out, layer.units);
  Activations::with(layer.activation, [&](auto activation) {
    for (int64_t row = rows.begin + warp; row < rows.end; row += warps) {
      T* out = layer.out + row * layer.units + unit;
      Pack<T> a = load(out, count, aligned);
#pragma unroll
      for (int i = 0; i < pack<T>; ++i)
        a.values[i] = narrow<T>(activation.forward(widen(a.values[i]) + bias[i]));
      store(out, a, count, aligned);
    }
  });
}

// out[rows, units] = activation(x @ weight.T + bias)
template <class T>
__device__ void dense_forward(const DenseForward<T>& layer, Range rows, Range units) {
  using L = Lane<T>;
  // 1. start from the bias
  L sums[forward_sums];
#pragma unroll
  for (int i = 0; i < forward_sums; ++i) {
    const bool starts = threadIdx.x == 0 && layer.bias;
    sums[i] = starts ? widen(layer.bias[within(units.begin + i % forward_tile, units)]) : L{};
  }
  // 2. accumulate x @ weight.T
  const bool aligned =
      is_aligned(layer.x, layer.x_stride) && is_aligned(layer.weight, layer.in_features);
  for (int64_t k = threadIdx.x * pack<T>; k < layer.in_features; k += blockDim.x * pack<T>) {
    const int64_t count = layer.in_features - k;
    Pack<T> w[forward_tile];
#pragma unroll
    for (int j = 0; j < forward_tile; ++j)
      w[j] = load(layer.weight + within(units.begin + j, units) * layer.in_features + k, count,
                  aligned);
#pragma unroll
    for (int i = 0; i < forward_tile; ++i) {
      const Pack<T> x =
          load(layer.x + within(rows.begin + i, rows) * layer.x_stride + k, count, aligned);
#pragma unroll
      for (int j = 0; j < forward_tile; ++j)
#pragma unroll
        for (int p = 0; p < pack<T>; ++p)
          sums[i * forward_tile + j] += widen(x.values[p]) * widen(w[j].values[p]);
    }
  }
  const L z = sum_over_block(sums);
  // 3. activate and store
  const int64_t row = rows.begin + threadIdx.x / forward_tile;
  const int64_t unit = units.begin + threadIdx.x % forward_tile;
  if (threadIdx.x < forward_sums && row < rows.end && unit < units.end)
    Activations::with(layer.activation, [&](auto activation) {
      layer.out[row * layer.units + unit] = narrow<T>(activation.forward(z));
    });
}

// grad_z[rows, units] = grad_out * da/dz, if it is kept, and sums[units] = its sum over the rows
template <class T, class Sum>
__device__ void dense_backward_z(const DenseBackward<T>& layer, Range rows, Range units,
                                 Sum* sums) {
  using L = Lane<T>;
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int64_t unit = units.begin + lane * pack<T>, count = units.end - unit;
  const bool aligned =
      is_aligned(layer.grad_out, layer.units) && is_aligned(layer.out, layer.units);
  const bool aligned_z = is_aligned(layer.grad_z, layer.units);
  L part[pack<T>] = {};
  // 1. sum a block of rows
  Activations::with(layer.activation, [&](auto activation) {
    for (int64_t row = rows.begin + warp; count > 0 && row < rows.end; row += warps) {
      const int64_t first = row * layer.units + unit;
      Pack<T> grad = load(layer.grad_out + first, count, aligned);
      const Pack<T> a = load(layer.out + first, count, aligned);
#pragma unroll
      for (int i = 0; i < pack<T>; ++i) {
        const L grad_z = activation.backward(widen(grad.values[i]), widen(a.values[i]));
        grad.values[i] = narrow<T>(grad_z);
        part[i] += grad_z;
      }
      if (layer.grad_z) store(layer.grad_z + first, grad, count, aligned_z);
    }
  });
  if (!sums) return;
  L* parts = shared_memory<L>();  // (warps, wide)
#pragma unroll
  for (int i = 0; i < pack<T>; ++i) parts[warp * wide<T> + lane * pack<T> + i] = part[i];
  __syncthreads();
  for (int column = threadIdx.x; column < wide<T>; column += threads)
    if (units.begin + column < units.end) {
      L sum{};
      for (int i = 0; i < warps; ++i) sum += parts[i * wide<T> + column];
      sums[units.begin + column] = narrow<Sum>(sum);
    }
  __syncthreads();  // the next tile writes where this one is read
}

// grad_bias[units] = sums.sum(0)
template <class T, class Sum>
__device__ void dense_backward_bias(const DenseBackward<T>& layer, const Sum* sums, Range units) {
  // 2. add the blocks up
  DenseBackward<Sum> blocks{};
  blocks.grad_out = blocks.out = sums;
  blocks.rows = parts_of(layer.rows);
  blocks.units = layer.units;
  dense_backward_z(blocks, {0, blocks.rows}, units, layer.grad_bias);
}

// grad_x[rows, features] = grad_z @ weight
template <class T>
__device__ void dense_backward_x(const DenseBackward<T>& layer, Range rows, Range features) {
  multiply<Lane<T>>(
      layer.units,
      [&](int i, int64_t unit) { return grad_z_at(layer, within(rows.begin + i, rows), unit); },
      [&](int64_t unit, int j) {
        return widen(layer.weight[unit * layer.in_features + within(features.begin + j, features)]);
      },
      [&](int i, int j, Lane<T> sum) {
        const int64_t row = rows.begin + i, feature = features.begin + j;
        if (row < rows.end && feature < features.end)
          layer.grad_x[row * layer.in_features + feature] = narrow<T>(sum);
      });
}

// grad_weight[units, features] = grad_z.T @ x
template <class T>
__device__ void dense_backward_weight(const DenseBackward<T>& layer, Range units, Range features) {
  multiply<Lane<T>>(
      layer.rows,
      [&](int i, int64_t row) { return grad_z_at(layer, row, within(units.begin + i, units)); },
      [&](int64_t row, int j) {
        return widen(layer.x[row * layer.x_stride + within(features.begin + j, features)]);
      },
      [&](int i, int j, Lane<T> sum) {
        const int64_t unit = units.begin + i, feature = features.begin + j;
        if (unit < units.end && feature < features.end)
          layer.grad_weight[unit * layer.in_features + feature] = narrow<T>(sum);
      });
}

// ---- kernels: which block computes what ----

template <class T>
TORCHNN_FN Tiles activate_tiles(const DenseForward<T>& layer) {
  return {layer.rows, layer.units, pass_rows, wide<T>};
}

template <class T>
__global__ void __launch_bounds__(threads) activate_kernel(DenseForward<T> layer) {
  const Tiles tiles = activate_tiles(layer);
  for (int64_t i = blockIdx.x; i < tiles.count(); i += gridDim.x)
    activate(layer, tiles.rows_of(i), tiles.columns_of(i));
}

template <class T>
TORCHNN_FN Tiles forward_tiles(const DenseForward<T>& layer) {
  return {layer.rows, layer.units, forward_tile, forward_tile};
}

template <class T>
__global__ void __launch_bounds__(forward_warps* warp_size)
    dense_forward_kernel(DenseForward<T> layer) {
  const Tiles tiles = forward_tiles(layer);
  for (int64_t i = blockIdx.x; i < tiles.count(); i += gridDim.x)
    dense_forward(layer, tiles.rows_of(i), tiles.columns_of(i));
}

template <class T>
TORCHNN_FN Tiles backward_z_tiles(const DenseBackward<T>& layer) {
  return {layer.rows, layer.units, bias_rows(layer.rows), wide<T>};
}

template <class T, class Sum>
__global__ void __launch_bounds__(threads)
    dense_backward_z_kernel(DenseBackward<T> layer, Sum* sums) {
  const Tiles tiles = backward_z_tiles(layer);
  for (int64_t i = blockIdx.x; i < tiles.count(); i += gridDim.x)
    dense_backward_z(layer, tiles.rows_of(i), tiles.columns_of(i),
                     sums ? sums + i / tiles.across() * layer.units : nullptr);
}

template <class T, class Sum>
TORCHNN_FN Tiles backward_bias_tiles(const DenseBackward<T>& layer) {
  return {1, layer.units, 1, wide<Sum>};
}

template <class T, class Sum>
__global__ void __launch_bounds__(threads)
    dense_backward_bias_kernel(DenseBackward<T> layer, const Sum* sums) {
  const Tiles tiles = backward_bias_tiles<T, Sum>(layer);
  for (int64_t i = blockIdx.x; i < tiles.count(); i += gridDim.x)
    dense_backward_bias(layer, sums, tiles.columns_of(i));
}

// The tiles of the three gradients, one after the other; of a gradient that is null there are none.
template <class T>
struct BackwardTiles {
  Tiles x, weight, bias;
  TORCHNN_FN explicit BackwardTiles(const DenseBackward<T>& l)
      : x{l.grad_x ? l.rows : 0, l.in_features, product_rows, warp_size},
        weight{l.grad_weight ? l.units : 0, l.in_features, product_rows, warp_size},
        bias{l.grad_bias ? 1 : 0, l.units, 1, wide<T>} {}
  TORCHNN_FN int64_t count() const { return x.count() + weight.count() + bias.count(); }
};

template <class T>
__global__ void __launch_bounds__(threads) dense_backward_kernel(DenseBackward<T> layer) {
  const BackwardTiles<T> tiles(layer);
  for (int64_t tile = blockIdx.x; tile < tiles.count(); tile += gridDim.x) {
    int64_t i = tile;
    if (i < tiles.x.count()) {
      dense_backward_x(layer, tiles.x.rows_of(i), tiles.x.columns_of(i));
    } else if ((i -= tiles.x.count()) < tiles.weight.count()) {
      dense_backward_weight(layer, tiles.weight.rows_of(i), tiles.weight.columns_of(i));
    } else {
      i -= tiles.weight.count();
      dense_backward_z(layer, {0, layer.rows}, tiles.bias.columns_of(i), layer.grad_bias);
    }
  }
}

}  // namespace

// ---- launches ----

// The crossovers, the one place; estimated, and not yet measured on a GPU. Tiles of 4 x 4 read half
// a number for each multiply-add, mostly from the second-level cache: 8 million of them take some
// 3 us in float32, what a launch or two cost. With few rows or units each operand is read once.
constexpr int64_t small = 1 << 23;

bool fuses_forward(int64_t rows, int64_t in_features, int64_t units) {
  return rows * in_features * units <= small || std::min(rows, units) <= forward_tile;
}

// A block sums over all rows, or all units, so neither may be many.
bool fuses_backward(int64_t rows, int64_t in_features, int64_t units) {
  constexpr int64_t deepest = 4 * depth_step;
  return rows * in_features * units <= small && std::max(rows, units) <= deepest;
}

template <class T>
void activate(const DenseForward<T>& layer, Stream stream) {
  launch("activate", activate_kernel<T>, activate_tiles(layer).count(), threads, 0, stream, layer);
}

template <class T>
void dense_forward(const DenseForward<T>& layer, Stream stream) {
  constexpr int64_t covered = wide<T>;  // of in_features, by a warp at once
  const int64_t wanted = (layer.in_features + covered - 1) / covered;
  const int64_t warps = std::clamp<int64_t>(wanted, 1, forward_warps);
  launch("dense_forward", dense_forward_kernel<T>, forward_tiles(layer).count(),
         int(warps * warp_size), warps * forward_sums * sizeof(Lane<T>), stream, layer);
}

template <class T, class Sum>
void dense_backward_z(const DenseBackward<T>& layer, Sum* sums, Stream stream) {
  if (!layer.grad_z && !sums) return;
  launch("dense_backward_z", dense_backward_z_kernel<T, Sum>, backward_z_tiles(layer).count(),
         threads, warps * wide<T> * sizeof(Sum), stream, layer, sums);
}

int64_t bias_parts(int64_t rows) { return parts_of(rows); }

template <class T, class Sum>
void dense_backward_bias(const DenseBackward<T>& layer, const Sum* sums, Stream stream) {
  launch("dense_backward_bias", dense_backward_bias_kernel<T, Sum>,
         backward_bias_tiles<T, Sum>(layer).count(), threads, warps * wide<Sum> * sizeof(Sum),
         stream, layer, sums);
}

template <class T>
void dense_backward(const DenseBackward<T>& layer, Stream stream) {
  const size_t shared = std::max(product_shared, warps * wide<T>) * sizeof(Lane<T>);
  launch("dense_backward", dense_backward_kernel<T>, BackwardTiles<T>(layer).count(), threads,
         shared, stream, layer);
}

#define TORCHNN_INSTANTIATE(T)                                                        \
  template void activate(const DenseForward<T>&, Stream);                             \
  template void dense_forward(const DenseForward<T>&, Stream);                        \
  template void dense_backward_z(const DenseBackward<T>&, Lane<T>*, Stream);          \
  template void dense_backward_bias(const DenseBackward<T>&, const Lane<T>*, Stream); \
  template void dense_backward(const DenseBackward<T>&, Stream);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)
TORCHNN_INSTANTIATE(__half)
TORCHNN_INSTANTIATE(__nv_bfloat16)

}  // namespace torchnn::cuda
