// Whole-network training on CUDA, for thousands of small models: one warp trains one model, any
// number of steps in one launch. All that it needs is in memory of its own, so that it waits for no
// other warp, and a multiprocessor trains as many models at a time as it has room for. train.cu is
// its twin for larger networks, with the same numbered steps. Every sum is taken in one order:
// results are the same from run to run, whatever the number of models.
//
// Products of many units are tiles of the whole warp; whatever goes element by element has a row of
// the batch in each lane.
#include <limits>

#include "copy.cuh"
#include "products.cuh"
#include "train.cuh"
#include "warp_plan.h"

namespace torchnn::cuda {
namespace {

// A tile of c = a @ b, c and b (depth, columns) with rows `stride` apart: the lane's rows from row
// on and packs of columns from first on. Beyond the last it repeats that, and puts nothing down.
template <class Tile, class T>
__device__ void multiply_packs(const Rows<T>& a, const T* b, int stride, int packs, int row,
                               int first, int depth, T* c) {
  const T* left_at[Tile::rows];
  const T* right_at[Tile::columns];
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i)
    left_at[i] = a.first + std::min(row + i * lanes_down, a.count - 1) * a.stride;
#pragma unroll
  for (int p = 0; p < Tile::columns; ++p)
    right_at[p] = b + std::min(first + p * lanes_across, packs - 1) * pack<T>;
  Pack<T> sums[Tile::rows][Tile::columns] = {};
#pragma unroll 1
  for (int d = 0; d < depth; d += pack<T>) {
    Pack<T> left[Tile::rows];
#pragma unroll
    for (int i = 0; i < Tile::rows; ++i) left[i] = load_pack(left_at[i]), left_at[i] += pack<T>;
#pragma unroll
    for (int e = 0; e < pack<T>; ++e)
#pragma unroll
      for (int p = 0; p < Tile::columns; ++p) {
        const Pack<T> right = load_pack(right_at[p]);
        right_at[p] += stride;
#pragma unroll
        for (int i = 0; i < Tile::rows; ++i)
#pragma unroll
          for (int q = 0; q < pack<T>; ++q)
            sums[i][p].values[q] += left[i].values[e] * right.values[q];
      }
  }
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i)
#pragma unroll
    for (int p = 0; p < Tile::columns; ++p) {
      const int down = row + i * lanes_down, across = first + p * lanes_across;
      if (down < a.count && across < packs)
        *reinterpret_cast<Pack<T>*>(c + down * stride + across * pack<T>) = sums[i][p];
    }
}

// ---- what a warp does with a model ----

template <class T>
class WarpTrainer {
 public:
  __device__ WarpTrainer(const Network<T, WarpPlan>& net, int64_t model)
      : net_(net), plan_(net.plan), model_(model), x_(net.job.x + model * net.models.x) {}

  // Always inline, since a call would put this object into the device's memory.
  __device__ __forceinline__ void train() {
    read();
    list_row(chunk(0));
    for (int n = 0; chunk(n).rows; ++n) {
      fetch(chunk(n));
      if (lane() == 0) chunk(n + 1) = net_.chunk_after(chunk(n));
      wait_for_copies();
      __syncwarp();
      list_row(chunk(n + 1));
      for (int l = 0; l <= last(); ++l) forward(l, chunk(n));
      measure(chunk(n));
      for (int l = last(); l >= 0; --l) {
        if (l > 0) backward(l, chunk(n));
        update(l, chunk(n));
      }
      report(chunk(n));
    }
    write_back();
  }

 private:
  using Forward = typename WarpTiles<sizeof(T)>::Forward;
  using Backward = typename WarpTiles<sizeof(T)>::Backward;
  using Gradients = typename WarpTiles<sizeof(T)>::Gradient;

  __device__ T* at(int place) const { return shared_memory<T>() + place; }
  __device__ const WarpLayer& place_of(int l) const {
    return reinterpret_cast<const WarpLayer*>(at(plan_.places))[l];
  }
  __device__ Chunk& chunk(int n) const { return reinterpret_cast<Chunk*>(at(plan_.chunks))[n % 2]; }
  __device__ int64_t& from(int row) const {
    return reinterpret_cast<int64_t*>(at(plan_.from))[row];
  }
  __device__ const UpdateStep<T>& step() const {
    return *reinterpret_cast<const UpdateStep<T>*>(at(plan_.step));
  }
  __device__ int last() const { return int(net_.job.layer_count) - 1; }
  __device__ static int lane() { return threadIdx.x; }

