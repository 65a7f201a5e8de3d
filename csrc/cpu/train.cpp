// Whole-network training on the CPU. One step is what the course notes call back-propagation and
// gradient descent, for a batch at once; the numbered steps stand in Trainer.
//
// Threads meet as seldom as possible. The first layer, which has most of the weights in most
// networks, is cut into slices of input features, and a thread keeps its slices from step to step.
// Beyond it, what a thread does depends on the size of the rest of the network.
#include "../train.h"

#include <atomic>
#include <memory>
#include <utility>

#include "network.h"
#include "team.h"

namespace torchnn::cpu {
namespace {

// Rows that go through the network at once: what they leave behind stays in the second-level cache.
constexpr int64_t chunk_rows = 128;

// The number of slices follows from the network and the batch alone: it decides in which order
// products are summed, and results must not depend on the number of threads.
constexpr int64_t most_slices = 4;
constexpr int64_t products_a_slice = 1 << 15;

// Of what lies beyond the first layer, in a chunk: up to here every thread does all of it for
// itself, since handing it over would take longer (measured: docs/log.md).
constexpr int64_t products_worth_sharing = 1 << 18;

template <class T>
UpdateStep<T> make_step(const Train<T>& job, int64_t i) {
  return {job.options, job.learning_rates[i], (job.steps_before ? *job.steps_before : 0) + i + 1};
}

template <class T>
void count_step(const Train<T>& job) {
  std::atomic_ref<int64_t>(*job.steps_done).fetch_add(1, std::memory_order_relaxed);
}

template <class T>
class Trainer {
 public:
  // gradients: how many may be put aside, if that is not for the Trainer to say.
  explicit Trainer(const Train<T>& job, int64_t gradients = 0) : job_(job) {
    int64_t slot_count = 0;
    Updates::with(job.update, [&](auto rule) { slot_count = decltype(rule)::slots; });
    const bool puts_gradients_aside =
        job.update != Updates::place<GradientDescent>() || job.batch_size > chunk_rows;
    gradients_ = std::max<int64_t>(gradients, puts_gradients_aside);
    stride_ = padded_(std::min({job.batch_size, job.samples, chunk_rows}));
    const TrainLayer<T>& first = job.layers[0];
    blocks_ = update_tile_count<T>(1, padded_(first.in_features));
    slices_ = std::clamp<int64_t>(first.in_features * first.units * stride_ / products_a_slice, 1,
                                  std::min(most_slices, blocks_));
    int64_t products = 0;
    for (int64_t l = 1; l < job.layer_count; ++l)
      products += 3 * job.layers[l].in_features * job.layers[l].units * stride_;
    is_replicated_ = products < products_worth_sharing;
    replicas_.resize(is_replicated_ ? std::min(job.threads, slices_) : 1);
    for (Replica& replica : replicas_)
      for (int64_t l = 0; l < job.layer_count; ++l)
        replica.layers.emplace_back(job.layers[l], slot_count, stride_);
    memory_.allocate([&](Pieces<T>& memory) { take_memory(memory); });
    rows_.resize(2 * stride_);
    x_ = rows_.data(), x_before_ = x_ + stride_;
    for (Layer<T>& layer : replicas_[0].layers) layer.read();
  }

  // As many as find work in every chunk.
  int64_t most_threads(int64_t threads) const {
    return std::min(threads, is_replicated_ ? slices_ : stride_ / padded_.lanes);
  }

  void train(Team& team, Pace& pace) {
    for (int64_t begin = 0, end, step = 0; begin < job_.samples; begin = end, ++step) {
      const int64_t end_of_epoch = (begin / job_.epoch_size + 1) * job_.epoch_size;
      end = std::min({begin + job_.batch_size, end_of_epoch, job_.samples});
      for (int64_t first = begin; first < end; first += chunk_rows) {
        const Chunk<T> chunk{.step = step,
                             .first = first,
                             .rows = std::min(chunk_rows, end - first),
                             .share = T(1) / T(end - begin),
                             .loss = job_.losses + step,
                             .is_first = first == begin,
                             .is_last = first + chunk_rows >= end};
        advance(team, pace, chunk);
      }
    }
    advance(team, pace, Chunk<T>());
    write_back();
  }

