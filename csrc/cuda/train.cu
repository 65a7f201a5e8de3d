// Whole-network training on CUDA: one block of threads trains one model, or eight blocks together,
// any number of steps in one launch. Weights, activations, gradients and the rows of two chunks are
// in the memory that the threads share; the next chunk is fetched while this one is in work.
// cpu/train.cpp is its twin, with the same numbered steps. Every sum is taken in one order: results
// are the same from run to run.
//
// Layers of many weights are products that all warps share, with barriers of the block between
// them. Layers of few weights, and the loss, go row by row: a warp takes its rows forward through
// them and back without waiting for any other.
#include "../train.h"

#include <limits>

#include "../dense.h"
#include "cluster.cuh"
#include "copy.cuh"
#include "products.cuh"
#include "train.cuh"

namespace torchnn::cuda {
namespace {

// ---- what a block of threads does with a model ----

// Clustered: several blocks train it together. Each has a slice of the first layer, and takes its
// share of the rows through all others, of which it has a copy.
template <class T, bool clustered>
class Trainer {
  using OwnTiles = TilesOf<sizeof(T), clustered>;

 public:
  __device__ Trainer(const Network<T, Plan>& net, int64_t model)
      : net_(net), plan_(net.plan), model_(model) {}

  // While chunk n is in work, the rows of chunk n + 1 are fetched into the other of two buffers,
  // with their targets and the numbers of their step; and into this one, where in x those of chunk
  // n + 2 are.
  //
  // Of the barriers of a step,
  //   that of wait_for_chunk   says that the chunk has come, not only for who fetched it; that the
  //                            weights are those of the step before; and that no one reads the
  //                            other buffer any more
  //   those within 2. and 4.   stand between a product's parts and whoever adds them up, both ways
  //   that before 5.           says that grad_z of all rows is there, and that no one needs the
  //                            weights as they were
  // Rows go through the small layers and the loss without any: each stays in one warp.
  //
  // Always inline, since a call would put this object into the device's memory.
  __device__ __forceinline__ void train() {
    read();
    fetch_first();
    int n = 0;
    for (; chunk(n).rows; ++n) {
      wait_for_chunk(n);
      if (!clustered) fetch_ahead(n);  // by the last warp, while the others multiply
      forward(chunk(n), n % 2);
      go_through_rows(chunk(n), n % 2);
      if (clustered) fetch_ahead(n);  // by a warp that has no row: rows are few
      backward(chunk(n));
      if constexpr (clustered) {
        send_rows(chunk(n));
        sync_cluster();
      } else {
        __syncthreads();
      }
      update(chunk(n), n % 2);
    }
    __syncthreads();  // the last step is done
    if (n > 0) report(n - 1);
    if (threadIdx.x == 0) end_arrivals(arrivals());
    write_back();
  }

 private:
  __device__ T* at(int place) const { return shared_memory<T>() + place; }
  __device__ const LayerPlace& place_of(int l) const {
    return reinterpret_cast<const LayerPlace*>(at(plan_.places))[l];
  }
  // The n-th chunk of the launch, of those in work or ahead.
  __device__ Chunk& chunk(int n) const {
    return reinterpret_cast<Chunk*>(at(plan_.chunks))[n % chunks_known];
  }
  __device__ uint64_t* arrivals() const { return reinterpret_cast<uint64_t*>(at(plan_.arrivals)); }
  __device__ int64_t* listed(int buffer) const {
    return reinterpret_cast<int64_t*>(at(plan_.listed[buffer]));
  }
  __device__ const UpdateStep<T>& step_of(int buffer) const {
    return *reinterpret_cast<const UpdateStep<T>*>(at(plan_.step[buffer]));
  }
  // The rows of this model, from the first feature on; and whether the copy engine copies each
  // whole. Registers are dearer than computing this again.
  __device__ const T* x() const { return net_.job.x + model_ * net_.models.x + first_feature(); }
  __device__ bool copies_rows() const {
    return has_copy_engine && is_aligned(x(), net_.job.x_stride) && features() % pack<T> == 0 &&
           features() > 0;
  }
  __device__ bool keeps_slots() const { return clustered || plan_.keeps_slots; }
  __device__ int last() const { return int(net_.job.layer_count) - 1; }
  __device__ static int lane() { return threadIdx.x % warp_size; }
  __device__ static int warp() { return threadIdx.x / warp_size; }

