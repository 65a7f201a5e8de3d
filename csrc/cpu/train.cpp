// Whole-network training on the CPU. One step is what the course notes call back-propagation and
// gradient descent, for a batch at once; the numbered steps stand in Trainer.
#include "../train.h"

#include <atomic>
#include <new>
#include <optional>
#include <utility>

#include "large_batches.h"
#include "large_layers.h"
#include "network.h"
#include "threads.h"

namespace torchnn::cpu {
namespace {

// The number of slices follows from the network and the batch alone: it decides in which order
// products are summed, and results must not depend on the number of threads.
constexpr int64_t most_slices = 4;
constexpr int64_t products_a_slice = 1 << 15;
// Each slice leaves sums of its own for all units: with fewer features they cost more than it
// saves.
constexpr int64_t features_a_slice = 24;

// Columns of x that are turned at once, if there are as many: a multiple of all registers.
constexpr int64_t turned_features = 256;

// Of what lies beyond the first layer, in a chunk: up to here every thread does all of it for
// itself, since handing it over would take longer (measured: docs/log.md).
constexpr int64_t products_worth_sharing = 1 << 18;

// Threads meet as seldom as possible. The first layer, which has most of the weights in most
// networks, is cut into slices of input features, and a thread keeps its slices from step to step.
// Beyond it, what a thread does depends on the size of the rest of the network: a small one is
// replicated, and every thread goes through all of it; the work in a large one is shared.
//
// So the steps of two chunks overlap. A slice whose weights have just been updated, the last thing
// to do for a chunk, is in the cache: there and then the next chunk is multiplied with it, which is
// the first thing to do for that one. advance(next) finishes a chunk in this way and begins the
// next; a call that gives it none only finishes.
template <class T>
class Trainer {
 public:
  // Rows that go through the network at once: what they leave behind stays in the second-level
  // cache. In a large network it would not in any case, and more rows save ways through its
  // weights.
  static constexpr int64_t chunk_rows = 128, most_chunk_rows = 512;
  static constexpr int64_t many_weights = 1 << 18;

  // gradients: how many may be put aside, if that is not for the Trainer to say. place: its memory
  // among that of others in this thread.
  explicit Trainer(const Train<T>& job, int64_t gradients = 0, int64_t place = 0)
      : job_(job),
        chunk_rows_(weight_count(job) < many_weights ? chunk_rows : most_chunk_rows),
        most_rows_(padded_(std::min(job.batch_size, chunk_rows_))),
        stride_(padded_.odd_lines(most_rows_)),
        has_penalties_(job.has_penalties()) {
    const TrainLayer<T>& first = job.layers[0];
    blocks_ = update_tile_count<T>(1, padded_(first.in_features));
    slices_ =
        std::clamp<int64_t>(first.in_features * first.units * most_rows_ / products_a_slice, 1,
                            std::min({most_slices, blocks_,
                                      std::max<int64_t>(first.in_features / features_a_slice, 1)}));
    int64_t products = 0;
    for (int64_t l = 1; l < job.layer_count; ++l)
      products += 3 * job.layers[l].in_features * job.layers[l].units * most_rows_;
    is_replicated_ = products < products_worth_sharing;
    networks_.assign(is_replicated_ ? std::min(job.threads, slices_) : 1, {job, stride_});
    const bool puts_gradients_aside =
        job.update != Updates::place<GradientDescent>() || job.batch_size > chunk_rows_;
    gradients = std::max<int64_t>(gradients, puts_gradients_aside);
    memory_.allocate(place, [&](Pieces<T>& memory) { take_memory(memory, gradients); });
    now_.x.resize(most_rows_), next_.x.resize(most_rows_);
  }

  // As many as find work in every chunk.
  int64_t most_threads() const {
    return std::min(job_.threads, is_replicated_ ? slices_ : most_rows_ / padded_.lanes);
  }