  void write_back() {
    for (Layer<T>& layer : replicas_[0].layers) layer.write_back();
  }

  const std::vector<Layer<T>>& layers() const { return replicas_[0].layers; }

  // Takes parameters and gradients of another's layers for its own.
  void borrow(const std::vector<Layer<T>>& layers) {
    for (size_t l = 0; l < layers.size(); ++l) replicas_[0].layers[l].borrow(layers[l]);
  }

  // Finishes a chunk, all but its first layer's product, and begins the next one with that.
  void advance(Team& team, Pace& pace, const Chunk<T>& chunk) {
    const Chunk<T> before = std::exchange(before_, chunk);
    list_rows(chunk);
    std::swap(products_, products_before_);
    // Going by rows reads all of the first layer, and is too little work to share.
    const int64_t threads = goes_by_rows(before) ? 1 : pace.threads(team.size(), before.rows);
    const int64_t parts = std::min(threads, slices_);
    const int64_t registers = padded_(before.rows) / padded_.lanes;
    const UpdateStep<T> step = make_step(job_, before.step);
    if (is_replicated_) {
      refresh_replicas(parts);
      team.run(parts, [&](int64_t part) {
        back_propagate(replicas_[part], before, 0, registers);
        update(replicas_[part], before, step, 0, 1);
        run_slices(replicas_[part], before, step, chunk, part, parts);
      });
    } else {
      const int64_t row_parts = std::clamp<int64_t>(registers, 1, threads);
      team.run(row_parts, [&](int64_t part) {
        back_propagate(replicas_[0], before, registers * part / row_parts,
                       registers * (part + 1) / row_parts);
      });
      team.run(parts, [&](int64_t part) {
        update(replicas_[0], before, step, part, parts);
        run_slices(replicas_[0], before, step, chunk, part, parts);
      });
    }
    if (before.rows) report(before);
  }

  void advance(const Chunk<T>& chunk) {
    Team alone(1);
    Pace pace;
    advance(alone, pace, chunk);
  }

  void predict() {
    for (int64_t begin = 0; begin < job_.samples; begin += stride_) {
      const Chunk<T> chunk{.first = begin, .rows = std::min(stride_, job_.samples - begin)};
      list_rows(chunk);
      for (int64_t slice = 0; slice < slices_; ++slice) take_in(chunk, slice);
      std::swap(products_, products_before_);
      if (goes_by_rows(chunk))
        forward_by_rows(replicas_[0], chunk, x_);
      else
        forward(replicas_[0], 0, padded_(chunk.rows));
      store_predictions(replicas_[0], chunk, 0, chunk.rows);
    }
  }

 private:
  // The network as a thread sees it. The parameters of the first layer, and its input, are the same
  // in all.
  struct Replica {
    std::vector<Layer<T>> layers;
    T* outputs;  // (rows, units) of the last layer, for a chunk that goes by rows
    T *targets, *scales, *losses;
  };

  void take_memory(Pieces<T>& memory) {
    Layer<T>& shared = replicas_[0].layers[0];
    shared.take_parameters(memory, gradients_);
    shared.take_inputs(memory, nullptr);
    for (Replica& replica : replicas_) {
      for (size_t l = 0; l < replica.layers.size(); ++l) {
        Layer<T>& layer = replica.layers[l];
        if (l == 0) {
          layer = shared;
        } else {
          layer.take_parameters(memory, gradients_);
          layer.take_inputs(memory, replica.layers[l - 1].out);
        }
        layer.take_outputs(memory);
      }
      replica.outputs = memory.take(padded_.lanes * replica.layers.back().b.stride);
      replica.targets = memory.take(replica.layers.back().units * stride_);
      replica.scales = memory.take(stride_);
      replica.losses = memory.take(stride_);
    }
    products_ = memory.take(slices_ * shared.b.stride * stride_);
    products_before_ = memory.take(slices_ * shared.b.stride * stride_);
    zeros_ = memory.take(shared.w.stride);
  }

