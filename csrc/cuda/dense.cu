// One dense layer on CUDA. cpu/dense.cpp is its twin: the same functions, order and steps. What a
// thread does there, a block of threads does here: it computes a rectangle of an output. Every sum
// is taken in one order, whatever the grid, so results are the same from run to run.
#include "../dense.h"

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

// Forward of wide layers: tiles of 8 x 4 outputs, a warp each, and a sum for each lane.
constexpr int wide_tile_rows = 8, wide_tile_units = 4;
constexpr int wide_sums = wide_tile_rows * wide_tile_units;
constexpr int wide_warps = 4, wide_threads = wide_warps * warp_size;
static_assert(wide_sums == warp_size);

// Products of backward: 4 rows, and a column for each lane of a warp.
constexpr int product_rows = 4;
constexpr int depth_step = 256;  // of the left factor are in shared memory at a time
constexpr int product_shared = product_rows * depth_step;
static_assert(product_shared >= warps * product_rows * warp_size, "sums take the same memory");

// The pass of an activation: so many packs a thread, which are under way at once.
constexpr int activate_packs = 2;
template <class T>
constexpr int64_t activate_count = threads * activate_packs * pack<T>;

// The pass that makes grad_z: so many rows of a warp are under way at once.
constexpr int rows_at_once = 2;

// How grad_z is cut. Where 25 units leave rows unaligned, as many rows as a Pack has elements are
// taken for one: that is aligned again, and has a sum for each of its columns. Blocks of rows are
// summed on their own, so that rounding errors grow with the block; there are some 256 sums for a
// unit at most, since one block of threads adds them up.
template <class T>
struct Parts {
  int64_t joined, rows, units;  // rows in one; how many of these there are, and their width
  int64_t block;                // rows that are summed on their own

  TORCHNN_FN Parts(int64_t all_rows, int64_t all_units)
      : joined(all_units % pack<T> != 0 && all_rows % pack<T> == 0 ? pack<T> : 1),
        rows(all_rows / joined),
        units(all_units * joined) {
    constexpr int64_t least = 8 * warps, most_sums = 256;
    const int64_t even = (all_rows + most_sums - 1) / most_sums;
    block = even > least ? even : least;
  }
  TORCHNN_FN int64_t sums() const { return (rows + block - 1) / block * joined; }  // for a unit
};

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
  with_activation(layer.activation, [&](auto activation) {
    grad_z = activation.backward(widen(layer.grad_out[i]), widen(layer.out[i]));
  });
  return grad_z;
}

TORCHNN_FN int64_t within(int64_t i, Range range) { return i < range.end ? i : range.end - 1; }

// ---- what a block computes, or a warp of it ----

// a[range] = activation(a[range] + bias), a in rows of so many units; bias may be null
template <class T>
__device__ void activate(int64_t activation, T* a, const T* bias, int64_t units, Range range) {
  const bool aligned = is_aligned(a, 0);
  const int64_t first = range.begin + int64_t(threadIdx.x) * pack<T>;
  Pack<T> packs[activate_packs];
#pragma unroll
  for (int i = 0; i < activate_packs; ++i) {
    const int64_t at = first + i * threads * pack<T>;
    packs[i] = load(a + at, range.end - at, aligned);
  }
  Activations::with(activation, [&](auto activation) {
#pragma unroll
    for (int i = 0; i < activate_packs; ++i) {
      const int64_t at = first + i * threads * pack<T>;
      int64_t unit = bias ? at % units : 0;
#pragma unroll
      for (T& value : packs[i].values) {
        Lane<T> z = widen(value);
        if (bias) z += widen(bias[unit]), unit = unit + 1 == units ? 0 : unit + 1;
        value = narrow<T>(activation.forward(z));
      }
      store(a + at, packs[i], range.end - at, aligned);
    }
  });
}

