// Training of many models of any sizes on CUDA: a block of four warps trains one model after the
// other, any number of steps of each in one launch, and several blocks share a multiprocessor. What
// a model has of its own is in a table in the device's memory. train.cu is its twin for single
// networks, with the same numbered steps. Every sum is taken in an order that follows from the
// model alone: its bits do not depend on the grid, on its neighbours, or on how steps are cut into
// calls.
//
// A warp takes its rows of a batch forward through all layers and back without waiting for any
// other. Two barriers are left in a step: before the update, which needs the gradients of all rows,
// and behind it.
#include <cstring>
#include <limits>
#include <map>
#include <numeric>

#include "../math/dropout.h"
#include "copy.cuh"
#include "products.cuh"
#include "train.cuh"
#include "trial_plan.h"

namespace torchnn::cuda {
namespace {

// All that a kernel is told.
template <class T>
struct TrialLaunch {
  Trials<T> job;
  const OwnTrial<T>* trials;
  int count;                   // of the launch
  int* next;                   // the first that no block has begun
  const UpdateStep<T>* steps;  // (count, steps of the launch)
  int64_t step_count;          // of the call
  Chunk before;                // the launch begins with the chunk after this one
  int64_t end;                 // and ends before this step
  T* gradients;                // where they are put aside
  int64_t gradient_size;       // of each block
  int targets;                 // numbers of a row of y
  int slots;                   // of the update rule

  __device__ int64_t first_step() const { return before.step + 1; }
};

// ---- what a block of threads does with a model ----

template <class T>
class TrialTrainer {
  using Forward = typename TrialTiles<sizeof(T)>::Forward;
  using Gradients = typename TrialTiles<sizeof(T)>::Gradient;

 public:
  __device__ TrialTrainer(const TrialLaunch<T>& launch, int number)
      : launch_(launch), number_(number) {}

  // Always inline, since a call would put this object into the device's memory.
  __device__ __forceinline__ void train() {
    const StoppingState* const state = launch_.trials[number_].trial.stopping_state;
    if (state && state->has_stopped && launch_.job.samples) return;
    read();
    list_row(chunk(0));
    int n = 0, epoch = 0;
    int part = launch_.job.samples ? -1 : 0;  // of the validation rows, or -1 for training
    for (;;) {
      const bool validates = part >= 0 && validation_part(part).begin < validation_count();
      if (part >= 0 && !validates) {  // an epoch is over
        if (launch_.job.samples && ends_early(epoch)) break;
        part = -1;
      }
      if (!validates && !chunk(n).rows) break;
      if (validates) begin_part(part);
      const Chunk& now = validates ? own_chunk() : chunk(n);
      const int rows = int(now.rows);
      validates ? fetch_validation(now) : fetch(now);
      if (!validates && threadIdx.x == 0) chunk(n + 1) = chunk_after(chunk(n), plan().rows);
      for (int first = warp() * group_rows; first < rows; first += trial_warps * group_rows)
        go_through(now, first, validates, epoch);
      if (validates) {
        if (now.is_last() && rows) report_validation(now, epoch);
        ++part;
        continue;
      }
      __syncthreads();  // the gradients of all rows are there, and so is the next chunk
      list_row(chunk(n + 1));
      update(chunk(n));
      const int ended = epochs_ended(chunk(n));
      __syncthreads();  // the weights are those of the next step, and no one needs these rows
      if (threadIdx.x == 0 && chunk(n).is_last())
        report(at(plan().sums), trial().losses + chunk(n).step);
      part = ended ? 0 : -1, epoch = ended - 1;
      ++n;
    }
    write_back();
  }

 private:
  __device__ T* at(int place) const { return shared_memory<T>() + place; }
  __device__ const TrialPlaces& plan() const { return *shared_memory<const TrialPlaces>(); }
  __device__ const TrialLayer& place_of(int l) const {
    return reinterpret_cast<const TrialLayer*>(shared_memory<const TrialPlaces>() + 1)[l];
  }
  __device__ const OwnTrial<T>& own() const {
    return *reinterpret_cast<const OwnTrial<T>*>(at(plan().trial));
  }
  __device__ const Trial<T>& trial() const { return own().trial; }
  __device__ Chunk& chunk(int n) const {
    return reinterpret_cast<Chunk*>(at(plan().chunks))[n % 2];
  }
  __device__ int64_t& from(int row) const {
    return reinterpret_cast<int64_t*>(at(plan().from))[row];
  }
  __device__ const UpdateStep<T>& step() const {
    return *reinterpret_cast<const UpdateStep<T>*>(at(plan().step));
  }
  __device__ int last() const { return int(launch_.job.layer_count) - 1; }
  // Said anew at each place: what follows from it would otherwise be computed before the first step
  // and take registers in all.
  __device__ static int thread() {
    int number = threadIdx.x;
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+r"(number));
#endif
    return number;
  }
  __device__ static int lane() { return thread() % warp_size; }
  __device__ static int warp() { return thread() / warp_size; }

  __device__ int64_t validation_count() const {
    return trial().validation_losses ? launch_.job.validation_count : 0;
  }

  // That of validation rows which the warp has in work.
  __device__ Chunk& own_chunk() const {
    return reinterpret_cast<Chunk*>(at(plan().chunks))[2 + warp()];
  }
  __device__ void begin_part(int part) const {
    __syncwarp();  // no lane needs the one before
    if (lane() == 0) own_chunk() = validation_part(part);
    __syncwarp();
  }

  // Of the validation rows, plan().rows go through at a time, batch by batch; a short last batch
  // has as many parts as the others, some without rows.
  __device__ Chunk validation_part(int part) const {
    const int64_t size = launch_.job.validation_batch_size, most = plan().rows;
    const int64_t parts = (size + most - 1) / most;
    Chunk chunk;
    chunk.step = part / parts, chunk.begin = chunk.step * size;
    chunk.end = std::min(chunk.begin + size, launch_.job.validation_count);
    chunk.first = std::min(chunk.begin + part % parts * most, chunk.end);
    chunk.rows = std::min(most, chunk.end - chunk.first);
    return chunk;
  }

  // The chunk of the launch after that one; behind the last there are no rows.
  __device__ Chunk chunk_after(const Chunk& chunk, int most) const {
    Chunk next = torchnn::chunk_after(launch_.job, chunk, most);
    if (next.step >= launch_.end) next.rows = 0;
    return next;
  }

  // The epochs that have come to their end with a chunk, 0 if none ends there.
  __device__ int epochs_ended(const Chunk& chunk) const {
    if (!chunk.is_last() || chunk.end != chunk.end_of_epoch) return 0;
    return int(chunk.end / launch_.job.epoch_size);
  }

