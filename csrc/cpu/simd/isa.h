// One source, several instruction sets. A kernel is an always_inline template over an Isa; run()
// instantiates it inside an entry point that carries the target attribute, and picks the entry
// point once, at run time. No file is compiled with -mavx512f: library code inlined into such a
// file could end up running on a CPU without it.
#pragma once

#include "../../math/lane.h"

namespace torchnn::cpu {

// The register tiles leave room for the operands: 12 of 16 registers accumulate, or 24 to 26 of 32.
// (A tile of models in lanes is lane_tile_rows by 4.)
struct Baseline {  // SSE2 on x86-64, NEON on Arm
  static constexpr const char* name = "baseline";
  static constexpr int vector_bytes = 16, dot_rows = 3, tile_rows = 6, small_tile_rows = 6,
                       lane_tile_rows = 3;
};
struct Avx2 {
  static constexpr const char* name = "avx2";
  static constexpr int vector_bytes = 32, dot_rows = 3, tile_rows = 6, small_tile_rows = 6,
                       lane_tile_rows = 3;
};
struct Avx512 {
  static constexpr const char* name = "avx512";
  static constexpr int vector_bytes = 64, dot_rows = 6, tile_rows = 12, small_tile_rows = 13,
                       lane_tile_rows = 6;
};

template <class Isa, class T>
using Register = Vector<T, Isa::vector_bytes>;

enum class Capability { baseline, avx2, avx512 };

const char* name(Capability);

// What the machine has, or what TORCHNN_CPU_CAPABILITY asks for; throws if it asks for more.
Capability capability_in_use();
int64_t vector_bytes();  // of the capability in use

#if defined(__x86_64__) && !defined(TORCHNN_BASELINE_ALONE)  // which is enough for some tests
#define TORCHNN_WIDE_REGISTERS
#if !defined(TORCHNN_TARGET)  // tests compile the wide tiles for narrower registers
#define TORCHNN_TARGET(features) __attribute__((target(features)))
#endif
template <class Kernel, class... Args>
TORCHNN_TARGET("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
void run_avx512(const Args&... args) {
  Kernel::template run<Avx512>(args...);
}
template <class Kernel, class... Args>
TORCHNN_TARGET("avx2,fma")
void run_avx2(const Args&... args) {
  Kernel::template run<Avx2>(args...);
}
#endif

// Kernel is a struct with `template <class Isa> static TORCHNN_FN void run(args...)`.
template <class Kernel, class... Args>
void run(const Args&... args) {
#if defined(TORCHNN_WIDE_REGISTERS)
  switch (capability_in_use()) {
    case Capability::avx512: return run_avx512<Kernel>(args...);
    case Capability::avx2: return run_avx2<Kernel>(args...);
    case Capability::baseline: break;
  }
#endif
  Kernel::template run<Baseline>(args...);
}

}  // namespace torchnn::cpu
