#include "isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace torchnn::cpu {
namespace {

Capability best() {
#if defined(TORCHNN_WIDE_REGISTERS)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    return Capability::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Capability::avx2;
#endif
  return Capability::baseline;
}

Capability choose() {
  const char* forced = std::getenv("TORCHNN_CPU_CAPABILITY");
  if (!forced || !*forced) return best();
  for (Capability c : {Capability::baseline, Capability::avx2, Capability::avx512})
    if (std::string(forced) == name(c)) {
      if (c <= best()) return c;
      throw std::runtime_error("TORCHNN_CPU_CAPABILITY is " + std::string(forced) +
                               ", but the best this CPU has is " + name(best()));
    }
  throw std::runtime_error("TORCHNN_CPU_CAPABILITY must be baseline, avx2 or avx512, got " +
                           std::string(forced));
}

}  // namespace

const char* name(Capability c) {
  switch (c) {
    case Capability::avx512: return Avx512::name;
    case Capability::avx2: return Avx2::name;
    case Capability::baseline: break;
  }
  return Baseline::name;
}

int64_t vector_bytes() {
  switch (capability_in_use()) {
    case Capability::avx512: return Avx512::vector_bytes;
    case Capability::avx2: return Avx2::vector_bytes;
    case Capability::baseline: break;
  }
  return Baseline::vector_bytes;
}

Capability capability_in_use() {
  static const Capability chosen = choose();
  return chosen;
}

}  // namespace torchnn::cpu