  // Calls f(the user's array, rows, columns, place of ours, our stride) for all there is to
  // remember of a layer.
  template <class F>
  __device__ void each_parameter(int l, const F& f) const {
    const TrainLayer<T>& layer = net_.layers[l];
    const WarpLayer& place = plan_.layers[l];
    const int units = place.units, in_features = place.in_features;
    const int64_t weights = model_ * units * in_features, biases = model_ * units;
    f(layer.weight + weights, units, in_features, place.weight, place.in_stride);
    if (layer.bias) f(layer.bias + biases, 1, units, place.bias, units);
    Updates::with(net_.job.update, [&](auto rule) {
      for (int s = 0; s < rule.slots; ++s) {
        f(layer.weight_slots[s] + weights, units, in_features, place.weight_slots[s],
          place.in_stride);
        if (layer.bias) f(layer.bias_slots[s] + biases, 1, units, place.bias_slots[s], units);
      }
    });
  }

  __device__ void read() const {
    const int size = int(plan_.bytes / sizeof(T));
    for (int i = lane(); i < size; i += warp_size) *at(i) = T(0);
    __syncwarp();
    for (int l = lane(); l <= last(); l += warp_size)
      const_cast<WarpLayer&>(place_of(l)) = plan_.layers[l];
    if (lane() == 0) chunk(0) = net_.chunk_after(net_.before);
    for (int l = 0; l <= last(); ++l)
      each_parameter(l, [&](const T* user, int rows, int columns, int place, int stride) {
        for (int i = lane(); i < rows * columns; i += warp_size)
          at(place)[i / columns * stride + i % columns] = user[i];
      });
    __syncwarp();
  }

  __device__ void write_back() const {
    for (int l = 0; l <= last(); ++l)
      each_parameter(l, [&](T* user, int rows, int columns, int place, int stride) {
        for (int i = lane(); i < rows * columns; i += warp_size)
          user[i] = at(place)[i / columns * stride + i % columns];
      });
  }

  // 1. fetch the rows of a chunk; which they are has been asked for one chunk earlier
  __device__ void list_row(const Chunk& chunk) {
    if (lane() >= chunk.rows) return;
    const int64_t i = chunk.first + lane();
    listed_ = net_.job.order ? net_.job.order[model_ * net_.models.order + i] : i;
  }

  __device__ void fetch(const Chunk& chunk) const {
    const int rows = int(chunk.rows), stride = plan_.layers[0].in_stride;
    if (lane() < rows) fetch_targets();
    if (lane() < numbers_a_step)
      copy_async<sizeof(T)>(at(plan_.step) + lane(), net_.step_of(model_, chunk) + lane());
    __syncwarp();
    auto copy = [&](const Divider& columns, auto width) {
      for (int i = lane(); i < rows * columns.divisor; i += warp_size) {
        const int row = columns.quotient(i), k = (i - row * columns.divisor) * width;
        copy_async<width * sizeof(T)>(at(plan_.x) + row * stride + k,
                                      x_ + from(row) * net_.job.x_stride + k);
      }
    };
    if (is_aligned(x_, net_.job.x_stride) && plan_.features.divisor % pack<T> == 0)
      copy(plan_.packs, std::integral_constant<int, pack<T>>{});
    else
      copy(plan_.features, std::integral_constant<int, 1>{});
  }

  // Of the lane's row: where in x it is, and y and weight. One that does not exist is taken to be
  // the first, with a weight that makes the loss NaN.
  __device__ void fetch_targets() const {
    const Train<T>& job = net_.job;
    const int targets = net_.targets;
    const bool exists = listed_ >= 0 && listed_ < net_.models.rows;
    const int64_t row = exists ? listed_ : 0;
    from(lane()) = row;
    const T* y = job.y + model_ * net_.models.y + row * targets;
    for (int n = 0; n < targets; ++n)
      copy_async<sizeof(T)>(at(plan_.y) + lane() * targets + n, y + n);
    T* weight = at(plan_.sample_weight) + lane();
    if (!exists)
      *weight = std::numeric_limits<T>::quiet_NaN();
    else if (job.sample_weight)
      copy_async<sizeof(T)>(weight, job.sample_weight + model_ * net_.models.sample_weight + row);
    else
      *weight = T(1);
  }

