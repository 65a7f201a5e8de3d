// Memory of a thread, kept from call to call, and how arrays lie in it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "../errors.h"
#include "simd/isa.h"

namespace torchnn::cpu {

// 64-byte aligned memory. It only grows; where that fails, OutOfMemory says how many bytes it was.
template <class T>
class Scratch {
 public:
  T* get(int64_t size) {
    if (size > size_) {
      data_.reset(), size_ = 0;
      const int64_t bytes = size * int64_t(sizeof(T));
      data_.reset(static_cast<T*>(::operator new(bytes, std::align_val_t(64), std::nothrow)));
      if (!data_) throw OutOfMemory(bytes);
      size_ = size;
    }
    return data_.get();
  }

 private:
  struct Delete {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Delete> data_;
  int64_t size_ = 0;
};

// Memory in pieces, each beginning a cache line of its own. `request` is called twice with the same
// requests: first they are measured, then they are met. A thread has such memory in several places,
// and the last one to allocate in a place has what is there.
template <class T>
class Pieces {
 public:
  template <class F>
  void allocate(int64_t place, const F& request) {
    thread_local std::vector<Scratch<T>> memory;
    if (place >= int64_t(memory.size())) memory.resize(place + 1);
    request(*this);
    place_ = first_ = memory[place].get(size_);
    request(*this);
  }

  // All numbers, for whichever thread will read them first.
  void clear() { std::fill(first_, first_ + size_, T(0)); }

  T* take(int64_t count) {
    const int64_t line = 64 / sizeof(T), size = (count + line - 1) / line * line + line;
    if (!place_) return size_ += size, nullptr;
    place_ += size;
    return place_ - size;
  }

 private:
  T *first_ = nullptr, *place_ = nullptr;
  int64_t size_ = 0;
};

// Rounds counts up to whole registers.
template <class T>
struct Padding {
  int64_t lanes = vector_bytes() / int64_t(sizeof(T));
  int64_t operator()(int64_t n) const { return (n + lanes - 1) / lanes * lanes; }
  // Long rows lie an odd number of cache lines apart, or they would fall into the same few sets of
  // the cache.
  int64_t odd_lines(int64_t n) const {
    const int64_t line = 64 / sizeof(T), lines = ((*this)(n) + line - 1) / line;
    return lines < 4 ? (*this)(n) : (lines | 1) * line;
  }
};

}  // namespace torchnn::cpu