  // Which of those that train the model this block is, and what it has: some features of the first
  // layer, and some rows of a chunk.
  __device__ static int block() { return clustered ? block_rank() : 0; }
  __device__ int first_feature() const {
    return clustered ? std::min(block() * plan_.features, int(net_.layers[0].in_features)) : 0;
  }
  __device__ int features() const {
    if constexpr (!clustered) return plan_.features;
    return std::min(plan_.features, int(net_.layers[0].in_features) - first_feature());
  }
  __device__ Range own_rows(const Chunk& chunk) const {
    const int rows = int(chunk.rows), each = plan_.own_rows.divisor;
    return {std::min(block() * each, rows), std::min((block() + 1) * each, rows)};
  }

  // Of a short chunk, the last blocks have no rows.
  __device__ static bool has_any(const Range& rows) { return !clustered || rows.begin < rows.end; }

  // Calls f(the user's array, rows, columns, their stride, place of ours, our stride) for all there
  // is to remember of a layer.
  template <class F>
  __device__ void each_parameter(int l, const F& f) const {
    const TrainLayer<T>& layer = net_.layers[l];
    const LayerPlace& place = plan_.layers[l];
    const int units = int(layer.units), stride = int(layer.in_features);
    const int columns = l ? stride : features();
    const int64_t weights = first_weight(l), biases = model_ * layer.units;
    f(layer.weight + weights, units, columns, stride, place.weight, place.in_stride);
    if (layer.bias) f(layer.bias + biases, 1, units, units, place.bias, units);
    for (int s = 0; keeps_slots() && s < slot_count(); ++s) {
      f(layer.weight_slots[s] + weights, units, columns, stride, place.weight_slots[s],
        place.in_stride);
      if (layer.bias) f(layer.bias_slots[s] + biases, 1, units, units, place.bias_slots[s], units);
    }
  }

  // Where the weights of this block begin among those of all models.
  __device__ int64_t first_weight(int l) const {
    const TrainLayer<T>& layer = net_.layers[l];
    return model_ * layer.units * layer.in_features + (l ? 0 : first_feature());
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
    let_engine_see_writes();
    for (int l = threadIdx.x; l <= last(); l += train_threads) {
      LayerPlace& place = const_cast<LayerPlace&>(place_of(l));
      place = plan_.layers[l];
      if (clustered && l == 0) place.in_features = features();
    }
    if (threadIdx.x == 0) {
      begin_arrivals(arrivals());
      chunk(0) = net_.chunk_after(net_.before);
      for (int n = 1; n < 3; ++n) chunk(n) = net_.chunk_after(chunk(n - 1));
    }
    for (int l = 0; l <= last(); ++l)
      each_parameter(l, [&](const T* user, int rows, int columns, int from, int place, int stride) {
        for (int i = threadIdx.x; i < rows * columns; i += train_threads)
          at(place)[i / columns * stride + i % columns] = user[i / columns * from + i % columns];
      });
    if constexpr (clustered)
      sync_cluster();  // none writes to the memory of another before that is ready
    else
      __syncthreads();
  }

  __device__ void write_back() const {
    for (int l = 0; l <= last(); ++l)
      each_parameter(l, [&](T* user, int rows, int columns, int from, int place, int stride) {
        if (block() > 0 && columns == from) return;  // no slice, but a copy
        for (int i = threadIdx.x; i < rows * columns; i += train_threads)
          user[i / columns * from + i % columns] = at(place)[i / columns * stride + i % columns];
      });
  }

  // 1. fetch the rows of a chunk; where they are has been listed one chunk earlier
  __device__ void fetch_first() const {
    if (server() < 0) return;
    list_rows(chunk(0), 0);
    wait_for_copies();
    fetch(chunk(0), 0);
    list_rows(chunk(1), 1);
  }

  __device__ void wait_for_chunk(int n) const {
    wait_for_copies();
    if (copies_rows()) wait_for_arrivals(arrivals(), n % 2);
    __syncthreads();
  }

  __device__ void fetch_ahead(int n) {
    if (server() < 0) return;
    if (n > 0) report(n - 1);  // whose place the next chunk takes
    if (server() == 0 && lane() == 0) chunk(n + 3) = net_.chunk_after(chunk(n + 2));
    fetch(chunk(n + 1), 1 - n % 2);
    list_rows(chunk(n + 2), n % 2);
  }

  // Who does so, and adds up the loss of the chunk before: the last warp, while the others
  // multiply; or each warp some rows, if there is nothing to multiply.
  __device__ int servers() const { return plan_.wide_layers ? 1 : train_warps; }
  __device__ int server() const { return plan_.wide_layers ? warp() - (train_warps - 1) : warp(); }
  __device__ int first_row() const { return server() + servers() * lane(); }  // of a thread

