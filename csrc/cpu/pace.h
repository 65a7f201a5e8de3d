// How many threads are the fastest at the moment.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace torchnn::cpu {

// Decides by the clock whether the whole team is faster than the leader alone. It is not where
// other programs keep the cores busy, and they come and go.
//
// What is measured: the time a row takes, over windows of half a millisecond. When the other way is
// tried: for one window, after `interval_` windows of the faster way, or at once when that has
// become slow. Each trial that changes nothing doubles the interval; one that does sets it to 1.
template <class Clock>
class PaceBy {
 public:
  // How many threads of a team should take the next rows.
  int64_t threads(int64_t size, int64_t rows) {
    if (size == 1) return 1;
    const auto now = Clock::now();
    if (is_over(now)) close_window(now);
    if (rows_ == 0) begin_ = now;
    rows_ += rows;
    return way_ == together ? size : 1;
  }

  // Between two calls nothing is measured, not even after one that failed.
  void begin_call() { rows_ = 0; }

  // For the end of a call's steps. What has not lasted for a window tells nothing; if it was a
  // trial, it is given up, since the calls to come may be as short. The next window's end decides
  // anew.
  void end_call() {
    const auto now = Clock::now();
    if (is_over(now))
      close_window(now);
    else
      way_ = faster_, rows_ = 0;
  }

 private:
  static constexpr std::chrono::microseconds window{500};
  static constexpr int longest_interval = 128;  // windows: 64 ms
  static constexpr double slow = 1.25;          // times what it was in the last comparison
  enum Way { together, alone };
  static Way other(Way way) { return way == together ? alone : together; }

  bool is_over(typename Clock::time_point now) const { return rows_ > 0 && now - begin_ >= window; }

  void close_window(typename Clock::time_point now) {
    const std::chrono::duration<double> seconds = now - begin_;
    choose(seconds.count() / double(rows_));
    rows_ = 0;
  }

  // After a window of way_, in which a row took so long: how to go on.
  void choose(double time) {
    const bool was_trial = way_ != faster_;
    if (!was_trial) {
      time_ = time;
      if (--windows_left_ <= 0 || time >= slow * usual_time_) way_ = other(faster_);
      return;
    }
    if (time < time_) {
      faster_ = way_, usual_time_ = time;
      interval_ = 1;
    } else {
      way_ = faster_, usual_time_ = time_;
      interval_ = std::min(2 * interval_, longest_interval);
    }
    windows_left_ = interval_;
  }

  Way faster_ = together;                // as far as is known
  Way way_ = together;                   // of this window: the faster one, or the other for a trial
  double time_ = 0;                      // a row takes the faster way, in the last window of it
  double usual_time_ = 0;                // the same when it was last compared
  int interval_ = 1, windows_left_ = 1;  // from one trial to the next
  int64_t rows_ = 0;                     // since begin_, in this window
  typename Clock::time_point begin_;
};

using Pace = PaceBy<std::chrono::steady_clock>;

}  // namespace torchnn::cpu
