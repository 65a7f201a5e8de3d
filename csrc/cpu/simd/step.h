// The step of an update rule for a register of a parameter.
#pragma once

#include "../../math/update.h"

namespace torchnn::cpu {

// Its numbers at `at` take the step that their gradient calls for. A parameter has values and
// slots; a number of the step is one for all lanes, or a register.
template <class Rule, class V, class Parameter, class Step>
TORCHNN_FN void take_step(const Parameter& parameter, int64_t at, V gradient, const Step& step) {
  V w = load<V>(parameter.values + at) * step.decay, slots[most_slots];
#pragma GCC unroll 2
  for (int s = 0; s < Rule::slots; ++s) slots[s] = load<V>(parameter.slots[s] + at);
  Rule::apply(w, slots, gradient, step);
  store(parameter.values + at, w);
#pragma GCC unroll 2
  for (int s = 0; s < Rule::slots; ++s) store(parameter.slots[s] + at, slots[s]);
}

}  // namespace torchnn::cpu