  __device__ void list_rows(const Chunk& chunk, int buffer) const {
    const int64_t* order = net_.job.order;
    if (order) order += model_ * net_.models.order + chunk.first;
    for (int i = first_row(); i < chunk.rows; i += servers() * warp_size)
      if (order)
        copy_async<sizeof(int64_t)>(listed(buffer) + i, order + i);
      else
        listed(buffer)[i] = chunk.first + i;
  }

  __device__ void fetch(const Chunk& chunk, int buffer) const {
    const Train<T>& job = net_.job;
    const int rows = int(chunk.rows);
    const int stride = plan_.layers[0].in_stride;
    const int features = this->features();
    const unsigned row_bytes = features * sizeof(T);
    const bool copies_rows = this->copies_rows();
    const T* const x = this->x();
    if (copies_rows && first_row() == 0 && rows) announce(arrivals(), rows * row_bytes);
    for (int row = first_row(); row < rows; row += servers() * warp_size) {
      const int64_t from = fetch_targets(row, buffer);
      if (copies_rows)
        copy_row(at(plan_.x[buffer]) + row * stride, x + from * job.x_stride, row_bytes,
                 arrivals());
      else
        listed(buffer)[row] = from;
    }
    if (!copies_rows) {
      __syncwarp();
      for (int row = server(); row < rows; row += servers())
        copy_numbers(at(plan_.x[buffer]) + row * stride, x + listed(buffer)[row] * job.x_stride,
                     features);
    }
    if (rows && server() == 0 && lane() < numbers_a_step)
      copy_async<sizeof(T)>(at(plan_.step[buffer]) + lane(), net_.step_of(model_, chunk) + lane());
  }

  // Fetches y and the weight of a row, and returns where in x it is. One that does not exist is
  // taken to be the first, with a weight that makes the loss NaN.
  __device__ int64_t fetch_targets(int row, int buffer) const {
    const Train<T>& job = net_.job;
    const int targets = net_.targets;
    int64_t from = listed(buffer)[row];
    const bool exists = from >= 0 && from < net_.models.rows;
    if (!exists) from = 0;
    const T* y = job.y + model_ * net_.models.y + from * targets;
    for (int n = 0; n < targets; ++n)
      copy_async<sizeof(T)>(at(plan_.y[buffer]) + row * targets + n, y + n);
    T* weight = at(plan_.sample_weight[buffer]) + row;
    if (!exists)
      *weight = std::numeric_limits<T>::quiet_NaN();
    else if (job.sample_weight)
      copy_async<sizeof(T)>(weight, job.sample_weight + model_ * net_.models.sample_weight + from);
    else
      *weight = T(1);
    return from;
  }

  // A row by the lanes of a warp, in packs if it is aligned.
  __device__ void copy_numbers(T* to, const T* from, int count) const {
    const int packed = is_aligned(x(), net_.job.x_stride) ? count / pack<T> * pack<T> : 0;
    for (int k = lane() * pack<T>; k < packed; k += warp_size * pack<T>)
      copy_async<16>(to + k, from + k);
    for (int k = packed + lane(); k < count; k += warp_size)
      copy_async<sizeof(T)>(to + k, from + k);
  }

  // What a layer takes in: (rows, in_stride).
  __device__ const T* input(int l, int buffer) const {
    return at(l ? place_of(l - 1).out : plan_.x[buffer]);
  }

  // Rows that a warp takes at a time, so that it reads weights once; if there are no more, some are
  // the last.
  static constexpr int rows_at_once = clustered ? 1 : 2;  // one, if warps are more than rows
  struct Few {
    int row[rows_at_once];
  };

  template <class F>
  __device__ static void each_few(const Range& rows, const F& f) {
    const int begin = int(rows.begin), end = int(rows.end);
    for (int row = begin + rows_at_once * warp(); row < end; row += rows_at_once * train_warps) {
      Few few;
#pragma unroll
      for (int r = 0; r < rows_at_once; ++r) few.row[r] = std::min(row + r, end - 1);
      f(few);
    }
  }

  // a = activation(z + bias) of a few rows, given z(unit, their numbers).
  template <class Z>
  __device__ void put_out(int l, const Few& few, const Z& z) const {
    const LayerPlace& place = place_of(l);
    T* const out = at(place.out);
    for (int unit = lane(); unit < place.units; unit += warp_size) {
      const T bias = at(place.bias)[unit];
      T sums[rows_at_once] = {};
      z(unit, sums);
      with_activation(place.activation, [&](auto activation) {
#pragma unroll
        for (int r = 0; r < rows_at_once; ++r)
          out[few.row[r] * place.out_stride + unit] = activation.forward(bias + sums[r]);
      });
    }
    __syncwarp();
  }