  // Whether training ends with an epoch, all of whose losses have been reported.
  __device__ bool ends_early(int epoch) const {
    if (!trial().stopping_state) return false;
    auto& verdict = *reinterpret_cast<StoppingState::Verdict*>(at(plan().verdict));
    if (threadIdx.x == 0) {  // who reported them
      const auto found = end_epoch(launch_.job, trial(), epoch);
      verdict = found;
    }
    __syncthreads();  // all know what comes of it
    if (verdict.is_best) keep_best();
    return verdict.stops;
  }

  // ---- the way in, and out ----

  // Calls f(the user's array, elements, the Divider of a row, place of ours, our stride) for all
  // there is to remember of a layer.
  template <class F>
  __device__ void each_parameter(int l, const F& f) const {
    const TrainLayer<T>& layer = launch_.trials[number_].trial.layers[l];
    const TrialLayer& place = launch_.trials[number_].layers[l];
#pragma unroll 1
    for (int s = -1; s < launch_.slots; ++s) {
      T* const weight = s < 0 ? layer.weight : layer.weight_slots[s];
      T* const bias = s < 0 ? layer.bias : layer.bias_slots[s];
      const int at_weight = s < 0 ? place.weight : place.weight_slots[s];
      const int at_bias = s < 0 ? place.bias : place.bias_slots[s];
#pragma unroll 1
      for (int is_bias = 0; is_bias <= place.has_bias; ++is_bias)
        f(is_bias ? bias : weight, is_bias ? place.units : place.units * place.in_features,
          is_bias ? Divider(1) : place.features, is_bias ? at_bias : at_weight,
          is_bias ? 1 : place.in_stride);
    }
  }

  __device__ void read() const {
    const OwnTrial<T>& own = launch_.trials[number_];
    const int size = own.places->size;
    for (int i = threadIdx.x; i < size; i += trial_threads) *at(i) = T(0);
    __syncthreads();
    auto copy = [](const auto* from, int count, void* to) {
      for (int i = threadIdx.x; i < count * int(sizeof(*from) / sizeof(int)); i += trial_threads)
        static_cast<int*>(to)[i] = reinterpret_cast<const int*>(from)[i];
    };
    copy(own.places, 1, shared_memory<TrialPlaces>());
    copy(own.layers, last() + 1, shared_memory<TrialPlaces>() + 1);
    copy(&own, 1, at(own.places->trial));
    if (threadIdx.x == 0)
      *reinterpret_cast<Chunk*>(at(own.places->chunks)) =
          chunk_after(launch_.before, own.places->rows);
    for (int l = 0; l <= last(); ++l)
      each_parameter(l, [&](const T* user, int count, Divider columns, int place, int stride) {
        for (int i = threadIdx.x; i < count; i += trial_threads) {
          const int row = columns.quotient(i);
          at(place)[row * stride + i - row * columns.divisor] = user[i];
        }
      });
    __syncthreads();
  }

  __device__ void write_back() const {
    for (int l = 0; l <= last(); ++l)
      each_parameter(l, [&](T* user, int count, Divider columns, int place, int stride) {
        write(user, count, columns, place, stride);
      });
  }

  __device__ void write(T* user, int count, Divider columns, int place, int stride) const {
    for (int i = threadIdx.x; i < count; i += trial_threads) {
      const int row = columns.quotient(i);
      user[i] = at(place)[row * stride + i - row * columns.divisor];
    }
  }

  __device__ void keep_best() const {
    for (int l = 0; l <= last(); ++l) {
      const TrainLayer<T>& layer = trial().layers[l];
      const TrialLayer& place = place_of(l);
      if (layer.best_weight)
        write(layer.best_weight, place.units * place.in_features, place.features, place.weight,
              place.in_stride);
      if (layer.best_bias) write(layer.best_bias, place.units, Divider(1), place.bias, 1);
    }
  }

  // ---- the rows of a chunk: each warp has every fourth group ----

  // The lane-th row of the warp, if there are so many.
  __device__ static int own_row() {
    return (lane() / group_rows * trial_warps + warp()) * group_rows + lane() % group_rows;
  }

  // Which rows they are is asked for one chunk earlier.
  __device__ void list_row(const Chunk& chunk) {
    if (own_row() < chunk.rows) listed_ = trial().order[chunk.first + own_row()];
  }

  // 1. fetch targets and the numbers of the step, and say where the rows are
  __device__ void fetch(const Chunk& chunk) const {
    if (own_row() < chunk.rows)
      fetch_targets(listed_, launch_.job.rows, trial().y, trial().sample_weight);
    if (warp() == 0 && lane() < numbers_a_step) {
      const int64_t steps = launch_.end - launch_.first_step();
      const UpdateStep<T>* const step =
          launch_.steps + number_ * steps + (chunk.step - launch_.first_step());
      copy_async<sizeof(T)>(at(plan().step) + lane(), reinterpret_cast<const T*>(step) + lane());
    }
  }

  __device__ void fetch_validation(const Chunk& chunk) const {
    if (own_row() >= chunk.rows) return;
    const int64_t i = chunk.first + own_row(), *const numbers = trial().validation_rows;
    fetch_targets(numbers ? numbers[i] : i, launch_.job.validation_x_rows, trial().validation_y,
                  trial().validation_weight);
  }

  // Of the lane's row: where in x it is, and y and weight. One that does not exist is taken to be
  // the first, with a weight that makes the loss NaN.
  __device__ void fetch_targets(int64_t listed, int64_t rows, const T* y, const T* weights) const {
    const int targets = launch_.targets, row = own_row();
    const bool exists = listed >= 0 && listed < rows;
    const int64_t number = exists ? listed : 0;
    from(row) = number;
    for (int n = 0; n < targets; ++n)
      copy_async<sizeof(T)>(at(plan().y) + row * targets + n, y + number * targets + n);
    T* const weight = at(plan().sample_weight) + row;
    if (!exists)
      *weight = std::numeric_limits<T>::quiet_NaN();
    else if (weights)
      copy_async<sizeof(T)>(weight, weights + number);
    else
      *weight = T(1);
  }

  // The rows of x of a group, whose places are known.
  __device__ void fetch_rows(const T* x, int64_t x_stride, int first, int rows) const {
    const int stride = place_of(0).in_stride, groups_rows = std::min(rows - first, int{group_rows});
    T* const to = at(plan().x) + first * stride;
    auto copy = [&](const Divider& columns, auto width) {
      const int count = groups_rows * columns.divisor;
      for (int i = lane(); i < count; i += warp_size) {
        const int row = columns.quotient(i), k = (i - row * columns.divisor) * width;
        copy_async<width * sizeof(T)>(to + row * stride + k, x + from(first + row) * x_stride + k);
      }
    };
    if (is_aligned(x, x_stride) && plan().features.divisor % pack<T> == 0)
      copy(plan().packs, std::integral_constant<int, pack<T>>{});
    else
      copy(plan().features, std::integral_constant<int, 1>{});
  }

