// Where a network lies in the memory that the threads of one block share: the one place that
// computes it, on the host, without CUDA. All places are counted in elements of the network's type.
//
// Matrices have rows of whole tiles, an odd number of 16-byte packs apart: eight neighbouring rows
// then begin in eight different banks. What is beyond their rows and columns is zero.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../train.h"

namespace torchnn::cuda {

// Of a block that trains a model; tests make do with few.
#if !defined(TORCHNN_TRAIN_THREADS)
#define TORCHNN_TRAIN_THREADS 512
#endif
inline constexpr int train_threads = TORCHNN_TRAIN_THREADS;

inline constexpr int side = 4;          // a thread computes tiles of side x side
inline constexpr int most_rows = 128;   // of a batch that go through the network at once
inline constexpr int most_layers = 64;  // they travel as arguments of the kernel

// Some rows of a batch: samples first ... first + rows - 1 in order. Its batch is samples begin ...
// end - 1.
struct Chunk {
  int64_t step = -1, begin = 0, end = 0, end_of_epoch = 0;
  int64_t first = 0, rows = 0;
  constexpr bool is_first() const { return first == begin; }  // of its batch
  constexpr bool is_last() const { return first + rows == end; }
};

// The chunk after that one, of at most so many rows; behind the last there are none.
template <class T>
constexpr Chunk chunk_after(const Train<T>& job, Chunk chunk, int64_t most) {
  chunk.first += chunk.rows;
  if (chunk.first == chunk.end) {
    ++chunk.step;
    chunk.begin = chunk.end;
    if (chunk.begin == chunk.end_of_epoch) chunk.end_of_epoch += job.epoch_size;
    chunk.end = std::min(chunk.begin + job.batch_size, std::min(chunk.end_of_epoch, job.samples));
  }
  chunk.rows = std::min(most, chunk.end - chunk.first);
  return chunk;
}

// An UpdateStep<T> is so many T.
inline constexpr int numbers_a_step = sizeof(UpdateStep<float>) / sizeof(float);
static_assert(sizeof(UpdateStep<double>) == numbers_a_step * sizeof(double));

inline constexpr int chunks_known = 4;  // the one in work, and those after it

struct LayerPlace {
  int weight, bias;  // (units, in_stride), (units)
  int weight_slots[most_slots], bias_slots[most_slots];
  int out, grad;  // (rows, out_stride): a, and grad_z
  int in_stride, out_stride;
  int forward_splits, backward_splits;  // parts that in_features, or units, are summed in
};

struct Plan {
  int rows = 0;              // of a batch that go through at once; 0: the network does not fit
  int64_t bytes = 0;         // what it takes, or would take at the least
  bool keeps_slots = false;  // beside the weights; else they stay in the device's memory
  int chunks;                // (chunks_known), Chunk
  // Each twice, for the chunk in work and the one that is fetched meanwhile.
  int listed[2];         // (rows), int64: where in x the rows are
  int x[2], y[2];        // (rows, in_stride of the first layer), (rows, units of the last)
  int sample_weight[2];  // (rows)
  int step[2];           // an UpdateStep
  int parts;             // (splits, rows, columns): what a product's parts sum up to
  int values;            // (rows, units of the last layer): what adds up to the loss
  LayerPlace layers[most_layers];
};

constexpr int64_t whole_tiles(int64_t n) { return (n + side - 1) / side * side; }

// The distance of rows of n elements of so many bytes.
constexpr int64_t odd_packs(int64_t n, int64_t element_size) {
  const int64_t pack = 16 / element_size, packs = whole_tiles(n) / pack;
  return (packs | 1) * pack;
}

// Threads that no tile is left for take a part of the depth.
constexpr int64_t splits(int64_t rows, int64_t columns, int64_t depth) {
  const int64_t tiles = whole_tiles(rows) * whole_tiles(columns) / (side * side);
  return std::clamp<int64_t>(train_threads / tiles, 1, whole_tiles(depth) / side);
}

struct Shape {
  std::vector<int64_t> widths;  // features, then the units of each layer
  int64_t slots;                // of the update rule
  int64_t element_size;
};

// The plan for so many rows at once, whatever memory it takes.
inline Plan lay_out(const Shape& shape, int64_t rows, bool keeps_slots) {
  Plan plan;
  const int64_t pack = 16 / shape.element_size;
  int64_t size = 0;
  auto take = [&](int64_t count) {
    const int64_t place = size;
    size += (count + pack - 1) / pack * pack;
    return int(place);
  };
  auto take_twice = [&](int (&places)[2], int64_t count) {
    for (int& place : places) place = take(count);
  };
  auto stride = [&](int64_t n) { return odd_packs(n, shape.element_size); };
  const int64_t features = shape.widths.front(), outputs = shape.widths.back();
  plan.chunks = take(chunks_known * int64_t(sizeof(Chunk)) / shape.element_size);
  take_twice(plan.listed, rows * 8 / shape.element_size);
  take_twice(plan.x, rows * stride(features));
  take_twice(plan.y, rows * outputs);
  take_twice(plan.sample_weight, rows);
  take_twice(plan.step, numbers_a_step);
  int64_t parts = 0;
  for (size_t l = 0; l + 1 < shape.widths.size(); ++l) {
    const int64_t in_features = shape.widths[l], units = shape.widths[l + 1];
    const int64_t in_stride = stride(in_features), out_stride = stride(units);
    const int64_t weight = whole_tiles(units) * in_stride;
    LayerPlace& layer = plan.layers[l];
    layer.in_stride = int(in_stride), layer.out_stride = int(out_stride);
    layer.weight = take(weight), layer.bias = take(units);
    for (int64_t s = 0; keeps_slots && s < shape.slots; ++s)
      layer.weight_slots[s] = take(weight), layer.bias_slots[s] = take(units);
    layer.out = take(rows * out_stride), layer.grad = take(rows * out_stride);
    layer.forward_splits = int(splits(rows, units, in_features));
    layer.backward_splits = int(splits(rows, in_features, units));
    parts = std::max(parts, layer.forward_splits * rows * out_stride);
    if (l > 0) parts = std::max(parts, layer.backward_splits * rows * in_stride);
  }
  plan.parts = take(parts);
  plan.values = take(rows * outputs);
  plan.rows = int(rows), plan.bytes = size * shape.element_size, plan.keeps_slots = keeps_slots;
  return plan;
}

// The plan with the most rows at once that so many bytes have room for; of those, the one that
// keeps the slots too.
inline Plan make_plan(const Shape& shape, int64_t batch_size, int64_t limit) {
  Plan none;
  if (int64_t(shape.widths.size()) - 1 > most_layers) return none;
  for (int64_t width : shape.widths)
    if (width > limit) return none;  // and no product of widths overflows
  for (int64_t rows = whole_tiles(std::min<int64_t>(batch_size, most_rows));;
       rows = whole_tiles(rows / 2)) {
    for (bool keeps_slots : {true, false}) {
      const Plan plan = lay_out(shape, rows, keeps_slots);
      if (plan.bytes <= limit) return plan;
      none.bytes = plan.bytes;
    }
    if (rows == side) return none;
  }
}

// ---- how long a step takes: estimates, until a GPU has been asked ----

// Forward, grad_weight, and grad_x of all layers but the first.
inline double products_a_row(const std::vector<int64_t>& widths) {
  double products = 0;
  for (size_t l = 0; l + 1 < widths.size(); ++l)
    products += (l ? 3 : 2) * double(widths[l]) * double(widths[l + 1]);
  return products;
}

inline constexpr double products_a_microsecond = 110'000;  // half of an H100 multiprocessor's best

// A step of so many rows in one block: its products, and a microsecond a layer for its barriers.
inline double block_microseconds(const std::vector<int64_t>& widths, int64_t rows) {
  return double(widths.size() - 1) + products_a_row(widths) * double(rows) / products_a_microsecond;
}

// The most rows of a batch that one block takes no longer for than a launch for each part of a step
// does: such launches, of four a layer and three for rows and loss, have all multiprocessors, so
// that what they cost is the launches.
inline int64_t most_rows_in_a_block(const std::vector<int64_t>& widths) {
  constexpr double launch_microseconds = 3;  // from a CUDA graph, with the kernel's own start
  const double layers = double(widths.size() - 1);
  const double left = launch_microseconds * (4 * layers + 3) - layers;
  return std::max<int64_t>(1, int64_t(left * products_a_microsecond / products_a_row(widths)));
}

}  // namespace torchnn::cuda
