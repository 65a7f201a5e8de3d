// Matrix products of one block of threads, between matrices in the memory that it shares: c = a @ b
// as plan.h shares it out.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "lane.cuh"
#include "plan.h"

namespace torchnn::cuda {

template <class T>
TORCHNN_FN Pack<T> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T>*>(p);
}

// Calls f with a constant of that value, first ... last.
template <int first, int last, class F>
TORCHNN_FN void with_constant(int value, const F& f) {
  constexpr int middle = (first + last) / 2;
  if constexpr (first == last)
    f(std::integral_constant<int, first>{});
  else if (value <= middle)
    with_constant<first, middle>(value, f);
  else
    with_constant<middle + 1, last>(value, f);
}

// Where in its tile a lane begins. Lanes 1 apart have the same column and lanes 2 apart the same
// row: a load of 16 bytes then takes half the passes, since neighbours want the same.
TORCHNN_FN int first_row(int lane) { return (lane & 1) | (lane >> 1 & 6); }
TORCHNN_FN int first_column(int lane) { return (lane >> 1 & 1) | (lane >> 3 & 2); }

// The right factor of a product, a pack of the depth at a time.
template <class T>
struct Along {  // element (d, column) is first[column * stride + d]
  const T* first;
  int stride;

  TORCHNN_FN const T* at(int d, int column) const { return first + column * stride + d; }
  TORCHNN_FN const T* next(const T* place) const { return place + pack<T>; }
  TORCHNN_FN Pack<T> load(const T* place) const { return load_pack(place); }
};

template <class T>
struct Across {  // element (d, column) is first[d * stride + column]
  const T* first;
  int stride;

  TORCHNN_FN const T* at(int d, int column) const { return first + d * stride + column; }
  TORCHNN_FN const T* next(const T* place) const { return place + pack<T> * stride; }
  TORCHNN_FN Pack<T> load(const T* place) const {
    Pack<T> loaded;
#pragma unroll
    for (int e = 0; e < pack<T>; ++e) loaded.values[e] = place[e * stride];
    return loaded;
  }
};

// A matrix and its rows: what a product has on its left.
template <class T>
struct Rows {
  const T* first;
  int stride, count;
};

// A tile of a @ b, over the depths begin ... end - 1, which are whole packs. A lane computes its
// rows and columns from row and column on, and calls put(i, j, sum) for the i-th and the j-th of
// them; beyond the last of the matrix it repeats that.
template <class Tile, class T, class B, class Put>
__device__ void multiply_tile(const Rows<T>& a, const B& b, int columns, int row, int column,
                              int begin, int end, const Put& put) {
  const T* left_at[Tile::rows];
  const T* right_at[Tile::columns];
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i)
    left_at[i] = a.first + std::min(row + i * lanes_down, a.count - 1) * a.stride + begin;
#pragma unroll
  for (int j = 0; j < Tile::columns; ++j)
    right_at[j] = b.at(begin, std::min(column + j * lanes_across, columns - 1));
  T sums[Tile::rows][Tile::columns] = {};
#pragma unroll 1  // more would cost registers, and warps enough take turns
  for (int d = begin; d < end; d += pack<T>) {
    Pack<T> left[Tile::rows];
#pragma unroll
    for (int i = 0; i < Tile::rows; ++i) left[i] = load_pack(left_at[i]), left_at[i] += pack<T>;
#pragma unroll
    for (int j = 0; j < Tile::columns; ++j) {
      const Pack<T> right = b.load(right_at[j]);
      right_at[j] = b.next(right_at[j]);
#pragma unroll
      for (int e = 0; e < pack<T>; ++e)
#pragma unroll
        for (int i = 0; i < Tile::rows; ++i) sums[i][j] += left[i].values[e] * right.values[e];
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i)
#pragma unroll
    for (int j = 0; j < Tile::columns; ++j) put(i, j, sums[i][j]);
}

