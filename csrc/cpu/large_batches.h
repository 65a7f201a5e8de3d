// Large batches of small networks.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "layer.h"
#include "pace.h"
#include "team.h"

namespace torchnn::cpu {

// Large batches are cut into shares, each of some chunks and with a gradient of its own. A thread
// takes whole shares, so that threads meet twice a batch and not in every chunk.
template <class T, class Trainer>
class LargeBatches {
 public:
  explicit LargeBatches(const Train<T>& job) : job_(job), most_shares_(most_shares(job)) {
    const int64_t threads = std::min(job.threads, most_shares_);
    job_.threads = 1;  // each worker is one
    for (int64_t i = 0; i < threads; ++i)
      workers_.push_back({std::make_unique<Trainer>(job_, i ? 0 : most_shares_, i)});
    losses_.resize(most_shares_);
    layers_ = workers_[0].trainer->layers();
  }

  static bool suits(const Train<T>& job) {
    return job.batch_size > Trainer::chunk_rows && most_shares(job) > 1;
  }

  int64_t most_threads() const { return int64_t(workers_.size()); }

  void train(Team& team, Pace& pace) {
    workers_[0].trainer->read(), workers_[0].has_begun = true;
    auto batch_after = [&](const Chunk& chunk) {
      return chunk_after(job_, chunk, job_.batch_size);
    };
    for (Chunk batch = batch_after({}); batch.rows; batch = batch_after(batch)) {
      const int64_t shares = std::min(most_shares_, chunk_count(batch));
      const int64_t parts = std::min(shares, pace.threads(team.size(), batch.rows));
      team.run(parts, [&](int64_t part) {
        for (int64_t s = shares * part / parts; s < shares * (part + 1) / parts; ++s)
          add_share(worker(part), batch, s, shares);
        worker(part).advance({});
      });
      const UpdateStep<T> step = step_of(job_, batch.step);
      team.run(parts, [&](int64_t part) { update(shares, step, part, parts); });
      T& loss = job_.losses[batch.step] = 0;
      for (int64_t s = 0; s < shares; ++s) loss += losses_[s];
    }
    workers_[0].trainer->write_back();
  }

 private:
  struct Worker {
    std::unique_ptr<Trainer> trainer;
    bool has_begun = false;
  };

  // As many as there is room for in the second-level cache (measured: docs/log.md). It follows from
  // the network alone, since it decides in which order products are summed.
  static int64_t most_shares(const Train<T>& job) {
    int64_t weights = 0;
    for (int64_t l = 0; l < job.layer_count; ++l)
      weights += job.layers[l].in_features * job.layers[l].units;
    return weights <= 1 << 14 ? 8 : weights <= 1 << 16 ? 4 : 1;
  }

  static int64_t chunk_count(const Chunk& batch) {
    return (batch.rows + Trainer::chunk_rows - 1) / Trainer::chunk_rows;
  }

  // The chunks of one share: their gradients and losses are added up.
  void add_share(Trainer& worker, const Chunk& batch, int64_t share, int64_t shares) {
    const int64_t chunks = chunk_count(batch);
    const int64_t begin = chunks * share / shares, end = chunks * (share + 1) / shares;
    for (int64_t c = begin; c < end; ++c) {
      Work<T> work{batch};
      work.first = batch.begin + c * Trainer::chunk_rows;
      work.rows = std::min(Trainer::chunk_rows, batch.end - work.first);
      work.loss = &losses_[share], work.gradient = share;
      work.adds = c > begin, work.takes_step = false;
      worker.advance(work);
    }
  }

  // That of a thread, which comes late, or never: its memory is cleared there and then.
  Trainer& worker(int64_t part) {
    Worker& own = workers_[part];
    if (!own.has_begun) own.trainer->borrow(layers_), own.has_begun = true;
    return *own.trainer;
  }

  // The step that the gradients of all shares call for, in a part of the features of each layer.
  void update(int64_t shares, const UpdateStep<T>& step, int64_t part, int64_t parts) const {
    Work<T> all;
    all.adds = true;
    const int64_t width = block_features<T>();
    for (const Layer<T>& layer : layers_) {
      const int64_t features = Padding<T>()(layer.in_features);
      const int64_t blocks = update_tile_count<T>(1, features);
      const int64_t tiles = update_tile_count<T>(layer.units, width);  // of a block
      const int64_t begin = blocks * part / parts, end = blocks * (part + 1) / parts;
      layer.add_gradients(shares, begin * width, std::min(end * width, features));
      update_tiles(layer.update(all, &step, job_.update), StridedRows<T>{layer.x, layer.w.stride},
                   tiles * begin, tiles * end);
    }
  }

  Train<T> job_;
  std::vector<Worker> workers_;   // (threads)
  std::vector<Layer<T>> layers_;  // with the parameters of all workers
  const int64_t most_shares_;
  std::vector<T> losses_;  // (shares)
};

}  // namespace torchnn::cpu