  int64_t row_of(int64_t i) const { return job_.order ? job_.order[i] : i; }

  // Notes where the rows of a chunk lie; those that fill the last register up are zeros.
  void list_rows(const Chunk<T>& chunk) {
    std::swap(x_, x_before_);
    for (int64_t i = 0; i < padded_(chunk.rows); ++i)
      x_[i] = i < chunk.rows ? job_.x + row_of(chunk.first + i) * job_.x_stride : zeros_;
  }

  // A thread that joins, or joins again, begins with the parameters of the first.
  void refresh_replicas(int64_t parts) {
    for (; fresh_ < parts; ++fresh_)
      for (size_t l = 1; l < replicas_[0].layers.size(); ++l)
        replicas_[fresh_].layers[l].copy_parameters(replicas_[0].layers[l]);
    fresh_ = parts;
  }

  void report(const Chunk<T>& chunk) {
    const T* losses = replicas_[0].losses;
    T loss = chunk.is_first ? T(0) : *chunk.loss;
    for (int64_t i = 0; i < chunk.rows; ++i) loss += losses[i];
    *chunk.loss = loss;
    if (chunk.is_last) count_step(job_);
  }

  void run_slices(Replica& replica, const Chunk<T>& before, const UpdateStep<T>& step,
                  const Chunk<T>& chunk, int64_t part, int64_t parts) {
    for (int64_t s = slices_ * part / parts; s < slices_ * (part + 1) / parts; ++s) {
      if (before.rows) update_slice(replica, before, step, s, chunk.rows);
      if (chunk.rows) take_in(chunk, s);
    }
  }

  int64_t first_block(int64_t slice) const { return blocks_ * slice / slices_; }

  // Rows of x are read where they lie if they are whole registers, and copied if not.
  bool is_copied() const { return job_.layers[0].in_features % padded_.lanes != 0; }

  // A register of the batch holds so few rows that dot products, along the features, are faster.
  bool goes_by_rows(const Chunk<T>& chunk) const { return 2 * chunk.rows <= padded_.lanes; }

  // 1. a slice of the first layer: its part of bias + x @ weight.T
  void take_in(const Chunk<T>& chunk, int64_t slice) {
    const Layer<T>& layer = replicas_[0].layers[0];
    const int64_t width = block_features<T>(), rows = padded_(chunk.rows);
    const int64_t begin = first_block(slice) * width;
    const int64_t end = std::min(first_block(slice + 1) * width, layer.in_features);
    T* x_t = layer.x_t + begin * stride_;
    if (is_copied())
      for (int64_t i = 0; i < rows; ++i)
        std::copy(x_[i] + begin, x_[i] + end, layer.x + i * layer.w.stride + begin);
    if (goes_by_rows(chunk)) return;
    if (is_copied())
      transpose(rows, padded_(end - begin), StridedRows<T>{layer.x + begin, layer.w.stride}, x_t,
                stride_);
    else
      transpose(rows, end - begin, ListedRows<T>{x_, begin}, x_t, stride_);
    multiply(SmallProduct<T>{.rows = layer.units,
                             .columns = rows,
                             .depth = end - begin,
                             .a = layer.w.values + begin,
                             .a_stride = layer.w.stride,
                             .a_step = 1,
                             .b = x_t,
                             .b_stride = stride_,
                             .bias = layer.bias && slice == 0 ? layer.b.values : nullptr,
                             .c = products_ + slice * layer.b.stride * stride_,
                             .c_stride = stride_});
  }

  void back_propagate(Replica& replica, const Chunk<T>& chunk, int64_t begin, int64_t end) {
    begin *= padded_.lanes, end *= padded_.lanes;
    if (begin == end) return;
    if (goes_by_rows(chunk))
      forward_by_rows(replica, chunk, x_before_);
    else
      forward(replica, begin, end);
    const bool is_leading = !is_replicated_ || &replica == &replicas_[0];
    if (job_.predictions && is_leading)
      store_predictions(replica, chunk, begin, std::min(end, chunk.rows));
    measure(replica, chunk, begin, end);
    if (goes_by_rows(chunk))
      backward_by_rows(replica, chunk);
    else
      backward(replica, begin, end);
  }