// parts = a @ b, of which each of the first `warps` warps computes its share.
template <class List, class T, class B>
__device__ void multiply(const Product& product, const Rows<T>& a, const B& b, int columns,
                         int warps, T* parts) {
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  const int down = first_row(lane), right = first_column(lane);
  if (warp >= warps) return;
  for (int item = warp; item < product.tiles.divisor * product.splits; item += warps) {
    const int split = product.tiles.quotient(item), tile = item - split * product.tiles.divisor;
    const int tile_row = product.across.quotient(tile);
    const int row = (tile_row << product.rows_shift) + down;
    const int column = (tile - tile_row * product.across.divisor) * tile_columns + right;
    const int begin = (split * product.packs + std::min(split, product.longer)) * pack<T>;
    const int end = begin + (product.packs + (split < product.longer)) * pack<T>;
    T* part =
        parts + split * product.split_size + tile * product.tile_size + right * lanes_down + down;
    List::with(product.kind, [&](auto of_lane) {
      multiply_tile<decltype(of_lane)>(
          a, b, columns, row, column, begin, end,
          [&](int i, int j, T sum) { part[(i * of_lane.columns + j) * sums_apart] = sum; });
    });
  }
}

// Where the first part of an element of a @ b is; the next are split_size apart.
TORCHNN_FN int place_of_part(const Product& product, int row, int column) {
  const int tile = (row >> product.rows_shift) * product.across.divisor + column / tile_columns;
  const int i = (row & ((1 << product.rows_shift) - 1)) / lanes_down;
  const int j = column % tile_columns / lanes_across;
  return tile * product.tile_size + (i * product.lane_columns + j) * sums_apart +
         column % lanes_across * lanes_down + row % lanes_down;
}

// ---- the gradient of a weight: grad_z.T @ x ----

// Adds up the products of a tile of units with packs of features over so many rows: units from
// *grad on, features from *x on and, a second pack, from x[second] on.
template <class Tile, class T>
TORCHNN_FN void add_gradient(Pack<T> (&sums)[Tile::packs][Tile::units], const T* grad,
                             int grad_stride, const T* x, int x_stride, int second, int rows) {
#pragma unroll(Tile::units < pack<T> ? 8 : Tile::packs > 1 || Tile::lanes > 1 ? pack<T> : 2)
  for (int row = 0; row < rows; ++row, grad += grad_stride, x += x_stride) {
    Pack<T> left[(Tile::units + pack<T> - 1) / pack<T>];
    if constexpr (Tile::units < pack<T>)
#pragma unroll
      for (int n = 0; n < Tile::units; ++n) left[0].values[n] = grad[n];
    else
#pragma unroll
      for (int n = 0; n < Tile::units; n += pack<T>) left[n / pack<T>] = load_pack(grad + n);
#pragma unroll
    for (int p = 0; p < Tile::packs; ++p) {
      const Pack<T> right = load_pack(x + p * second);
#pragma unroll
      for (int n = 0; n < Tile::units; ++n)
#pragma unroll
        for (int e = 0; e < pack<T>; ++e)
          sums[p][n].values[e] += left[n / pack<T>].values[n % pack<T>] * right.values[e];
    }
  }
}

// Of a batch in several chunks, the gradient so far is put aside in the device's memory; with the
// last chunk it is whole, and this true.
template <int tile_units, class T>
TORCHNN_FN bool add_aside(Pack<T> (&sums)[tile_units], int units, T* aside, int stride, int count,
                          const Chunk& chunk) {
  const bool aligned = is_aligned(aside, stride);
#pragma unroll
  for (int n = 0; n < tile_units; ++n) {
    if (n >= units) break;
    if (!chunk.is_first()) {
      const Pack<T> before = load(aside + n * stride, count, aligned);
#pragma unroll
      for (int e = 0; e < pack<T>; ++e) sums[n].values[e] += before.values[e];
    }
    if (!chunk.is_last()) store(aside + n * stride, sums[n], count, aligned);
  }
  return chunk.is_last();
}

}  // namespace torchnn::cuda
