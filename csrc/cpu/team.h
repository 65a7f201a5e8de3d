// Threads that share the work of a training call out among themselves, a hundred thousand times a
// second: handing a piece of work over and getting it back takes some 150 ns.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>

namespace torchnn::cpu {

// A leader and its helpers, which spin between two pieces of work: to sleep and to be woken up
// would take longer than most pieces do.
class Team {
 public:
  explicit Team(int64_t most) : helpers_(new Helper[most]), most_(most) {}

  // For the leader: how many threads there are by now. A helper may come late, or never; nobody
  // waits for one.
  int64_t size() {
    while (size_ < most_ && helpers_[size_].done.load(std::memory_order_acquire) == ready) ++size_;
    return size_;
  }

  // For the leader: calls f(0), ... f(parts - 1), each in a thread of its own, and waits for all;
  // parts <= size().
  template <class F>
  void run(int64_t parts, const F& f) {
    if (parts <= 1) return f(0);
    call_ = [](const void* f, int64_t part) { (*static_cast<const F*>(f))(part); };
    context_ = &f;
    round_ = std::max<uint32_t>(round_ + 1, first_round);  // it wraps around
    for (int64_t i = 1; i < parts; ++i) helpers_[i].posted.store(round_, std::memory_order_release);
    f(0);
    for (int64_t i = 1; i < parts; ++i)
      spin([&] { return helpers_[i].done.load(std::memory_order_acquire) == round_; });
  }

  // For the leader, at the end: lets the helpers go, also those that have not come yet.
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
      call_(context_, i);
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
};

// Decides by the clock whether the whole team is faster than the leader alone. It is not where
// other programs keep the cores busy, and they come and go.
class Pace {
 public:
  // How many threads of a team should take the next rows.
  int64_t threads(int64_t size, int64_t rows) {
    if (size == 1) return 1;
    const Clock::time_point now = Clock::now();
    if (rows_ > 0 && now - begin_ >= window) {
      const std::chrono::duration<double> seconds = now - begin_;
      seconds_a_row_[way_] = seconds.count() / double(rows_);
      rows_ = 0;
      way_ = choose();
    }
    if (rows_ == 0) begin_ = now;
    rows_ += rows;
    return way_ == together ? size : 1;
  }

  // Between two calls nothing is measured.
  void interrupt() { rows_ = 0; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds window{500};
  static constexpr int most_windows = 128;
  enum Way { together, alone };

  // After a window: how to go on. The slower way is tried less and less often while it stays the
  // slower one; at once when the faster one has become slow.
  Way choose() {
    const Way other = way_ == together ? alone : together;
    if (!is_trial_) {
      if (--windows_left_ > 0 && seconds_a_row_[way_] < 1.25 * usual_) return way_;
      is_trial_ = true;
      return other;
    }
    is_trial_ = false;
    const Way faster = seconds_a_row_[together] < seconds_a_row_[alone] ? together : alone;
    windows_ = faster == other ? std::min(2 * windows_, most_windows) : 1;
    windows_left_ = windows_;
    usual_ = seconds_a_row_[faster];
    return faster;
  }

  Way way_ = together;
  bool is_trial_ = false;
  int windows_ = 1, windows_left_ = 1;
  double seconds_a_row_[2] = {}, usual_ = 0;
  int64_t rows_ = 0;
  Clock::time_point begin_;
};

}  // namespace torchnn::cpu
