// A dense layer as the training engine keeps it: weights padded to whole registers, and what the
// rows of a chunk leave behind on their way through.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "elementwise.h"
#include "layer_update.h"
#include "memory.h"
#include "small_products.h"
#include "work.h"

namespace torchnn::cpu {

// The keys of what is dropped, in the step of that number, of some rows of a chunk and of the first
// columns.
template <class T>
void make_keys(int64_t seed, int64_t step, const Chunk& chunk, Range rows, Key<T>* row_keys,
               int64_t columns, Key<T>* column_keys) {
  const uint32_t key = step_key(seed, step);
  const int64_t first = chunk.first - chunk.begin;  // of the batch's rows
  for (int64_t i = rows.begin; i < rows.end; ++i) row_keys[i] = row_key(key, first + i);
  for (int64_t k = 0; k < columns; ++k) column_keys[k] = unit_key(k);
}

// The same of the features of x.
template <class T>
void make_input_keys(const Train<T>& job, const Chunk& chunk, Key<T>* row_keys,
                     Key<T>* feature_keys) {
  if (job.input_dropout > 0)
    make_keys<T>(job.input_seed, step_number(job, chunk.step), chunk, {0, chunk.rows}, row_keys,
                 job.layers[0].in_features, feature_keys);
}

// Where the rows of x lie that a chunk consists of. Those that fill the last register up are zeros.
template <class T>
void list_rows(const Train<T>& job, const Chunk& chunk, const T* zeros, int64_t padded_rows,
               std::vector<const T*>& rows) {
  for (int64_t i = 0; i < padded_rows; ++i)
    rows[i] = i < chunk.rows ? job.x + row_of(job.order, chunk.first + i) * job.x_stride : zeros;
}

template <class T>
struct Layer : TrainLayer<T> {
  ActivationCalls<T> calls;
  int64_t slot_count;
  Parameter<T> w, b;
  T *weight_gradient, *bias_gradient;  // (gradients) like w and b
  T* x_t;  // (in_features, rows): the output of the layer before; the first layer has none
  T* x;    // (rows, w.stride): the input
  T* out;  // (units, rows)
  // What the derivative is computed from, if that is not out: z, or what has been dropped since;
  // and the same of a few rows, (lanes, b.stride).
  T *kept = nullptr, *kept_rows = nullptr;
  Key<T>*row_keys = nullptr, *unit_keys = nullptr;  // (rows), (b.stride): of what is dropped
  T* grad_t;                                        // (units, rows): grad_z
  T* grad;                                          // (lanes, b.stride): the same of a few rows
  int64_t stride;  // between the features in x_t, out and grad_t: all rows of a chunk

  Layer(const TrainLayer<T>& layer, int64_t slot_count, int64_t stride)
      : TrainLayer<T>(layer),
        calls(activation_calls<T>(layer.activation)),
        slot_count(slot_count),
        stride(stride) {}

  // gradients: how many may be put aside.
  void take_parameters(Pieces<T>& memory, int64_t gradients) {
    const Padding<T> padded;
    const int64_t in_stride = padded.odd_lines(this->in_features),
                  out_stride = padded.odd_lines(this->units);
    const int64_t size = this->units * in_stride;
    w = {memory.take(size), {}, in_stride, this->weight_penalty};
    b = {memory.take(out_stride), {}, out_stride, this->bias ? this->bias_penalty : Penalty<T>{}};
    for (int64_t s = 0; s < slot_count; ++s) {
      w.slots[s] = memory.take(size);
      b.slots[s] = memory.take(out_stride);
    }
    weight_gradient = gradients ? memory.take(gradients * size) : nullptr;
    bias_gradient = memory.take(std::max<int64_t>(gradients, 1) * out_stride);
  }

  void take_inputs(Pieces<T>& memory, T* outputs_before) {
    x = memory.take(stride * w.stride);
    x_t = outputs_before;
  }

