// What the kernels that train whole networks have in common: what they are told, how a loss sees
// its row, a step of the update rule, and how their launches follow each other.
#pragma once

#include <algorithm>
#include <vector>

#include "../math/loss.h"
#include "../train.h"
#include "lane.cuh"
#include "launch.cuh"
#include "plan.h"
#include "products.cuh"

namespace torchnn::cuda {

// All that a kernel is told.
template <class T, class Plan>
struct Network {
  Train<T> job;
  Models models;
  Plan plan;
  TrainLayer<T> layers[most_layers];
  const UpdateStep<T>* steps;  // (steps), of each model or of all
  int64_t steps_apart;         // from those of one model to those of the next
  T* gradients;                // where they are put aside
  int64_t gradient_size;       // of each block
  Chunk before;                // the launch begins with the chunk after this one
  int64_t end;                 // and ends before this step
  int64_t step_count;          // of all launches
  int targets;                 // numbers of a row of y

  // The chunk of the launch after that one; behind the last there are no rows.
  __device__ Chunk chunk_after(const Chunk& chunk) const {
    Chunk next = torchnn::chunk_after(job, chunk, plan.rows);
    if (next.step >= end) next.rows = 0;
    return next;
  }

  // The numbers of a step, numbers_a_step of them.
  __device__ const T* step_of(int64_t model, const Chunk& chunk) const {
    return reinterpret_cast<const T*>(steps + model * steps_apart + chunk.step);
  }
};

// ---- the loss ----

// The outputs of a row and their targets, of which a loss makes its Row.
template <class Loss, class T>
struct Outputs {
  const T *outputs, *targets;
  int units;
  T delta;

