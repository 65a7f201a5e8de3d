// What there is to do: the rows of a chunk, and what they add up to.
#pragma once

#include <cstdint>

#include "../train.h"

namespace torchnn::cpu {

// A chunk, and what its gradient and its loss are added to: those of its batch, or of a share of
// it.
template <class T>
struct Work : Chunk {
  T* loss = nullptr;
  int64_t gradient = 0;    // which of those that are put aside
  bool adds = false;       // to what others have left there
  bool takes_step = true;  // with what has been added up by then
};

template <class T>
int64_t row_of(const Train<T>& job, int64_t sample) {
  return job.order ? job.order[sample] : sample;
}

// The numbers of step i of a call.
template <class T>
UpdateStep<T> step_of(const Train<T>& job, int64_t i) {
  return {job.options, job.learning_rates[i], (job.steps_before ? *job.steps_before : 0) + i + 1};
}

}  // namespace torchnn::cpu
