// What the programs that train networks in the registers of every instruction set have in common:
// the set that is in use, and random numbers.
#pragma once

#include <random>
#include <vector>

#include "../../csrc/cpu/simd/isa.h"

namespace torchnn::cpu {

Capability forced = Capability::baseline;
Capability capability_in_use() { return forced; }
int64_t vector_bytes() { return 16 << int(forced); }

template <class T>
using Values = std::vector<T>;

template <class T>
Values<T> random_values(int64_t count, double scale, std::mt19937& generator) {
  std::normal_distribution<double> normal;
  Values<T> values(count);
  for (T& value : values) value = T(scale * normal(generator));
  return values;
}

}  // namespace torchnn::cpu