  // grad_z = grad_out da/dz of a few rows, given grad_out(unit, their numbers).
  template <class Grad>
  __device__ void put_grad(int l, const Few& few, const Grad& grad_out) const {
    const LayerPlace& place = place_of(l);
    const T* const out = at(place.out);
    T* const grad = at(place.grad);
    for (int unit = lane(); unit < place.units; unit += warp_size) {
      T sums[rows_at_once] = {};
      grad_out(unit, sums);
      const int n = place.grad_place(unit);
      with_activation(place.activation, [&](auto activation) {
#pragma unroll
        for (int r = 0; r < rows_at_once; ++r)
          grad[few.row[r] * place.grad_stride + n] =
              activation.backward(sums[r], out[few.row[r] * place.out_stride + unit]);
      });
    }
    __syncwarp();
  }

  // The numbers of a column of a product, from its parts, whose rows begin with `first`: for
  // put_out and put_grad.
  __device__ auto parts_of(const Product& product, const Few& few, int first) const {
    return [this, &product, few, first](int column, T(&sums)[rows_at_once]) {
      const T* part[rows_at_once];
#pragma unroll
      for (int r = 0; r < rows_at_once; ++r)
        part[r] = at(plan_.parts) + place_of_part(product, few.row[r] - first, column);
      with_constant<1, train_warps>(product.splits, [&](auto splits) {
#pragma unroll
        for (int s = 0; s < splits; ++s)
#pragma unroll
          for (int r = 0; r < rows_at_once; ++r) sums[r] += *part[r], part[r] += product.split_size;
      });
    };
  }

  // 2. forward: a = activation(x @ weight.T + bias), layer by layer; the parts of the last product
  // are added up by who goes on with a row
  __device__ void forward(const Chunk& chunk, int buffer) const {
    for (int l = 0; l < plan_.wide_layers; ++l) {
      if (l > 0) {
        put_out_wide(l - 1, chunk);
        __syncthreads();
      }
      multiply_forward(l, l ? own_rows(chunk) : Range{0, chunk.rows}, buffer);
      __syncthreads();
      if (clustered && l == 0) {
        share_sums(chunk);
        sync_cluster();
      }
    }
  }

  __device__ void multiply_forward(int l, const Range& rows, int buffer) const {
    if (!has_any(rows)) return;
    const LayerPlace& place = place_of(l);
    const int stride = place.input_stride;
    const Rows<T> x{input(l, buffer) + rows.begin * stride, stride, int(rows.end - rows.begin)};
    multiply<typename OwnTiles::Forward>(
        place.forward, x, Along<T>{at(place.weight), place.in_stride}, place.units,
        l || clustered ? train_warps : first_warps, at(plan_.parts));
  }

  // Of the first layer, each block has a share of all sums: it gives each to the block of its row.
  __device__ void share_sums(const Chunk& chunk) const {
    const LayerPlace& place = place_of(0);
    const int each = plan_.own_rows.divisor, stride = place.share_stride;
    T* const shares = at(plan_.shares) + block() * each * stride;
    each_few({0, chunk.rows}, [&](const Few& few) {
      static_assert(rows_at_once == 1 || !clustered);
      const int block = plan_.own_rows.quotient(few.row[0]);
      T* const to = of_block(shares + (few.row[0] - block * each) * stride, block);
      const auto sums_of = parts_of(place.forward, few, 0);
      for (int unit = lane(); unit < place.units; unit += warp_size) {
        T sums[rows_at_once] = {};
        sums_of(unit, sums);
        to[unit] = sums[0];
      }
    });
  }

  // The numbers of a unit of the first layer, from the shares of all blocks.
  __device__ auto shares_of(const Few& few, int first) const {
    const int stride = place_of(0).share_stride;
    const T* share = at(plan_.shares) + (few.row[0] - first) * stride;
    const int apart = plan_.own_rows.divisor * stride;
    return [=, this](int unit, T(&sums)[rows_at_once]) {
#pragma unroll 4
      for (int block = 0; block < plan_.blocks; ++block) sums[0] += share[block * apart + unit];
    };
  }