// grad_z[range] = grad_out * da/dz(z), of an activation that keeps z
template <class T>
__device__ void activate_backward(int64_t activation, const T* grad_out, const T* z, T* grad_z,
                                  Range range) {
  const bool aligned = is_aligned(grad_out, 0) && is_aligned(z, 0) && is_aligned(grad_z, 0);
  Activations::with(activation, [&](auto activation) {
    if constexpr (keeps_z<decltype(activation)>) {
      for (int64_t at = range.begin + int64_t(threadIdx.x) * pack<T>; at < range.end;
           at += threads * pack<T>) {
        const int64_t count = range.end - at;
        Pack<T> grads = load(grad_out + at, count, aligned);
        const Pack<T> own = load(z + at, count, aligned);
#pragma unroll
        for (int i = 0; i < pack<T>; ++i) {
          T& grad = grads.values[i];
          grad = narrow<T>(activation.backward(widen(grad), widen(own.values[i])));
        }
        store(grad_z + at, grads, count, aligned);
      }
    }
  });
}

// One of `shares` threads' part of x @ weight.T + bias, for a tile of outputs.
template <int tile_rows, int tile_units, class T>
__device__ void accumulate(const DenseForward<T>& layer, Range rows, Range units, int share,
                           int shares, Lane<T> (&sums)[tile_rows * tile_units]) {
  // 1. start from the bias
#pragma unroll
  for (int i = 0; i < tile_rows * tile_units; ++i) {
    const bool starts = share == 0 && layer.bias;
    sums[i] = starts ? widen(layer.bias[within(units.begin + i % tile_units, units)]) : Lane<T>{};
  }
  // 2. accumulate x @ weight.T
  const bool aligned =
      is_aligned(layer.x, layer.x_stride) && is_aligned(layer.weight, layer.in_features);
  for (int64_t k = share * pack<T>; k < layer.in_features; k += shares * pack<T>) {
    const int64_t count = layer.in_features - k;
    Pack<T> w[tile_units];
#pragma unroll
    for (int j = 0; j < tile_units; ++j)
      w[j] = load(layer.weight + within(units.begin + j, units) * layer.in_features + k, count,
                  aligned);
#pragma unroll
    for (int i = 0; i < tile_rows; ++i) {
      const Pack<T> x =
          load(layer.x + within(rows.begin + i, rows) * layer.x_stride + k, count, aligned);
#pragma unroll
      for (int j = 0; j < tile_units; ++j)
#pragma unroll
        for (int p = 0; p < pack<T>; ++p)
          sums[i * tile_units + j] += widen(x.values[p]) * widen(w[j].values[p]);
    }
  }
}

// The i-th output of a tile.
template <int tile_units, class T>
__device__ void finish(const DenseForward<T>& layer, Range rows, Range units, int i, Lane<T> z) {
  // 3. activate and store
  const int64_t row = rows.begin + i / tile_units, unit = units.begin + i % tile_units;
  if (row < rows.end && unit < units.end)
    Activations::with(layer.activation, [&](auto activation) {
      layer.out[row * layer.units + unit] = narrow<T>(activation.forward(z));
    });
}

// out[rows, units] = activation(x @ weight.T + bias)
template <class T>
__device__ void dense_forward(const DenseForward<T>& layer, Range rows, Range units) {
  Lane<T> sums[forward_sums];
  accumulate<forward_tile, forward_tile>(layer, rows, units, threadIdx.x, blockDim.x, sums);
  const Lane<T> z = sum_over_block(sums);
  if (threadIdx.x < forward_sums) finish<forward_tile>(layer, rows, units, threadIdx.x, z);
}

// The same for a tile that a warp has to itself.
template <class T>
__device__ void dense_forward_wide(const DenseForward<T>& layer, Range rows, Range units) {
  const int lane = threadIdx.x % warp_size;
  Lane<T> sums[wide_sums];
  accumulate<wide_tile_rows, wide_tile_units>(layer, rows, units, lane, warp_size, sums);
  sum_halves<wide_sums / 2>(sums, lane);
  finish<wide_tile_units>(layer, rows, units, lane, sums[0]);
}

