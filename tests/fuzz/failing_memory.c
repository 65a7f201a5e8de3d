// LD_PRELOAD: one request for aligned memory fails, as of numbers that are kept for SIMD registers
// (aligned_alloc, which C++'s aligned operator new calls) and of tensors (posix_memalign).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int failing, requests;  // the number of the one to fail, 0 for none; those so far
static atomic_long spared;            // a thread whose requests do not count

void fail_at(int number, int spares_caller) {
  atomic_store(&requests, 0);
  atomic_store(&spared, spares_caller ? syscall(SYS_gettid) : 0);
  atomic_store(&failing, number);
}

static int is_next(void) {
  const int number = atomic_load(&failing);
  return number && syscall(SYS_gettid) != atomic_load(&spared) &&
         atomic_fetch_add(&requests, 1) + 1 == number;
}

void* aligned_alloc(size_t alignment, size_t size) {
  static void* (*real)(size_t, size_t);
  if (!real) real = (void* (*)(size_t, size_t))dlsym(RTLD_NEXT, "aligned_alloc");
  if (!is_next()) return real(alignment, size);
  errno = ENOMEM;
  return NULL;
}

int posix_memalign(void** memory, size_t alignment, size_t size) {
  static int (*real)(void**, size_t, size_t);
  if (!real) real = (int (*)(void**, size_t, size_t))dlsym(RTLD_NEXT, "posix_memalign");
  return is_next() ? ENOMEM : real(memory, alignment, size);
}
