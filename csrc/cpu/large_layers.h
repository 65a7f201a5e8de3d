// Networks of large layers in large batches: nearly all of their time is that of products, which
// are left to a library made for large matrices. What is between them goes layer by layer.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "memory.h"
#include "network.h"
#include "pace.h"
#include "simd/tile.h"
#include "team.h"

#ifndef TORCHNN_LARGE_PRODUCT  // tests have smaller ones
#define TORCHNN_LARGE_PRODUCT (1 << 25)
#define TORCHNN_LARGE_SIDE 256
#endif

namespace torchnn::cpu {

// Each layer's work is cut into pieces, each for one thread. How follows from the network and the
// batch alone, so that results do not depend on the number of threads.
template <class T>
class LargeLayers {
 public:
  explicit LargeLayers(const Train<T>& job)
      : job_(job),
        most_rows_(padded_(chunk_rows(job))),
        network_(job, padded_.odd_lines(most_rows_)),
        has_penalties_(job.has_penalties()) {
    const bool puts_gradients_aside = job.update != Updates::place<GradientDescent>() ||
                                      job.options.clips_norms() || job.batch_size > most_rows_;
    for (const Layer<T>& layer : layers())
      most_pieces_ =
          std::max({most_pieces_, outputs(layer.units, most_rows_).count(), weight(layer).count()});
    memory_.allocate(0, [&](Pieces<T>& memory) { take_memory(memory, puts_gradients_aside); });
    rows_.resize(most_rows_);
  }

  // For which networks this is faster: measured, docs/log.md. Such a call must be within parallel
  // if there are several threads, since the library would take all of them.
  static bool suits(const Train<T>& job) {
    const int64_t rows = chunk_rows(job);
    return job.add_product && rows >= library_rows &&
           std::any_of(job.layers, job.layers + job.layer_count,
                       [rows](auto& layer) { return is_large(layer, rows); });
  }

  int64_t most_threads() const { return std::min(job_.threads, most_pieces_); }

  void train(Team& team, Pace& pace) {
    memory_.clear();
    for (const Layer<T>& layer : layers()) layer.read();
    auto chunk_after = [&](const Chunk& chunk) {
      return torchnn::chunk_after(job_, chunk, most_rows_);
    };
    for (Work<T> work{chunk_after({})}; work.rows; work = {chunk_after(work)}) {
      work.loss = job_.losses + work.step;
      work.adds = !work.is_first(), work.takes_step = work.is_last();
      advance(team, pace.threads(team.size(), work.rows), work);
      take_snapshot(job_, layers(), work);
    }
    pace.end_call();
    for (const Layer<T>& layer : layers()) layer.write_to(layer);
  }

 private:
  static constexpr int64_t most_chunk_rows = 512;
  // In multiply-adds of floats, of all rows of a chunk: a double counts half. And the least number
  // of units and of features.
  static constexpr int64_t large_product = TORCHNN_LARGE_PRODUCT, large_side = TORCHNN_LARGE_SIDE;
  static constexpr int64_t library_rows = 64;  // for fewer, our own products are faster
  static constexpr int64_t most_units = 128, most_features = 512, least_rows = 32;  // of a piece
  static constexpr int64_t least_pieces = 4;

  // Those of a whole batch, whether there is one in this call or not.
  static int64_t chunk_rows(const Train<T>& job) {
    return std::min(job.batch_size, most_chunk_rows);
  }

  static bool is_large(const TrainLayer<T>& layer, int64_t rows) {
    return std::min(layer.in_features, layer.units) >= large_side &&
           layer.in_features * layer.units * rows >= large_product * int64_t(sizeof(T)) / 4;
  }

  bool is_for_library(const Layer<T>& layer, const Work<T>& work) const {
    return is_large(layer, most_rows_) && work.rows >= library_rows;
  }

