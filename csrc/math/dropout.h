// Which outputs of a layer are dropped in training. That follows from a seed, the step, the row of
// the batch and the unit alone, by a hash of them: whoever computes it, in whatever order, comes to
// the same.
#pragma once

#include <cstdint>

#include "lane.h"

namespace torchnn {

// Numbers of 32 bits, as many as a Lane has, in integers as wide as its numbers.
template <class Lane>
struct LaneBits {
  using type = uint32_t;
};
template <class Lane>
using BitsOf = typename LaneBits<Lane>::type;
#if !defined(__CUDACC__)
template <Simd V>
struct LaneBits<V> {
  using Integer = std::conditional_t<sizeof(Element<V>) == 4, uint32_t, uint64_t>;
  using type = Vector<Integer, sizeof(V)>;
};
#endif

// Every bit of it depends on every bit of x. Source: the construction is that of MurmurHash3's
// finalizer (A. Appleby, 2011), the multipliers are C. Wellons's (Prospecting for hash functions,
// 2018).
template <class Bits>
TORCHNN_FN Bits mixed(Bits x) {
  constexpr uint32_t low = 0xffffffff;  // the rest of wider integers
  x ^= x >> 16;
  x = (x * 0x7feb352d) & low;
  x ^= x >> 15;
  x = (x * 0x846ca68b) & low;
  return x ^ x >> 16;
}

// Of all that a layer drops in a step, of a row of the batch, and of a unit: the sum of the last
// two is the key of an output.
TORCHNN_FN uint32_t step_key(int64_t seed, int64_t step) {
  uint32_t key = mixed(uint32_t(seed));
  key = mixed(key ^ uint32_t(uint64_t(seed) >> 32));
  key = mixed(key ^ uint32_t(step));
  return mixed(key ^ uint32_t(uint64_t(step) >> 32));
}
TORCHNN_FN uint32_t row_key(uint32_t step_key, int64_t row) {
  return mixed(step_key + uint32_t(row));
}
TORCHNN_FN uint32_t unit_key(int64_t unit) { return uint32_t(unit) * 0x9e3779b9; }

// Drops an output with a probability of rate, below 1, and divides it by 1 - rate if it does not:
// both may differ from lane to lane.
template <class T, class Bound = int32_t, class Scale = T>
struct Dropping {
  static constexpr double whole = 1u << 31;  // of the 32 bits, 31 are compared: as signed integers
  Bound bound;
  Scale scale;

  TORCHNN_FN explicit Dropping(double rate)
      : bound(int32_t(rate * whole)), scale(T(1 / (1 - rate))) {}
  TORCHNN_FN Dropping(Bound bound, Scale scale) : bound(bound), scale(scale) {}

  template <class Lane>
  TORCHNN_FN Lane apply(Lane value, BitsOf<Lane> key) const {
    using Signed = decltype(Lane{} < Lane{});
    if constexpr (sizeof(Lane) <= sizeof(double))
      return int32_t(mixed(key) >> 1) < bound ? Lane{} : scale * value;
    else
      return (Signed)(mixed(BitsOf<Lane>(key & 0xffffffff)) >> 1) < bound ? Lane{} : scale * value;
  }
};

}  // namespace torchnn