// grad_z[rows, units] = grad_out * da/dz, if it is kept, and keep(unit, its sum over the rows)
template <class T, class Keep>
__device__ void dense_backward_z(const DenseBackward<T>& layer, Range rows, Range units,
                                 const Keep& keep) {
  using L = Lane<T>;
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int64_t unit = units.begin + lane * pack<T>, count = units.end - unit;
  const bool aligned = is_aligned(layer.grad_out, layer.units) &&
                       is_aligned(layer.out, layer.units) && is_aligned(layer.grad_z, layer.units);
  L part[pack<T>] = {};
  // 1. sum a block of rows
  with_activation(layer.activation, [&](auto activation) {
    for (int64_t row = rows.begin + warp; row < rows.end; row += rows_at_once * warps) {
      Pack<T> grads[rows_at_once], outs[rows_at_once];
#pragma unroll
      for (int r = 0; r < rows_at_once; ++r) {
        const int64_t at = row + r * warps, first = at * layer.units + unit;
        const int64_t there = at < rows.end ? count : 0;
        grads[r] = load(layer.grad_out + first, there, aligned);
        outs[r] = load(layer.out + first, there, aligned);
      }
#pragma unroll
      for (int r = 0; r < rows_at_once; ++r) {
#pragma unroll
        for (int i = 0; i < pack<T>; ++i) {
          T& grad = grads[r].values[i];
          const L grad_z = activation.backward(widen(grad), widen(outs[r].values[i]));
          grad = narrow<T>(grad_z);
          part[i] += grad_z;
        }
        const int64_t at = row + r * warps, first = at * layer.units + unit;
        if (layer.grad_z && at < rows.end) store(layer.grad_z + first, grads[r], count, aligned);
      }
    }
  });
  L* parts = shared_memory<L>();  // (warps, wide)
#pragma unroll
  for (int i = 0; i < pack<T>; ++i) parts[warp * wide<T> + lane * pack<T> + i] = part[i];
  __syncthreads();
  for (int column = threadIdx.x; column < wide<T>; column += threads)
    if (units.begin + column < units.end) {
      L sum{};
      for (int i = 0; i < warps; ++i) sum += parts[i * wide<T> + column];
      keep(units.begin + column, sum);
    }
  __syncthreads();  // the next tile writes where this one is read
}

