// What trains layer by layer: networks that do not fit in shared memory, and large batches, take
// each part of a step in a launch of its own, beside those of the dense layer. The numbers of a
// step, the one kernel here that is for all networks, are made on the device too, where a CUDA
// graph finds how many steps there have been before.
#include "../math/loss.h"
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
__global__ void __launch_bounds__(part_threads) measure_kernel(BatchLoss<T> batch, int64_t parts) {
  const int64_t count = batch.rows * batch.units;
  const T share = share_of_output<T>(batch.place, batch.rows, batch.units);
  Losses::with(batch.place, [&](auto loss) {
    for (int64_t part = blockIdx.x; part < parts; part += gridDim.x) {
      T sum{};
      for (int64_t i = part * part_threads + threadIdx.x; i < count; i += parts * part_threads) {
        const T weight = batch.sample_weight ? batch.sample_weight[i / batch.units] : T(1);
        const T scale = share * weight, a = batch.out[i], y = batch.y[i];
        const int64_t first = i / batch.units * batch.units;  // of the row
        const RowOf<decltype(loss), T> row(
            Outputs<T>{batch.out + first, batch.y + first, int(batch.units)});
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
  int64_t tiles;
};

template <class T>
TORCHNN_FN int64_t tiles_of(const Parameter<T>& parameter) {
  return (parameter.size + part_threads - 1) / part_threads;
}

template <class T>
__global__ void __launch_bounds__(part_threads)
    update_kernel(const __grid_constant__ Parameters<T> all, int64_t place,
                  const UpdateStep<T>* step) {
  Updates::with(place, [&](auto rule) {
    for (int64_t tile = blockIdx.x; tile < all.tiles; tile += gridDim.x) {
      int64_t n = 0, own_tile = tile;
      for (; own_tile >= tiles_of(all.each[n]); ++n) own_tile -= tiles_of(all.each[n]);
      const Parameter<T>& p = all.each[n];
      const int64_t i = own_tile * part_threads + threadIdx.x;
      if (i < p.size) take_step<decltype(rule)>(p.values[i], p.slots, i, p.grad[i], *step);
    }
  });
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
void update(const Parameter<T>* parameters, int64_t count, int64_t place, const UpdateStep<T>* step,
            Stream stream) {
  for (int64_t first = 0; first < count; first += Parameters<T>::most) {
    Parameters<T> all{};
    std::copy_n(parameters + first, std::min<int64_t>(Parameters<T>::most, count - first),
                all.each);
    for (const Parameter<T>& parameter : all.each) all.tiles += tiles_of(parameter);
    launch("update", update_kernel<T>, all.tiles, part_threads, 0, stream, all, place, step);
  }
}

#define TORCHNN_INSTANTIATE(T)                                                      \
  template void make_steps(const Train<T>&, const Models&, UpdateStep<T>*, Stream); \
  template int64_t step_numbers(const Train<T>&, const Models&);                    \
  template void measure(const BatchLoss<T>&, Stream);                               \
  template void update(const Parameter<T>*, int64_t, int64_t, const UpdateStep<T>*, Stream);
TORCHNN_INSTANTIATE(float)
#if !defined(TORCHNN_ONLY_FLOAT)  // tests compile sooner
TORCHNN_INSTANTIATE(double)
#endif
#undef TORCHNN_INSTANTIATE  // tests include all such files

}  // namespace torchnn::cuda