  // The pieces of an array: even ones of its rows, and of its columns in steps of some.
  struct Grid {
    EvenTiles rows, columns;
    int64_t step;
    int64_t count() const { return rows.count * columns.count; }
    Range rows_of(int64_t piece) const { return range(rows, piece / columns.count, 1); }
    Range columns_of(int64_t piece) const { return range(columns, piece % columns.count, step); }

   private:
    static Range range(const EvenTiles& tiles, int64_t tile, int64_t step) {
      return {tiles.begin(tile) * step, tiles.begin(tile + 1) * step};
    }
  };

  // (units, rows): whole registers of rows
  Grid outputs(int64_t units, int64_t rows) const {
    const EvenTiles by_units(units, most_units);
    const int64_t parts = std::clamp<int64_t>(rows / least_rows, 1,
                                              std::max<int64_t>(least_pieces / by_units.count, 1));
    const int64_t registers = rows / padded_.lanes;
    return {by_units, EvenTiles(registers, (registers + parts - 1) / parts), padded_.lanes};
  }

  // (units, features)
  Grid weight(const Layer<T>& layer) const {
    return {EvenTiles(layer.units, most_units),
            EvenTiles(padded_(layer.in_features) / padded_.lanes, most_features / padded_.lanes),
            padded_.lanes};
  }

  void take_memory(Pieces<T>& memory, bool puts_gradients_aside) {
    Layer<T>& first = layers()[0];
    first.take_parameters(memory, puts_gradients_aside);
    first.take_inputs(memory, nullptr);
    if (turns_inputs()) first.x_t = memory.take(first.w.stride * network_.stride);
    network_.take_memory(memory, first, puts_gradients_aside);
    sums_ = memory.take(job_.threads * most_units * most_features);
    zeros_ = memory.take(first.w.stride);
    if (job_.input_dropout == 0) return;
    row_keys_ = reinterpret_cast<Key<T>*>(memory.take(network_.stride));
    feature_keys_ = reinterpret_cast<Key<T>*>(memory.take(first.w.stride));
  }

  // Whether any chunk of this call goes through the first layer without the library.
  bool turns_inputs() const {
    int64_t fewest = most_rows_;
    for (Chunk chunk = chunk_after(job_, {}, most_rows_); chunk.rows;
         chunk = chunk_after(job_, chunk, most_rows_))
      fewest = std::min(fewest, chunk.rows);
    Work<T> work;
    work.rows = fewest;
    return !is_for_library(layers()[0], work);
  }

  static void clear(T* values, int64_t rows, int64_t columns, int64_t stride) {
    for (int64_t i = 0; i < rows; ++i) std::fill_n(values + i * stride, columns, T(0));
  }

  // Calls f(part, i) for 0 <= i < count, shared out among the threads: i by part of them.
  template <class F>
  static void share(Team& team, int64_t threads, int64_t count, const F& f) {
    const int64_t parts = std::clamp<int64_t>(count, 1, threads);
    team.run(parts, [&](int64_t part) {
      for (int64_t i = count * part / parts; i < count * (part + 1) / parts; ++i) f(part, i);
    });
  }