  // 2. forward: a = activation(x @ weight.T + bias), layer by layer
  void forward(Replica& replica, int64_t begin, int64_t end) {
    Layer<T>& first = replica.layers[0];
    add_up(slices_, first.b.stride * stride_, first.units, end - begin, stride_,
           products_before_ + begin, first.out + begin);
    first.activate(begin, end);
    for (size_t l = 1; l < replica.layers.size(); ++l) {
      replica.layers[l].multiply_forward(begin, end);
      replica.layers[l].activate(begin, end);
    }
  }

  void forward_by_rows(Replica& replica, const Chunk<T>& chunk, const T* const* x) {
    std::vector<Layer<T>>& layers = replica.layers;
    for (size_t l = 0; l < layers.size(); ++l) {
      const bool is_last = l + 1 == layers.size();
      T* to = is_last ? replica.outputs : layers[l + 1].x;
      const int64_t to_stride = is_last ? layers[l].b.stride : layers[l + 1].w.stride;
      if (l == 0 && !is_copied())
        layers[l].forward_by_rows(chunk.rows, ListedRows<T>{x}, to, to_stride);
      else
        layers[l].forward_by_rows(chunk.rows, StridedRows<T>{layers[l].x, layers[l].w.stride}, to,
                                  to_stride);
    }
    const Layer<T>& last = layers.back();
    transpose(padded_.lanes, last.b.stride, StridedRows<T>{replica.outputs, last.b.stride},
              last.out, stride_);
  }

  void store_predictions(const Replica& replica, const Chunk<T>& chunk, int64_t begin,
                         int64_t end) {
    const Layer<T>& last = replica.layers.back();
    for (int64_t i = begin; i < end; ++i)
      for (int64_t n = 0; n < last.units; ++n)
        job_.predictions[(chunk.first + i) * last.units + n] = last.out[n * stride_ + i];
  }

  // 3. loss, and its derivative with respect to the outputs
  void measure(Replica& replica, const Chunk<T>& chunk, int64_t begin, int64_t end) {
    const Layer<T>& last = replica.layers.back();
    std::fill(replica.scales + begin, replica.scales + end, T(0));  // of rows that are none
    for (int64_t i = begin; i < std::min(end, chunk.rows); ++i) {
      const int64_t row = row_of(chunk.first + i);
      const T share = chunk.share / T(last.units);
      replica.scales[i] = job_.sample_weight ? share * job_.sample_weight[row] : share;
      for (int64_t n = 0; n < last.units; ++n)
        replica.targets[n * stride_ + i] = job_.y[row * last.units + n];
    }
    measure_loss(LossOfOutputs<T>{.units = last.units,
                                  .columns = end - begin,
                                  .stride = stride_,
                                  .out = last.out + begin,
                                  .targets = replica.targets + begin,
                                  .scales = replica.scales + begin,
                                  .grad = last.grad_t + begin,
                                  .values = replica.losses + begin,
                                  .loss = job_.loss});
  }

  // 4. backward: grad_z of each layer, from the last to the first
  void backward(Replica& replica, int64_t begin, int64_t end) {
    for (size_t l = replica.layers.size() - 1; l > 0; --l) {
      replica.layers[l].backward_z(begin, end);
      replica.layers[l].turn_inputs(begin, end);
      replica.layers[l].backward_x(replica.layers[l - 1].grad_t, begin, end);
    }
    replica.layers[0].backward_z(begin, end);
  }

  void backward_by_rows(Replica& replica, const Chunk<T>& chunk) {
    replica.layers.back().backward_z(0, padded_.lanes);
    for (size_t l = replica.layers.size() - 1; l > 0; --l)
      replica.layers[l].backward_by_rows(chunk.rows, replica.layers[l - 1]);
  }

