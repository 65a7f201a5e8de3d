// Whole-network training on CUDA: one block of threads trains one model, any number of steps in one
// launch. Weights, activations, gradients and the rows of two chunks are in the memory that the
// threads share; the next chunk is fetched while this one is in work. cpu/train.cpp is its twin,
// with the same numbered steps. Every sum is taken in one order: results are the same from run to
// run. What the kernel does between two barriers is a phase: each thread does some of its items.
#include "../train.h"

#include <limits>
#include <vector>

#include "../activation.h"
#include "../loss.h"
#include "copy.cuh"
#include "lane.cuh"
#include "launch.cuh"
#include "plan.h"

namespace torchnn::cuda {
namespace {

constexpr int train_warps = train_threads / warp_size;

// All that the kernel is told.
template <class T>
struct Network {
  Train<T> job;
  Models models;
  Plan plan;
  TrainLayer<T> layers[most_layers];
  const UpdateStep<T>* steps;  // (steps), of each model or of all
  T* gradients;                // (gradient_size) of each model: where they are put aside
  int64_t gradient_size;
  Chunk before;        // the launch begins with the chunk after this one
  int64_t end;         // and ends before this step
  int64_t step_count;  // of all launches
};

// ---- products ----

template <class T>
TORCHNN_FN Pack<T> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T>*>(p);
}

template <class T>
TORCHNN_FN Pack<T> as_pack(const T* values) {
  Pack<T> own;
#pragma unroll
  for (int i = 0; i < pack<T>; ++i) own.values[i] = values[i];
  return own;
}

// Factors of a product, in tiles `side` wide: a thread loads a pack of the depth at a time.

// Element (i, d) is first[i * stride + d]. A tile's rows lie apart, so that neighbouring threads
// read neighbouring rows.
template <class T>
struct Along {
  static constexpr bool is_dense = false;
  const T* first;
  int stride, tiles;

  TORCHNN_FN int index(int tile, int i) const { return tile + i * tiles; }
  TORCHNN_FN void load(int tile, int d, T (&tile_of)[side][pack<T>]) const {
#pragma unroll
    for (int i = 0; i < side; ++i) {
      const Pack<T> loaded = load_pack(first + index(tile, i) * stride + d);
#pragma unroll
      for (int e = 0; e < pack<T>; ++e) tile_of[i][e] = loaded.values[e];
    }
  }
};

// Element (i, d) is first[d * stride + i].
template <class T>
struct Across {
  static constexpr bool is_dense = true;  // a tile's elements are neighbours
  const T* first;
  int stride, tiles;

  TORCHNN_FN int index(int tile, int i) const { return tile * side + i; }
  TORCHNN_FN void load(int tile, int d, T (&tile_of)[side][pack<T>]) const {
#pragma unroll
    for (int e = 0; e < pack<T>; ++e)
#pragma unroll
      for (int i = 0; i < side; i += pack<T>) {
        const Pack<T> loaded = load_pack(first + (d + e) * stride + index(tile, i));
#pragma unroll
        for (int j = 0; j < pack<T>; ++j) tile_of[i + j][e] = loaded.values[j];
      }
  }
};

// sums += a tile of a @ b, over the depths begin ... end - 1, which are whole packs
template <class T, class A, class B>
__device__ void accumulate(T (&sums)[side][side], const A& a, int row_tile, const B& b,
                           int column_tile, int begin, int end) {
#pragma unroll 1  // more would cost registers, and warps enough take turns
  for (int d = begin; d < end; d += pack<T>) {
    T left[side][pack<T>], right[side][pack<T>];
    a.load(row_tile, d, left);
    b.load(column_tile, d, right);
#pragma unroll
    for (int e = 0; e < pack<T>; ++e)
#pragma unroll
      for (int i = 0; i < side; ++i)
#pragma unroll
        for (int j = 0; j < side; ++j) sums[i][j] += left[i][e] * right[j][e];
  }
}

// parts[s] (rows, stride) = a @ b over the s-th of `splits` parts of the depth
template <class T, class A, class B>
__device__ void multiply(const A& a, const B& b, int depth, int splits, T* parts, int stride) {
  const int tiles = a.tiles * b.tiles, packs = depth / pack<T>;
  for (int item = threadIdx.x; item < tiles * splits; item += train_threads) {
    const int split = item / tiles, tile = item % tiles;
    const int row_tile = tile % a.tiles, column_tile = tile / a.tiles;
    T sums[side][side] = {};
    accumulate(sums, a, row_tile, b, column_tile, packs * split / splits * pack<T>,
               packs * (split + 1) / splits * pack<T>);
    T* part = parts + split * a.tiles * side * stride;
#pragma unroll
    for (int i = 0; i < side; ++i) {
      T* row = part + a.index(row_tile, i) * stride;
#pragma unroll
      for (int j = 0; j < side; j += B::is_dense ? pack<T> : 1)
        if constexpr (B::is_dense)
          *reinterpret_cast<Pack<T>*>(row + b.index(column_tile, j)) = as_pack(sums[i] + j);
        else
          row[b.index(column_tile, j)] = sums[i][j];
    }
  }
}

// A step of one number, given its gradient.
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

// The same for the first `count` of a pack of numbers. The values are aligned.
template <class Rule, class T>
TORCHNN_FN void take_steps(T* values, T* const (&slots)[most_slots], int64_t at,
                           const Pack<T>& grad, int count, const UpdateStep<T>& step) {
  Pack<T> w = load_pack(values);
#pragma unroll
  for (int i = 0; i < pack<T>; ++i)
    if (i < count) take_step<Rule>(w.values[i], slots, at + i, grad.values[i], step);
  *reinterpret_cast<Pack<T>*>(values) = w;
}

// ---- what a block of threads does with a model ----

template <class T>
class Trainer {
 public:
  __device__ Trainer(const Network<T>& net, int64_t model)
      : net_(net), plan_(net.plan), model_(model) {}

