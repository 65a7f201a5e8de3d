// The loss of a chunk, and its derivative.
#pragma once

#include <cstdint>

namespace torchnn::cpu {

// grad = scale * dl/da and values = the sum over the outputs of scale * l(a, y), for each row;
// columns (the rows of the batch) are whole registers.
template <class T>
struct LossOfOutputs {
  int64_t units, columns, stride;
  const T* out;      // (units, stride)
  const T* targets;  // (target_count, stride)
  const T* scales;   // (columns)
  T* grad;           // (units, stride); may be out
  T* values;         // (columns)
  int64_t loss;      // place in Losses
  T delta;           // its number
};

template <class T>
void measure_loss(const LossOfOutputs<T>& outputs);

}  // namespace torchnn::cpu