  // 5. update weight and bias
  void update(Replica& replica, const Chunk<T>& chunk, const UpdateStep<T>& step, int64_t part,
              int64_t parts) {
    for (size_t l = 1; l < replica.layers.size() && chunk.rows; ++l) {
      const Layer<T>& layer = replica.layers[l];
      const int64_t tiles = update_tile_count<T>(layer.units, padded_(layer.in_features));
      update_tiles(layer.update(chunk, step, job_.update), StridedRows<T>{layer.x, layer.w.stride},
                   tiles * part / parts, tiles * (part + 1) / parts);
    }
  }

  void update_slice(Replica& replica, const Chunk<T>& chunk, const UpdateStep<T>& step,
                    int64_t slice, int64_t next_rows) {
    const Layer<T>& layer = replica.layers[0];
    const int64_t tiles = update_tile_count<T>(layer.units, block_features<T>());  // of a block
    const int64_t begin = tiles * first_block(slice), end = tiles * first_block(slice + 1);
    LayerUpdate<T> job = layer.update(chunk, step, job_.update);
    job.next_x = x_, job.next_rows = next_rows;
    if (is_copied())
      update_tiles(job, StridedRows<T>{layer.x, layer.w.stride}, begin, end);
    else
      update_tiles(job, ListedRows<T>{x_before_}, begin, end);
  }

  const Train<T>& job_;
  const Padding<T> padded_;
  int64_t stride_;           // between the features of a chunk: its rows, in whole registers
  int64_t blocks_, slices_;  // of the first layer's features
  bool is_replicated_;
  Chunk<T> before_;    // in work
  int64_t gradients_;  // that may be put aside
  int64_t fresh_ = 1;  // replicas whose parameters are those of the first
  std::vector<Replica> replicas_;
  Pieces<T> memory_;
  T *products_, *products_before_;  // (slices, units, rows) of the first layer
  T* zeros_;
  std::vector<const T*> rows_;
  const T **x_, **x_before_;  // where the rows of this chunk lie, and those of the one before
};

// Large batches of small networks are cut into shares, each of some chunks and with a gradient of
// its own. A thread takes whole shares, so that threads meet twice a batch and not in every chunk.
template <class T>
class LargeBatches {
 public:
  explicit LargeBatches(const Train<T>& job) : job_(job), most_shares_(most_shares(job)) {
    job_.threads = 1;  // each worker is one
    workers_.resize(most_shares_), losses_.resize(most_shares_);
    workers_[0] = std::make_unique<Trainer<T>>(job_, most_shares_);
    network_ = workers_[0]->layers();
  }

  static bool suits(const Train<T>& job) {
    return std::min({job.batch_size, job.epoch_size, job.samples}) > chunk_rows &&
           most_shares(job) > 1;
  }

  int64_t most_threads(int64_t threads) const { return std::min(threads, most_shares_); }

  void train(Team& team, Pace& pace) {
    for (int64_t begin = 0, end, step = 0; begin < job_.samples; begin = end, ++step) {
      const int64_t end_of_epoch = (begin / job_.epoch_size + 1) * job_.epoch_size;
      end = std::min({begin + job_.batch_size, end_of_epoch, job_.samples});
      take_step(team, pace, step, begin, end);
    }
    workers_[0]->write_back();
  }

 private:
  // As many as there is room for in the second-level cache (measured: docs/log.md). It follows from
  // the network alone, since it decides in which order products are summed.
  static int64_t most_shares(const Train<T>& job) {
    int64_t weights = 0;
    for (int64_t l = 0; l < job.layer_count; ++l)
      weights += job.layers[l].in_features * job.layers[l].units;
    return weights <= 1 << 14 ? 8 : weights <= 1 << 16 ? 4 : 1;
  }