  __device__ void put_out_wide(int l, const Chunk& chunk) const {
    each_few(own_rows(chunk), [&](const Few& few) { put_out_wide(l, chunk, few); });
  }
  __device__ void put_out_wide(int l, const Chunk& chunk, const Few& few) const {
    const int first = int(own_rows(chunk).begin);
    if constexpr (clustered)
      if (l == 0) return put_out(l, few, shares_of(few, first));
    put_out(l, few, parts_of(place_of(l).forward, few, first));
  }

  // Gives the other blocks what they need of our rows: what layers took in, and grad_z.
  __device__ void send_rows(const Chunk& chunk) const {
    const int packs = plan_.record_packs.divisor, others = (plan_.blocks - 1) * packs;
    each_few(own_rows(chunk), [&](const Few& few) {
      T* const record = at(plan_.records) + few.row[0] * packs * pack<T>;
      for (int i = lane(); i < others; i += warp_size) {
        const int block = plan_.record_packs.quotient(i), n = i - block * packs;
        T* const to = of_block(record + n * pack<T>, block + (block >= this->block()));
        *reinterpret_cast<Pack<T>*>(to) = load_pack(record + n * pack<T>);
      }
    });
  }

  // From the outputs of the last wide layer to their gradients.
  __device__ void go_through_rows(const Chunk& chunk, int buffer) const {
    const int wide = plan_.wide_layers;
    each_few(own_rows(chunk), [&](const Few& few) {
      if (wide > 0) put_out_wide(wide - 1, chunk, few);
      for (int l = wide; l <= last(); ++l) forward(l, few, input(l, buffer));
      measure(chunk, few, buffer);
      for (int l = last(); l >= wide && l > 0; --l) backward(l, few);
    });
  }

  __device__ void forward(int l, const Few& few, const T* input) const {
    const LayerPlace& place = place_of(l);
    const T* x[rows_at_once];
#pragma unroll
    for (int r = 0; r < rows_at_once; ++r) x[r] = input + few.row[r] * place.input_stride;
    if (place.units <= few_units) return forward_few(l, few, x);
    put_out(l, few, [&](int unit, T(&sums)[rows_at_once]) {
      const T* weight = at(place.weight) + unit * place.in_stride;
      in_packs(place.in_features, [&](int first, auto packs) {
#pragma unroll
        for (int k = first; k < first + packs * pack<T>; k += pack<T>) {
          const Pack<T> w = load_pack(weight + k);
#pragma unroll
          for (int r = 0; r < rows_at_once; ++r) {
            const Pack<T> a = load_pack(x[r] + k);
#pragma unroll
            for (int e = 0; e < pack<T>; ++e) sums[r] += a.values[e] * w.values[e];
          }
        }
      });
    });
  }

  // Calls f(first, how many) for the packs of so many numbers, some at a time.
  template <class F>
  __device__ static void in_packs(int count, const F& f) {
    constexpr int most = 2 * pack<T>;
    int first = 0, packs = (count + pack<T> - 1) / pack<T>;
    for (; packs > most; packs -= most, first += most * pack<T>)
      f(first, std::integral_constant<int, most>{});
    with_constant<1, most>(packs, [&](auto rest) { f(first, rest); });
  }

  // Few units leave lanes idle, so these share in_features out instead.
  static constexpr int few_units = 4;
  __device__ void forward_few(int l, const Few& few, const T* const (&x)[rows_at_once]) const {
    const LayerPlace& place = place_of(l);
    for (int unit = 0; unit < place.units; ++unit) {
      const T* weight = at(place.weight) + unit * place.in_stride;
      T sums[rows_at_once] = {};
      for (int k = lane(); k < place.in_features; k += warp_size)
#pragma unroll
        for (int r = 0; r < rows_at_once; ++r) sums[r] += x[r][k] * weight[k];
#pragma unroll
      for (int half = warp_size / 2; half > 0; half /= 2)
#pragma unroll
        for (int r = 0; r < rows_at_once; ++r) sums[r] += __shfl_xor_sync(~0u, sums[r], half);
      if (lane() < rows_at_once && (lane() == 0 || few.row[rows_at_once - 1] != few.row[0]))
        with_activation(place.activation, [&](auto activation) {
          T sum = sums[0];
          int row = few.row[0];
          if (lane() > 0) sum = sums[rows_at_once - 1], row = few.row[rows_at_once - 1];
          at(place.out)[row * place.out_stride + unit] =
              activation.forward(at(place.bias)[unit] + sum);
        });
    }
    __syncwarp();
  }