  // ---- what is dropped ----

  // The key of a row of the chunk, in this step.
  __device__ uint32_t key_of(const Chunk& chunk, int64_t seed, int row) const {
    const uint32_t key = step_key(seed, trial().steps_before + chunk.step + 1);
    return row_key(key, chunk.first - chunk.begin + row);
  }

  __device__ void drop_inputs(const Chunk& chunk, int first) const {
    const Dropping<T> dropping(trial().input_dropout);
    const int row = first + lane() % group_rows;
    const uint32_t key = key_of(chunk, trial().input_seed, row);
    T* const x = at(plan().x) + row * place_of(0).in_stride;
    for (int k = lane() / group_rows; k < place_of(0).in_features; k += warp_size / group_rows)
      x[k] = dropping.apply(x[k], key + unit_key(k));
    __syncwarp();
  }

  // ---- a group of rows, forward and back ----

  // Validation rows, only forward.
  __device__ void go_through(const Chunk& chunk, int first, bool validates, int epoch) {
    const Trials<T>& job = launch_.job;
    __syncwarp();  // where the rows are is known, and what was in their place is done with
    fetch_rows(validates ? job.validation_x : job.x,
               validates ? job.validation_x_stride : job.x_stride, first, int(chunk.rows));
    wait_for_copies();
    __syncwarp();
    if (!validates && trial().input_dropout > 0) drop_inputs(chunk, first);
#pragma unroll 1
    for (int l = 0; l <= last(); ++l) forward(l, first, validates ? nullptr : &chunk);
    T* kept = validates ? trial().validation_predictions : trial().predictions;
    if (kept)
      kept +=
          (chunk.first + (validates ? epoch * job.validation_count : 0)) * place_of(last()).units;
    measure(chunk, first, kept);
    if (validates) return;
#pragma unroll 1
    for (int l = last();; --l) {
      through_activation(l, first, chunk);
      if (l == 0) break;
      backward(l, first);
    }
  }

  // What a layer takes in: (rows, in_stride).
  __device__ const T* input(int l) const { return at(l ? place_of(l - 1).out : plan().x); }

  // Calls f(row, unit) for the packs of a group's rows.
  template <class F>
  __device__ static void each_pack(int first, int units, const F& f) {
    const int row = first + lane() % group_rows;
    for (int unit = lane() / group_rows * pack<T>; unit < units;
         unit += warp_size / group_rows * pack<T>)
      f(row, unit);
  }

  // 2. forward: a = activation(x @ weight.T + bias), and what is left of it if some is dropped
  __device__ void forward(int l, int first, const Chunk* chunk) const {
    Forward::with(place_of(l).forward, [&](auto tile) { multiply<decltype(tile)>(l, first); });
    __syncwarp();
    const TrialLayer& place = place_of(l);
    T *const out = at(place.out), *const kept = at(place.kept), *const bias = at(place.bias);
    const int stride = place.out_stride, units = place.units;
    Activations::with(place.activation, [&](auto activation) {
      each_pack(first, units, [&](int row, int unit) {
        Pack<T> z = load_pack(out + row * stride + unit);
        const Pack<T> b = load_pack(bias + unit);
#pragma unroll
        for (int e = 0; e < pack<T>; ++e) z.values[e] += b.values[e];
        if constexpr (keeps_z<decltype(activation)>)
          *reinterpret_cast<Pack<T>*>(kept + row * stride + unit) = z;
#pragma unroll
        for (int e = 0; e < pack<T>; ++e) z.values[e] = activation.forward(z.values[e]);
        *reinterpret_cast<Pack<T>*>(out + row * stride + unit) = z;
      });
    });
    __syncwarp();
    if (place.drops && chunk) drop_outputs(l, first, *chunk);
  }

  __device__ void drop_outputs(int l, int first, const Chunk& chunk) const {
    const TrialLayer& place = place_of(l);
    T *const out = at(place.out), *const kept = at(place.kept);
    const bool keeps_a = !keeps_z_at(place.activation);
    const Dropping<T> dropping(trial().layers[l].dropout);
    const uint32_t key = key_of(chunk, trial().layers[l].seed, first + lane() % group_rows);
    each_pack(first, place.units, [&](int row, int unit) {
      T* const a = out + row * place.out_stride + unit;
      Pack<T> v = load_pack(a);
      if (keeps_a) *reinterpret_cast<Pack<T>*>(kept + row * place.out_stride + unit) = v;
#pragma unroll
      for (int e = 0; e < pack<T>; ++e)
        v.values[e] = dropping.apply(v.values[e], key + unit_key(unit + e));
      *reinterpret_cast<Pack<T>*>(a) = v;
    });
    __syncwarp();
  }

  // z without bias. A lane has four rows, every second, and its columns over a quarter of the
  // depth. Lanes 1 apart have the same columns and lanes 2 apart the same rows, as in
  // products.cuh, and rows and columns of neighbours are four apart: then none share a bank.
  template <class Tile>
  __device__ void multiply(int l, int first) const {
    constexpr int columns = Tile::columns;
    const TrialLayer& place = place_of(l);
    const int stride = place.in_stride, depth = place.in_features, units = place.units;
    const int lane = this->lane(), across = (lane >> 1 & 1) | (lane >> 3 & 2);
    const int share = lane >> 2 & 3, row = first + (lane & 1) * group_lane_rows;
    const int padded = (units + pack<T> - 1) / pack<T> * pack<T>;
    for (int begin = 0; begin < units; begin += columns * group_across) {
      const T* left_at = input(l) + row * stride + share * pack<T>;
      const T* right_at[columns];
#pragma unroll
      for (int j = 0; j < columns; ++j)
        right_at[j] = at(place.weight) +
                      std::min(begin + column_of<columns>(across, j), units - 1) * stride +
                      share * pack<T>;
      T sums[group_lane_rows][columns] = {};
#pragma unroll 1  // more would cost registers, and warps enough take turns
      for (int k = share * pack<T>; k < depth; k += depth_lanes * pack<T>) {
        Pack<T> left[group_lane_rows];
#pragma unroll
        for (int i = 0; i < group_lane_rows; ++i) left[i] = load_pack(left_at + i * stride);
        left_at += depth_lanes * pack<T>;
#pragma unroll
        for (int j = 0; j < columns; ++j) {
          const Pack<T> right = load_pack(right_at[j]);
          right_at[j] += depth_lanes * pack<T>;
#pragma unroll
          for (int e = 0; e < pack<T>; ++e)
#pragma unroll
            for (int i = 0; i < group_lane_rows; ++i)
              sums[i][j] += left[i].values[e] * right.values[e];
        }
      }
      // The lanes of a depth keep half of the rows, and then one.
      const bool lower = share & 2, odd = share & 1;
      T* const out = at(place.out) + (row + share) * place.out_stride;
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        T halves[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const T kept = lower ? sums[i + 2][j] : sums[i][j];
          halves[i] = kept + __shfl_xor_sync(~0u, lower ? sums[i][j] : sums[i + 2][j], 8);
        }
        const T kept = odd ? halves[1] : halves[0];
        const T z = kept + __shfl_xor_sync(~0u, odd ? halves[0] : halves[1], 4);
        const int unit = begin + column_of<columns>(across, j);
        if (unit < padded) out[unit] = unit < units ? z : T(0);
      }
    }
  }

