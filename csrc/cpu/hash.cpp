#include "../hash.h"

#include <cstring>

#include "simd/isa.h"

namespace torchnn::cpu {
namespace {

constexpr int width = 8;  // registers side by side, since each waits for its last product

// Whatever the sums are, different words give different ones. A product takes a bit's change to
// those above it alone; the turn brings the highest ones down before it, the shift after it.
template <class V>
TORCHNN_FN void take_in(V* sums, const char* from) {
  for (int i = 0; i < width; ++i) {
    V words;
    std::memcpy(&words, from + i * sizeof(V), sizeof(V));
    words ^= sums[i];
    words = (words << 13 | words >> 19) * 0x9e3779b1u;
    sums[i] = words ^ words >> 15;
  }
}

uint64_t take_in(uint64_t sum, uint64_t word) {
  sum ^= word;
  sum = (sum << 29 | sum >> 35) * 0x9e3779b185ebca87u;
  return sum ^ sum >> 32;
}

struct Hash {
  template <class Isa>
  static TORCHNN_FN void run(const char* bytes, int64_t count, uint64_t* sum) {
    using V = Register<Isa, uint32_t>;
    constexpr int64_t turn = width * sizeof(V);
    V sums[width] = {};
    int64_t at = 0;
    for (; at + turn <= count; at += turn) take_in(sums, bytes + at);
    char rest[turn] = {};
    std::memcpy(rest, bytes + at, count - at);
    take_in(sums, rest);
    uint64_t words[turn / sizeof(uint64_t)];
    std::memcpy(words, sums, turn);
    for (uint64_t word : words) *sum = take_in(*sum, word);
  }
};

}  // namespace

uint64_t hash(const char* bytes, int64_t count, uint64_t before) {
  uint64_t sum = take_in(before, uint64_t(count));
  run<Hash>(bytes, count, &sum);
  return sum;
}

}  // namespace torchnn::cpu
