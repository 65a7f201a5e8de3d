// The contract of training a whole network of dense layers: one call takes any number of steps of
// stochastic gradient descent, and changes weights and optimizer state in place.
#pragma once

#include <algorithm>
#include <cstdint>

#include "math/activation.h"
#include "math/stopping.h"
#include "math/update.h"
#include "product.h"

struct CUstream_st;  // CUDA's, so that this file needs none of its headers

namespace torchnn {

template <class T>
struct TrainLayer {
  int64_t in_features, units;
  int64_t activation;  // place in Activations
  T* weight;           // (units, in_features)
  T* bias;             // (units), or null
  // What the update rule remembers, shaped like weight and bias; the first Updates entry::slots.
  T* weight_slots[most_slots];
  T* bias_slots[most_slots];
  Penalty<T> weight_penalty{}, bias_penalty{};
  double slope = no_slope;  // of the activation just below 0
  double dropout = 0;       // the probability that an output is dropped, below 1
  int64_t seed = 0;         // of what is dropped
  // Of a Trial that may end early: where weight and bias of its best epoch are kept, or null.
  T *best_weight = nullptr, *best_bias = nullptr;

  // Those of the m-th behind it, all of whose arrays follow the ones of the one before.
  TrainLayer moved(int64_t m) const {
    TrainLayer layer = *this;
    auto move = [m](T*& values, int64_t size) {
      if (values) values += m * size;
    };
    move(layer.weight, units * in_features), move(layer.bias, units);
    for (T*& slot : layer.weight_slots) move(slot, units * in_features);
    for (T*& slot : layer.bias_slots) move(slot, units);
    return layer;
  }

  bool has_penalty() const { return weight_penalty || (bias && bias_penalty); }
};

// Calls f(context, 0), ... f(context, parts - 1), at the same time as far as there are threads, and
// else one after the other.
using Parallel = void (*)(int64_t parts, void (*f)(void* context, int64_t i), void* context);

template <class T>
struct Train {
  const TrainLayer<T>* layers;
  int64_t layer_count;
  const T* x;                        // rows of in_features, x_stride apart
  const T* y = nullptr;              // rows of target_count numbers; on CUDA, no negative class
  const T* sample_weight = nullptr;  // one number a row, or null
  // (samples): which row of x, y and sample_weight comes when; null for 0, 1, ...
  const int64_t* order = nullptr;
  int64_t x_stride;
  bool x_is_padded = false;  // on the CPU: its rows go on with zeros up to whole registers
  int64_t samples;           // to train on in this call, of all epochs together
  int64_t epoch_size = 0;    // samples an epoch: a batch ends where its epoch does
  int64_t batch_size;        // the last batch of an epoch may be shorter
  int64_t loss = 0;          // place in Losses
  int64_t update = 0;        // place in Updates
  TrainOptions options{};
  double input_dropout = 0;  // the probability that a feature of a row is dropped, below 1
  int64_t input_seed = 0;    // of these
  const double* learning_rates = nullptr;  // (steps)
  const int64_t* steps_before = nullptr;   // one number: taken by earlier calls; null for none
  T* losses = nullptr;                     // (steps): the loss of each batch before its step,
                                           // with the penalties of weights and biases
  // What weights, biases and slots become after each whole epoch of the call: layers whose arrays
  // have room for as many, one behind the other; or null. On the CPU, of a single model.
  const TrainLayer<T>* snapshots = nullptr;
  T* predictions = nullptr;  // (samples, units of the last layer) before each step, or null
  // On the CPU: for more than one thread, and how many at most; and, if there is one, a library's
  // product of large matrices, c += scale * a @ b, without bias or finish. Within parallel, it
  // stays on the thread that asks for it.
  Parallel parallel = nullptr;
  int64_t threads = 1;
  void (*add_product)(const cpu::Product<T>& product, T scale) = nullptr;