  // The j-th column of a lane: of eight in a row, it has two.
  template <int columns>
  __device__ static int column_of(int across, int j) {
    if (j == columns / 2 * 2) return 4 * j + across;
    return 8 * (j / 2) + 2 * (j % 2) + 4 * (across & 1) + (across >> 1);
  }

  // 3. loss, and its derivative with respect to what the last layer gives
  __device__ void measure(const Chunk& chunk, int first, T* kept) {
    const TrialLayer& place = place_of(last());
    const int units = place.units, row = first + lane() % group_rows;
    if (row < chunk.rows) {
      const T* const outputs = at(place.out) + row * place.out_stride;
      const T delta = T(trial().options.delta);
      const T scale = share_of_output<T>(launch_.job.loss, chunk.batch_rows(), units) *
                      at(plan().sample_weight)[row];
      Losses::with(launch_.job.loss, [&](auto loss) {
        using Loss = decltype(loss);
        const Outputs<Loss, T> of_row{outputs, at(plan().y) + row * launch_.targets, units, delta};
        const RowOf<Loss, T> seen(of_row);
        for (int unit = lane() / group_rows; unit < units; unit += warp_size / group_rows) {
          const T a = of_row.a(unit), y = of_row.y(unit);
          if (kept) kept[row * units + unit] = a;
          loss_ += scale * loss.value(a, y, seen);
          at(place.grad)[row * place.out_stride + unit] = scale * loss.gradient(a, y, seen);
        }
      });
    }
    __syncwarp();
  }

  // grad_z of a layer, from the derivative with respect to what it gives.
  __device__ void through_activation(int l, int first, const Chunk& chunk) const {
    const TrialLayer& place = place_of(l);
    T* const grad = at(place.grad);
    const T* const kept = at(place.kept);
    if (place.drops) drop_gradients(l, first, chunk);
    Activations::with(place.activation, [&](auto activation) {
      each_pack(first, place.units, [&](int row, int unit) {
        const int i = row * place.out_stride + unit;
        Pack<T> g = load_pack(grad + i);
        const Pack<T> a = load_pack(kept + i);
#pragma unroll
        for (int e = 0; e < pack<T>; ++e)
          g.values[e] = activation.backward(g.values[e], a.values[e]);
        *reinterpret_cast<Pack<T>*>(grad + i) = g;
      });
    });
    __syncwarp();
  }

  // Each lane its own, which it goes on with.
  __device__ void drop_gradients(int l, int first, const Chunk& chunk) const {
    const TrialLayer& place = place_of(l);
    const Dropping<T> dropping(trial().layers[l].dropout);
    const uint32_t key = key_of(chunk, trial().layers[l].seed, first + lane() % group_rows);
    each_pack(first, place.units, [&](int row, int unit) {
      T* const grad = at(place.grad) + row * place.out_stride + unit;
#pragma unroll
      for (int e = 0; e < pack<T>; ++e) grad[e] = dropping.apply(grad[e], key + unit_key(unit + e));
    });
  }

  // 4. backward: what the layer before this is given, grad_x = grad_z @ weight
  __device__ void backward(int l, int first) const {
    const int packs = (place_of(l).in_features + pack<T> - 1) / pack<T>;
    if (packs > 4)  // two rows and one of eight packs for each lane
      multiply_back<2>(l, first + 2 * ((lane() & 1) | (lane() >> 3 & 2)), lane() >> 1 & 7, 8,
                       packs);
    else
      multiply_back<1>(l, first + ((lane() & 1) | (lane() >> 2 & 6)), lane() >> 1 & 3, 4, packs);
    __syncwarp();
  }

  template <int rows>
  __device__ void multiply_back(int l, int row, int across, int apart, int packs) const {
    const TrialLayer& place = place_of(l);
    const int stride = place.in_stride, out_stride = place.out_stride, units = place.units;
    const T* const grad = at(place.grad) + row * out_stride;
    T* const put = at(place_of(l - 1).grad) + row * stride;
    for (; across < packs; across += apart) {
      Pack<T> sums[rows] = {};
      const T* weight = at(place.weight) + across * pack<T>;
#pragma unroll 1
      for (int n = 0; n < units; n += pack<T>) {
        Pack<T> left[rows];
#pragma unroll
        for (int i = 0; i < rows; ++i) left[i] = load_pack(grad + i * out_stride + n);
#pragma unroll
        for (int e = 0; e < pack<T>; ++e, weight += stride) {
          const Pack<T> right = load_pack(weight);
#pragma unroll
          for (int i = 0; i < rows; ++i)
#pragma unroll
            for (int q = 0; q < pack<T>; ++q)
              sums[i].values[q] += left[i].values[e] * right.values[q];
        }
      }
#pragma unroll
      for (int i = 0; i < rows; ++i)
        *reinterpret_cast<Pack<T>*>(put + i * stride + across * pack<T>) = sums[i];
    }
  }

  // ---- all rows together ----