  void advance(Team& team, int64_t threads, const Work<T>& work) {
    const int64_t rows = padded_(work.rows);
    const Grid by_rows = outputs(1, rows);
    const size_t last = layers().size() - 1;
    std::optional<UpdateStep<T>> step;
    if (work.takes_step) step = step_of(job_, work.step);
    const T penalty = step && has_penalties_ ? penalty_of(layers()) : T(0);
    // 1. rows of x, one behind the other
    list_rows(job_, work, zeros_, rows, rows_);
    make_input_keys(job_, work, row_keys_, feature_keys_);
    network_.make_keys(job_, work, 0, rows);
    share(team, threads, by_rows.count(),
          [&](int64_t, int64_t piece) { take_in(work, by_rows.columns_of(piece)); });
    // 2. forward: a = activation(x @ weight.T + bias), layer by layer
    for (Layer<T>& layer : layers()) {
      const Grid grid = outputs(layer.units, rows);
      share(team, threads, grid.count(), [&](int64_t, int64_t piece) {
        forward(layer, work, grid.rows_of(piece), grid.columns_of(piece));
      });
    }
    // 3. loss, its derivative, and grad_z of the last layer
    share(team, threads, by_rows.count(), [&](int64_t, int64_t piece) {
      const Range r = by_rows.columns_of(piece);
      if (job_.predictions) network_.store_predictions(job_, work, r.begin, r.end);
      network_.measure(job_, work, r.begin, r.end);
      layers()[last].backward_z(0, layers()[last].units, r.begin, r.end);
      for (size_t l = 1; l <= last; ++l)
        if (!is_for_library(layers()[l], work)) layers()[l].turn_inputs(r.begin, r.end);
    });
    // 4. backward: grad_z of each layer before
    for (size_t l = last; l > 0; --l) {
      const Grid grid = outputs(layers()[l].in_features, rows);
      share(team, threads, grid.count(), [&](int64_t, int64_t piece) {
        backward(layers()[l], layers()[l - 1], work, grid.rows_of(piece), grid.columns_of(piece));
      });
    }
    // 5. update weights and biases
    update(team, threads, work, step ? &*step : nullptr);
    T loss = (work.adds ? *work.loss : T(0)) + penalty;
    for (int64_t i = 0; i < work.rows; ++i) loss += network_.losses[i];
    *work.loss = loss;
  }

  void take_in(const Work<T>& work, Range rows) {
    const Layer<T>& first = layers()[0];
    for (int64_t i = rows.begin; i < rows.end; ++i)
      std::copy(rows_[i], rows_[i] + first.in_features, first.x + i * first.w.stride);
    T* const x = first.x + rows.begin * first.w.stride;
    if (job_.input_dropout > 0)
      drop(Dropping<T>(job_.input_dropout), row_keys_ + rows.begin, feature_keys_, x, rows.size(),
           first.in_features, first.w.stride);
    if (!is_for_library(first, work))
      transpose(rows.size(), padded_(first.in_features), StridedRows<T>{x, first.w.stride},
                first.x_t + rows.begin, network_.stride);
  }

  // The input of a layer for the library: (in_features, rows).
  Matrix<T> inputs(const Layer<T>& layer) const {
    if (&layer == &network_.layers[0]) return {layer.x, 1, layer.w.stride};
    return {layer.x_t, layer.stride, 1};
  }

  void forward(Layer<T>& layer, const Work<T>& work, Range units, Range rows) {
    if (is_for_library(layer, work)) {
      const Matrix<T> x = inputs(layer);
      T* const z = layer.out + units.begin * layer.stride + rows.begin;
      for (int64_t n = 0; n < units.size(); ++n)
        std::fill_n(z + n * layer.stride, rows.size(),
                    layer.bias ? layer.b.values[units.begin + n] : T(0));
      job_.add_product({.rows = units.size(),
                        .columns = rows.size(),
                        .depth = layer.in_features,
                        .a = {layer.w.values + units.begin * layer.w.stride, layer.w.stride, 1},
                        .b = {x.at(0, rows.begin), x.row_stride, x.column_stride},
                        .c = z,
                        .c_stride = layer.stride},
                       1);
    } else {
      layer.multiply_forward(units.begin, units.size(), rows.begin, rows.end);
    }
    layer.activate(units.begin, units.size(), rows.begin, rows.end);
  }

