// Threads that share the work of a training call out among themselves, a hundred thousand times a
// second: handing a piece of work over and getting it back takes some 150 ns.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>

#include "../errors.h"

namespace torchnn::cpu {

// A leader and its helpers, which spin between two pieces of work: to sleep and to be woken up
// would take longer than most pieces do.
class Team {
 public:
  explicit Team(int64_t most) : most_(most) {
    if (most == 1) return;  // all by itself, it needs no memory
    helpers_.reset(new (std::nothrow) Helper[most]);
    if (!helpers_) throw OutOfMemory(most * int64_t(sizeof(Helper)));
  }

  // For the leader: how many threads there are by now. A helper may come late, or never; nobody
  // waits for one.
  int64_t size() {
    while (size_ < most_ && helpers_[size_].done.load(std::memory_order_acquire) == ready) ++size_;
    return size_;
  }

  // For the leader: waits for all helpers, but not for long, since one may never come.
  void wait_for_helpers() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
    while (size() < most_ && std::chrono::steady_clock::now() < end) pause();
  }

  // For the leader: calls f(0), ... f(parts - 1), each in a thread of its own, and waits for all;
  // parts <= size(). What one of them throws, this throws.
  template <class F>
  void run(int64_t parts, const F& f) {
    if (parts <= 1) return f(0);
    call_ = [](const void* f, int64_t part) { (*static_cast<const F*>(f))(part); };
    context_ = &f;
    round_ = std::max<uint32_t>(round_ + 1, first_round);  // it wraps around
    for (int64_t i = 1; i < parts; ++i) helpers_[i].posted.store(round_, std::memory_order_release);
    error_.guard([&] { f(0); });
    for (int64_t i = 1; i < parts; ++i)
      spin([&] { return helpers_[i].done.load(std::memory_order_acquire) == round_; });
    error_.rethrow();
  }

  // For the leader, at the end: lets the helpers go, also those that have not come yet. Until then
  // they wait, whatever becomes of the leader.
  void close() {
    for (int64_t i = 1; i < most_; ++i) helpers_[i].posted.store(closed, std::memory_order_release);
  }

  // For helper i, 1 <= i < most: works until the leader closes the team.
  void help(int64_t i) {
    Helper& own = helpers_[i];
    own.done.store(ready, std::memory_order_release);
    for (uint32_t round = none;;) {
      spin([&] { return own.posted.load(std::memory_order_acquire) != round; });
      round = own.posted.load(std::memory_order_acquire);
      if (round == closed) return;
      error_.guard([&] { call_(context_, i); });
      own.done.store(round, std::memory_order_release);
    }
  }

 private:
  enum : uint32_t { none, closed, ready, first_round };

  struct alignas(64) Helper {  // a cache line each
    std::atomic<uint32_t> posted{none}, done{none};
  };

  template <class Condition>
  static void spin(const Condition& is_met) {
    constexpr int patience = 2000;  // tries, some 50 us; then others may have the core
    for (int tries = 0; !is_met(); ++tries) {
      if (tries < patience)
        pause();
      else
        std::this_thread::yield();
    }
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::unique_ptr<Helper[]> helpers_;  // the first place is the leader's, and empty
  int64_t most_, size_ = 1;
  uint32_t round_ = none;
  void (*call_)(const void* context, int64_t part) = nullptr;
  const void* context_ = nullptr;
  FirstError error_;  // of a round
};

}  // namespace torchnn::cpu