  __device__ void train() {
    read();
    list_rows(chunk(0), 0);
    wait_for_copies();
    __syncthreads();
    fetch(chunk(0), 0);
    list_rows(chunk(1), 1);
    for (int n = 0; chunk(n).rows; ++n) {
      const int now = n % 2;
      wait_for_copies();
      __syncthreads();  // the chunk has come, and the weights are those of the step before
      if (threadIdx.x == 0) chunk(n + 3) = chunk_after(chunk(n + 2));
      fetch(chunk(n + 1), 1 - now);
      list_rows(chunk(n + 2), now);
      forward(chunk(n), now);
      measure(chunk(n), now);
      __syncthreads();
      backward(chunk(n));
      report(chunk(n));
      update(chunk(n), now);
    }
    __syncthreads();
    write_back();
  }

 private:
  __device__ T* at(int place) const { return shared_memory<T>() + place; }
  // The n-th chunk of the launch, of those in work or ahead.
  __device__ Chunk& chunk(int n) const {
    return reinterpret_cast<Chunk*>(at(plan_.chunks))[n % chunks_known];
  }
  __device__ int64_t* listed(int buffer) const {
    return reinterpret_cast<int64_t*>(at(plan_.listed[buffer]));
  }
  __device__ int last() const { return int(net_.job.layer_count) - 1; }
  __device__ static int lane() { return threadIdx.x % warp_size; }
  __device__ static int warp() { return threadIdx.x / warp_size; }

  __device__ Chunk chunk_after(const Chunk& chunk) const {
    Chunk next = cuda::chunk_after(net_.job, chunk, plan_.rows);
    if (next.step >= net_.end) next.rows = 0;
    return next;
  }

  // Calls f(the user's array, rows, columns, place of ours, our stride) for all there is to
  // remember of a layer.
  template <class F>
  __device__ void each_parameter(int l, const F& f) const {
    const TrainLayer<T>& layer = net_.layers[l];
    const LayerPlace& place = plan_.layers[l];
    const int units = int(layer.units), in_features = int(layer.in_features);
    const int64_t weights = model_ * layer.units * layer.in_features, biases = model_ * layer.units;
    f(layer.weight + weights, units, in_features, place.weight, place.in_stride);
    if (layer.bias) f(layer.bias + biases, 1, units, place.bias, units);
    for (int s = 0; plan_.keeps_slots && s < slot_count(); ++s) {
      f(layer.weight_slots[s] + weights, units, in_features, place.weight_slots[s],
        place.in_stride);
      if (layer.bias) f(layer.bias_slots[s] + biases, 1, units, place.bias_slots[s], units);
    }
  }

