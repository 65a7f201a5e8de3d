// What the training engine computes with: each call does a part of one step on arrays that are
// padded to whole registers and small enough for the cache. Compiled once for every instruction
// set, and chosen at run time.
//
// Activations lie feature by feature, as (features, rows): a register holds one feature of several
// samples. So the number of features of a layer is free, and only the rows of a batch are padded.
#pragma once

#include <cstdint>

#include "../train.h"
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

// A weight or a bias, and what the update rule remembers of it.
template <class T>
struct Parameter {
  T* values;  // (units, stride)
  T* slots[most_slots];
  int64_t stride;  // whole registers
};

// weight and bias take the step that a batch calls for, whose gradients are grad_z.T @ x and the
// sum of grad_z over the rows. A batch may come in several parts: then the gradient is put aside,
// and the step is taken with the last one.
template <class T>
struct LayerUpdate {
  int64_t units, in_features;  // in_features: whole registers
  int64_t rows;
  const T* grad;  // grad_z (rows, grad_stride)
  int64_t grad_stride;
  Parameter<T> weight, bias;
  bool has_bias;
  T* weight_gradient;  // like weight: where the gradient is put aside, if it ever is
  T* bias_gradient;    // like bias
  bool is_first, is_last;
  const UpdateStep<T>& step;
  int64_t update;  // place in Updates
  // Rows of the next input, if they lie in memory far away: each block of features fetches its own.
  const T* const* next_x;
  int64_t next_rows;
};

// The features that a tile of the weight is wide.
template <class T>
int64_t block_features();

// How many tiles a weight of this size has: those of the first block of features come first.
template <class T>
int64_t update_tile_count(int64_t units, int64_t in_features);

// Updates the tiles begin ... end - 1, and with the first one the bias; x(i) is row i of the input.
template <class T, class Rows>
void update_tiles(const LayerUpdate<T>& layer, const Rows& x, int64_t begin, int64_t end);

// grad = scale * dl/da and values = the sum over the outputs of scale * l(a, y), for each row;
// columns (the rows of the batch) are whole registers.
template <class T>
struct LossOfOutputs {
  int64_t units, columns, stride;
  const T* out;      // (units, stride)
  const T* targets;  // (units, stride)
  const T* scales;   // (columns)
  T* grad;           // (units, stride); may be out
  T* values;         // (columns)
  int64_t loss;      // place in Losses
};

template <class T>
void measure_loss(const LossOfOutputs<T>& outputs);

}  // namespace torchnn::cpu
