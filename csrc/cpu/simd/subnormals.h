// Numbers below the smallest normal one (1.2e-38 in float32), which many processors multiply a
// hundred times slower than others. Saturated sigmoids make gradients of them.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace torchnn::cpu {

// While one lives, they are zeros for this thread, what is read and what is computed; then the
// thread's modes are again what they were. No thread may begin meanwhile: it would have these modes
// for good.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(modes()) {
    if ((before_ & flushing) != flushing) set_modes(before_ | flushing);
  }
  ~FlushSubnormals() {
    if ((before_ & flushing) != flushing) set_modes(before_);
  }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Modes = uint32_t;
  static constexpr Modes flushing = 0x8040;  // MXCSR: flush to zero, denormals are zeros
  static Modes modes() { return _mm_getcsr(); }
  static void set_modes(Modes modes) { _mm_setcsr(modes); }
#elif defined(__aarch64__)
  using Modes = uint64_t;
  static constexpr Modes flushing = 1 << 24;  // FPCR: FZ
  static Modes modes() {
    Modes modes;
    asm volatile("mrs %0, fpcr" : "=r"(modes));
    return modes;
  }
  static void set_modes(Modes modes) { asm volatile("msr fpcr, %0" : : "r"(modes)); }
#else
  using Modes = uint32_t;
  static constexpr Modes flushing = 0;
  static Modes modes() { return 0; }
  static void set_modes(Modes) {}
#endif

  const Modes before_;
};

}  // namespace torchnn::cpu