  // Calls f(row, column) for the lane's share of the columns of a row, `apart` of them at a time.
  template <class F>
  __device__ void each_place(const Chunk& chunk, int columns, int apart, const F& f) const {
    const int row = lane() & (plan_.rows - 1), next = warp_size >> plan_.rows_shift;
    if (row >= chunk.rows) return;
    for (int column = (lane() >> plan_.rows_shift) * apart; column < columns;
         column += next * apart)
      f(row, column);
  }

  // What a layer takes in: (rows, in_stride).
  __device__ const T* input(int l) const { return at(l ? place_of(l - 1).out : plan_.x); }

  // Of so few units, each lane adds up its own row's: tiles would leave most lanes idle.
  static constexpr int few_units = 4;

  // 2. forward: a = activation(x @ weight.T + bias), layer by layer
  __device__ void forward(int l, const Chunk& chunk) const {
    const WarpLayer place = place_of(l);
    T* out = at(place.out);
    const T *x = input(l), *weight = at(place.weight), *bias = at(place.bias);
    if (place.units <= few_units) {
      each_place(chunk, place.units, 1, [&](int row, int unit) {
        T z = bias[unit];
        const T *left = x + row * place.in_stride, *right = weight + unit * place.in_stride;
#pragma unroll 4
        for (int k = 0; k < place.in_features; k += pack<T>) {
          const Pack<T> a = load_pack(left + k), w = load_pack(right + k);
#pragma unroll
          for (int e = 0; e < pack<T>; ++e) z += a.values[e] * w.values[e];
        }
        with_activation(place.activation, [&](auto activation) {
          out[row * place.out_stride + unit] = activation.forward(z);
        });
      });
    } else {
      const Rows<T> left{x, place.in_stride, int(chunk.rows)};
      const Along<T> right{weight, place.in_stride};
      const int row = first_row(lane()), column = first_column(lane());
      Forward::with(place.forward, [&](auto tile) {
        for (int first = column; first < place.units; first += tile.columns * lanes_across)
          multiply_tile<decltype(tile)>(
              left, right, place.units, row, first, 0, place.in_features, [&](int i, int j, T z) {
                const int down = row + i * lanes_down, unit = first + j * lanes_across;
                if (down < left.count && unit < place.units)
                  out[down * place.out_stride + unit] = z;
              });
      });
      __syncwarp();
      with_activation(place.activation, [&](auto activation) {
        each_place(chunk, place.units, pack<T>, [&](int row, int unit) {
          T* const a = out + row * place.out_stride + unit;
          Pack<T> z = load_pack(a);
          const Pack<T> b = load_pack(bias + unit);
#pragma unroll
          for (int e = 0; e < pack<T>; ++e)
            z.values[e] = activation.forward(z.values[e] + b.values[e]);
          *reinterpret_cast<Pack<T>*>(a) = z;
        });
      });
    }
    __syncwarp();
  }

  // 3. loss, and its derivative with respect to what goes into the last activation
  __device__ void measure(const Chunk& chunk) {
    const Train<T>& job = net_.job;
    const WarpLayer& place = place_of(last());
    const int units = place.units;
    const T share = share_of_output<T>(job.loss, chunk.batch_rows(), units);
    T* kept = job.predictions;
    if (kept) kept += (model_ * job.samples + chunk.first) * units;
    if (chunk.is_first()) loss_ = T(0);
    const int own_row = lane() & (plan_.rows - 1);  // where it is none, neither is it looked at
    const T *const outputs = at(place.out) + own_row * place.out_stride, delta = step().delta;
    const T scale = share * at(plan_.sample_weight)[own_row];
    Losses::with(job.loss, [&](auto loss) {
      using Loss = decltype(loss);
      const Outputs<Loss, T> of_row{outputs, at(plan_.y) + own_row * net_.targets, units, delta};
      const RowOf<Loss, T> seen(of_row);
      each_place(chunk, units, 1, [&](int row, int unit) {
        const T a = of_row.a(unit), y = of_row.y(unit);
        if (kept) kept[row * units + unit] = a;
        loss_ += scale * loss.value(a, y, seen);
        at(place.grad)[row * place.out_stride + unit] = scale * loss.gradient(a, y, seen);
      });
    });
    with_activation(place.activation, [&](auto activation) {
      each_place(chunk, units, 1, [&](int row, int unit) {
        T& grad = at(place.grad)[row * place.out_stride + unit];
        grad = activation.backward(grad, outputs[unit]);
      });
    });
    __syncwarp();
  }