  // 3. loss, and its derivative with respect to what goes into the last activation
  __device__ void measure(const Chunk& chunk, const Few& few, int buffer) const {
    const Train<T>& job = net_.job;
    const LayerPlace& place = place_of(last());
    const int units = place.units;
    const T share = share_of_output<T>(job.loss, chunk.batch_rows(), units);
    const T delta = step_of(buffer).delta;
    T* kept = job.predictions;
    if (kept) kept += (model_ * job.samples + chunk.first) * units;
    const int first = few.row[0], second = few.row[rows_at_once - 1];
    const int count = first == second ? units : 2 * units;
    for (int i = lane(); i < count; i += warp_size) {
      const int unit = i < units ? i : i - units, row = i < units ? first : second;
      const T *const outputs = at(place.out) + row * place.out_stride, a = outputs[unit];
      const T scale = share * at(plan_.sample_weight[buffer])[row];
      T value{}, grad_out{};
      Losses::with(job.loss, [&](auto loss) {
        using Loss = decltype(loss);
        const Outputs<Loss, T> of_row{outputs, at(plan_.y[buffer]) + row * net_.targets, units,
                                      delta};
        const RowOf<Loss, T> seen(of_row);
        value = scale * loss.value(a, of_row.y(unit), seen);
        grad_out = scale * loss.gradient(a, of_row.y(unit), seen);
      });
      if (kept) kept[row * units + unit] = a;
      T* const put = at(plan_.values[buffer]) + row * units + unit;
      *(clustered ? of_block(put, 0) : put) = value;
      with_activation(place.activation, [&](auto activation) {
        at(place.grad)[row * place.grad_stride + place.grad_place(unit)] =
            activation.backward(grad_out, a);
      });
    }
    __syncwarp();
  }