  bool has_penalties() const {
    return std::any_of(layers, layers + layer_count,
                       [](auto& layer) { return layer.has_penalty(); });
  }
};

// Models that are trained side by side. Weights, biases, slots, losses and predictions of one
// follow those of the other; of the rest, this is how many elements it is to the next model, or 0
// where all share one.
struct Models {
  int64_t count = 1;
  int64_t x = 0, y = 0, sample_weight = 0, order = 0, learning_rates = 0;
  const TrainOptions* options = nullptr;  // (count), or null where all have the job's
  int64_t rows = 0;  // of x, y and sample_weight: CUDA gives a loss of NaN for others in order
};

// One of several models that are trained at once: what it has of its own. On CUDA, what is pointed
// to is the device's, all but layers.
template <class T>
struct Trial {
  const TrainLayer<T>* layers;  // in number and activations those of all others; of any sizes
  const T* y;
  const T* sample_weight = nullptr;  // one number a row, or null
  const int64_t* order;              // (samples): row numbers
  TrainOptions options{};            // delta is that of all
  double input_dropout = 0;
  int64_t input_seed = 0;
  const double* learning_rates;              // (steps)
  int64_t steps_before = 0;                  // taken by earlier calls
  T* losses = nullptr;                       // (steps), as in Train
  T* predictions = nullptr;                  // (samples, units of the last layer), or null
  const int64_t* validation_rows = nullptr;  // (validation_count), or null for 0, 1, ...
  const T* validation_y = nullptr;           // and weights: as y and sample_weight
  const T* validation_weight = nullptr;
  T* validation_losses = nullptr;       // (epochs, batches of the validation rows), with penalties
  T* validation_predictions = nullptr;  // (epochs, validation_count, units of the last layer)
  // When it ends early, before the call's last epoch: then there are no losses and predictions of
  // the epochs behind, and if it had ended before the call, of any. Null for never.
  Stopping stopping{};
  StoppingState* stopping_state = nullptr;
};

// What they share. All have as many features, and as many units in the last layer.
template <class T>
struct Trials {
  const Trial<T>* trials;
  int64_t count;
  int64_t layer_count;
  const T* x;  // rows of in_features, x_stride apart
  int64_t x_stride;
  int64_t samples, epoch_size, batch_size, loss, update;  // as in Train
  // Rows to measure each model on, batch by batch, after each whole epoch of the call, or once as
  // it is if there are no samples.
  const T* validation_x = nullptr;
  int64_t validation_x_stride = 0, validation_count = 0, validation_batch_size = 1;
  int64_t rows = 0, validation_x_rows = 0;  // of x and validation_x: CUDA makes NaN of others
  Parallel parallel = nullptr;              // and the rest: on the CPU, as in Train
  int64_t threads = 1;
  void (*add_product)(const cpu::Product<T>& product, T scale) = nullptr;
};

// ---- where a batch ends, the one place ----

// The steps that so many samples take.
constexpr int64_t step_count(int64_t samples, int64_t epoch_size, int64_t batch_size) {
  auto batches = [&](int64_t n) { return (n + batch_size - 1) / batch_size; };
  return samples / epoch_size * batches(epoch_size) + batches(samples % epoch_size);
}
template <class Job>
constexpr int64_t step_count(const Job& job) {
  return step_count(job.samples, job.epoch_size, job.batch_size);
}

// The rows that models are measured on, or trained on, as the samples of an epoch.
struct EpochRows {
  int64_t samples, epoch_size, batch_size;
};
template <class T>
constexpr EpochRows validation_of(const Trials<T>& job) {
  return {job.validation_count, job.validation_count, job.validation_batch_size};
}

// Takes the losses of an epoch of the call, counted from 0, into what is known of a trial.
template <class T>
TORCHNN_FN StoppingState::Verdict end_epoch(const Trials<T>& job, const Trial<T>& trial,
                                            int64_t epoch) {
  const bool is_validated = trial.stopping.of_validation != 0;
  const EpochRows train{job.epoch_size, job.epoch_size, job.batch_size};
  const EpochRows rows = is_validated ? validation_of(job) : train;
  const T* const losses = is_validated ? trial.validation_losses : trial.losses;
  const double loss = mean_loss(losses + epoch * step_count(rows), rows.samples, rows.batch_size);
  return trial.stopping_state->take(trial.stopping, loss);
}

// Some rows of a batch: samples first ... first + rows - 1 in order. Its batch is samples begin ...
// end - 1.
struct Chunk {
  int64_t step = -1, begin = 0, end = 0, end_of_epoch = 0;
  int64_t first = 0, rows = 0;
  constexpr int64_t batch_rows() const { return end - begin; }
  constexpr bool is_first() const { return first == begin; }  // of its batch
  constexpr bool is_last() const { return first + rows == end; }
};

// The chunk after that one, of at most so many rows; behind the last there are none. It begins with
// the chunk after Chunk{}.
template <class Job>
constexpr Chunk chunk_after(const Job& job, Chunk chunk, int64_t most) {
  chunk.first += chunk.rows;
  if (chunk.first == chunk.end) {
    ++chunk.step;
    chunk.begin = chunk.end;
    if (chunk.begin == chunk.end_of_epoch) chunk.end_of_epoch += job.epoch_size;
    chunk.end = std::min(chunk.begin + job.batch_size, std::min(chunk.end_of_epoch, job.samples));
  }
  chunk.rows = std::min(most, chunk.end - chunk.first);
  return chunk;
}

namespace cpu {

// Takes step_count(job) steps with each of the models. What a model comes to does not depend on the
// others, or on the threads: by itself it comes to the same bits.
template <class T>
void train(const Train<T>& job, const Models& models = {});

// The same for models of any sizes, each by numbers of its own. What a model comes to depends on
// nothing but these and the rows that it is trained on: not on the other models, on their number,
// or on how its steps are cut into calls.
template <class T>
void train_many(const Trials<T>& job);

// predictions (samples, units of the last layer) of the rows in order; of the rest of the job it
// reads layers, x and batch_size alone, the last being how many rows go through at once.
template <class T>
void predict(const Train<T>& job);

}  // namespace cpu

// On CUDA, jobs and models have pointers, all but layers, that are the device's; parallel and
// threads are not looked at. Nothing waits for the device, or reads what is there: a CUDA graph may
// record it all.
namespace cuda {

using Stream = CUstream_st*;  // cudaStream_t

// How networks of one shape lie in the memory of a multiprocessor: cuda/plan.h and warp_plan.h.
struct Plan;
struct WarpPlan;

// Of the current device: the memory that a block of threads may have, in bytes, and how many of
// them may train a model together.
int64_t shared_limit();
int64_t most_blocks();

// Elements of device memory that training needs beside its arguments, with so many blocks a model.
template <class T>
int64_t workspace_size(const Train<T>& job, const Models& models, int64_t blocks = 1);

// Takes as many steps as the CPU's train, each model in one block of threads or a few.
template <class T>
void train(const Train<T>& job, const Models& models, const Plan& plan, T* workspace,
           Stream stream);

// The same, each model in one warp.
template <class T>
void train_by_warps(const Train<T>& job, const Models& models, const WarpPlan& plan, T* workspace,
                    Stream stream);

// ---- models of any sizes, each in a block of threads of its own: cuda/train_many.cu ----

// Elements of device memory that training needs beside its arguments.
template <class T>
int64_t workspace_size(const Trials<T>& job);

// The CPU's train_many, of trials that fit (cuda/trial_plan.h), with usual slopes. They are read
// before it returns; no CUDA graph may record it.
template <class T>
void train_many(const Trials<T>& job, T* workspace, Stream stream);

// Brings so many lists of rows, of one size, each into the order of its seed (math/shuffle.h).
void shuffle(int64_t* rows, int64_t size, const int64_t* seeds, int64_t count, Stream stream);

// ---- for networks whose every layer of every batch is a launch of its own: cuda/layers.cu ----

// The numbers of each step, (steps) of each model or of all: as many as step_numbers says.
template <class T>
void make_steps(const Train<T>& job, const Models& models, UpdateStep<T>* steps, Stream stream);
template <class T>
int64_t step_numbers(const Train<T>& job, const Models& models);

// What goes on from a layer: what is left of activation(from) when some of it is dropped. On the
// way back, with the identity, the gradients of what was left; then `to` may be `from`.
template <class T>
struct LayerOutputs {
  const T* from;  // (rows, units)
  T* to;          // (rows, units)
  int64_t rows, units;
  int64_t activation;  // place in Activations
  double dropout;
  int64_t seed;
  int64_t step;                 // of this call, from 0
  const int64_t* steps_before;  // one number: taken by earlier calls; null for none
};

template <class T>
void finish(const LayerOutputs<T>& outputs, Stream stream);

// A batch's loss, and from its outputs the derivative with respect to them.
template <class T>
struct BatchLoss {
  const T* out;            // (rows, units)
  const T* y;              // (rows, target_count)
  const T* sample_weight;  // (rows), or null
  T* grad_out;             // (rows, units)
  T* sums;                 // (loss_parts): workspace
  T* loss;                 // one number
  T* predictions;          // (rows, units): a copy of out, or null
  int64_t rows, units;
  int64_t place;  // in Losses
  T delta;        // its number, if it has one
};

// The parts that the loss of so many outputs is summed in.
int64_t loss_parts(int64_t outputs);

template <class T>
void measure(const BatchLoss<T>& batch, Stream stream);

// A weight or a bias of `size` numbers, and its gradient.
template <class T>
struct Parameter {
  T* values;
  T* slots[most_slots];
  const T* grad;  // of the loss without penalties
  int64_t size;
  Penalty<T> penalty{};
};

// Sums over all of so many parameters, before they change: adds their penalties to the loss of a
// batch, and makes what brings the norms of their gradients down, (count) in the workspace of
// sums_of_parameters(count) numbers.
template <class T>
void sum_up(const Parameter<T>* parameters, int64_t count, const TrainOptions& options,
            T* workspace, T* loss, Stream stream);
int64_t sums_of_parameters(int64_t count);

// One step of so many parameters, by the rule that has this place in Updates, with the numbers of a
// step that make_steps made; scales, (count), are what sum_up made, or null where no norm is
// clipped.
template <class T>
void update(const Parameter<T>* parameters, int64_t count, int64_t place, const UpdateStep<T>* step,
            const T* scales, Stream stream);

}  // namespace cuda
}  // namespace torchnn