  // 5. update weight and bias
  //
  // Warps take job after job, of all layers in turn.
  __device__ void update(const Chunk& chunk) {
    const bool clips_norms = trial().options.clips_norms();
    T* aside = launch_.gradients + blockIdx.x * launch_.gradient_size;
    int job = warp();
    for (int l = 0; l <= last(); ++l) {
      const TrialLayer& place = place_of(l);
      Gradients::with(place.gradient, [&](auto tile) {
        for (; job < place.jobs; job += trial_warps)
          update_weight<decltype(tile)>(l, chunk, clips_norms, aside, job);
      });
      job -= place.jobs;
      aside += place.units * place.in_features;
    }
    for (int l = 0; l <= last(); ++l) {
      const TrialLayer& place = place_of(l);
      if (!place.has_bias) continue;
      const int jobs = (place.units + warp_size - 1) / warp_size;
      for (; job < jobs; job += trial_warps)
        update_bias(l, chunk, clips_norms, aside, job * warp_size + lane());
      job -= jobs;
      aside += place.units;
    }
    if (!chunk.is_last()) return;
    if (clips_norms) update_by_norms();
    add_up_loss(at(plan().sums));
  }

  // What each warp has of a batch's loss, for report.
  __device__ void add_up_loss(T* sums) {
    T sum = loss_;
#pragma unroll
    for (int half = warp_size / 2; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
    if (lane() == 0) sums[warp()] = sum;
    loss_ = T(0);
  }

  __device__ void report(const T* sums, T* put) const {
    if (threadIdx.x > 0) return;
    T loss{};
    for (int n = 0; n < trial_warps; ++n) loss += sums[n];
    *put = loss;
  }

  // The loss of a batch of validation rows, with the penalties of the weights as they are.
  __device__ void report_validation(const Chunk& chunk, int epoch) {
    if (own().has_penalties)
#pragma unroll 1
      for (int l = 0; l <= last(); ++l) {
        const TrialLayer& place = place_of(l);
        const TrainLayer<T>& layer = trial().layers[l];
        for (int i = threadIdx.x; i < place.units * place.in_features; i += trial_threads) {
          const int row = place.features.quotient(i);
          loss_ += layer.weight_penalty.value(
              at(place.weight)[row * place.in_stride + i - row * place.features.divisor]);
        }
        if (place.has_bias)
          for (int i = threadIdx.x; i < place.units; i += trial_threads)
            loss_ += layer.bias_penalty.value(at(place.bias)[i]);
      }
    T* const sums = at(plan().sums) + trial_warps;  // the others may not have been reported yet
    add_up_loss(sums);
    __syncthreads();
    const int64_t batches = step_count(validation_of(launch_.job));
    report(sums, trial().validation_losses + epoch * batches + chunk.step);
    __syncthreads();  // the next batch's sums take the same memory
  }

  // grad_weight = grad_z.T @ x of the lane's tile, and the step. Lanes that share one have some of
  // the rows each.
  template <class Tile>
  __device__ void update_weight(int l, const Chunk& chunk, bool clips_norms, T* aside, int job) {
    constexpr int tiles_a_warp = warp_size / Tile::lanes;
    const TrialLayer& place = place_of(l);
    const int own = lane() / tiles_a_warp, tile = job * tiles_a_warp + lane() % tiles_a_warp;
    const int n = std::min(tile, place.tiles - 1), down = place.tiles_across.quotient(n);
    const int feature = (n - down * place.tiles_across.divisor) * pack<T>;
    int first_unit = down * Tile::units;
    Pack<T> sums[Tile::units] = {};
    add_gradient<Tile>(sums, place, input(l) + feature, first_unit, own, int(chunk.rows));
    if constexpr (Tile::lanes > 1) {
      share_out<Tile::lanes>(sums);
      constexpr int own_units = std::max(Tile::units / Tile::lanes, 1);
      first_unit += own * own_units;
      if (Tile::units < Tile::lanes && own >= Tile::units) return;
      if (tile == n)
        use_gradient(l, chunk, clips_norms, aside, first_unit, feature,
                     reinterpret_cast<Pack<T>(&)[own_units]>(sums));
    } else {
      if (tile == n) use_gradient(l, chunk, clips_norms, aside, first_unit, feature, sums);
    }
  }

  template <class Tile>
  __device__ void add_gradient(Pack<T> (&sums)[Tile::units], const TrialLayer& place, const T* x,
                               int first_unit, int own, int rows) const {
    constexpr int unit_packs = (Tile::units + pack<T> - 1) / pack<T>;
    constexpr int units_a_pack = std::min(Tile::units, pack<T>);
    const int grad_stride = place.out_stride, x_stride = place.in_stride;
    const T* const grad = at(place.grad) + first_unit;
    int packs_at[unit_packs];  // beyond the last unit, the first ones once more
#pragma unroll
    for (int p = 0; p < unit_packs; ++p)
      packs_at[p] = first_unit + p * pack<T> < place.units ? p * pack<T> : 0;
#pragma unroll 2
    for (int row = own; row < rows; row += Tile::lanes) {
      const Pack<T> right = load_pack(x + row * x_stride);
      const T* const g = grad + row * grad_stride;
#pragma unroll
      for (int p = 0; p < unit_packs; ++p) {
        Pack<T> left;
        if constexpr (Tile::units < pack<T>)
          left.values[0] = *g;
        else
          left = load_pack(g + packs_at[p]);
#pragma unroll
        for (int n = 0; n < units_a_pack; ++n)
#pragma unroll
          for (int e = 0; e < pack<T>; ++e)
            sums[p * pack<T> + n].values[e] += left.values[n] * right.values[e];
      }
    }
  }

  // Adds up what lanes have of the same tile. Each keeps some of the units; where there is one, all
  // have its sum.
  template <int lanes, int units>
  __device__ static void share_out(Pack<T> (&sums)[units]) {
    if constexpr (lanes > 1) {
      constexpr int apart = warp_size / 2;
      share_out_over<lanes, units, apart>(sums);
    }
  }
  template <int lanes, int units, int apart>
  __device__ static void share_out_over(Pack<T> (&sums)[units]) {
    if constexpr (lanes > 1) {
      constexpr int half = units / 2;
      const bool upper = lane() & apart;
      if constexpr (units == 1) {
#pragma unroll
        for (int e = 0; e < pack<T>; ++e)
          sums[0].values[e] += __shfl_xor_sync(~0u, sums[0].values[e], apart);
        share_out_over<lanes / 2, 1, apart / 2>(sums);
      } else {
#pragma unroll
        for (int i = 0; i < half; ++i)
#pragma unroll
          for (int e = 0; e < pack<T>; ++e) {
            const T low = sums[i].values[e], high = sums[i + half].values[e];
            sums[i].values[e] =
                (upper ? high : low) + __shfl_xor_sync(~0u, upper ? low : high, apart);
          }
        share_out_over<lanes / 2, half, apart / 2>(reinterpret_cast<Pack<T>(&)[half]>(sums));
      }
    }
  }

  // The step of some units of a pack of features, given a chunk's part of their gradient, which is
  // put aside until the batch is whole, or if it must be scaled first.
  template <int count_units>
  __device__ void use_gradient(int l, const Chunk& chunk, bool clips_norms, T* aside, int unit,
                               int feature, Pack<T> (&sums)[count_units]) {
    const TrialLayer& place = place_of(l);
    const int in_features = place.in_features, count = in_features - feature;
    const int units = place.units - unit;
    if (clips_norms || !chunk.is_first() || !chunk.is_last()) {
      const bool keeps = clips_norms || !chunk.is_last();
      T* const put = aside + unit * in_features + feature;
      const bool aligned = is_aligned(put, in_features);
#pragma unroll
      for (int n = 0; n < count_units; ++n) {
        if (n >= units) break;
        if (!chunk.is_first()) {
          const Pack<T> before = load(put + n * in_features, count, aligned);
#pragma unroll
          for (int e = 0; e < pack<T>; ++e) sums[n].values[e] += before.values[e];
        }
        if (keeps) store(put + n * in_features, sums[n], count, aligned);
      }
      if (keeps) return;
    }
    const int first = unit * place.in_stride + feature;
    if (own().has_penalties) {
      const Penalty<T> penalty = trial().layers[l].weight_penalty;
#pragma unroll
      for (int n = 0; n < count_units; ++n)
        if (n < units)
          add_penalty(penalty, at(place.weight) + first + n * place.in_stride, count, sums[n]);
    }
    Updates::with(launch_.job.update, [&](auto rule) {
      T* slots[most_slots] = {};
#pragma unroll
      for (int s = 0; s < rule.slots; ++s) slots[s] = at(place.weight_slots[s]);
      auto take = [&](int n, const Pack<T>& grad) {
        const int i = first + n * place.in_stride;
        take_steps<decltype(rule)>(at(place.weight) + i, slots, i, true, grad, count, step());
      };
      if constexpr (rule.slots == 0) {
#pragma unroll
        for (int n = 0; n < count_units; ++n)
          if (n < units) take(n, sums[n]);
      } else {  // one after the other, since all at once would be a lot of code
#pragma unroll 1
        for (int n = 0; n < std::min(count_units + 0, units); ++n) {
          take(n, sums[0]);
#pragma unroll
          for (int m = 1; m < count_units; ++m) sums[m - 1] = sums[m];
        }
      }
    });
  }

  __device__ void add_penalty(const Penalty<T>& penalty, const T* weight, int count,
                              Pack<T>& grad) {
    const Pack<T> w = load_pack(weight);  // 0 behind the last
#pragma unroll
    for (int e = 0; e < pack<T>; ++e)
      if (e < count)
        loss_ += penalty.value(w.values[e]), grad.values[e] += penalty.gradient(w.values[e]);
  }

  // grad_bias = grad_z.sum(0) of one unit, and the step.
  __device__ void update_bias(int l, const Chunk& chunk, bool clips_norms, T* aside, int unit) {
    const TrialLayer& place = place_of(l);
    if (unit >= place.units) return;
    const T* const grad = at(place.grad) + unit;
    const int rows = int(chunk.rows), stride = place.out_stride;
    T sum{};
#pragma unroll 8
    for (int row = 0; row < rows; ++row) sum += grad[row * stride];
    if (!chunk.is_first()) sum += aside[unit];
    if (clips_norms || !chunk.is_last()) {
      aside[unit] = sum;
      return;
    }
    take_step_of_number(trial().layers[l].bias_penalty, place.bias, place.bias_slots, unit, sum,
                        T(1));
  }

  // The step of one number, whose gradient is to be scaled.
  __device__ void take_step_of_number(const Penalty<T>& penalty, int values, const int* slots_at,
                                      int i, T grad, T scale) {
    T& value = at(values)[i];
    if (own().has_penalties) loss_ += penalty.value(value);
    grad = adjusted(grad, value, penalty, scale, step());
    Updates::with(launch_.job.update, [&](auto rule) {
      T* slots[most_slots] = {};
#pragma unroll
      for (int s = 0; s < rule.slots; ++s) slots[s] = at(slots_at[s]);
      take_step<decltype(rule)>(value, slots, i, grad, step());
    });
  }

  // ---- norms of gradients ----

  // Calls f(number, elements, the gradient, the Divider of a row, place, stride, slots, penalty)
  // for each weight, and then each bias.
  template <class F>
  __device__ void each_gradient(const F& f) const {
    const T* aside = launch_.gradients + blockIdx.x * launch_.gradient_size;
    const int layers = last() + 1;
#pragma unroll 1
    for (int n = 0; n < 2 * layers; ++n) {
      const bool is_bias = n >= layers;
      const int l = is_bias ? n - layers : n;
      const TrialLayer& place = place_of(l);
      const TrainLayer<T>& layer = trial().layers[l];
      if (is_bias && !place.has_bias) continue;
      const int count = is_bias ? place.units : place.units * place.in_features;
      f(n, count, aside, is_bias ? Divider(1) : place.features, is_bias ? place.bias : place.weight,
        is_bias ? 1 : place.in_stride, is_bias ? place.bias_slots : place.weight_slots,
        is_bias ? layer.bias_penalty : layer.weight_penalty);
      aside += count;
    }
  }

  // The step of all weights and biases, whose gradients have been put aside, once their norms are
  // known.
  __device__ void update_by_norms() {
    __syncthreads();
    T* const squares = at(plan().squares);
    each_gradient([&](int number, int count, const T* grad, Divider columns, int place, int stride,
                      const int*, const Penalty<T>& penalty) {
      T square{};
      for (int i = threadIdx.x; i < count; i += trial_threads) {
        const int row = columns.quotient(i);
        const T w = at(place)[row * stride + i - row * columns.divisor];
        const T g = grad[i] + penalty.gradient(w);
        square += g * g;
      }
#pragma unroll
      for (int half = warp_size / 2; half > 0; half /= 2)
        square += __shfl_xor_sync(~0u, square, half);
      if (lane() == 0) squares[number * trial_warps + warp()] = square;
    });
    __syncthreads();
    const TrainOptions& options = trial().options;
    const T most = T(options.clip_norm > 0 ? options.clip_norm : options.global_clip_norm);
    T all{};
    if (options.clip_norm <= 0)
      for (int i = 0; i < 2 * (last() + 1) * trial_warps; ++i) all += squares[i];
    each_gradient([&](int number, int count, const T* grad, Divider columns, int place, int stride,
                      const int* slots, const Penalty<T>& penalty) {
      T square = all;
      if (options.clip_norm > 0)
        for (int n = 0; n < trial_warps; ++n) square += squares[number * trial_warps + n];
      const T scale = clip_scale(most, sqrt(square));
      for (int i = threadIdx.x; i < count; i += trial_threads) {
        const int row = columns.quotient(i);
        take_step_of_number(penalty, place, slots, row * stride + i - row * columns.divisor,
                            grad[i], scale);
      }
    });
  }

  const TrialLaunch<T>& launch_;
  const int number_;    // of the trial, in the launch
  int64_t listed_ = 0;  // the row of x that the lane fetches next
  T loss_{};            // the thread's part of the batch's
};

// Blocks take the next trial that no one has begun.
template <class T>
__global__ void __launch_bounds__(trial_threads, most_trial_blocks)
    train_many_kernel(const __grid_constant__ TrialLaunch<T> launch) {
  int& number = *shared_memory<int>();
  for (;;) {
    if (threadIdx.x == 0) number = atomicAdd(launch.next, 1);
    __syncthreads();
    const int own = number;
    __syncthreads();  // the trial takes the same memory
    if (own >= launch.count) return;
    TrialTrainer<T>(launch, own).train();
    __syncthreads();  // and so does the next number
  }
}

// The numbers of each step of a launch, of each trial.
template <class T>
__global__ void __launch_bounds__(trial_threads)
    make_trial_steps_kernel(const OwnTrial<T>* trials, int64_t first_step, int64_t steps,
                            int64_t count, UpdateStep<T>* made) {
  for (int64_t i = blockIdx.x * int64_t(trial_threads) + threadIdx.x; i < count;
       i += gridDim.x * int64_t(trial_threads)) {
    const int64_t number = i / steps, step = first_step + i - number * steps;
    const Trial<T>& trial = trials[number].trial;
    made[i] =
        UpdateStep<T>(trial.options, trial.learning_rates[step], trial.steps_before + step + 1);
  }
}

// ---- the table, on the host ----

// The numbers of steps that have room in the workspace at once, if trials are not more.
#if !defined(TORCHNN_MOST_STEPS)  // tests make do with few
#define TORCHNN_MOST_STEPS (1 << 20)
#endif

template <class T>
int64_t most_steps_at_once(const Trials<T>& job) {
  const int64_t steps = step_count(job.samples, job.epoch_size, job.batch_size);
  return std::min<int64_t>(steps, std::max<int64_t>(1, TORCHNN_MOST_STEPS / job.count));
}

template <class T>
bool has_usual_slopes(const TrainLayer<T>* layers, int64_t count) {
  return std::all_of(layers, layers + count, [](const TrainLayer<T>& layer) {
    return layer.slope < 0 || layer.slope == usual_slope_at(layer.activation);
  });
}

inline int slots_of(int64_t update) {
  int slots = 0;
  Updates::with(update, [&](auto rule) { slots = rule.slots; });
  return slots;
}

template <class T>
TrialShape shape_of(const TrainLayer<T>* layers, const Trials<T>& job) {
  TrialShape shape{};
  shape.widths = {layers[0].in_features}, shape.element_size = sizeof(T);
  shape.slots = slots_of(job.update);
  for (int64_t l = 0; l < job.layer_count; ++l) {
    shape.widths.push_back(layers[l].units), shape.activations.push_back(layers[l].activation);
    shape.has_bias.push_back(layers[l].bias != nullptr);
    shape.drops.push_back(layers[l].dropout > 0);
  }
  shape.targets = target_count(job.loss, shape.widths.back());
  return shape;
}

// What a trial's gradients take, put aside.
template <class T>
int64_t gradients_of(const TrainLayer<T>* layers, int64_t count) {
  int64_t size = 0;
  for (int64_t l = 0; l < count; ++l) size += layers[l].units * (layers[l].in_features + 1);
  return over(size, pack<T>) * pack<T>;
}

// The products of a step, for a row.
template <class T>
int64_t products_of(const TrainLayer<T>* layers, int64_t count) {
  int64_t products = 0;
  for (int64_t l = 0; l < count; ++l)
    products += (l ? 3 : 2) * layers[l].units * layers[l].in_features;
  return products;
}

inline int64_t multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }

// Bytes of the table, with a plan for each trial.
template <class T>
int64_t table_bytes(const Trials<T>& job) {
  return 16 + job.count * int64_t(sizeof(OwnTrial<T>) + sizeof(TrialPlaces)) +
         job.count * job.layer_count *
             int64_t(sizeof(TrialLayer) + over(sizeof(TrainLayer<T>), 16) * 16);
}

// Trials that go with one launch, since as many of their blocks have room in a multiprocessor.
struct Launched {
  int64_t first, count, blocks, bytes, gradient_size;
  double microseconds;  // of a step of all
};

// Trials in the order in which they are taken: those with the least company first, and then the
// longest.
template <class T>
class Table {
 public:
  explicit Table(const Trials<T>& job) : job_(job), limit_(most_shared_bytes_of_a_block()) {
    for (int64_t n = 0; n < job.count; ++n) {
      const TrainLayer<T>* const layers = job.trials[n].layers;
      if (n > 0 && are_alike(layers, job.trials[n - 1].layers)) {
        entries_.push_back(entries_.back());
        entries_.back().number = n;
        continue;
      }
      const TrialShape shape = shape_of(layers, job);
      const auto [place, is_new] = plans_.try_emplace(shape);
      if (is_new) place->second = make_trial_plan(shape, job.batch_size, limit_);
      const TrialPlan& plan = place->second;
      if (!plan.rows || !has_usual_slopes(layers, job.layer_count))
        throw std::runtime_error("models[" + std::to_string(n) +
                                 "] must fit in shared memory and have usual slopes");
      const int64_t blocks = blocks_of_trials(plan.bytes, limit_);
      entries_.push_back({n, &plan, blocks, products_of(layers, job.layer_count)});
    }
    std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return a.blocks != b.blocks ? a.blocks < b.blocks : a.products > b.products;
    });
  }

  // Writes the table, as it is to lie at that place of the device.
  std::vector<char> write(const char* device) const {
    const int64_t count = job_.count, layers = job_.layer_count;
    std::vector<char> bytes(table_bytes(job_));
    int64_t size = 16;  // of what is written: first the counter
    auto put = [&](const auto* from, int64_t elements) {
      const int64_t place = size, added = elements * int64_t(sizeof(*from));
      std::memcpy(bytes.data() + place, from, added);
      size += over(added, 16) * 16;
      return device + place;
    };
    std::map<const TrialPlan*, std::pair<const char*, const char*>> places;
    size += count * int64_t(sizeof(OwnTrial<T>));
    for (const auto& [shape, plan] : plans_)
      places[&plan] = {put(static_cast<const TrialPlaces*>(&plan), 1),
                       put(plan.layers.data(), layers)};
    std::vector<OwnTrial<T>> trials;
    for (const Entry& entry : entries_) {
      OwnTrial<T>& own = trials.emplace_back();
      own.trial = job_.trials[entry.number];
      own.has_penalties = std::any_of(own.trial.layers, own.trial.layers + layers,
                                      [](auto& layer) { return layer.has_penalty(); });
      const char* const of_device = put(own.trial.layers, layers);
      own.trial.layers = reinterpret_cast<const TrainLayer<T>*>(of_device);
      own.places = reinterpret_cast<const TrialPlaces*>(places[entry.plan].first);
      own.layers = reinterpret_cast<const TrialLayer*>(places[entry.plan].second);
    }
    size = 16;
    put(trials.data(), count);
    return bytes;
  }

  std::vector<Launched> launches() const {
    std::vector<Launched> all;
    for (size_t i = 0; i < entries_.size(); ++i) {
      const Entry& entry = entries_[i];
      if (all.empty() || all.back().blocks != entry.blocks)
        all.push_back({int64_t(i), 0, entry.blocks, 0, 0, 0});
      Launched& own = all.back();
      ++own.count;
      own.bytes = std::max(own.bytes, entry.plan->bytes);
      own.gradient_size = std::max(
          own.gradient_size, gradients_of(job_.trials[entry.number].layers, job_.layer_count));
      own.microseconds += step_microseconds(entry);
    }
    for (Launched& own : all)
      own.microseconds /= double(std::min(own.count, multiprocessors() * own.blocks));
    return all;
  }

 private:
  struct Entry {
    int64_t number;
    const TrialPlan* plan;
    int64_t blocks, products;
  };

  // Whether the shapes are the same, which is quicker to tell than to find one's plan.
  bool are_alike(const TrainLayer<T>* one, const TrainLayer<T>* other) const {
    return std::equal(one, one + job_.layer_count, other, [](auto& a, auto& b) {
      return a.in_features == b.in_features && a.units == b.units && a.slope == b.slope &&
             !a.bias == !b.bias && (a.dropout > 0) == (b.dropout > 0);
    });
  }

  // A guess, where a multiprocessor has as many blocks as it has room for.
  double step_microseconds(const Entry& entry) const {
    const double rows = double(std::min(job_.batch_size, std::max<int64_t>(job_.samples, 1)));
    return 2.5 * std::ceil(rows / entry.plan->rows) + rows * double(entry.products) / 25'000;
  }

  const Trials<T>& job_;
  const int64_t limit_;
  std::map<TrialShape, TrialPlan> plans_;
  std::vector<Entry> entries_;
};

}  // namespace