  TORCHNN_FN T a(int n) const { return outputs[n]; }
  TORCHNN_FN T y(int n) const {
    if constexpr (takes_labels<Loss>)
      return target_of_label(targets[0], n);
    else
      return targets[n];
  }
};

template <class Loss, class T>
using RowOf = typename Loss::template Row<T>;

// ---- a step of the update rule ----

// For the first `count` of a pack of numbers, given their gradient. The values are aligned; what
// the rule remembers of them begins at slots[...] + at.
template <class Rule, class T>
TORCHNN_FN void take_steps(T* values, T* const (&slots)[most_slots], int64_t at, bool aligned,
                           const Pack<T>& grad, int64_t count, const UpdateStep<T>& step) {
  Pack<T> w = load_pack(values), kept[most_slots];
#pragma unroll
  for (int s = 0; s < Rule::slots; ++s) kept[s] = load(slots[s] + at, count, aligned);
#pragma unroll
  for (int i = 0; i < pack<T>; ++i) {
    T own[most_slots] = {};
#pragma unroll
    for (int s = 0; s < Rule::slots; ++s) own[s] = kept[s].values[i];
    T value = w.values[i] * step.decay;
    Rule::apply(value, own, clip(grad.values[i], step.clip_value), step);
    if (i < count) w.values[i] = value;
#pragma unroll
    for (int s = 0; s < Rule::slots; ++s) kept[s].values[i] = own[s];
  }
  *reinterpret_cast<Pack<T>*>(values) = w;
#pragma unroll
  for (int s = 0; s < Rule::slots; ++s) store(slots[s] + at, kept[s], count, aligned);
}

// For one number, whose gradient has been clipped.
template <class Rule, class T>
TORCHNN_FN void take_step(T& value, T* const (&slots)[most_slots], int64_t at, T grad,
                          const UpdateStep<T>& step) {
  T own[most_slots] = {};
#pragma unroll
  for (int s = 0; s < Rule::slots; ++s) own[s] = slots[s][at];
  T w = value * step.decay;
  Rule::apply(w, own, grad, step);
  value = w;
#pragma unroll
  for (int s = 0; s < Rule::slots; ++s) slots[s][at] = own[s];
}

// For one number of a bias, given a chunk's part of its gradient, which is put aside until the
// batch is whole; slots_of(s) is where the rule's s-th slots are.
template <class T, class SlotsOf>
TORCHNN_FN void take_step_of_bias(int64_t update, T* bias, int unit, T grad, T* aside,
                                  const Chunk& chunk, const UpdateStep<T>& step,
                                  const SlotsOf& slots_of) {
  if (!chunk.is_first()) grad += aside[unit];
  if (!chunk.is_last()) {
    aside[unit] = grad;
    return;
  }
  Updates::with(update, [&](auto rule) {
    T* slots[most_slots] = {};
#pragma unroll
    for (int s = 0; s < rule.slots; ++s) slots[s] = slots_of(s);
    take_step<decltype(rule)>(bias[unit], slots, unit, clip(grad, step.clip_value), step);
  });
}

// ---- launches ----

// Ctrl-C waits for a launch to end, and so does a screen that the same GPU draws.
#if !defined(TORCHNN_LAUNCH_MICROSECONDS)  // tests make do with few
#define TORCHNN_LAUNCH_MICROSECONDS 50'000
#endif

// The steps that take about as long.
template <class T, class Plan>
int64_t steps_a_launch(const Network<T, Plan>& net) {
  const Train<T>& job = net.job;
  Shape shape{{net.layers[0].in_features}, 0, sizeof(T)};
  for (int64_t l = 0; l < job.layer_count; ++l) shape.widths.push_back(net.layers[l].units);
  const double step =
      step_microseconds(shape, std::min(job.batch_size, job.samples), net.plan.rows);
  return std::max<int64_t>(1, int64_t(TORCHNN_LAUNCH_MICROSECONDS / step));
}

template <class T>
int64_t gradient_size(const Train<T>& job) {
  int64_t size = 0;
  for (int64_t l = 0; l < job.layer_count; ++l)
    size += job.layers[l].units * (job.layers[l].in_features + 1);
  return size;
}

// From the steps of a model to those of the next, which has others if it has other learning rates
// or options; 0 if all models take the same.
template <class T>
int64_t steps_apart(const Train<T>& job, const Models& models) {
  return models.learning_rates || models.options ? step_count(job) : 0;
}

// What a kernel is told of a job. The workspace has the gradients, and behind them the steps.
template <class T, class Plan>
Network<T, Plan> network_of(const Train<T>& job, const Models& models, const Plan& plan,
                            T* workspace, Stream stream) {
  Network<T, Plan> net{};
  net.job = job, net.models = models, net.plan = plan;
  std::copy_n(job.layers, job.layer_count, net.layers);
  net.job.layers = nullptr;  // that is the host's
  for (int64_t l = 0; l < job.layer_count; ++l) {
    net.plan.layers[l].activation = int(job.layers[l].activation);
    net.plan.layers[l].biases = job.layers[l].bias ? int(job.layers[l].units) : 0;
  }
  net.gradients = workspace, net.gradient_size = gradient_size(job);
  auto* const steps =
      reinterpret_cast<UpdateStep<T>*>(workspace + models.count * plan.blocks * net.gradient_size);
  make_steps(job, models, steps, stream);
  net.steps = steps, net.steps_apart = steps_apart(job, models);
  net.step_count = step_count(job);
  net.targets = int(target_count(job.loss, job.layers[job.layer_count - 1].units));
  return net;
}

// All steps of all models, each of which the plan's blocks of so many threads train.
template <class T, class Plan>
void launch_steps(const char* name, void (*kernel)(Network<T, Plan>), Network<T, Plan> net,
                  int threads, Stream stream) {
  const int64_t steps = steps_a_launch(net);
  while (net.end < net.step_count) {
    net.end = std::min(net.step_count, net.end + steps);
    launch_clusters(name, kernel, net.models.count, net.plan.blocks, threads,
                    size_t(net.plan.bytes), stream, net);
    for (Chunk next; (next = chunk_after(net.job, net.before, net.job.batch_size)).step < net.end;)
      net.before = next;
  }
}

}  // namespace torchnn::cuda
