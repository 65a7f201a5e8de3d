// A network of dense layers as one thread sees it, and the steps of back-propagation through it:
// for rows begin ... end - 1 of a chunk, whole registers of them, or for a chunk so short that it
// goes row by row.
#pragma once

#include <algorithm>
#include <vector>

#include "../math/loss.h"
#include "layer.h"
#include "measure.h"

namespace torchnn::cpu {

template <class T>
struct Network {
  std::vector<Layer<T>> layers;
  int64_t stride;  // between the features of a chunk
  Padding<T> padded;
  T* outputs = nullptr;  // (lanes, units) of the last layer, for a chunk that goes by rows
  T* targets = nullptr;  // (units of the last layer, stride)
  T* scales = nullptr;   // (stride): what the loss of each row counts for
  T* losses = nullptr;   // (stride)

  Network(const Train<T>& job, int64_t stride) : stride(stride) {
    int64_t slot_count = 0;
    Updates::with(job.update, [&](auto rule) { slot_count = decltype(rule)::slots; });
    for (int64_t l = 0; l < job.layer_count; ++l)
      layers.emplace_back(job.layers[l], slot_count, stride);
  }

  // shared: a first layer whose parameters and input are this network's, too. gradients: how many
  // may be put aside.
  void take_memory(Pieces<T>& memory, const Layer<T>& shared, int64_t gradients) {
    for (size_t l = 0; l < layers.size(); ++l) {
      if (l == 0) {
        layers[l] = shared;
      } else {
        layers[l].take_parameters(memory, gradients);
        layers[l].take_inputs(memory, layers[l - 1].out);
      }
      layers[l].take_outputs(memory);
    }
    outputs = memory.take(padded.lanes * layers.back().b.stride);
    targets = memory.take(layers.back().units * stride);
    scales = memory.take(stride);
    losses = memory.take(stride);
  }

  // The keys of what is dropped of a chunk's rows.
  void make_keys(const Train<T>& job, const Work<T>& work, int64_t begin, int64_t end) {
    for (Layer<T>& layer : layers) layer.make_keys(work, step_number(job, work.step), begin, end);
  }

  // Layer by layer, from the second on.
  void forward(int64_t begin, int64_t end) {
    for (size_t l = 1; l < layers.size(); ++l)
      layers[l].by_units([&](int64_t unit, int64_t count) {
        layers[l].multiply_forward(unit, count, begin, end);
        layers[l].activate(unit, count, begin, end);
      });
  }

  // x: the input, or null where the first layer has it.
  void forward_by_rows(int64_t rows, const T* const* x) {
    for (size_t l = 0; l < layers.size(); ++l) {
      const bool is_last = l + 1 == layers.size();
      T* to = is_last ? outputs : layers[l + 1].x;
      const int64_t to_stride = is_last ? layers[l].b.stride : layers[l + 1].w.stride;
      if (l == 0 && x)
        layers[l].forward_by_rows(rows, ListedRows<T>{x}, to, to_stride);
      else
        layers[l].forward_by_rows(rows, StridedRows<T>{layers[l].x, layers[l].w.stride}, to,
                                  to_stride);
    }
    const Layer<T>& last = layers.back();
    auto turn = [&](const T* from, T* to) {
      transpose(padded.lanes, last.b.stride, StridedRows<T>{from, last.b.stride}, to, stride);
    };
    turn(outputs, last.out);
    if (last.kept) turn(last.kept_rows, last.kept);
  }

  void store_predictions(const Train<T>& job, const Chunk& chunk, int64_t begin,
                         int64_t end) const {
    const Layer<T>& last = layers.back();
    for (int64_t i = begin; i < std::min(end, chunk.rows); ++i)
      for (int64_t n = 0; n < last.units; ++n)
        job.predictions[(chunk.first + i) * last.units + n] = last.out[n * stride + i];
  }

  // The loss of each row, in losses, and grad_out of the last layer.
  void measure(const Train<T>& job, const Chunk& chunk, int64_t begin, int64_t end) {
    const Layer<T>& last = layers.back();
    const T share =
        share_of_output<T>(job.loss, counted_rows(job.loss, job.y, job.order, chunk), last.units);
    const int64_t target_count = torchnn::target_count(job.loss, last.units);
    std::fill(scales + begin, scales + end, T(0));  // of rows that are none
    for (int64_t i = begin; i < std::min(end, chunk.rows); ++i) {
      const int64_t row = row_of(job.order, chunk.first + i);
      scales[i] = job.sample_weight ? share * job.sample_weight[row] : share;
      for (int64_t n = 0; n < target_count; ++n)
        targets[n * stride + i] = job.y[row * target_count + n];
    }
    measure_loss(LossOfOutputs<T>{.units = last.units,
                                  .columns = end - begin,
                                  .stride = stride,
                                  .out = last.out + begin,
                                  .targets = targets + begin,
                                  .scales = scales + begin,
                                  .grad = last.grad_t + begin,
                                  .values = losses + begin,
                                  .loss = job.loss,
                                  .delta = T(job.options.delta)});
  }

  // From grad_out of the last layer to grad_z of all, and their inputs by rows.
  void backward(int64_t begin, int64_t end) {
    layers.back().backward_z(0, layers.back().units, begin, end);
    for (size_t l = layers.size() - 1; l > 0; --l) {
      Layer<T>& before = layers[l - 1];
      layers[l].turn_inputs(begin, end);
      before.by_units([&](int64_t unit, int64_t count) {
        layers[l].backward_x(before.grad_t, unit, count, begin, end);
        before.backward_z(unit, count, begin, end);
      });
    }
  }

  void backward_by_rows(int64_t rows) {
    layers.back().backward_z(0, layers.back().units, 0, padded.lanes);
    layers.back().turn_gradients();
    for (size_t l = layers.size() - 1; l > 0; --l) layers[l].backward_by_rows(rows, layers[l - 1]);
  }

  // A part of the weights of each layer but the first.
  void update(const Train<T>& job, const Work<T>& work, const UpdateStep<T>* step, int64_t part,
              int64_t parts) const {
    for (size_t l = 1; l < layers.size(); ++l) {
      const Layer<T>& layer = layers[l];
      const int64_t tiles = update_tile_count<T>(layer.units, padded(layer.in_features));
      update_tiles(layer.update(work, step, job.update), StridedRows<T>{layer.x, layer.w.stride},
                   tiles * part / parts, tiles * (part + 1) / parts);
    }
  }

  void copy_parameters(const Network& from) {
    for (size_t l = 1; l < layers.size(); ++l) layers[l].copy_parameters(from.layers[l]);
  }
};

}  // namespace torchnn::cpu