  void take_outputs(Pieces<T>& memory) {
    out = memory.take(b.stride * stride);
    grad_t = memory.take(b.stride * stride);
    grad = memory.take(Padding<T>().lanes * b.stride);
    if (keeps_more()) {
      kept = memory.take(b.stride * stride);
      kept_rows = memory.take(Padding<T>().lanes * b.stride);
    }
    if (this->dropout > 0) {
      row_keys = reinterpret_cast<Key<T>*>(memory.take(stride));
      unit_keys = reinterpret_cast<Key<T>*>(memory.take(b.stride));
    }
  }

  bool keeps_more() const { return calls.keeps_z || this->dropout > 0; }

  // Calls copy(an array of user's, rows, columns, ours, our stride) for all there is to remember.
  template <class Copy>
  void each_parameter(const TrainLayer<T>& user, const Copy& copy) const {
    copy(user.weight, user.units, user.in_features, w.values, w.stride);
    if (user.bias) copy(user.bias, 1, user.units, b.values, b.stride);
    for (int64_t s = 0; s < slot_count; ++s) {
      copy(user.weight_slots[s], user.units, user.in_features, w.slots[s], w.stride);
      if (user.bias) copy(user.bias_slots[s], 1, user.units, b.slots[s], b.stride);
    }
  }

  void read() const {
    each_parameter(*this, [](const T* user, int64_t rows, int64_t columns, T* own, int64_t stride) {
      for (int64_t i = 0; i < rows; ++i)
        std::copy(user + i * columns, user + (i + 1) * columns, own + i * stride);
    });
  }

  void write_to(const TrainLayer<T>& user) const {
    each_parameter(user, [](T* user, int64_t rows, int64_t columns, const T* own, int64_t stride) {
      for (int64_t i = 0; i < rows; ++i)
        std::copy(own + i * stride, own + i * stride + columns, user + i * columns);
    });
  }

  // Parameters, and what has been put aside of their gradients.
  void copy_parameters(const Layer& from) {
    auto copy = [this](const Parameter<T>& from, Parameter<T>& to, int64_t rows) {
      std::copy(from.values, from.values + rows * from.stride, to.values);
      for (int64_t s = 0; s < slot_count; ++s)
        std::copy(from.slots[s], from.slots[s] + rows * from.stride, to.slots[s]);
    };
    copy(from.w, w, this->units);
    copy(from.b, b, 1);
    if (weight_gradient)
      std::copy(from.weight_gradient, from.weight_gradient + this->units * w.stride,
                weight_gradient);
    std::copy(from.bias_gradient, from.bias_gradient + b.stride, bias_gradient);
  }

  // Takes parameters and gradients of another for its own.
  void borrow(const Layer& from) {
    w = from.w, b = from.b;
    weight_gradient = from.weight_gradient, bias_gradient = from.bias_gradient;
  }

  // Adds so many gradients up, in their order, in the first: of features begin ... end - 1, and of
  // the bias where they are the first ones.
  void add_gradients(int64_t count, int64_t begin, int64_t end) const {
    if (begin == end) return;
    add_up(count, this->units * w.stride, this->units, end - begin, w.stride,
           weight_gradient + begin, weight_gradient + begin);
    if (begin == 0) add_up(count, b.stride, 1, b.stride, b.stride, bias_gradient, bias_gradient);
  }

  // Calls f(the first, how many) for some units after the other: so few that what a product leaves
  // of them is still in the cache when their activation comes.
  template <class F>
  void by_units(const F& f) const {
    constexpr int64_t most = 128;
    for (int64_t unit = 0; unit < this->units; unit += most)
      f(unit, std::min(most, this->units - unit));
  }

  // out = bias + x @ weight.T, of so many units from this one on
  void multiply_forward(int64_t unit, int64_t count, int64_t begin, int64_t end) {
    multiply(SmallProduct<T>{.rows = count,
                             .columns = end - begin,
                             .depth = this->in_features,
                             .a = w.values + unit * w.stride,
                             .a_stride = w.stride,
                             .a_step = 1,
                             .b = x_t + begin,
                             .b_stride = stride,
                             .bias = this->bias ? b.values + unit : nullptr,
                             .c = out + unit * stride + begin,
                             .c_stride = stride});
  }