  void train(Team& team, Pace& pace) {
    read();
    Work<T> work;
    do {  // behind the last chunk comes one without rows
      work = {chunk_after(job_, work, chunk_rows_)};
      work.loss = job_.losses + work.step;
      work.adds = !work.is_first(), work.takes_step = work.is_last();
      advance(team, pace, work);
      if (now_.work.rows) take_snapshot(job_, layers(), now_.work);
    } while (work.rows);
    pace.end_call();
    write_back();
  }

  // Comes first: takes the parameters in.
  void read() {
    memory_.clear();
    for (Layer<T>& layer : networks_[0].layers) layer.read();
  }

  void write_back() const {
    for (const Layer<T>& layer : layers()) layer.write_to(layer);
  }

  const std::vector<Layer<T>>& layers() const { return networks_[0].layers; }

  // The same, with parameters and gradients of another's layers for its own.
  void borrow(const std::vector<Layer<T>>& layers) {
    memory_.clear();
    for (size_t l = 0; l < layers.size(); ++l) networks_[0].layers[l].borrow(layers[l]);
  }

  // Finishes a chunk, steps 2 to 5, and begins the next one, step 1.
  void advance(Team& team, Pace& pace, const Work<T>& next) {
    std::swap(now_, next_);
    begin(next);
    // Going by rows reads all of the first layer, and is too little work to share.
    const int64_t threads = now_.work.by_rows ? 1 : pace.threads(team.size(), now_.work.rows);
    step_.reset();
    if (now_.work.rows && now_.work.takes_step) step_ = step_of(job_, now_.work.step);
    const T penalty = step_ && has_penalties_ ? penalty_of(layers()) : T(0);
    if (is_replicated_)
      advance_replicas(team, threads);
    else
      advance_together(team, threads);
    if (now_.work.rows) add_loss(penalty);
  }

  void advance(const Work<T>& next) {
    Team alone(1);
    Pace pace;
    advance(alone, pace, next);
  }

  // What a row comes to depends on batch_size alone, not on the rows beside it.
  void predict() {
    is_predicting_ = true;
    read();
    for (int64_t first = 0; first < job_.samples; first += most_rows_) {
      Work<T> work;
      work.first = first, work.rows = std::min(most_rows_, job_.samples - first);
      begin(work);
      for (int64_t slice = 0; slice < slices_; ++slice) take_in(slice, 0);
      std::swap(now_, next_);
      forward(networks_[0], 0, padded_(work.rows));
      networks_[0].store_predictions(job_, work, 0, work.rows);
    }
  }

 private:
  // A chunk on its way: what step 1 leaves for those that follow.
  struct Begun {
    Work<T> work;
    std::vector<const T*> x;  // where its rows lie
    T* products;              // (slices, units, rows) of the first layer
  };

  void take_memory(Pieces<T>& memory, int64_t gradients) {
    Layer<T>& first = networks_[0].layers[0];
    first.take_parameters(memory, gradients);
    first.take_inputs(memory, nullptr);
    for (Network<T>& network : networks_) network.take_memory(memory, first, gradients);
    now_.products = memory.take(slices_ * first.b.stride * stride_);
    next_.products = memory.take(slices_ * first.b.stride * stride_);
    turned_features_ = std::min(turned_features, first.w.stride);
    turned_ = memory.take(std::min(job_.threads, slices_) * turned_features_ * stride_);
    zeros_ = memory.take(first.w.stride);
    if (job_.input_dropout == 0) return;
    row_keys_ = reinterpret_cast<Key<T>*>(memory.take(stride_));
    feature_keys_ = reinterpret_cast<Key<T>*>(memory.take(first.w.stride));
  }

  void begin(const Work<T>& work) {
    next_.work = work;
    next_.work.by_rows = 2 * (is_predicting_ ? job_.batch_size : work.rows) <= padded_.lanes;
    list_rows(job_, work, zeros_, padded_(work.rows), next_.x);
    make_input_keys(job_, work, row_keys_, feature_keys_);
  }

