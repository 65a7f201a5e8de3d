// Threads that take turns on one thread of the CPU: each goes on until it has to wait for others,
// which costs a fraction of what it costs to wake a thread. To the sanitizers each is a thread all
// the same. Only barriers order what two of them do, not whose turn came first, so ThreadSanitizer
// finds a race whatever the turns were, and the same on every run.
#pragma once

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

// What the sanitizers have to be told; null without them.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void**, const void*, size_t);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned);
__attribute__((weak)) void __tsan_destroy_fiber(void*);
__attribute__((weak)) void __tsan_switch_to_fiber(void*, unsigned);
__attribute__((weak)) void __tsan_acquire(void*);
__attribute__((weak)) void __tsan_release(void*);
}

// The turns themselves are no part of what is checked.
#define SIMT_UNSEEN __attribute__((no_sanitize("thread")))

namespace simt {

// What all do before they release a place comes before what they do once they have acquired it.
SIMT_UNSEEN inline void release(char* place) {
  if (__tsan_release) __tsan_release(place);
}
SIMT_UNSEEN inline void acquire(char* place) {
  if (__tsan_acquire) __tsan_acquire(place);
}

struct Fiber {
  Fiber() = default;
  Fiber(const Fiber&) = delete;

  int number = -1;
  Fiber *before = this, *next = this;  // in the ring of those that take turns
  ucontext_t context;
  const void* stack = nullptr;
  size_t stack_bytes = 0;
  void *of_address_sanitizer = nullptr, *of_thread_sanitizer = nullptr;
};

inline Fiber starter;              // what runs the others, and takes turns with them
inline Fiber* current = &starter;  // whose turn it is
inline std::function<void(int)> work;
inline char all_begin, all_end;
inline long events = 0;  // arrivals at barriers, and ends

SIMT_UNSEEN inline void resume(Fiber* own) {
  if (!__sanitizer_finish_switch_fiber) return;
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(own->of_address_sanitizer, &stack, &bytes);
  if (!starter.stack) starter.stack = stack, starter.stack_bytes = bytes;  // the first left this
}

SIMT_UNSEEN inline void switch_to(Fiber* to) {
  Fiber* const own = current;
  volatile bool is_back = false;
  getcontext(&own->context);  // goes on here when its turn has come
  if (!is_back) {
    is_back = true;
    current = to;
    constexpr unsigned without_order = 1;
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to->of_thread_sanitizer, without_order);
    if (__sanitizer_start_switch_fiber)
      __sanitizer_start_switch_fiber(&own->of_address_sanitizer, to->stack, to->stack_bytes);
    setcontext(&to->context);
  }
  resume(own);
}

SIMT_UNSEEN inline void give_way() { switch_to(current->next); }

SIMT_UNSEEN inline void live() {
  Fiber* const own = current;
  resume(own);
  acquire(&all_begin);
  work(own->number);
  release(&all_end);
  own->before->next = own->next, own->next->before = own->before;
  ++events;
  switch_to(own->next);
}

class Worker : public Fiber {
 public:
  explicit Worker(int own_number) : memory_(new char[most_stack]) {
    number = own_number, stack = memory_.get(), stack_bytes = most_stack;
    if (__tsan_create_fiber) of_thread_sanitizer = __tsan_create_fiber(0);
  }
  ~Worker() {
    if (__tsan_destroy_fiber) __tsan_destroy_fiber(of_thread_sanitizer);
  }

  // Begins when its turn has come.
  void start() {
    before = starter.before, next = &starter;
    before->next = this, starter.before = this;
    getcontext(&context);
    context.uc_stack.ss_sp = memory_.get(), context.uc_stack.ss_size = most_stack;
    makecontext(&context, live, 0);
  }

 private:
  static constexpr size_t most_stack = 256 << 10;
  std::unique_ptr<char[]> memory_;
};

// Calls work_of(0) to work_of(count - 1), each in a fiber of its own.
SIMT_UNSEEN inline void run_fibers(int count, std::function<void(int)> work_of) {
  static std::vector<std::unique_ptr<Worker>> workers;  // kept, since it takes time to make them
  for (int i = int(workers.size()); i < count; ++i) workers.push_back(std::make_unique<Worker>(i));
  if (__tsan_get_current_fiber) starter.of_thread_sanitizer = __tsan_get_current_fiber();
  work = std::move(work_of);
  for (int i = 0; i < count; ++i) workers[i]->start();
  release(&all_begin);
  while (starter.next != &starter) {
    const long before = events;
    give_way();
    if (events == before) std::puts("every thread waits for others"), std::abort();
  }
  acquire(&all_end);
}

class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}

  SIMT_UNSEEN void wait() {
    const long own = waits_;
    // Two in turn: a thread can be at the next wait before another has left this one.
    char* const place = &places_[own % 2];
    release(place);
    ++events;
    if (++arrived_ == threads_)
      arrived_ = 0, ++waits_;
    else
      while (waits_ == own) give_way();
    acquire(place);
  }

 private:
  const int threads_;
  int arrived_ = 0;
  long waits_ = 0;
  char places_[2];
};

}  // namespace simt
