// What is done to numbers of models in lanes, one after the other: steps, sums, dropping.
#pragma once

#include <cstdint>

#include "../math/update.h"

namespace torchnn::cpu {

// A weight or a bias of each model, and what its update rule remembers of it.
template <class T>
struct LaneParameter {
  int64_t size;  // in numbers
  T* values;
  T* slots[most_slots];
  T* gradient;       // all of it, or as much of it as is wanted at a time
  T* penalty;        // l1 and l2
  T* scale;          // of the gradient, to bring the norm down
  bool is_adjusted;  // whether a gradient is more than that of the loss, in any model
};

// Some rows of a parameter take a step, whose gradient is there.
template <class T>
struct LaneStep {
  const LaneParameter<T>& parameter;
  int64_t at, rows, columns, stride;  // in numbers; the first is where they begin
  const T* gradient;
  int64_t gradient_stride;
  const T* step;  // what an UpdateStep holds, a number each
};

template <class T>
void take_lane_step(int64_t update, const LaneStep<T>& step);

// The elements of an UpdateStep as numbers: that of each model.
template <class T>
void spread_steps(const UpdateStep<T>* steps, int64_t models, T* numbers);
template <class T>
inline constexpr int64_t step_size = sizeof(UpdateStep<T>) / sizeof(T);

// sum += what the parameter adds to the loss, and the squares of its gradient, that of its penalty
// included.
template <class T>
void add_penalty(const LaneParameter<T>& parameter, T* sum);
template <class T>
void add_squares(const LaneParameter<T>& parameter, T* sum);

// sums (units) of values (units, rows), in their order; or what is there before, and these.
template <class T>
void sum_rows(const T* values, int64_t units, int64_t rows, int64_t stride, bool adds, T* sums);

// Which outputs each model drops, in a step.
template <class T>
struct LaneDropping {
  const uint32_t* step_keys;  // (models)
  const double* rates;        // (models)
};

// Drops of values (units, rows), the first row of which has that number in its batch, and the first
// unit that in its layer.
template <class T>
void drop_lanes(const LaneDropping<T>& dropping, int64_t first_row, int64_t first_unit, T* values,
                int64_t units, int64_t rows, int64_t stride);

// values (units, rows) of units that a model does not have become 0: those from its count on.
template <class T>
void clear_missing(const int64_t* counts, T* values, int64_t units, int64_t rows, int64_t stride);

}  // namespace torchnn::cpu