// grad_bias[units] = sums.sum(0)
template <class T, class Sum>
__device__ void dense_backward_bias(const DenseBackward<T>& layer, const Sum* sums, Range units) {
  // 2. add the blocks up
  DenseBackward<Sum> blocks{};
  blocks.grad_out = blocks.out = sums;
  blocks.rows = Parts<T>(layer.rows, layer.units).sums();
  blocks.units = layer.units;
  dense_backward_z(blocks, {0, blocks.rows}, units,
                   [&](int64_t unit, Sum sum) { layer.grad_bias[unit] = narrow<T>(sum); });
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
TORCHNN_FN Tiles activate_tiles(int64_t count) {
  return {1, count, 1, activate_count<T>};
}

template <class T>
__global__ void __launch_bounds__(threads)
    activate_kernel(int64_t activation, T* a, const T* bias, int64_t units, int64_t count) {
  const Tiles tiles = activate_tiles<T>(count);
  for (int64_t i = blockIdx.x; i < tiles.count(); i += gridDim.x)
    activate(activation, a, bias, units, tiles.columns_of(i));
}

template <class T>
__global__ void __launch_bounds__(threads)
    activate_backward_kernel(int64_t activation, const T* grad_out, const T* z, T* grad_z,
                             int64_t count) {
  const Tiles tiles = activate_tiles<T>(count);
  for (int64_t i = blockIdx.x; i < tiles.count(); i += gridDim.x)
    activate_backward(activation, grad_out, z, grad_z, tiles.columns_of(i));
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

// Tiles of 4 units, and of 8 rows within these: warps that share weights are side by side.
template <class T>
TORCHNN_FN Tiles forward_wide_tiles(const DenseForward<T>& layer) {
  return {layer.units, layer.rows, wide_tile_units, wide_tile_rows};
}

template <class T>
__global__ void __launch_bounds__(wide_threads, 3)
    dense_forward_wide_kernel(DenseForward<T> layer) {
  const Tiles tiles = forward_wide_tiles(layer);
  for (int64_t i = blockIdx.x * int64_t(wide_warps) + threadIdx.x / warp_size; i < tiles.count();
       i += gridDim.x * int64_t(wide_warps))
    dense_forward_wide(layer, tiles.columns_of(i), tiles.rows_of(i));
}

template <class T>
TORCHNN_FN Tiles backward_z_tiles(const Parts<T>& parts) {
  return {parts.rows, parts.units, parts.block, wide<T>};
}

template <class T>
__global__ void __launch_bounds__(threads, 3)
    dense_backward_z_kernel(DenseBackward<T> layer, Lane<T>* sums) {
  const Parts<T> parts(layer.rows, layer.units);
  layer.rows = parts.rows, layer.units = parts.units;
  const Tiles tiles = backward_z_tiles(parts);
  for (int64_t i = blockIdx.x; i < tiles.count(); i += gridDim.x)
    dense_backward_z(layer, tiles.rows_of(i), tiles.columns_of(i), [&](int64_t unit, Lane<T> sum) {
      if (sums)
        sums[i / tiles.across() * layer.units + unit] = sum;
      else if (layer.grad_bias)
        layer.grad_bias[unit] = narrow<T>(sum);
    });
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
__global__ void __launch_bounds__(threads, 3) dense_backward_kernel(DenseBackward<T> layer) {
  const BackwardTiles<T> tiles(layer);
  for (int64_t tile = blockIdx.x; tile < tiles.count(); tile += gridDim.x) {
    int64_t i = tile;
    if (i < tiles.x.count()) {
      dense_backward_x(layer, tiles.x.rows_of(i), tiles.x.columns_of(i));
    } else if ((i -= tiles.x.count()) < tiles.weight.count()) {
      dense_backward_weight(layer, tiles.weight.rows_of(i), tiles.weight.columns_of(i));
    } else {
      i -= tiles.weight.count();
      dense_backward_z(layer, {0, layer.rows}, tiles.bias.columns_of(i),
                       [&](int64_t unit, Lane<T> sum) { layer.grad_bias[unit] = narrow<T>(sum); });
    }
  }
}

}  // namespace

// ---- launches ----

// The crossovers between these kernels and PyTorch's layer, the one place, by what an H100 took in
// float32 and bfloat16 (benchmarks/results/dense-cuda.json). From a CUDA graph, 32 x 400 x 25: 3
// and 4 us here, 19 and 14 there; 1000 x 400 x 25: 13 and 9 here, 11 and 10 there; 128 x 784 x 128:
// 14 here, 14 and 6 there. Called from Python, PyTorch takes 26 to 43 us for each, and these
// kernels 11 to 18: so the limits lie where a graph would be level. With four rows or units at
// most, each operand is read once.
int64_t most_fused(int64_t element_size) { return element_size > 2 ? 16'000'000 : 11'000'000; }

// Few rows of a layer with units enough for a few warps on every multiprocessor, and a short way
// along in_features: from a graph 10 and 17 us for 16 x 256 and 16 x 512 x 4096, where PyTorch took
// 11 and 17, and called, 15 and 18 against 28 and 21. Twice as long a way took longer than
// PyTorch's, and half types, for which it has tensor cores, twice and three times as long.
bool is_wide(int64_t rows, int64_t in_features, int64_t units, int64_t element_size) {
  constexpr int64_t most_rows = 2 * wide_tile_rows, least_units = 1024, most_features = 512;
  return rows > forward_tile && rows <= most_rows && units >= least_units &&
         in_features <= most_features && element_size > 2;
}

bool fuses_forward(int64_t rows, int64_t in_features, int64_t units, int64_t element_size) {
  return rows * in_features * units <= most_fused(element_size) ||
         std::min(rows, units) <= forward_tile || is_wide(rows, in_features, units, element_size);
}

// One block sums grad_z over all rows, 16 at a time, and others over all units.
bool fuses_backward(int64_t rows, int64_t in_features, int64_t units, int64_t element_size) {
  constexpr int64_t most_rows = depth_step, most_units = 4 * depth_step;
  return rows * in_features * units <= most_fused(element_size) && rows <= most_rows &&
         units <= most_units;
}

// Of few rows in float32, the library's product takes longer when it adds the bias: 100 us for
// 16 x 4096 x 4096, and 54 without. Of many it is the other way: 520 us without for
// 8192 x 256 x 4096, and 547 with bias and sigmoid.
bool adds_bias_apart(int64_t rows, int64_t element_size) {
  constexpr int64_t most_rows = 1024;
  return rows <= most_rows && element_size == 4;
}

template <class T>
void activate(int64_t activation, T* a, const T* bias, int64_t units, int64_t count,
              Stream stream) {
  launch("activate", activate_kernel<T>, activate_tiles<T>(count).count(), threads, 0, stream,
         activation, a, bias, units, count);
}

template <class T>
void activate_backward(int64_t activation, const T* grad_out, const T* z, T* grad_z, int64_t count,
                       Stream stream) {
  launch("activate_backward", activate_backward_kernel<T>, activate_tiles<T>(count).count(),
         threads, 0, stream, activation, grad_out, z, grad_z, count);
}

template <class T>
void dense_forward(const DenseForward<T>& layer, Stream stream) {
  if constexpr (sizeof(T) > 2)
    if (is_wide(layer.rows, layer.in_features, layer.units, sizeof(T))) {
      const int64_t tiles = forward_wide_tiles(layer).count();
      launch("dense_forward_wide", dense_forward_wide_kernel<T>,
             (tiles + wide_warps - 1) / wide_warps, wide_threads, 0, stream, layer);
      return;
    }
  constexpr int64_t covered = wide<T>;  // of in_features, by a warp at once
  const int64_t wanted = (layer.in_features + covered - 1) / covered;
  const int64_t warps = std::clamp<int64_t>(wanted, 1, forward_warps);
  launch("dense_forward", dense_forward_kernel<T>, forward_tiles(layer).count(),
         int(warps * warp_size), warps * forward_sums * sizeof(Lane<T>), stream, layer);
}

template <class T>
int64_t bias_sums(int64_t rows, int64_t units) {
  return Parts<T>(rows, units).sums();
}

template <class T, class Sum>
void dense_backward_z(const DenseBackward<T>& layer, Sum* sums, Stream stream) {
  if (!layer.grad_z && !layer.grad_bias) return;
  launch("dense_backward_z", dense_backward_z_kernel<T>,
         backward_z_tiles(Parts<T>(layer.rows, layer.units)).count(), threads,
         warps * wide<T> * sizeof(Sum), stream, layer, sums);
}

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
  template void activate(int64_t, T*, const T*, int64_t, int64_t, Stream);            \
  template void activate_backward(int64_t, const T*, const T*, T*, int64_t, Stream);  \
  template void dense_forward(const DenseForward<T>&, Stream);                        \
  template int64_t bias_sums<T>(int64_t, int64_t);                                    \
  template void dense_backward_z(const DenseBackward<T>&, Lane<T>*, Stream);          \
  template void dense_backward_bias(const DenseBackward<T>&, const Lane<T>*, Stream); \
  template void dense_backward(const DenseBackward<T>&, Stream);
TORCHNN_INSTANTIATE(float)
#if !defined(TORCHNN_ONLY_FLOAT)  // tests compile sooner
TORCHNN_INSTANTIATE(double)
TORCHNN_INSTANTIATE(__half)
TORCHNN_INSTANTIATE(__nv_bfloat16)
#endif

}  // namespace torchnn::cuda