  // 4. backward: grad_z of each layer, from the last to the first: here of the one before this
  __device__ void backward(int l, const Chunk& chunk) const {
    const WarpLayer place = place_of(l);
    const WarpLayer& before = place_of(l - 1);
    const T *grad = at(place.grad), *weight = at(place.weight), *out = at(before.out);
    T* put = at(before.grad);
    const bool few = place.units <= few_units;
    if (!few) {
      const int packs = (place.in_features + pack<T> - 1) / pack<T>;
      const Rows<T> left{grad, place.out_stride, int(chunk.rows)};
      Backward::with(place.backward, [&](auto tile) {
        for (int first = first_column(lane()); first < packs; first += tile.columns * lanes_across)
          multiply_packs<decltype(tile)>(left, weight, place.in_stride, packs, first_row(lane()),
                                         first, place.units, put);
      });
      __syncwarp();
    }
    with_activation(before.activation, [&](auto activation) {
      each_place(chunk, place.in_features, pack<T>, [&](int row, int unit) {
        const int i = row * place.in_stride + unit;
        Pack<T> grad_out{};
        if (few)
#pragma unroll 1
          for (int n = 0; n < place.units; ++n) {
            const Pack<T> w = load_pack(weight + n * place.in_stride + unit);
            const T grad_z = grad[row * place.out_stride + n];
#pragma unroll
            for (int e = 0; e < pack<T>; ++e) grad_out.values[e] += grad_z * w.values[e];
          }
        else
          grad_out = load_pack(put + i);
        const Pack<T> a = load_pack(out + i);
#pragma unroll
        for (int e = 0; e < pack<T>; ++e)
          grad_out.values[e] = activation.backward(grad_out.values[e], a.values[e]);
        *reinterpret_cast<Pack<T>*>(put + i) = grad_out;
      });
    });
    __syncwarp();
  }

  // 5. update weight and bias of a layer, which no one needs any more as they were
  __device__ void update(int l, const Chunk& chunk) const {
    const UpdateStep<T>& step = this->step();
    const WarpLayer place = place_of(l);
    T* aside = net_.gradients + model_ * net_.gradient_size;
    for (int before = 0; before < l; ++before)
      aside += place_of(before).units * (place_of(before).in_features + 1);
    Gradients::with(place.gradient, [&](auto tile) {
      update_weight<decltype(tile)>(l, place, chunk, step, aside);
    });
    if (place.biases) update_bias(place, chunk, step, aside + place.units * place.in_features);
    __syncwarp();
  }