template <class T>
int64_t workspace_size(const Trials<T>& job) {
  int64_t most_gradients = 0;
  for (int64_t n = 0; n < job.count; ++n)
    most_gradients = std::max(most_gradients, gradients_of(job.trials[n].layers, job.layer_count));
  // All blocks of a multiprocessor together have no more weights than its memory has room for.
  const int64_t room =
      multiprocessors() * (most_shared_bytes_of_a_block() + bytes_of_a_block) / int64_t(sizeof(T));
  return over(table_bytes(job), int64_t(sizeof(T))) +
         job.count * over(most_steps_at_once(job) * numbers_a_step, pack<T>) * pack<T> +
         std::min(job.count * most_gradients, room);
}

template <class T>
void train_many(const Trials<T>& job, T* workspace, Stream stream) {
  const Table<T> table(job);
  char* const memory = reinterpret_cast<char*>(workspace);
  const std::vector<char> bytes = table.write(memory);
  check("the copy of the table of trials",
        cudaMemcpyAsync(memory, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream));
  const int64_t most_steps = most_steps_at_once(job);
  TrialLaunch<T> launch{};
  launch.job = job;
  launch.job.trials = nullptr, launch.job.parallel = nullptr, launch.job.add_product = nullptr;
  launch.next = reinterpret_cast<int*>(memory);
  const auto* const trials = reinterpret_cast<const OwnTrial<T>*>(memory + 16);
  T* const numbers = workspace + over(int64_t(bytes.size()), int64_t(sizeof(T)));
  auto* const steps = reinterpret_cast<UpdateStep<T>*>(numbers);
  launch.gradients = numbers + job.count * over(most_steps * numbers_a_step, pack<T>) * pack<T>;
  launch.slots = slots_of(job.update);
  launch.targets = int(target_count(job.loss, job.trials[0].layers[job.layer_count - 1].units));
  const int64_t all_steps = step_count(job.samples, job.epoch_size, job.batch_size);
  const std::vector<Launched> launches = table.launches();
  double microseconds = 0;
  for (const Launched& own : launches) microseconds += own.microseconds;
  const int64_t steps_a_launch = std::clamp<int64_t>(
      int64_t(TORCHNN_LAUNCH_MICROSECONDS / microseconds), 1, std::max<int64_t>(most_steps, 1));
  prefer_shared_memory("train_many", train_many_kernel<T>);
  do {
    const int64_t first = launch.end;
    launch.end = std::min(all_steps, first + steps_a_launch);
    const int64_t own_steps = launch.end - first, count = job.count * own_steps;
    torchnn::cuda::launch("make_trial_steps", make_trial_steps_kernel<T>,
                          over(count, trial_threads), trial_threads, 0, stream, trials, first,
                          own_steps, count, steps);
    for (const Launched& own : launches) {
      launch.trials = trials + own.first, launch.count = int(own.count);
      launch.steps = steps + own.first * own_steps, launch.gradient_size = own.gradient_size;
      check("the first trial", cudaMemsetAsync(launch.next, 0, sizeof(int), stream));
      torchnn::cuda::launch("train_many", train_many_kernel<T>,
                            std::min(own.count, own.blocks * multiprocessors()), trial_threads,
                            size_t(own.bytes), stream, launch);
    }
    for (Chunk next;
         (next = chunk_after(job, launch.before, job.batch_size)).step < launch.end && next.rows;)
      launch.before = next;
  } while (launch.end < all_steps);
}

#define TORCHNN_INSTANTIATE(T)                       \
  template int64_t workspace_size(const Trials<T>&); \
  template void train_many(const Trials<T>&, T*, Stream);
TORCHNN_INSTANTIATE(float)
#if !defined(TORCHNN_ONLY_FLOAT)  // tests compile sooner
TORCHNN_INSTANTIATE(double)
#endif
#undef TORCHNN_INSTANTIATE  // tests include all such files

}  // namespace torchnn::cuda
