// What trains layer by layer: networks that do not fit in shared memory, large batches, and what
// only these kernels know, take each part of a step in a launch of its own, beside those of the
// dense layer. The numbers of a step, the one kernel here that is for all networks, are made on the
// device too, where a CUDA graph finds how many steps there have been before.
#include "../math/dropout.h"
#include "train.cuh"

namespace torchnn::cuda {
namespace {

constexpr int part_threads = 256, part_warps = part_threads / warp_size;

// ---- the numbers of a step ----

template <class T>
__global__ void __launch_bounds__(part_threads)
    make_steps_kernel(const __grid_constant__ Train<T> job, const __grid_constant__ Models models,
                      int64_t step_count, UpdateStep<T>* steps, int64_t count) {
  const int64_t before = job.steps_before ? *job.steps_before : 0;
  for (int64_t i = blockIdx.x * int64_t(part_threads) + threadIdx.x; i < count;
       i += gridDim.x * int64_t(part_threads)) {
    const int64_t model = i / step_count, n = i - model * step_count;
    const double rate = job.learning_rates[model * models.learning_rates + n];
    const TrainOptions& options = models.options ? models.options[model] : job.options;
    steps[i] = UpdateStep<T>(options, rate, before + n + 1);
  }
}

// ---- 2. forward: what goes on from a layer; and 4. backward: what comes back to it ----

template <class T>
__global__ void __launch_bounds__(part_threads)
    finish_kernel(const __grid_constant__ LayerOutputs<T> outputs) {
  const int64_t before = outputs.steps_before ? *outputs.steps_before : 0;
  const uint32_t key = step_key(outputs.seed, before + outputs.step + 1);
  const Dropping<T> dropping(outputs.dropout);
  Activations::with(outputs.activation, [&](auto activation) {
    for (int64_t i = blockIdx.x * int64_t(part_threads) + threadIdx.x;
         i < outputs.rows * outputs.units; i += gridDim.x * int64_t(part_threads)) {
      const int64_t row = i / outputs.units, unit = i - row * outputs.units;
      outputs.to[i] =
          dropping.apply(activation.forward(outputs.from[i]), row_key(key, row) + unit_key(unit));
    }
  });
}

// ---- 3. loss, and its derivative with respect to the outputs ----

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
__global__ void __launch_bounds__(part_threads, 2)
    measure_kernel(BatchLoss<T> batch, int64_t parts) {
  const int64_t count = batch.rows * batch.units;
  const T share = share_of_output<T>(batch.place, batch.rows, batch.units);
  Losses::with(batch.place, [&](auto loss) {
    for (int64_t part = blockIdx.x; part < parts; part += gridDim.x) {
      T sum{};
      for (int64_t i = part * part_threads + threadIdx.x; i < count; i += parts * part_threads) {
        using Loss = decltype(loss);
        const int64_t number = i / batch.units, first = number * batch.units;  // of the row
        const int64_t targets = takes_labels<Loss> ? number : first;
        const Outputs<Loss, T> of_row{batch.out + first, batch.y + targets, int(batch.units),
                                      batch.delta};
        const RowOf<Loss, T> row(of_row);
        const T scale = share * (batch.sample_weight ? batch.sample_weight[number] : T(1));
        const T a = batch.out[i], y = of_row.y(int(i - first));
        sum += scale * loss.value(a, y, row);
        if (batch.predictions) batch.predictions[i] = a;
        batch.grad_out[i] = scale * loss.gradient(a, y, row);
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

// ---- 5. update weight and bias ----

// The parameters of one launch.
template <class T>
struct Parameters {
  static constexpr int most = 16;
  Parameter<T> each[most];  // what is not used has no tiles
  int64_t count, tiles;
};

template <class T>
TORCHNN_FN int64_t tiles_of(const Parameter<T>& parameter) {
  return (parameter.size + part_threads - 1) / part_threads;
}

// Each parameter is summed up in so many parts, by a block each.
constexpr int sum_parts = 128;

// Of each part of each parameter: what it adds to the loss, and its gradient's square.
template <class T>
__global__ void __launch_bounds__(part_threads)
    sum_up_kernel(const __grid_constant__ Parameters<T> all, bool clips, T* sums) {
  for (int64_t part = blockIdx.x; part < all.count * sum_parts; part += gridDim.x) {
    const Parameter<T>& p = all.each[part / sum_parts];
    T penalty{}, square{};
    for (int64_t i = part % sum_parts * part_threads + threadIdx.x; i < p.size;
         i += sum_parts * part_threads) {
      const T w = p.values[i], grad = clips ? p.grad[i] + p.penalty.gradient(w) : T(0);
      penalty += p.penalty.value(w), square += grad * grad;
    }
    penalty = sum_of_block(penalty), square = sum_of_block(square);
    if (threadIdx.x == 0) sums[2 * part] = penalty, sums[2 * part + 1] = square;
  }
}

// The sum of all penalties, and the norm of each gradient or that of all together.
template <class T>
__global__ void __launch_bounds__(part_threads)
    use_sums_kernel(const T* sums, int64_t count, T clip_norm, T global_clip_norm, T* scales,
                    T* loss) {
  T penalty{};
  for (int64_t n = threadIdx.x / warp_size; n < count; n += part_warps) {
    T square{};
    for (int part = threadIdx.x % warp_size; part < sum_parts; part += warp_size) {
      const T* const own = sums + 2 * (n * sum_parts + part);
      penalty += own[0], square += own[1];
    }
#pragma unroll
    for (int half = warp_size / 2; half > 0; half /= 2)
      square += __shfl_xor_sync(~0u, square, half);
    if (threadIdx.x % warp_size == 0) scales[n] = square;
  }
  penalty = sum_of_block(penalty);  // all squares are there now, too
  if (threadIdx.x > 0) return;
  *loss += penalty;
  T all{};
  for (int64_t n = 0; n < count; ++n) all += scales[n];
  const T most = clip_norm > 0 ? clip_norm : global_clip_norm;
  for (int64_t n = 0; n < count; ++n) {
    const T norm = sqrt(clip_norm > 0 ? scales[n] : all);
    scales[n] = clip_scale(most, norm);
  }
}

template <class T>
__global__ void __launch_bounds__(part_threads)
    update_kernel(const __grid_constant__ Parameters<T> all, int64_t place,
                  const UpdateStep<T>* step, const T* scales) {
  Updates::with(place, [&](auto rule) {
    for (int64_t tile = blockIdx.x; tile < all.tiles; tile += gridDim.x) {
      int64_t n = 0, own_tile = tile;
      for (; own_tile >= tiles_of(all.each[n]); ++n) own_tile -= tiles_of(all.each[n]);
      const Parameter<T>& p = all.each[n];
      const int64_t i = own_tile * part_threads + threadIdx.x;
      if (i >= p.size) continue;
      T& w = p.values[i];
      const T grad = adjusted(p.grad[i], w, p.penalty, scales ? scales[n] : T(1), *step);
      take_step<decltype(rule)>(w, p.slots, i, grad, *step);
    }
  });
}

// Calls f(those of a launch, the number of their first) for so many parameters.
template <class T, class F>
void each_launch(const Parameter<T>* parameters, int64_t count, const F& f) {
  for (int64_t first = 0; first < count; first += Parameters<T>::most) {
    Parameters<T> all{};
    all.count = std::min<int64_t>(Parameters<T>::most, count - first);
    std::copy_n(parameters + first, all.count, all.each);
    for (const Parameter<T>& parameter : all.each) all.tiles += tiles_of(parameter);
    f(all, first);
  }
}

}  // namespace

// ---- launches ----

template <class T>
void make_steps(const Train<T>& job, const Models& models, UpdateStep<T>* steps, Stream stream) {
  const int64_t count = step_numbers(job, models) / numbers_a_step;
  launch("make_steps", make_steps_kernel<T>, over(count, part_threads), part_threads, 0, stream,
         job, models, step_count(job), steps, count);
}

template <class T>
int64_t step_numbers(const Train<T>& job, const Models& models) {
  return (steps_apart(job, models) ? models.count : 1) * step_count(job) * numbers_a_step;
}

template <class T>
void finish(const LayerOutputs<T>& outputs, Stream stream) {
  launch("finish", finish_kernel<T>, over(outputs.rows * outputs.units, part_threads), part_threads,
         0, stream, outputs);
}

int64_t loss_parts(int64_t outputs) {
  constexpr int64_t outputs_a_thread = 4, most = 1024;
  return std::clamp<int64_t>(over(outputs, outputs_a_thread * part_threads), 1, most);
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
void sum_up(const Parameter<T>* parameters, int64_t count, const TrainOptions& options,
            T* workspace, T* loss, Stream stream) {
  constexpr size_t shared = part_warps * sizeof(T);
  T *const scales = workspace, *const sums = workspace + count;
  each_launch(parameters, count, [&](const Parameters<T>& all, int64_t first) {
    launch("sum_up", sum_up_kernel<T>, all.count * sum_parts, part_threads, shared, stream, all,
           options.clips_norms(), sums + 2 * first * sum_parts);
  });
  launch("use_sums", use_sums_kernel<T>, 1, part_threads, shared, stream,
         static_cast<const T*>(sums), count, T(options.clip_norm), T(options.global_clip_norm),
         scales, loss);
}

int64_t sums_of_parameters(int64_t count) { return count * (1 + 2 * sum_parts); }

template <class T>
void update(const Parameter<T>* parameters, int64_t count, int64_t place, const UpdateStep<T>* step,
            const T* scales, Stream stream) {
  each_launch(parameters, count, [&](const Parameters<T>& all, int64_t first) {
    launch("update", update_kernel<T>, all.tiles, part_threads, 0, stream, all, place, step,
           scales ? scales + first : nullptr);
  });
}

#define TORCHNN_INSTANTIATE(T)                                                                \
  template void make_steps(const Train<T>&, const Models&, UpdateStep<T>*, Stream);           \
  template int64_t step_numbers(const Train<T>&, const Models&);                              \
  template void finish(const LayerOutputs<T>&, Stream);                                       \
  template void measure(const BatchLoss<T>&, Stream);                                         \
  template void sum_up(const Parameter<T>*, int64_t, const TrainOptions&, T*, T*, Stream);    \
  template void update(const Parameter<T>*, int64_t, int64_t, const UpdateStep<T>*, const T*, \
                       Stream);
TORCHNN_INSTANTIATE(float)
#if !defined(TORCHNN_ONLY_FLOAT)  // tests compile sooner
TORCHNN_INSTANTIATE(double)
#endif
#undef TORCHNN_INSTANTIATE  // tests include all such files

}  // namespace torchnn::cuda