  // Adds up the loss of a batch, once it is whole.
  __device__ void report(const Chunk& chunk) const {
    if (!chunk.is_last()) return;
    T sum = loss_;
#pragma unroll
    for (int half = warp_size / 2; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
    if (lane() == 0) net_.job.losses[model_ * net_.step_count + chunk.step] = sum;
  }

  // Calls f(item, the lane's first row, rows apart, how many) for each item of the lane: every
  // lane has one, though it may be the last once more.
  template <class F>
  __device__ static void each_item(const Shares& shares, int rows, const F& f) {
    const int first = lane() & (shares.span() - 1), row = lane() >> shares.span_shift;
    const int apart = warp_size >> shares.span_shift;
    for (int begin = 0; begin < shares.items; begin += warp_size)
      f(begin + first, row, apart, (rows - row + apart - 1) / apart);
  }

  // grad_weight = grad_z.T @ x, and the step.
  template <class Tile>
  __device__ void update_weight(int l, const WarpLayer& place, const Chunk& chunk,
                                const UpdateStep<T>& step, T* aside) const {
    const int in_features = place.in_features;
    each_item(place.tiles, int(chunk.rows), [&](int own, int row, int apart, int rows) {
      const int item = std::min(own, place.tiles.items - 1);
      const int down = place.across.quotient(item);
      const int first_unit = down * Tile::units;
      const int first_feature = (item - down * place.across.divisor) * pack<T>;
      const int packs_apart = place.across.divisor * pack<T>;
      const int second = first_feature + packs_apart < in_features ? packs_apart : 0;
      Pack<T> sums[Tile::packs][Tile::units] = {};
      add_gradient<Tile>(sums, at(place.grad) + row * place.out_stride + first_unit,
                         apart * place.out_stride, input(l) + row * place.in_stride + first_feature,
                         apart * place.in_stride, second, rows);
      for (int half = place.tiles.span(); half < warp_size; half *= 2)
#pragma unroll
        for (int p = 0; p < Tile::packs; ++p)
#pragma unroll
          for (int n = 0; n < Tile::units; ++n)
#pragma unroll
            for (int e = 0; e < pack<T>; ++e)
              sums[p][n].values[e] += __shfl_xor_sync(~0u, sums[p][n].values[e], half);
      if (row > 0 || item < own) return;
#pragma unroll
      for (int p = 0; p < Tile::packs; ++p) {
        const int feature = first_feature + p * packs_apart, count = in_features - feature;
        if (count <= 0) return;
        T* put = aside + first_unit * in_features + feature;
        if (!(chunk.is_first() && chunk.is_last()) &&
            !add_aside(sums[p], place.units - first_unit, put, in_features, count, chunk))
          continue;
        Updates::with(net_.job.update, [&](auto rule) {
          const int place_of_tile = first_unit * place.in_stride + feature;
          T* slots[most_slots] = {};
#pragma unroll
          for (int s = 0; s < rule.slots; ++s) slots[s] = at(place.weight_slots[s]);
#pragma unroll
          for (int n = 0; n < Tile::units; ++n)
            if (first_unit + n < place.units) {
              const int i = place_of_tile + n * place.in_stride;
              take_steps<decltype(rule)>(at(place.weight) + i, slots, i, true, sums[p][n], count,
                                         step);
            }
        });
      }
    });
  }

  // grad_bias = grad_z.sum(0), and the step.
  __device__ void update_bias(const WarpLayer& place, const Chunk& chunk, const UpdateStep<T>& step,
                              T* aside) const {
    each_item(place.units_shared, int(chunk.rows), [&](int own, int row, int apart, int rows) {
      const int unit = std::min(own, place.units - 1);
      const T* grad = at(place.grad) + row * place.out_stride + unit;
      T sum{};
#pragma unroll 8
      for (int i = 0; i < rows; ++i) sum += grad[i * apart * place.out_stride];
      for (int half = place.units_shared.span(); half < warp_size; half *= 2)
        sum += __shfl_xor_sync(~0u, sum, half);
      if (row > 0 || unit < own) return;
      take_step_of_bias(net_.job.update, at(place.bias), unit, sum, aside, chunk, step,
                        [&](int s) { return at(place.bias_slots[s]); });
    });
  }

  const Network<T, WarpPlan>& net_;
  const WarpPlan& plan_;
  const int64_t model_;
  const T* x_;          // the rows of this model
  int64_t listed_ = 0;  // the row that the lane fetches next
  T loss_{};            // the lane's part of the batch's
};

template <class T>
__global__ void __launch_bounds__(warp_size, most_warps(sizeof(T)))
    train_warp_kernel(const __grid_constant__ Network<T, WarpPlan> net) {
  for (int64_t model = blockIdx.x; model < net.models.count; model += gridDim.x) {
    WarpTrainer<T>(net, model).train();
    __syncwarp();  // the next model takes the same memory
  }
}

}  // namespace

template <class T>
void train_by_warps(const Train<T>& job, const Models& models, const WarpPlan& plan, T* workspace,
                    Stream stream) {
  prefer_shared_memory("train_warp", train_warp_kernel<T>);
  launch_steps("train_warp", train_warp_kernel<T>, network_of(job, models, plan, workspace, stream),
               warp_size, stream);
}

#define TORCHNN_INSTANTIATE(T) \
  template void train_by_warps(const Train<T>&, const Models&, const WarpPlan&, T*, Stream);
TORCHNN_INSTANTIATE(float)
#if !defined(TORCHNN_ONLY_FLOAT)  // tests compile sooner
TORCHNN_INSTANTIATE(double)
#endif
#undef TORCHNN_INSTANTIATE  // tests include all such files

}  // namespace torchnn::cuda
