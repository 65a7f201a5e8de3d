// Errors that carry more than the standard's, across threads and up to Python.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <new>
#include <utility>

namespace torchnn {

// Memory ran out: Python raises MemoryError, with this message. The largest number stands for any
// that is larger.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(int64_t bytes) {
    const bool is_more = bytes == std::numeric_limits<int64_t>::max();
    std::snprintf(message_, sizeof message_, "out of memory: %s%lld bytes were asked for",
                  is_more ? "more than " : "", static_cast<long long>(bytes));
  }
  const char* what() const noexcept override { return message_; }

 private:
  char message_[80];  // there may be no memory for a longer one
};

// The first error of several threads, for the one that waits for them all.
class FirstError {
 public:
  // Calls f, and keeps what it throws.
  template <class F>
  void guard(const F& f) noexcept {
    try {
      f();
    } catch (...) {
      if (!is_taken_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
    }
  }

  // When all have come back: throws the error, if there is one.
  void rethrow() {
    if (!is_taken_.load(std::memory_order_relaxed)) return;
    is_taken_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  std::atomic<bool> is_taken_ = false;
  std::exception_ptr error_;
};

}  // namespace torchnn