  __device__ int slot_count() const {
    int count = 0;
    Updates::with(net_.job.update, [&](auto rule) { count = rule.slots; });
    return count;
  }

  __device__ void read() const {
    const int size = int(plan_.bytes / sizeof(T));
    for (int i = threadIdx.x; i < size; i += train_threads) *at(i) = T(0);
    __syncthreads();
    if (threadIdx.x == 0) {
      chunk(0) = chunk_after(net_.before);
      for (int n = 1; n < 3; ++n) chunk(n) = chunk_after(chunk(n - 1));
    }
    for (int l = 0; l <= last(); ++l)
      each_parameter(l, [&](const T* user, int rows, int columns, int place, int stride) {
        for (int i = threadIdx.x; i < rows * columns; i += train_threads)
          at(place)[i / columns * stride + i % columns] = user[i];
      });
    __syncthreads();
  }

  __device__ void write_back() const {
    for (int l = 0; l <= last(); ++l)
      each_parameter(l, [&](T* user, int rows, int columns, int place, int stride) {
        for (int i = threadIdx.x; i < rows * columns; i += train_threads)
          user[i] = at(place)[i / columns * stride + i % columns];
      });
  }

  // 1. fetch the rows of a chunk; where they are has been listed one chunk earlier
  __device__ void list_rows(const Chunk& chunk, int buffer) const {
    const int64_t* order = net_.job.order;
    if (order) order += model_ * net_.models.order + chunk.first;
    for (int i = threadIdx.x; i < chunk.rows; i += train_threads)
      if (order)
        copy_async<sizeof(int64_t)>(listed(buffer) + i, order + i);
      else
        listed(buffer)[i] = chunk.first + i;
  }

  __device__ void fetch(const Chunk& chunk, int buffer) const {
    const Train<T>& job = net_.job;
    const int in_features = int(net_.layers[0].in_features), stride = plan_.layers[0].in_stride;
    const int outputs = int(net_.layers[last()].units);
    const T* all_x = job.x + model_ * net_.models.x;
    const T* all_y = job.y + model_ * net_.models.y;
    const T* weights = job.sample_weight;
    if (weights) weights += model_ * net_.models.sample_weight;
    const int in_packs = is_aligned(all_x, job.x_stride) ? in_features / pack<T> * pack<T> : 0;
    for (int row = warp(); row < whole_tiles(chunk.rows); row += train_warps) {
      T* x = at(plan_.x[buffer]) + row * stride;
      T* y = at(plan_.y[buffer]) + row * outputs;
      T* weight = at(plan_.sample_weight[buffer]) + row;
      if (row >= chunk.rows) {  // rows that fill the last tile up are zeros, and count nothing
        for (int k = lane(); k < in_features; k += warp_size) x[k] = T(0);
        for (int n = lane(); n < outputs; n += warp_size) y[n] = T(0);
        if (lane() == 0) *weight = T(0);
        continue;
      }
      int64_t from = listed(buffer)[row];
      const bool exists = from >= 0 && from < net_.models.rows;
      if (!exists) from = 0;
      const T *from_x = all_x + from * job.x_stride, *from_y = all_y + from * outputs;
      for (int k = lane() * pack<T>; k < in_packs; k += warp_size * pack<T>)
        copy_async<16>(x + k, from_x + k);
      for (int k = in_packs + lane(); k < in_features; k += warp_size)
        copy_async<sizeof(T)>(x + k, from_x + k);
      for (int n = lane(); n < outputs; n += warp_size) copy_async<sizeof(T)>(y + n, from_y + n);
      if (lane() != 0) continue;
      if (!exists)
        *weight = std::numeric_limits<T>::quiet_NaN();
      else if (weights)
        copy_async<sizeof(T)>(weight, weights + from);
      else
        *weight = T(1);
    }
    const UpdateStep<T>* step = net_.steps + model_ * net_.models.learning_rates + chunk.step;
    if (chunk.rows && threadIdx.x < numbers_a_step)
      copy_async<sizeof(T)>(at(plan_.step[buffer]) + threadIdx.x,
                            reinterpret_cast<const T*>(step) + threadIdx.x);
  }