  // Every thread takes all rows through the rest of the network, in a replica of its own.
  void advance_replicas(Team& team, int64_t threads) {
    const int64_t parts = std::min(threads, slices_);
    refresh_replicas(parts);
    team.run(parts, [&](int64_t part) {
      back_propagate(networks_[part], 0, padded_(now_.work.rows));
      update_rest(networks_[part], 0, 1);
      turn_slices(networks_[part], part, parts);
    });
  }

  // Threads share the rows of the chunk, and then the weights.
  void advance_together(Team& team, int64_t threads) {
    const int64_t registers = padded_(now_.work.rows) / padded_.lanes;
    const int64_t row_parts = std::clamp<int64_t>(registers, 1, threads);
    team.run(row_parts, [&](int64_t part) {
      back_propagate(networks_[0], registers * part / row_parts * padded_.lanes,
                     registers * (part + 1) / row_parts * padded_.lanes);
    });
    const int64_t parts = std::min(threads, slices_);
    team.run(parts, [&](int64_t part) {
      update_rest(networks_[0], part, parts);
      turn_slices(networks_[0], part, parts);
    });
  }

  // A thread that joins, or joins again, begins with the parameters of the first.
  void refresh_replicas(int64_t parts) {
    for (; fresh_ < parts; ++fresh_) networks_[fresh_].copy_parameters(networks_[0]);
    fresh_ = parts;
  }

  // Where two chunks meet: the last step of this one, and the first of the next.
  void turn_slices(const Network<T>& network, int64_t part, int64_t parts) {
    for (int64_t s = slices_ * part / parts; s < slices_ * (part + 1) / parts; ++s) {
      if (now_.work.rows) update_slice(network, s);
      if (next_.work.rows) take_in(s, part);
    }
  }

  int64_t first_block(int64_t slice) const { return blocks_ * slice / slices_; }

  // Rows of x are read where they lie if they are whole registers and nothing of them is dropped,
  // and copied if not.
  bool is_copied() const {
    const bool is_whole = job_.x_is_padded || job_.layers[0].in_features % padded_.lanes == 0;
    return !is_whole || job_.input_dropout > 0;
  }

  // 1. a slice of the first layer: its part of bias + x @ weight.T. The thread that does this part
  // of the work turns some columns of x at a time, into memory of its own that stays in the cache.
  void take_in(int64_t slice, int64_t part) {
    const Layer<T>& layer = networks_[0].layers[0];
    const int64_t width = block_features<T>(), rows = padded_(next_.work.rows);
    const int64_t begin = first_block(slice) * width;
    const int64_t end = std::min(first_block(slice + 1) * width, layer.in_features);
    const T* const* x = next_.x.data();
    if (is_copied())
      for (int64_t i = 0; i < rows; ++i)
        std::copy(x[i] + begin, x[i] + end, layer.x + i * layer.w.stride + begin);
    if (job_.input_dropout > 0 && begin < end)
      drop(Dropping<T>(job_.input_dropout), row_keys_, feature_keys_ + begin, layer.x + begin, rows,
           end - begin, layer.w.stride);
    if (next_.work.by_rows) return;
    T* turned = turned_ + part * turned_features_ * stride_;
    for (int64_t k = begin; k < end; k += turned_features) {
      const int64_t depth = std::min(turned_features, end - k);
      if (is_copied())
        transpose(rows, padded_(depth), StridedRows<T>{layer.x + k, layer.w.stride}, turned,
                  stride_);
      else
        transpose(rows, depth, ListedRows<T>{x, k}, turned, stride_);
      multiply(SmallProduct<T>{.rows = layer.units,
                               .columns = rows,
                               .depth = depth,
                               .a = layer.w.values + k,
                               .a_stride = layer.w.stride,
                               .a_step = 1,
                               .b = turned,
                               .b_stride = stride_,
                               .bias = layer.bias && slice == 0 ? layer.b.values : nullptr,
                               .c = next_.products + slice * layer.b.stride * stride_,
                               .c_stride = stride_,
                               .adds = k > begin});
    }
  }