  // Adds a chunk's part to the loss of its batch: one warp does.
  __device__ void report(int n) {
    if (server() != 0 || block() != 0) return;
    const Chunk& chunk = this->chunk(n);
    const T* values = at(plan_.values[n % 2]);
    // One lane alone reads the chunk: the same one will write the next into its place.
    const int rows = __shfl_sync(~0u, lane() == 0 ? int(chunk.rows) : 0, 0);
    const int count = rows * place_of(last()).units;
    T sum{};
    for (int i = lane(); i < count; i += warp_size) sum += values[i];
#pragma unroll
    for (int half = warp_size / 2; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
    if (lane() > 0) return;
    T& loss = net_.job.losses[model_ * net_.step_count + chunk.step];
    loss = chunk.is_first() ? sum : loss + sum;
  }

  // 4. backward: grad_z of each layer, from the last to the first
  __device__ void backward(const Chunk& chunk) const {
    const Range rows = own_rows(chunk);
    for (int l = plan_.wide_layers - 1; l > 0; --l) {
      const LayerPlace& place = place_of(l);
      __syncthreads();
      if (has_any(rows))
        multiply<typename OwnTiles::Backward>(
            place.backward,
            Rows<T>{at(place.grad) + rows.begin * place.grad_stride, place.grad_stride,
                    int(rows.end - rows.begin)},
            Across<T>{at(place.weight), place.in_stride}, place.in_features, train_warps,
            at(plan_.parts));
      __syncthreads();
      each_few(rows, [&](const Few& few) {
        put_grad(l - 1, few, parts_of(place.backward, few, int(rows.begin)));
      });
    }
  }

  __device__ void backward(int l, const Few& few) const {
    const LayerPlace& place = place_of(l);
    const T* grad[rows_at_once];
#pragma unroll
    for (int r = 0; r < rows_at_once; ++r)
      grad[r] = at(place.grad) + few.row[r] * place.grad_stride;
    put_grad(l - 1, few, [&](int feature, T(&sums)[rows_at_once]) {
      const T* weight = at(place.weight) + feature;
      in_packs(place.units, [&](int first, auto packs) {
#pragma unroll
        for (int n = first; n < first + packs * pack<T>; n += pack<T>) {
          Pack<T> g[rows_at_once];
#pragma unroll
          for (int r = 0; r < rows_at_once; ++r) g[r] = load_pack(grad[r] + n);
#pragma unroll
          for (int e = 0; e < pack<T>; ++e, weight += place.in_stride)
#pragma unroll
            for (int r = 0; r < rows_at_once; ++r) sums[r] += g[r].values[e] * *weight;
        }
      });
    });
  }

  // 5. update weight and bias: of all layers at once, since they wait for nothing
  __device__ void update(const Chunk& chunk, int buffer) const {
    const UpdateStep<T>& step = step_of(buffer);
    const int64_t own = clustered ? model_ * plan_.blocks + block() : model_;
    T* aside = net_.gradients + own * net_.gradient_size;
    int item = threadIdx.x;  // of a layer's; those of the next go to the threads after its last
    for (int l = 0; l <= last(); ++l) {
      const LayerPlace& place = place_of(l);
      OwnTiles::Gradient::with(place.tile, [&](auto tile) {
        for (; item < place.items; item += train_threads) {
          const int n = item / tile.lanes, down = place.tiles_across.quotient(n);
          const int across = n - down * place.tiles_across.divisor;
          update_weight<decltype(tile)>(l, place, chunk, step, aside, down * tile.units,
                                        across * pack<T>, input(l, buffer), n < place.tiles);
        }
      });
      item -= place.items;
      aside += place.units * place.in_features;
    }
    for (int l = 0; l <= last(); ++l) {
      const LayerPlace& place = place_of(l);
      for (; item < place.biases; item += train_threads)
        update_bias(l, place, chunk, step, aside, item);
      item -= place.biases;
      aside += place.biases;
    }
  }

  // grad_weight = grad_z.T @ x of a tile, and the step. The packs of a tile are as far apart as
  // there are tiles side by side, so that neighbouring lanes have neighbouring packs.
  template <class Tile>
  __device__ void update_weight(int l, const LayerPlace& place, const Chunk& chunk,
                                const UpdateStep<T>& step, T* aside, int first_unit,
                                int first_feature, const T* input, bool exists) const {
    const int in_features = place.in_features;
    Pack<T> sums[Tile::packs][Tile::units] = {};
    const T *grad = at(place.grad) + place.grad_place(first_unit), *x = input + first_feature;
    const int apart = place.tiles_across.divisor * pack<T>;
    const int second = first_feature + apart < in_features ? apart : 0;  // or the first once more
    const int rows = exists ? int(chunk.rows) : 0, own = lane() % Tile::lanes;
    add_gradient<Tile>(sums, grad + own * place.grad_stride, Tile::lanes * place.grad_stride,
                       x + own * place.input_stride, Tile::lanes * place.input_stride, second,
                       (rows - own + Tile::lanes - 1) / Tile::lanes);
    if constexpr (Tile::lanes > 1) {
      static_assert(Tile::packs == 1);
      constexpr int own_units = Tile::units / Tile::lanes;
      add_over_lanes<Tile::lanes>(sums[0]);
      first_unit += own * own_units;
      Pack<T>(&own_sums)[1][own_units] = reinterpret_cast<Pack<T>(&)[1][own_units]>(sums);
      if (exists)
        use_gradient(l, place, chunk, step, aside, first_unit, first_feature, 0, own_sums);
    } else {
      if (exists)
        use_gradient(l, place, chunk, step, aside, first_unit, first_feature, apart, sums);
    }
  }

  // Of the sums of some lanes side by side, the first lane gets the first few, the next the next.
  template <int lanes, int packs>
  __device__ static void add_over_lanes(Pack<T> (&sums)[packs]) {
    if constexpr (lanes > 1) {
      constexpr int half = packs / 2;
      const bool upper = lane() & lanes / 2;
#pragma unroll
      for (int i = 0; i < half; ++i)
#pragma unroll
        for (int e = 0; e < pack<T>; ++e) {
          T &low = sums[i].values[e], high = sums[i + half].values[e];
          const T theirs = __shfl_xor_sync(~0u, upper ? low : high, lanes / 2);
          low = (upper ? high : low) + theirs;
        }
      add_over_lanes<lanes / 2>(reinterpret_cast<Pack<T>(&)[half]>(sums));
    }
  }

  // The step, given the gradient of some units x some packs of features that far apart.
  template <int packs, int tile_units>
  __device__ void use_gradient(int l, const LayerPlace& place, const Chunk& chunk,
                               const UpdateStep<T>& step, T* aside, int first_unit,
                               int first_feature, int apart,
                               Pack<T> (&sums)[packs][tile_units]) const {
    const int in_features = place.in_features, units = place.units - first_unit;
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int feature = first_feature + p * apart, count = in_features - feature;
      if (count <= 0) return;
      T* put = aside + first_unit * in_features + feature;
      if (!(chunk.is_first() && chunk.is_last()) &&
          !add_aside(sums[p], units, put, in_features, count, chunk))
        continue;
      take_steps_of(l, place, step, first_unit, feature, count, sums[p]);
    }
  }