  // Calls f(row, unit, place in a matrix (rows, stride), sum of the parts there) for all outputs.
  template <class F>
  __device__ void each_sum(int rows, int units, int stride, int splits, const F& f) const {
    const T* parts = at(plan_.parts);
    for (int i = threadIdx.x; i < rows * units; i += train_threads) {
      const int row = i / units, unit = i % units, place = row * stride + unit;
      T sum{};
      for (int s = 0; s < splits; ++s) sum += parts[s * rows * stride + place];
      f(row, unit, place, sum);
    }
  }

  // What a layer takes in.
  __device__ const T* input(int l, int buffer) const {
    return at(l ? plan_.layers[l - 1].out : plan_.x[buffer]);
  }

  // 2. forward: a = activation(x @ weight.T + bias), layer by layer
  __device__ void forward(const Chunk& chunk, int buffer) const {
    const int rows = int(whole_tiles(chunk.rows));
    for (int l = 0; l <= last(); ++l) {
      const TrainLayer<T>& layer = net_.layers[l];
      const LayerPlace& place = plan_.layers[l];
      const int units = int(layer.units);
      multiply(Along<T>{input(l, buffer), place.in_stride, rows / side},
               Along<T>{at(place.weight), place.in_stride, int(whole_tiles(units)) / side},
               int(whole_tiles(layer.in_features)), place.forward_splits, at(plan_.parts),
               place.out_stride);
      __syncthreads();
      Activations::with(layer.activation, [&](auto activation) {
        each_sum(rows, units, place.out_stride, place.forward_splits,
                 [&](int, int unit, int i, T sum) {
                   at(place.out)[i] = activation.forward(at(place.bias)[unit] + sum);
                 });
      });
      if (l < last()) __syncthreads();  // the last outputs are measured by those that made them
    }
  }

  // 3. loss, and its derivative with respect to what goes into the last activation
  __device__ void measure(const Chunk& chunk, int buffer) const {
    const Train<T>& job = net_.job;
    const TrainLayer<T>& layer = net_.layers[last()];
    const LayerPlace& place = plan_.layers[last()];
    const int units = int(layer.units), rows = int(whole_tiles(chunk.rows));
    const T share = T(1) / T(chunk.end - chunk.begin) / T(units);
    T* kept = job.predictions;
    if (kept) kept += (model_ * job.samples + chunk.first) * units;
    const T *out = at(place.out), *y = at(plan_.y[buffer]);
    const T* weights = at(plan_.sample_weight[buffer]);
    Losses::with(job.loss, [&](auto loss) {
      Activations::with(layer.activation, [&](auto activation) {
        for (int i = threadIdx.x; i < rows * units; i += train_threads) {
          const int row = i / units, output = row * place.out_stride + i % units;
          const T a = out[output], scale = share * weights[row];
          if (kept && row < chunk.rows) kept[i] = a;
          at(plan_.values)[i] = scale * loss.value(a, y[i]);
          at(place.grad)[output] = activation.backward(scale * loss.gradient(a, y[i]), a);
        }
      });
    });
  }

  // 4. backward: grad_z of each layer, from the last to the first
  __device__ void backward(const Chunk& chunk) const {
    const int rows = int(whole_tiles(chunk.rows));
    for (int l = last(); l > 0; --l) {
      const TrainLayer<T>& layer = net_.layers[l];
      const LayerPlace &place = plan_.layers[l], &before = plan_.layers[l - 1];
      const int in_features = int(layer.in_features);
      multiply(Along<T>{at(place.grad), place.out_stride, rows / side},
               Across<T>{at(place.weight), place.in_stride, int(whole_tiles(in_features)) / side},
               int(whole_tiles(layer.units)), place.backward_splits, at(plan_.parts),
               place.in_stride);
      __syncthreads();
      Activations::with(net_.layers[l - 1].activation, [&](auto activation) {
        each_sum(rows, in_features, place.in_stride, place.backward_splits,
                 [&](int, int, int i, T sum) {
                   at(before.grad)[i] = activation.backward(sum, at(before.out)[i]);
                 });
      });
      __syncthreads();
    }
  }