  // The keys of what is dropped of rows begin ... end - 1 of a chunk, in the step of that number.
  void make_keys(const Chunk& chunk, int64_t step, int64_t begin, int64_t end) {
    if (this->dropout == 0) return;
    torchnn::cpu::make_keys<T>(this->seed, step, chunk, {begin, end}, row_keys, this->units,
                               unit_keys);
  }

  // From z to what goes on from here: a, or what is left of it. values and kept are (rows, columns)
  // with their strides.
  void finish(T* values, int64_t rows, int64_t columns, int64_t stride, T* kept,
              int64_t kept_stride, const Key<T>* keys_down, const Key<T>* keys_across) const {
    auto keep = [&] {
      for (int64_t i = 0; i < rows; ++i)
        std::copy(values + i * stride, values + i * stride + columns, kept + i * kept_stride);
    };
    if (calls.keeps_z) keep();
    if (calls.forward) calls.forward(values, rows, columns, stride, T(this->slope));
    if (this->dropout == 0) return;
    if (!calls.keeps_z) keep();
    drop(Dropping<T>(this->dropout), keys_down, keys_across, values, rows, columns, stride);
  }

  // The same for a few rows, by rows: to (rows, to_stride) = activation(bias + x @ weight.T).
  template <class Rows>
  void forward_by_rows(int64_t rows, const Rows& from, T* to, int64_t to_stride) {
    multiply_rows(rows, this->units, Padding<T>()(this->in_features), from, w.values, w.stride,
                  this->bias ? b.values : nullptr, to, to_stride);
    finish(to, rows, this->units, to_stride, kept_rows, b.stride, row_keys, unit_keys);
  }

  // grad_z of the layer before, by rows: (grad_z @ weight) * da/dz
  void backward_by_rows(int64_t rows, Layer& before) {
    const int64_t features = this->in_features, stride = before.b.stride;
    multiply(SmallProduct<T>{.rows = rows,
                             .columns = Padding<T>()(features),
                             .depth = this->units,
                             .a = grad,
                             .a_stride = b.stride,
                             .a_step = 1,
                             .b = w.values,
                             .b_stride = w.stride,
                             .bias = nullptr,
                             .c = before.grad,
                             .c_stride = stride});
    before.drop_gradients(before.grad, rows, features, stride, before.row_keys, before.unit_keys);
    for (int64_t i = 0; i < rows; ++i) {
      T* grad_out = before.grad + i * stride;
      const T* from = before.kept_rows ? before.kept_rows + i * stride : x + i * w.stride;
      before.calls.backward(grad_out, from, grad_out, 1, features, features, T(before.slope));
    }
  }

  // There are none where nothing is dropped.
  static const Key<T>* from(const Key<T>* keys, int64_t first) {
    return keys ? keys + first : nullptr;
  }

  // Those of what has been dropped are 0.
  void drop_gradients(T* grad_out, int64_t rows, int64_t columns, int64_t stride,
                      const Key<T>* keys_down, const Key<T>* keys_across) const {
    if (this->dropout > 0)
      drop(Dropping<T>(this->dropout), keys_down, keys_across, grad_out, rows, columns, stride);
  }

  void activate(int64_t unit, int64_t count, int64_t begin, int64_t end) {
    const int64_t at = unit * stride + begin;
    finish(out + at, count, end - begin, stride, kept ? kept + at : nullptr, stride,
           from(unit_keys, unit), from(row_keys, begin));
  }

  // From grad_out, in grad_t, to grad_z
  void backward_z(int64_t unit, int64_t count, int64_t begin, int64_t end) {
    const int64_t at = unit * stride + begin;
    T* grad_out = grad_t + at;
    drop_gradients(grad_out, count, end - begin, stride, from(unit_keys, unit),
                   from(row_keys, begin));
    calls.backward(grad_out, (kept ? kept : out) + at, grad_out, count, end - begin, stride,
                   T(this->slope));
  }

