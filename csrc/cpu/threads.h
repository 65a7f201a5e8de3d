// Who takes part in a call: how many threads, and what each of them does.
#pragma once

#include <algorithm>
#include <vector>

#include "../errors.h"
#include "../train.h"
#include "pace.h"
#include "simd/subnormals.h"
#include "team.h"
#include "work.h"

namespace torchnn::cpu {

// What the clock has said of such a network is kept for this thread's next call.
template <class T>
Pace& pace_of(const Train<T>& job) {
  thread_local Pace pace;
  thread_local std::vector<int64_t> measured;
  std::vector<int64_t> sizes{job.batch_size, job.layers[0].in_features};
  for (int64_t l = 0; l < job.layer_count; ++l) sizes.push_back(job.layers[l].units);
  if (sizes != measured) pace = Pace(), measured = sizes;
  pace.begin_call();
  return pace;
}

// A step so long that it is worth waiting for a helper that is on its way.
template <class T>
bool has_long_steps(const Train<T>& job) {
  constexpr double products_of_long_steps = 3e7;  // some milliseconds on one thread
  return double(weight_count(job)) * double(std::min(job.batch_size, job.samples)) >=
         products_of_long_steps;
}

// f(0), ... f(parts - 1) on the threads that the caller lends. What one of them throws, this throws
// when all are done. Each part flushes subnormals for itself, and the caller must not: a thread
// that begins here has the caller's modes, and keeps them.
template <class T, class F>
void run_parallel(const Train<T>& job, int64_t parts, const F& f) {
  FirstError error;
  auto guarded = [&](int64_t part) {
    const FlushSubnormals flush;
    error.guard([&] { f(part); });
  };
  using Guarded = decltype(guarded);
  job.parallel(parts, [](void* f, int64_t i) { (*static_cast<Guarded*>(f))(i); }, &guarded);
  error.rethrow();
}

// Trains with an engine, which says how many threads find work in it. Memory, for all of them, is
// taken when the engine is made: where there is none, nothing has begun.
template <class Engine, class T>
void train_with(const Train<T>& job) {
  Engine engine(job);
  const int64_t threads = engine.most_threads();
  Team team(threads);
  Pace& pace = pace_of(job);
  if (threads == 1) {
    const FlushSubnormals flush;
    return engine.train(team, pace);
  }
  run_parallel(job, threads, [&](int64_t part) {
    if (part > 0) return team.help(part);
    FirstError error;
    if (has_long_steps(job)) team.wait_for_helpers();
    error.guard([&] { engine.train(team, pace); });
    team.close();
    error.rethrow();
  });
}

}  // namespace torchnn::cpu
