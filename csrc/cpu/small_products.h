// Products of arrays that are padded to whole registers and small enough for the cache: what the
// training engine computes with, beside layer_update.h and measure.h. Compiled once for every
// instruction set, and chosen at run time.
//
// Activations lie feature by feature, as (features, rows): a register holds one feature of several
// samples. So the number of features of a layer is free, and only the rows of a batch are padded.
#pragma once

#include <cstdint>

#include "simd/rows.h"

namespace torchnn::cpu {

// c = bias + a @ b with a (rows, depth) and b (depth, columns); columns are whole registers.
template <class T>
struct SmallProduct {
  int64_t rows, columns, depth;
  const T* a;  // a[i][k] is at a[i * a_stride + k * a_step]
  int64_t a_stride, a_step;
  const T* b;
  int64_t b_stride;
  const T* bias;  // (rows), or null
  T* c;
  int64_t c_stride;
  bool adds = false;  // to c, and no bias
};

template <class T>
void multiply(const SmallProduct<T>& product);

// out = bias + x @ weight.T by dot products, for rows too few to fill a register: out (rows,
// units). depth is whole registers.
template <class T, class Rows>
void multiply_rows(int64_t rows, int64_t units, int64_t depth, const Rows& x, const T* weight,
                   int64_t weight_stride, const T* bias, T* out, int64_t out_stride);

// to (columns, rows) = from (rows, columns).T; both counts are whole registers.
template <class T, class Rows>
void transpose(int64_t rows, int64_t columns, const Rows& from, T* to, int64_t to_stride);

// sum[i][j] = terms[0][i][j] + terms[1][i][j] + ..., the terms `term` apart, rows `stride`; columns
// are whole registers.
template <class T>
void add_up(int64_t count, int64_t term, int64_t rows, int64_t columns, int64_t stride,
            const T* terms, T* sum);

}  // namespace torchnn::cpu
