// The order of rows in an epoch, which follows from a seed alone: whoever computes it, on whatever
// device, comes to the same. Of fewer than 2^32 / 20 rows, it is that of torch.randperm on the CPU.
#pragma once

#include <cstdint>

#include "lane.h"

namespace torchnn {

// Of 32 bits each, all equally likely. Source: M. Matsumoto and T. Nishimura, Mersenne Twister,
// 1998 (MT19937); seeded as theirs of 2002, as std::mt19937 is.
class RandomNumbers {
 public:
  TORCHNN_FN explicit RandomNumbers(uint32_t seed) {
    state_[0] = seed;
    for (int i = 1; i < size; ++i)
      state_[i] = 1812433253u * (state_[i - 1] ^ state_[i - 1] >> 30) + uint32_t(i);
  }

  TORCHNN_FN uint32_t next() {
    if (at_ == size) renew();
    uint32_t number = state_[at_++];
    number ^= number >> 11;
    number ^= number << 7 & 0x9d2c5680u;
    number ^= number << 15 & 0xefc60000u;
    return number ^ number >> 18;
  }

 private:
  static constexpr int size = 624, distance = 397;

  TORCHNN_FN static uint32_t twisted(uint32_t one, uint32_t next) {
    const uint32_t bits = (one & 0x80000000u) | (next & 0x7fffffffu);
    return bits >> 1 ^ (bits & 1) * 0x9908b0dfu;
  }

  // Three parts, so that none needs a remainder of an index.
  TORCHNN_FN void renew() {
    for (int i = 0; i < size - distance; ++i)
      state_[i] = state_[i + distance] ^ twisted(state_[i], state_[i + 1]);
    for (int i = size - distance; i < size - 1; ++i)
      state_[i] = state_[i + distance - size] ^ twisted(state_[i], state_[i + 1]);
    state_[size - 1] = state_[distance - 1] ^ twisted(state_[size - 1], state_[0]);
    at_ = 0;
  }

  uint32_t state_[size];
  int at_ = size;
};

// Brings rows, fewer than 2^32, into an order of theirs (Fisher and Yates).
TORCHNN_FN void shuffle(int64_t* rows, int64_t count, uint32_t seed) {
  RandomNumbers numbers(seed);
  for (int64_t i = 0; i + 1 < count; ++i) {
    int64_t* const other = rows + i + numbers.next() % uint32_t(count - i);
    const int64_t row = rows[i];
    rows[i] = *other, *other = row;
  }
}

}  // namespace torchnn