  void back_propagate(Network<T>& network, int64_t begin, int64_t end) {
    if (begin == end) return;
    // 2. forward: a = activation(x @ weight.T + bias), layer by layer
    network.make_keys(job_, now_.work, begin, end);
    forward(network, begin, end);
    const bool is_leading = !is_replicated_ || &network == &networks_[0];
    if (job_.predictions && is_leading) network.store_predictions(job_, now_.work, begin, end);
    // 3. loss, and its derivative with respect to the outputs
    network.measure(job_, now_.work, begin, end);
    // 4. backward: grad_z of each layer, from the last to the first
    if (now_.work.by_rows)
      network.backward_by_rows(now_.work.rows);
    else
      network.backward(begin, end);
  }

  void forward(Network<T>& network, int64_t begin, int64_t end) {
    if (now_.work.by_rows)
      return network.forward_by_rows(now_.work.rows, is_copied() ? nullptr : now_.x.data());
    Layer<T>& first = network.layers[0];
    first.by_units([&](int64_t unit, int64_t count) {
      const int64_t at = unit * stride_ + begin;
      add_up(slices_, first.b.stride * stride_, count, end - begin, stride_, now_.products + at,
             first.out + at);
      first.activate(unit, count, begin, end);
    });
    network.forward(begin, end);
  }

  // 5. update weight and bias: of the layers beyond the first, and of a slice of that
  void update_rest(const Network<T>& network, int64_t part, int64_t parts) const {
    if (now_.work.rows) network.update(job_, now_.work, step(), part, parts);
  }

  void update_slice(const Network<T>& network, int64_t slice) const {
    const Layer<T>& layer = network.layers[0];
    const int64_t tiles = update_tile_count<T>(layer.units, block_features<T>());  // of a block
    const int64_t begin = tiles * first_block(slice), end = tiles * first_block(slice + 1);
    LayerUpdate<T> job = layer.update(now_.work, step(), job_.update);
    job.next_x = next_.x.data(), job.next_rows = next_.work.rows;
    if (is_copied())
      update_tiles(job, StridedRows<T>{layer.x, layer.w.stride}, begin, end);
    else
      update_tiles(job, ListedRows<T>{now_.x.data()}, begin, end);
  }

  const UpdateStep<T>* step() const { return step_ ? &*step_ : nullptr; }

  void add_loss(T penalty) {
    const Work<T>& work = now_.work;
    T loss = (work.adds ? *work.loss : T(0)) + penalty;
    for (int64_t i = 0; i < work.rows; ++i) loss += networks_[0].losses[i];
    *work.loss = loss;
  }