  void take_step(Team& team, Pace& pace, int64_t number, int64_t begin, int64_t end) {
    const int64_t chunks = (end - begin + chunk_rows - 1) / chunk_rows;
    const int64_t shares = std::min(most_shares_, chunks);
    const int64_t parts = std::min(shares, pace.threads(team.size(), end - begin));
    team.run(parts, [&](int64_t part) {
      for (int64_t s = shares * part / parts; s < shares * (part + 1) / parts; ++s)
        for (int64_t c = chunks * s / shares; c < chunks * (s + 1) / shares; ++c)
          worker(part).advance({.step = number,
                                .first = begin + c * chunk_rows,
                                .rows = std::min(chunk_rows, end - begin - c * chunk_rows),
                                .share = T(1) / T(end - begin),
                                .loss = &losses_[s],
                                .gradient = s,
                                .is_first = c == chunks * s / shares,
                                .is_last = false});
      worker(part).advance({});
    });
    const UpdateStep<T> step = make_step(job_, number);
    team.run(parts, [&](int64_t part) { update(shares, step, part, parts); });
    T& loss = job_.losses[number] = 0;
    for (int64_t s = 0; s < shares; ++s) loss += losses_[s];
    count_step(job_);
  }

  // That of a thread, in memory of that thread.
  Trainer<T>& worker(int64_t part) {
    if (!workers_[part]) {
      workers_[part] = std::make_unique<Trainer<T>>(job_);
      workers_[part]->borrow(network_);
    }
    return *workers_[part];
  }

  // The step that the gradients of all shares call for, in a part of the features of each layer.
  void update(int64_t shares, const UpdateStep<T>& step, int64_t part, int64_t parts) const {
    const Chunk<T> all{.is_first = false};
    const int64_t width = block_features<T>();
    for (const Layer<T>& layer : network_) {
      const int64_t features = Padding<T>()(layer.in_features);
      const int64_t blocks = update_tile_count<T>(1, features);
      const int64_t tiles = update_tile_count<T>(layer.units, width);  // of a block
      const int64_t begin = blocks * part / parts, end = blocks * (part + 1) / parts;
      layer.add_gradients(shares, begin * width, std::min(end * width, features));
      update_tiles(layer.update(all, step, job_.update), StridedRows<T>{layer.x, layer.w.stride},
                   tiles * begin, tiles * end);
    }
  }

  Train<T> job_;
  std::vector<std::unique_ptr<Trainer<T>>> workers_;  // (threads), each made when it is needed
  std::vector<Layer<T>> network_;                     // with the parameters of all workers
  const int64_t most_shares_;
  std::vector<T> losses_;  // (shares)
};

// What the clock has said of such a network is kept for this thread's next call.
template <class T>
Pace& pace_of(const Train<T>& job) {
  thread_local Pace pace;
  thread_local std::vector<int64_t> measured;
  std::vector<int64_t> sizes{job.batch_size, job.layers[0].in_features};
  for (int64_t l = 0; l < job.layer_count; ++l) sizes.push_back(job.layers[l].units);
  if (sizes != measured) pace = Pace(), measured = sizes;
  pace.interrupt();
  return pace;
}

// A call that is over before a helper has woken up.
template <class T>
bool is_short(const Train<T>& job) {
  constexpr double products_of_short_calls = 1e7;  // some 200 us
  double products = 0;
  for (int64_t l = 0; l < job.layer_count; ++l)
    products += 3 * double(job.layers[l].in_features * job.layers[l].units);
  return products * double(job.samples) < products_of_short_calls;
}

template <class Engine, class T>
void train_with(const Train<T>& job) {
  Engine trainer(job);
  const int64_t threads = is_short(job) ? 1 : trainer.most_threads(job.threads);
  Team team(threads);
  Pace& pace = pace_of(job);
  if (threads == 1) return trainer.train(team, pace);
  auto part = [&](int64_t i) {
    if (i > 0) return team.help(i);
    trainer.train(team, pace);
    team.close();
  };
  job.parallel(
      threads, [](void* context, int64_t i) { (*static_cast<decltype(part)*>(context))(i); },
      &part);
}

}  // namespace

template <class T>
void train(const Train<T>& job) {
  if (job.samples == 0) return;
  if (LargeBatches<T>::suits(job))
    train_with<LargeBatches<T>>(job);
  else
    train_with<Trainer<T>>(job);
}

template <class T>
void predict(const Train<T>& job) {
  Trainer<T>(job).predict();
}

template void train(const Train<float>&);
template void train(const Train<double>&);
template void predict(const Train<float>&);
template void predict(const Train<double>&);

}  // namespace torchnn::cpu
