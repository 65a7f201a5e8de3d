// The step of one layer: gradients of weight and bias, summed over the rows of a chunk in
// registers, and the update rule right after.
#pragma once

#include <cstdint>

#include "../dense.h"
#include "../math/update.h"
#include "simd/rows.h"

namespace torchnn::cpu {

// A weight or a bias, and what the update rule remembers of it.
template <class T>
struct Parameter {
  T* values;  // (units, stride)
  T* slots[most_slots];
  int64_t stride;  // whole registers
  Penalty<T> penalty{};
  T scale = 1;  // of its gradient, to bring the norm down
};

// What a parameter of so many rows adds to the loss.
template <class T>
T penalty_of(const Parameter<T>& parameter, int64_t rows);

// The sum of the squares of its gradient, that of its penalty included.
template <class T>
T squared_norm(const Parameter<T>& parameter, const T* gradient, int64_t rows);

// weight and bias take the step that a batch calls for, whose gradients are grad_z.T @ x and the
// sum of grad_z over the rows. A batch may come in several parts: then the gradient is put aside,
// and the step is taken with the last one.
template <class T>
struct LayerUpdate {
  int64_t units, in_features;  // in_features: whole registers
  int64_t rows;
  const T* grad;  // grad_z: that of unit n in row i is at grad[n * grad_stride + i * grad_step]
  int64_t grad_stride, grad_step;
  Parameter<T> weight, bias;
  int64_t slot_count;  // of each
  bool has_bias;
  T* weight_gradient;         // like weight: where the gradient is put aside, if it ever is
  T* bias_gradient;           // like bias
  bool is_first;              // of the parts
  const UpdateStep<T>* step;  // of the last part; null for those before
  int64_t update;             // place in Updates
  // Rows of the next input, if they lie in memory far away: each block of features fetches its own.
  const T* const* next_x;
  int64_t next_rows;
  bool is_far;  // the weight, and what goes with it, does not fit the second-level cache beside all
                // else
};

// The features that a tile of the weight is wide.
template <class T>
int64_t block_features();

// How many tiles a weight of this size has: those of the first block of features come first.
template <class T>
int64_t update_tile_count(int64_t units, int64_t in_features);

// Whether the step is w -= learning_rate * grad_z.T @ x, and no more.
template <class T>
bool is_plain(const LayerUpdate<T>& layer);

// Takes the step of a rectangle of the weight, features in whole registers, whose gradient is there
// already: rows of it gradient_stride apart.
template <class T>
void update_rectangle(const LayerUpdate<T>& layer, Range units, Range features, const T* gradient,
                      int64_t gradient_stride);

// Updates the bias.
template <class T>
void update_bias(const LayerUpdate<T>& layer);

// Updates the tiles begin ... end - 1, and with the first one the bias; x(i) is row i of the input.
template <class T, class Rows>
void update_tiles(const LayerUpdate<T>& layer, const Rows& x, int64_t begin, int64_t end);

}  // namespace torchnn::cpu