  // Adds a chunk's part to the loss of its batch. The last warp has the least to do meanwhile.
  __device__ void report(const Chunk& chunk) {
    if (warp() != train_warps - 1) return;
    const int count = int(chunk.rows * net_.layers[last()].units);
    T sum{};
    for (int i = lane(); i < count; i += warp_size) sum += at(plan_.values)[i];
#pragma unroll
    for (int half = warp_size / 2; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
    loss_ = chunk.is_first() ? sum : loss_ + sum;
    if (chunk.is_last() && lane() == 0)
      net_.job.losses[model_ * net_.step_count + chunk.step] = loss_;
  }

  // 5. update weight and bias: of all layers at once, since they wait for nothing
  __device__ void update(const Chunk& chunk, int buffer) const {
    const int rows = int(whole_tiles(chunk.rows));
    const UpdateStep<T>& step = *reinterpret_cast<const UpdateStep<T>*>(at(plan_.step[buffer]));
    T* aside = net_.gradients + model_ * net_.gradient_size;
    int item = threadIdx.x;
    for (int l = 0; l <= last(); ++l) {
      const TrainLayer<T>& layer = net_.layers[l];
      const LayerPlace& place = plan_.layers[l];
      const int units = int(layer.units), in_features = int(layer.in_features);
      const Across<T> grad{at(place.grad), place.out_stride, int(whole_tiles(units)) / side};
      const Across<T> x{input(l, buffer), place.in_stride, int(whole_tiles(in_features)) / side};
      const int tiles = grad.tiles * x.tiles;
      for (; item < tiles; item += train_threads)
        update_weight(l, chunk, step, aside, grad, item / x.tiles, x, item % x.tiles);
      item -= tiles;
      aside += units * in_features;
      if (!layer.bias) continue;
      for (; item < units; item += train_threads) {
        T sum{};
        for (int row = 0; row < rows; ++row) sum += grad.first[row * grad.stride + item];
        update_bias(l, chunk, step, aside, item, sum);
      }
      item -= units;
      aside += units;
    }
  }

  __device__ void update_weight(int l, const Chunk& chunk, const UpdateStep<T>& step, T* aside,
                                const Across<T>& grad, int unit_tile, const Across<T>& x,
                                int feature_tile) const {
    const TrainLayer<T>& layer = net_.layers[l];
    const LayerPlace& place = plan_.layers[l];
    T sums[side][side] = {};
    accumulate(sums, grad, unit_tile, x, feature_tile, 0, int(whole_tiles(chunk.rows)));
    const int units = int(layer.units), in_features = int(layer.in_features);
    const int stride = plan_.keeps_slots ? place.in_stride : in_features;  // of the slots
    const bool aligned_aside = is_aligned(aside, in_features);
    Updates::with(net_.job.update, [&](auto rule) {
      T* slots[most_slots] = {};
#pragma unroll
      for (int s = 0; s < rule.slots; ++s)
        slots[s] = plan_.keeps_slots ? at(place.weight_slots[s])
                                     : layer.weight_slots[s] + model_ * units * in_features;
#pragma unroll
      for (int i = 0; i < side; ++i)
#pragma unroll
        for (int j = 0; j < side; j += pack<T>) {
          const int unit = grad.index(unit_tile, i), feature = x.index(feature_tile, j);
          const int count = in_features - feature;
          if (unit >= units || count <= 0) continue;
          Pack<T> sum = as_pack(sums[i] + j);
          T* put = aside + unit * in_features + feature;
          if (!chunk.is_first()) {
            const Pack<T> before = load(put, count, aligned_aside);
#pragma unroll
            for (int e = 0; e < pack<T>; ++e) sum.values[e] += before.values[e];
          }
          if (chunk.is_last())
            take_steps<decltype(rule)>(at(place.weight) + unit * place.in_stride + feature, slots,
                                       unit * stride + feature, sum, count, step);
          else
            store(put, sum, count, aligned_aside);
        }
    });
  }

  __device__ void update_bias(int l, const Chunk& chunk, const UpdateStep<T>& step, T* aside,
                              int unit, T sum) const {
    const TrainLayer<T>& layer = net_.layers[l];
    const LayerPlace& place = plan_.layers[l];
    if (!chunk.is_first()) sum += aside[unit];
    if (!chunk.is_last()) {
      aside[unit] = sum;
      return;
    }
    Updates::with(net_.job.update, [&](auto rule) {
      T* slots[most_slots] = {};
#pragma unroll
      for (int s = 0; s < rule.slots; ++s)
        slots[s] = plan_.keeps_slots ? at(place.bias_slots[s])
                                     : layer.bias_slots[s] + model_ * layer.units;
      take_step<decltype(rule)>(at(place.bias)[unit], slots, unit, sum, step);
    });
  }

  const Network<T>& net_;
  const Plan& plan_;
  const int64_t model_;
  T loss_{};  // of the batch in work, in the last warp
};

template <class T>
__global__ void __launch_bounds__(train_threads, 1)
    train_kernel(const __grid_constant__ Network<T> net) {
  for (int64_t model = blockIdx.x; model < net.models.count; model += gridDim.x) {
    Trainer<T>(net, model).train();
    __syncthreads();  // the next model takes the same memory
  }
}

// ---- the numbers of a step, and a launch for each of its parts ----

constexpr int part_threads = 256, part_warps = part_threads / warp_size;

template <class T>
__global__ void __launch_bounds__(part_threads)
    make_steps_kernel(const double* rates, const int64_t* steps_before, UpdateOptions options,
                      int64_t step_count, UpdateStep<T>* steps, int64_t count) {
  const int64_t before = steps_before ? *steps_before : 0;
  for (int64_t i = blockIdx.x * int64_t(part_threads) + threadIdx.x; i < count;
       i += gridDim.x * int64_t(part_threads))
    steps[i] = UpdateStep<T>(options, rates[i], before + i % step_count + 1);
}

// The sum over the block, for its first thread.
template <class T>
__device__ T sum_of_block(T sum) {
  T* sums = shared_memory<T>();  // (warps)
#pragma unroll
  for (int half = warp_size / 2; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
  if (threadIdx.x % warp_size == 0) sums[threadIdx.x / warp_size] = sum;
  __syncthreads();
  for (int i = 1; threadIdx.x == 0 && i < part_warps; ++i) sum += sums[i];
  __syncthreads();  // the next sum takes the same memory
  return sum;
}

template <class T>
__global__ void __launch_bounds__(part_threads) measure_kernel(BatchLoss<T> batch, int64_t parts) {
  const int64_t count = batch.rows * batch.units;
  const T share = T(1) / T(batch.rows) / T(batch.units);
  Losses::with(batch.place, [&](auto loss) {
    for (int64_t part = blockIdx.x; part < parts; part += gridDim.x) {
      T sum{};
      for (int64_t i = part * part_threads + threadIdx.x; i < count; i += parts * part_threads) {
        const T weight = batch.sample_weight ? batch.sample_weight[i / batch.units] : T(1);
        const T scale = share * weight, a = batch.out[i], y = batch.y[i];
        sum += scale * loss.value(a, y);
        if (batch.predictions) batch.predictions[i] = a;
        batch.grad_out[i] = scale * loss.gradient(a, y);
      }
      sum = sum_of_block(sum);
      if (threadIdx.x == 0) batch.sums[part] = sum;
    }
  });
}

template <class T>
__global__ void __launch_bounds__(part_threads)
    add_losses_kernel(const T* sums, int64_t count, T* loss) {
  T sum{};
  for (int64_t i = threadIdx.x; i < count; i += part_threads) sum += sums[i];
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) *loss = sum;
}

template <class T>
TORCHNN_FN Tiles update_tiles(const ParameterStep<T>& p) {
  return {1, p.count, 1, part_threads};
}

template <class T>
__global__ void __launch_bounds__(part_threads) update_kernel(ParameterStep<T> p) {
  const Tiles tiles = update_tiles(p);
  Updates::with(p.place, [&](auto rule) {
    for (int64_t tile = blockIdx.x; tile < tiles.count(); tile += gridDim.x) {
      const int64_t i = tile * part_threads + threadIdx.x;
      if (i < p.count) take_step<decltype(rule)>(p.values[i], p.slots, i, p.grad[i], *p.step);
    }
  });
}

// ---- launches ----

// Ctrl-C waits for a launch to end, and so does a screen that the same GPU draws.
#if !defined(TORCHNN_LAUNCH_MICROSECONDS)  // tests make do with few
#define TORCHNN_LAUNCH_MICROSECONDS 50'000
#endif

// The steps that take about as long.
template <class T>
int64_t steps_a_launch(const Train<T>& job) {
  std::vector<int64_t> widths{job.layers[0].in_features};
  for (int64_t l = 0; l < job.layer_count; ++l) widths.push_back(job.layers[l].units);
  const double step = block_microseconds(widths, std::min(job.batch_size, job.samples));
  return std::max<int64_t>(1, int64_t(TORCHNN_LAUNCH_MICROSECONDS / step));
}

template <class T>
int64_t gradient_size(const Train<T>& job) {
  int64_t size = 0;
  for (int64_t l = 0; l < job.layer_count; ++l)
    size += job.layers[l].units * (job.layers[l].in_features + 1);
  return size;
}

// The learning rates there are: a step's, for all models or for each.
template <class T>
int64_t rate_count(const Train<T>& job, const Models& models) {
  return (models.learning_rates ? models.count : 1) *
         step_count(job.samples, job.epoch_size, job.batch_size);
}

}  // namespace

int64_t shared_limit() {
  int device, limit;
  check("cudaGetDevice", cudaGetDevice(&device));
  check("cudaDeviceGetAttribute",
        cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return limit;
}

template <class T>
void make_steps(const Train<T>& job, const Models& models, UpdateStep<T>* steps, Stream stream) {
  const int64_t count = rate_count(job, models);
  launch("make_steps", make_steps_kernel<T>, (count + part_threads - 1) / part_threads,
         part_threads, 0, stream, job.learning_rates, job.steps_before, job.options,
         step_count(job.samples, job.epoch_size, job.batch_size), steps, count);
}

template <class T>
int64_t workspace_size(const Train<T>& job, const Models& models) {
  return models.count * gradient_size(job) + rate_count(job, models) * numbers_a_step;
}

template <class T>
void train(const Train<T>& job, const Models& models, const Plan& plan, T* workspace,
           Stream stream) {
  Network<T> net{};
  net.job = job, net.models = models, net.plan = plan;
  std::copy_n(job.layers, job.layer_count, net.layers);
  net.job.layers = nullptr;  // that is the host's
  net.gradients = workspace, net.gradient_size = gradient_size(job);
  auto* const steps =
      reinterpret_cast<UpdateStep<T>*>(workspace + models.count * net.gradient_size);
  make_steps(job, models, steps, stream);
  net.steps = steps;
  net.step_count = step_count(job.samples, job.epoch_size, job.batch_size);
  while (net.end < net.step_count) {
    net.end = std::min(net.step_count, net.end + steps_a_launch(job));
    launch("train", train_kernel<T>, models.count, train_threads, size_t(plan.bytes), stream, net);
    for (Chunk next; (next = chunk_after(job, net.before, job.batch_size)).step < net.end;)
      net.before = next;
  }
}

int64_t loss_parts(int64_t outputs) {
  constexpr int64_t outputs_a_thread = 4, most = 1024;
  constexpr int64_t outputs_a_part = outputs_a_thread * part_threads;
  return std::clamp<int64_t>((outputs + outputs_a_part - 1) / outputs_a_part, 1, most);
}

template <class T>
void measure(const BatchLoss<T>& batch, Stream stream) {
  BatchLoss<T> own = batch;
  const int64_t parts = loss_parts(batch.rows * batch.units);
  if (parts == 1) own.sums = batch.loss;
  launch("measure", measure_kernel<T>, parts, part_threads, part_warps * sizeof(T), stream, own,
         parts);
  if (parts > 1)
    launch("add_losses", add_losses_kernel<T>, 1, part_threads, part_warps * sizeof(T), stream,
           static_cast<const T*>(batch.sums), parts, batch.loss);
}

template <class T>
void update(const ParameterStep<T>& parameter, Stream stream) {
  launch("update", update_kernel<T>, update_tiles(parameter).count(), part_threads, 0, stream,
         parameter);
}

#define TORCHNN_INSTANTIATE(T)                                                      \
  template void make_steps(const Train<T>&, const Models&, UpdateStep<T>*, Stream); \
  template int64_t workspace_size(const Train<T>&, const Models&);                  \
  template void train(const Train<T>&, const Models&, const Plan&, T*, Stream);     \
  template void measure(const BatchLoss<T>&, Stream);                               \
  template void update(const ParameterStep<T>&, Stream);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)

}  // namespace torchnn::cuda