  // From grad_z of a layer to that of the one before, of some of its units.
  void backward(Layer<T>& layer, Layer<T>& before, const Work<T>& work, Range units, Range rows) {
    if (is_for_library(layer, work)) {
      T* const grad_out = before.grad_t + units.begin * layer.stride + rows.begin;
      clear(grad_out, units.size(), rows.size(), layer.stride);
      job_.add_product({.rows = units.size(),
                        .columns = rows.size(),
                        .depth = layer.units,
                        .a = {layer.w.values + units.begin, 1, layer.w.stride},
                        .b = {layer.grad_t + rows.begin, layer.stride, 1},
                        .c = grad_out,
                        .c_stride = layer.stride},
                       1);
    } else {
      layer.backward_x(before.grad_t, units.begin, units.size(), rows.begin, rows.end);
    }
    before.backward_z(units.begin, units.size(), rows.begin, rows.end);
  }

  // Where norms are clipped, all gradients must be there before the first step.
  void update(Team& team, int64_t threads, const Work<T>& work, const UpdateStep<T>* step) {
    const bool clips = step && job_.options.clips_norms();
    update_pieces(team, threads, work, clips ? nullptr : step);
    if (!clips) return;
    clip_norms(layers(), job_.options);
    Work<T> all;  // of the gradients that have been put aside, with no more rows
    all.adds = true;
    update_pieces(team, threads, all, step);
  }

  void update_pieces(Team& team, int64_t threads, const Work<T>& work, const UpdateStep<T>* step) {
    int64_t count = 0;
    for (const Layer<T>& layer : layers()) count += weight(layer).count();
    share(team, threads, count, [&](int64_t part, int64_t piece) {
      size_t l = 0;
      for (int64_t own; piece >= (own = weight(layers()[l]).count()); ++l) piece -= own;
      update_piece(layers()[l], work, step, piece, sums_ + part * most_units * most_features);
    });
  }

  void update_piece(const Layer<T>& layer, const Work<T>& work, const UpdateStep<T>* step,
                    int64_t piece, T* sums) const {
    const Grid grid = weight(layer);
    const LayerUpdate<T> job = layer.update(work, step, job_.update);
    if (!is_for_library(layer, work)) {
      const int64_t tiles = update_tile_count<T>(layer.units, job.in_features);
      return update_tiles(job, StridedRows<T>{layer.x, layer.w.stride},
                          tiles * piece / grid.count(), tiles * (piece + 1) / grid.count());
    }
    const Range units = grid.rows_of(piece), features = grid.columns_of(piece);
    const Matrix<T> x = inputs(layer);
    Product<T> gradient{.rows = units.size(),
                        .columns = features.size(),
                        .depth = work.rows,
                        .a = {layer.grad_t + units.begin * layer.stride, layer.stride, 1},
                        .b = {x.at(features.begin, 0), x.column_stride, x.row_stride},
                        .c = sums,
                        .c_stride = features.size()};
    const int64_t at = units.begin * layer.w.stride + features.begin;
    if (is_plain(job)) {
      gradient.c = layer.w.values + at, gradient.c_stride = layer.w.stride;
      job_.add_product(gradient, -step->learning_rate);
    } else {
      if (work.adds || !step)
        gradient.c = job.weight_gradient + at, gradient.c_stride = layer.w.stride;
      if (!work.adds) clear(gradient.c, units.size(), features.size(), gradient.c_stride);
      job_.add_product(gradient, 1);
      if (step) update_rectangle(job, units, features, gradient.c, gradient.c_stride);
    }
    if (piece == 0) update_bias(job);
  }

  std::vector<Layer<T>>& layers() { return network_.layers; }
  const std::vector<Layer<T>>& layers() const { return network_.layers; }

  const Train<T>& job_;
  const Padding<T> padded_;
  const int64_t most_rows_;  // of a chunk, in whole registers
  Network<T> network_;
  const bool has_penalties_;
  int64_t most_pieces_ = 1;
  Pieces<T> memory_;
  std::vector<const T*> rows_;  // where those of the chunk lie in x
  T* sums_;                     // (threads, most_units, most_features)
  T* zeros_;
  Key<T>*row_keys_ = nullptr, *feature_keys_ = nullptr;  // of what is dropped of x
};

}  // namespace torchnn::cpu