  // grad_z of a few rows, by rows.
  void turn_gradients() {
    transpose(b.stride, Padding<T>().lanes, StridedRows<T>{grad_t, stride}, grad, b.stride);
  }

  // grad_x = grad_z @ weight, which is grad_out of the layer before: of so many of its units.
  void backward_x(T* grad_x_t, int64_t unit, int64_t count, int64_t begin, int64_t end) {
    multiply(SmallProduct<T>{.rows = count,
                             .columns = end - begin,
                             .depth = this->units,
                             .a = w.values + unit,
                             .a_stride = 1,
                             .a_step = w.stride,
                             .b = grad_t + begin,
                             .b_stride = stride,
                             .bias = nullptr,
                             .c = grad_x_t + unit * stride + begin,
                             .c_stride = stride});
  }

  // The input in rows, which the update reads.
  void turn_inputs(int64_t begin, int64_t end) {
    transpose(Padding<T>()(this->in_features), end - begin, StridedRows<T>{x_t + begin, stride},
              x + begin * w.stride, w.stride);
  }

  // For update_tiles: the gradient of a chunk, and the step that it completes, or null.
  LayerUpdate<T> update(const Work<T>& work, const UpdateStep<T>* step, int64_t place) const {
    return {.units = this->units,
            .in_features = Padding<T>()(this->in_features),
            .rows = work.rows,
            .grad = work.by_rows ? grad : grad_t,
            .grad_stride = work.by_rows ? 1 : stride,
            .grad_step = work.by_rows ? b.stride : 1,
            .weight = w,
            .bias = b,
            .slot_count = slot_count,
            .has_bias = this->bias != nullptr,
            .weight_gradient = weight_gradient + work.gradient * this->units * w.stride,
            .bias_gradient = bias_gradient + work.gradient * b.stride,
            .is_first = !work.adds,
            .step = step,
            .update = place,
            .next_x = nullptr,
            .next_rows = 0,
            .is_far = this->units * w.stride * (1 + slot_count) * int64_t(sizeof(T)) > 128 * 1024};
  }
};

// What all parameters as they are add to the loss.
template <class T>
T penalty_of(const std::vector<Layer<T>>& layers) {
  T sum = 0;
  for (const Layer<T>& layer : layers)
    sum += penalty_of(layer.w, layer.units) + penalty_of(layer.b, 1);
  return sum;
}

// Of the layers as they are, if that chunk was the end of an epoch.
template <class T>
void take_snapshot(const Train<T>& job, const std::vector<Layer<T>>& layers, const Chunk& chunk) {
  if (!job.snapshots || !chunk.is_last() || chunk.end != chunk.end_of_epoch) return;
  const int64_t epoch = chunk.end / job.epoch_size - 1;
  for (size_t l = 0; l < layers.size(); ++l) layers[l].write_to(job.snapshots[l].moved(epoch));
}

// Makes what brings the norms of gradients that have been put aside down: that of each weight and
// bias, or that of all together.
template <class T>
void clip_norms(std::vector<Layer<T>>& layers, const TrainOptions& options) {
  auto scale_to = [](double most, T square) { return clip_scale(T(most), std::sqrt(square)); };
  T all = 0;
  for (Layer<T>& layer : layers) {
    const T weight = squared_norm(layer.w, layer.weight_gradient, layer.units);
    const T bias = layer.bias ? squared_norm(layer.b, layer.bias_gradient, 1) : T(0);
    all += weight + bias;
    layer.w.scale = scale_to(options.clip_norm, weight);
    layer.b.scale = scale_to(options.clip_norm, bias);
  }
  if (options.clip_norm > 0) return;
  for (Layer<T>& layer : layers)
    layer.w.scale = layer.b.scale = scale_to(options.global_clip_norm, all);
}

}  // namespace torchnn::cpu