  const Train<T>& job_;
  const Padding<T> padded_;
  const int64_t chunk_rows_;
  const int64_t most_rows_;  // of a chunk, in whole registers
  const int64_t stride_;     // between the features of a chunk
  const bool has_penalties_;
  int64_t blocks_, slices_;  // of the first layer's features
  bool is_replicated_, is_predicting_ = false;
  std::vector<Network<T>> networks_;  // replicas, or one; their first layer's parameters are one
  int64_t fresh_ = 1;                 // replicas whose parameters are those of the first
  Pieces<T> memory_;
  int64_t turned_features_;
  T* turned_;  // (as many as share the slices, turned_features_, stride_)
  T* zeros_;
  Key<T>*row_keys_ = nullptr, *feature_keys_ = nullptr;  // of what the next chunk drops of x
  Begun now_, next_;
  std::optional<UpdateStep<T>> step_;  // that this chunk completes
};

// Calls f.template operator()<Engine>() with the one that suits the job.
template <class T, class F>
void with_engine(const Train<T>& job, const F& f) {
  if (LargeLayers<T>::suits(job))
    f.template operator()<LargeLayers<T>>();
  else if (LargeBatches<T, Trainer<T>>::suits(job))
    f.template operator()<LargeBatches<T, Trainer<T>>>();
  else
    f.template operator()<Trainer<T>>();
}

// A call that is over before a helper has woken up.
template <class T>
bool is_short(const Train<T>& job, int64_t models) {
  constexpr double products_of_short_calls = 1e7;  // some 200 us
  return !LargeLayers<T>::suits(job) &&
         3 * double(weight_count(job)) * double(job.samples) * double(models) <
             products_of_short_calls;
}

template <class T>
void train_one(Train<T> job) {
  if (is_short(job, 1)) job.threads = 1;
  with_engine(job, [&]<class Engine>() { train_with<Engine>(job); });
}

// The job on rows of x that begin where cache lines do, and are padded to whole registers: a
// register that lies in two lines takes twice as long to load. They are copied, into `memory`, if
// each of them is read often and they do not lie so already; where there is no memory, x stays as
// it is.
template <class T>
Train<T> on_aligned_rows(Train<T> job, const Models& models, Scratch<T>& memory) {
  constexpr int64_t often = 8, most_bytes = int64_t(1) << 28;
  const int64_t features = job.layers[0].in_features, line = 64 / int64_t(sizeof(T));
  const Padding<T> padded;
  const int64_t stride = padded.odd_lines(features);
  const bool is_aligned = reinterpret_cast<uintptr_t>(job.x) % 64 == 0 && job.x_stride % line == 0;
  if (models.x || models.rows == 0 || LargeLayers<T>::suits(job) ||
      (is_aligned && features % padded.lanes == 0) ||
      double(job.samples) * double(models.count) < double(often) * double(models.rows) ||
      double(models.rows) * double(stride) * sizeof(T) > double(most_bytes))
    return job;
  T* rows;
  try {
    rows = memory.get(models.rows * stride);
  } catch (const std::bad_alloc&) {
    return job;
  }
  for (int64_t i = 0; i < models.rows; ++i) {
    const T* from = job.x + i * job.x_stride;
    std::fill(std::copy(from, from + features, rows + i * stride), rows + (i + 1) * stride, T(0));
  }
  job.x = rows, job.x_stride = stride, job.x_is_padded = true;
  return job;
}

// Takes the memory that this thread needs for any of the models; it stays the thread's.
template <class T>
void reserve(Train<T> job) {
  job.threads = 1;
  with_engine(job, [&]<class Engine>() { Engine engine(job); });
}

template <class T>
bool can_reserve(const Train<T>& job) {
  try {
    reserve(job);
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

}  // namespace

template <class T>
void train(const Train<T>& given, const Models& models) {
  if (given.samples == 0) return;
  Scratch<T> rows;
  const Train<T> job = on_aligned_rows(given, models, rows);
  std::vector<TrainLayer<T>> layers;
  if (models.count == 1) return train_one(model_of(job, models, 0, layers));
  reserve(job);  // so that what can fail does so before any model has changed
  std::atomic<int64_t> next = 0;
  auto train_models = [&](std::vector<TrainLayer<T>> layers) {  // whoever is free takes the next
    for (int64_t m; (m = next++) < models.count;) {
      Train<T> model = model_of(job, models, m, layers);
      model.threads = 1;
      train_one(model);
    }
  };
  const int64_t threads = is_short(job, models.count) ? 1 : std::min(job.threads, models.count);
  if (threads > 1)
    run_parallel(job, threads, [&](int64_t) {  // for whom there is no memory leaves it to others
      if (can_reserve(job)) train_models({});
    });
  train_models(layers);
}

template <class T>
void predict(const Train<T>& job) {
  const FlushSubnormals flush;
  Trainer<T>(job).predict();
}

template void train(const Train<float>&, const Models&);
template void train(const Train<double>&, const Models&);
template void predict(const Train<float>&);
template void predict(const Train<double>&);

}  // namespace torchnn::cpu
