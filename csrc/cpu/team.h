// Threads that share the work of a training call out among themselves, a hundred thousand times a
// second: handing a piece of work over and getting it back takes some 150 ns.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

namespace torchnn::cpu {

class Crew;

// The calling thread, and helpers as long as it lasts. There is one crew of helpers in a process:
// while another team has it, this one consists of the caller alone.
class Team {
 public:
  explicit Team(int64_t most);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // How many threads there are by now: helpers take a while to wake up, and nobody waits for them.
  int64_t size();

  // Calls f(0), ... f(parts - 1), each in a thread of its own, and waits for all; parts <= size().
  template <class F>
  void run(int64_t parts, const F& f) {
    if (parts <= 1) return f(0);
    post(parts, [](const void* f, int64_t part) { (*static_cast<const F*>(f))(part); }, &f);
    f(0);
    wait(parts);
  }

 private:
  void post(int64_t parts, void (*call)(const void* context, int64_t part), const void* context);
  void wait(int64_t parts);

  Crew* crew_;
  int64_t helpers_, joined_ = 0;
};

// Decides by the clock whether the whole team is faster than the caller alone. It is not where the
// other cores are busy, and other programs come and go, so both are tried again and again.
class Pace {
 public:
  // How many threads of a team should take the next rows.
  int64_t threads(int64_t size, int64_t rows) {
    if (size == 1) return 1;
    const Time now = Clock::now();
    if (rows_ > 0 && now - begin_ >= window) {
      const double seconds = std::chrono::duration<double>(now - begin_).count() / double(rows_);
      (is_team_ ? team_ : alone_) = seconds;
      const bool is_known = team_ > 0 && alone_ > 0;
      const bool is_team_faster = team_ < alone_;
      // Of so many windows, the last tries the slower way.
      windows_ = (windows_ + 1) % 32;
      is_team_ = !is_known ? !is_team_ : windows_ == 0 ? !is_team_faster : is_team_faster;
      rows_ = 0;
    }
    if (rows_ == 0) begin_ = now;
    rows_ += rows;
    return is_team_ ? size : 1;
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  static constexpr std::chrono::microseconds window{500};

  bool is_team_ = true;
  double team_ = 0, alone_ = 0;  // seconds a row
  int64_t rows_ = 0, windows_ = 1;
  Time begin_;
};

}  // namespace torchnn::cpu
