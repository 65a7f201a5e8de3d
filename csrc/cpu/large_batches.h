// Large batches of small networks, and gradients whose norms are clipped.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "../dense.h"
#include "layer.h"
#include "pace.h"
#include "team.h"

namespace torchnn::cpu {

// Large batches are cut into shares, each of some chunks and with a gradient of its own. A thread
// takes whole shares, so that threads meet twice a batch and not in every chunk. Where a norm is
// clipped, all gradients must be there before the first step, as they are here, of any batch.
template <class T, class Trainer>
class LargeBatches {
 public:
  explicit LargeBatches(const Train<T>& job)
      : job_(job), most_shares_(std::min(most_shares(job), chunk_count(job.batch_size))) {
    const int64_t threads = std::min(job.threads, most_shares_);
    job_.threads = 1;  // each worker is one
    for (int64_t i = 0; i < threads; ++i)
      workers_.push_back({std::make_unique<Trainer>(job_, i ? 0 : most_shares_, i)});
    losses_.resize(most_shares_);
    layers_ = workers_[0].trainer->layers();
  }

  static bool suits(const Train<T>& job) {
    const bool is_large = job.batch_size > Trainer::chunk_rows && most_shares(job) > 1;
    return is_large || job.options.clips_norms();
  }

  int64_t most_threads() const { return int64_t(workers_.size()); }

  void train(Team& team, Pace& pace) {
    workers_[0].trainer->read(), workers_[0].has_begun = true;
    auto batch_after = [&](const Chunk& chunk) {
      return chunk_after(job_, chunk, job_.batch_size);
    };
    for (Chunk batch = batch_after({}); batch.rows; batch = batch_after(batch)) {
      const int64_t shares = std::min(most_shares_, chunk_count(batch.rows));
      const int64_t parts = std::min(shares, pace.threads(team.size(), batch.rows));
      team.run(parts, [&](int64_t part) {
        for (int64_t s = shares * part / parts; s < shares * (part + 1) / parts; ++s)
          add_share(worker(part), batch, s, shares);
        worker(part).advance({});
      });
      T& loss = job_.losses[batch.step] = penalty_of(layers_);
      for (int64_t s = 0; s < shares; ++s) loss += losses_[s];
      update(team, step_of(job_, batch.step), shares, parts);
      take_snapshot(job_, layers_, batch);
    }
    pace.end_call();
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
    const int64_t weights = weight_count(job);
    return weights <= 1 << 14 ? 8 : weights <= 1 << 16 ? 4 : 1;
  }

  static int64_t chunk_count(int64_t rows) {
    return (rows + Trainer::chunk_rows - 1) / Trainer::chunk_rows;
  }

  // The chunks of one share: their gradients and losses are added up.
  void add_share(Trainer& worker, const Chunk& batch, int64_t share, int64_t shares) {
    const int64_t chunks = chunk_count(batch.rows);
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

  // The step that the gradients of all shares call for.
  void update(Team& team, const UpdateStep<T>& step, int64_t shares, int64_t parts) {
    if (!job_.options.clips_norms())
      return team.run(parts, [&](int64_t part) {
        add_up_shares(shares, part, parts);
        take_steps(step, part, parts);
      });
    team.run(parts, [&](int64_t part) { add_up_shares(shares, part, parts); });
    clip_norms(layers_, job_.options);
    team.run(parts, [&](int64_t part) { take_steps(step, part, parts); });
  }

  // A part of the features of each layer: the first of some blocks, and the last.
  static Range part_of(const Layer<T>& layer, int64_t part, int64_t parts) {
    const int64_t blocks = update_tile_count<T>(1, Padding<T>()(layer.in_features));
    return {blocks * part / parts, blocks * (part + 1) / parts};
  }

  void add_up_shares(int64_t shares, int64_t part, int64_t parts) const {
    const int64_t width = block_features<T>();
    for (const Layer<T>& layer : layers_) {
      const Range blocks = part_of(layer, part, parts);
      layer.add_gradients(shares, blocks.begin * width,
                          std::min(blocks.end * width, Padding<T>()(layer.in_features)));
    }
  }

  void take_steps(const UpdateStep<T>& step, int64_t part, int64_t parts) const {
    Work<T> all;
    all.adds = true;
    for (const Layer<T>& layer : layers_) {
      const Range blocks = part_of(layer, part, parts);
      const int64_t tiles = update_tile_count<T>(layer.units, block_features<T>());  // of a block
      update_tiles(layer.update(all, &step, job_.update), StridedRows<T>{layer.x, layer.w.stride},
                   tiles * blocks.begin, tiles * blocks.end);
    }
  }

  Train<T> job_;
  std::vector<Worker> workers_;   // (threads)
  std::vector<Layer<T>> layers_;  // with the parameters of all workers
  const int64_t most_shares_;
  std::vector<T> losses_;  // (shares)
};

}  // namespace torchnn::cpu