  // The step of a pack of features of some units, given their gradient.
  template <int tile_units>
  __device__ void take_steps_of(int l, const LayerPlace& place, const UpdateStep<T>& step,
                                int first_unit, int feature, int count,
                                const Pack<T> (&grad)[tile_units]) const {
    T* weight = at(place.weight) + first_unit * place.in_stride + feature;
    const int stride = keeps_slots() ? place.in_stride : place.in_features;  // of the slots
    Updates::with(net_.job.update, [&](auto rule) {
      T* slots[most_slots] = {};
      bool aligned = true;
#pragma unroll
      for (int s = 0; s < rule.slots; ++s) {
        slots[s] = weight_slot(l, s) + first_unit * stride + feature;
        aligned = aligned && is_aligned(slots[s], stride);
      }
#pragma unroll
      for (int n = 0; n < tile_units && first_unit + n < place.units; ++n)
        take_steps<decltype(rule)>(weight + n * place.in_stride, slots, n * stride, aligned,
                                   grad[n], count, step);
    });
  }

  // What the rule remembers of a layer's weights: beside them, or in the device's memory.
  __device__ T* weight_slot(int l, int s) const {
    return keeps_slots() ? at(place_of(l).weight_slots[s])
                         : net_.layers[l].weight_slots[s] + first_weight(l);
  }

  // grad_bias = grad_z.sum(0) of one unit, and the step.
  __device__ void update_bias(int l, const LayerPlace& place, const Chunk& chunk,
                              const UpdateStep<T>& step, T* aside, int unit) const {
    const T* grad = at(place.grad) + place.grad_place(unit);
    const int rows = int(chunk.rows);
    T sum{};
#pragma unroll 8
    for (int row = 0; row < rows; ++row) sum += grad[row * place.grad_stride];
    take_step_of_bias(net_.job.update, at(place.bias), unit, sum, aside, chunk, step, [&](int s) {
      return keeps_slots() ? at(place.bias_slots[s])
                           : net_.layers[l].bias_slots[s] + model_ * place.units;
    });
  }

  const Network<T, Plan>& net_;
  const Plan& plan_;
  const int64_t model_;
};

// Blocks take one model after the other, each by itself or all of a cluster together.
template <class T, bool clustered>
__device__ __forceinline__ void train_models(const Network<T, Plan>& net) {
  const int blocks = clustered ? net.plan.blocks : 1;
  for (int64_t model = blockIdx.x / blocks; model < net.models.count; model += gridDim.x / blocks) {
    Trainer<T, clustered>(net, model).train();
    __syncthreads();  // the next model takes the same memory
  }
}

template <class T>
__global__ void __launch_bounds__(train_threads, 1)
    train_kernel(const __grid_constant__ Network<T, Plan> net) {
  train_models<T, false>(net);
}

template <class T>
__global__ void __launch_bounds__(train_threads, 1)
    train_cluster_kernel([[maybe_unused]] const __grid_constant__ Network<T, Plan> net) {
  if constexpr (has_clusters) train_models<T, true>(net);
}

}  // namespace

int64_t shared_limit() { return most_shared_bytes_of_a_block(); }

// By what the kernel was compiled for: clusters take more than the device's being able to.
int64_t most_blocks() {
  cudaFuncAttributes attributes;
  check("cudaFuncGetAttributes", cudaFuncGetAttributes(&attributes, train_cluster_kernel<float>));
  return attributes.ptxVersion >= 90 ? cluster_blocks : 1;
}

template <class T>
int64_t workspace_size(const Train<T>& job, const Models& models, int64_t blocks) {
  return models.count * blocks * gradient_size(job) + step_numbers(job, models);
}

template <class T>
void train(const Train<T>& job, const Models& models, const Plan& plan, T* workspace,
           Stream stream) {
  const auto kernel = plan.blocks > 1 ? train_cluster_kernel<T> : train_kernel<T>;
  launch_steps("train", kernel, network_of(job, models, plan, workspace, stream), train_threads,
               stream);
}

#define TORCHNN_INSTANTIATE(T)                                              \
  template int64_t workspace_size(const Train<T>&, const Models&, int64_t); \
  template void train(const Train<T>&, const Models&, const Plan&, T*, Stream);
TORCHNN_INSTANTIATE(float)
#if !defined(TORCHNN_ONLY_FLOAT)  // tests compile sooner
TORCHNN_INSTANTIATE(double)
#endif
#undef TORCHNN_INSTANTIATE  // tests include all such files

}  // namespace torchnn::cuda
