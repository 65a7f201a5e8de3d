// Where a network lies in the memory of the one block of threads that trains it beside many others,
// and how its four warps share out the work: plan.h for train_many. Matrices lie as they do there,
// in rows an odd number of packs apart.
#pragma once

#include "plan.h"
#include "warp_plan.h"

namespace torchnn::cuda {

inline constexpr int trial_threads = 128, trial_warps = trial_threads / 32;
// A warp takes so many rows of a batch through the network at a time.
inline constexpr int group_rows = 8;
// Of a batch that go through at once: a lane knows one of them.
inline constexpr int64_t most_trial_rows = trial_threads;
// The blocks that a multiprocessor has registers for, of 128 a thread.
inline constexpr int most_trial_blocks = 4;

// The memory that each of so many blocks of a multiprocessor may have, where one may have `limit`;
// and the blocks that have so much.
constexpr int64_t room_of_each(int64_t blocks, int64_t limit) {
  return (limit + bytes_of_a_block) / blocks - bytes_of_a_block;
}
constexpr int64_t blocks_of_trials(int64_t bytes, int64_t limit) {
  return std::min<int64_t>(most_trial_blocks,
                           (limit + bytes_of_a_block) / (bytes + bytes_of_a_block));
}

// Forward, the lanes of a warp lie 2 down, 4 across and 4 along the depth. A lane has four of its
// group's rows and so many columns, which four lanes then add up: each ends with one of the rows.
inline constexpr int group_lane_rows = 4, group_across = 4, depth_lanes = 4;

// What is compiled for numbers of so many bytes. Of a gradient, a lane adds up so many units of a
// pack of features; or so many lanes do, each some of the rows, and share out the units then.
template <int element_size>
struct TrialTiles {
  using Forward = TypeList<LaneTile<4, 1>, LaneTile<4, 2>, LaneTile<4, 4>, LaneTile<4, 7>>;
  using Gradient = TypeList<GradientTile<1, 1, 8>, GradientTile<4, 1, 4>, GradientTile<8, 1, 4>,
                            GradientTile<8, 1, 1>>;
};
template <>
struct TrialTiles<sizeof(double)> {
  using Forward = TypeList<LaneTile<4, 1>, LaneTile<4, 2>, LaneTile<4, 4>>;
  using Gradient = TypeList<GradientTile<1, 1, 8>, GradientTile<4, 1, 4>, GradientTile<4, 1, 1>>;
};

// All places are counted in elements.
struct alignas(16) TrialLayer {
  int in_features, units;
  int activation;             // place in Activations
  int has_bias, drops;        // or not
  int in_stride, out_stride;  // of weight and of what it takes in; of what it gives
  int weight, bias;           // (units, in_stride), (units): behind them zeros up to whole packs
  int weight_slots[most_slots], bias_slots[most_slots];
  int out, grad;          // (rows, out_stride): a, and grad_z
  int kept;               // the same: what backward takes; out, unless that is dropped or z
  int forward, gradient;  // places in Forward and Gradient
  int tiles, jobs;        // of the gradient; a warp takes one job at a time
  Divider features, tiles_across;
};

// A trial in the table, in the device's memory as all that it points to.
struct TrialPlaces;
template <class T>
struct alignas(16) OwnTrial {
  Trial<T> trial;
  const TrialPlaces* places;
  const TrialLayer* layers;
  bool has_penalties;
};
static_assert(sizeof(OwnTrial<double>) == sizeof(OwnTrial<float>));

// At the beginning of that memory, with the layers behind it.
struct alignas(16) TrialPlaces {
  int rows = 0;  // of a batch that go through at once, whole groups; 0: the network does not fit
  int size = 0;  // of all, in elements
  Divider features, packs;  // of a row of x
  int trial;                // the kernel's copy of an OwnTrial
  int chunks;               // (2 + warps), Chunk: of training, and of validation for each warp
  int from;                 // (rows), int64: where in x the rows are
  int x, y;                 // (rows, in_stride of the first layer), (rows, targets)
  int sample_weight;        // (rows)
  int step;                 // an UpdateStep
  int sums;                 // (2, warps): of the loss, in training and in validation
  int squares;              // (2 layers, warps): of gradients, where norms are clipped
  int verdict;              // a StoppingState::Verdict
};

struct TrialPlan : TrialPlaces {
  int64_t bytes = 0;
  std::vector<TrialLayer> layers;
};

// What a plan follows from. Equal shapes have equal plans.
struct TrialShape {
  std::vector<int64_t> widths;        // features, then the units of each layer
  std::vector<int64_t> activations;   // places of each layer
  std::vector<char> has_bias, drops;  // each layer's
  int64_t slots, targets, element_size;

  int64_t layers() const { return int64_t(widths.size()) - 1; }
  auto operator<=>(const TrialShape&) const = default;
};

template <class List>
int choose_columns(int64_t units, int64_t packs, int64_t pack) {
  int64_t least = std::numeric_limits<int64_t>::max();
  int place = 0, chosen = 0;
  List::each([&](auto tile) {
    const int64_t a_round = tile.rows * (tile.columns * pack + 1) + tile.columns;
    const int64_t cost = over(units, tile.columns * group_across) *
                         (over(packs, depth_lanes) * a_round + 15 * tile.columns);
    if (cost < least) least = cost, chosen = place;
    ++place;
  });
  return chosen;
}

// The tile with the fewest instructions: those of all warps, and half as much of the one that takes
// longest, since other blocks go on meanwhile.
template <class List>
void choose_tile(TrialLayer& layer, int64_t rows, int64_t pack) {
  int64_t least = std::numeric_limits<int64_t>::max();
  int place = 0;
  List::each([&](auto tile) {
    const int64_t across = over(layer.in_features, pack);
    const int64_t tiles = over(layer.units, tile.units) * across;
    const int64_t jobs = over(tiles * tile.lanes, 32), sums = tile.units * pack;
    const int64_t own = over(rows, tile.lanes) * (sums + over(tile.units, pack) + 3) +
                        4 * (sums - sums / tile.lanes) +
                        8 * std::max<int64_t>(sums / tile.lanes, 1);
    const int64_t cost = 2 * jobs * own + over(jobs, trial_warps) * own;
    if (cost < least) {
      least = cost;
      layer.gradient = place, layer.tiles = int(tiles), layer.jobs = int(jobs);
      layer.tiles_across = Divider(across);
    }
    ++place;
  });
}

template <class Of>
TrialPlan lay_out_trial(const TrialShape& shape, int64_t rows) {
  TrialPlan plan;
  const int64_t pack = 16 / shape.element_size;
  int64_t size = 0;
  auto take = [&](int64_t count) {
    const int64_t place = size;
    size += over(count, pack) * pack;
    return int(place);
  };
  auto take_bytes = [&](int64_t bytes) { return take(over(bytes, shape.element_size)); };
  auto stride = [&](int64_t n) { return odd_packs(n, shape.element_size); };
  const int64_t layers = shape.layers(), features = shape.widths.front();
  take_bytes(int64_t(sizeof(TrialPlaces)));  // the kernel's copies come first
  take_bytes(layers * int64_t(sizeof(TrialLayer)));
  plan.rows = int(rows);
  plan.features = Divider(features), plan.packs = Divider(over(features, pack));
  plan.trial = take_bytes(int64_t(sizeof(OwnTrial<float>)));
  plan.chunks = take_bytes((2 + trial_warps) * int64_t(sizeof(Chunk)));
  plan.from = take_bytes(rows * 8);
  plan.x = take(rows * stride(features)), plan.y = take(rows * shape.targets);
  plan.sample_weight = take(rows), plan.step = take(numbers_a_step);
  plan.sums = take(2 * trial_warps), plan.squares = take(2 * layers * trial_warps);
  plan.verdict = take(1);
  for (int64_t l = 0; l < layers; ++l) {
    const int64_t in_features = shape.widths[l], units = shape.widths[l + 1];
    const int64_t rows_of_weight = l ? over(units, pack) * pack : units;  // that backward reads
    TrialLayer layer{};
    layer.in_features = int(in_features), layer.units = int(units);
    layer.activation = int(shape.activations[l]);
    layer.has_bias = shape.has_bias[l], layer.drops = shape.drops[l];
    layer.in_stride = int(stride(in_features)), layer.out_stride = int(stride(units));
    layer.weight = take(rows_of_weight * layer.in_stride), layer.bias = take(units);
    for (int64_t s = 0; s < shape.slots; ++s) {
      layer.weight_slots[s] = take(units * layer.in_stride);
      layer.bias_slots[s] = take(units);
    }
    layer.out = layer.kept = take(rows * layer.out_stride);
    layer.grad = take(rows * layer.out_stride);
    if (layer.drops || keeps_z_at(layer.activation)) layer.kept = take(rows * layer.out_stride);
    layer.features = Divider(in_features);
    layer.forward = choose_columns<typename Of::Forward>(units, over(in_features, pack), pack);
    choose_tile<typename Of::Gradient>(layer, rows, pack);
    plan.layers.push_back(layer);
  }
  plan.size = int(size), plan.bytes = size * shape.element_size;
  return plan;
}

// The plan for a trial: of as many rows at once as leave room for four blocks a multiprocessor, or
// for two, or for one; the more blocks, the fewer wait for memory. The number of trials must not
// matter here, since a model's bits depend on the plan.
inline TrialPlan make_trial_plan(const TrialShape& shape, int64_t batch_size, int64_t limit) {
  constexpr int64_t few_rows = 32;  // fewer are for a block that has no room for more
  for (int64_t width : shape.widths)
    if (width > limit / shape.element_size) return {};  // and no product of widths overflows
  if (shape.layers() > most_layers) return {};
  const auto of = shape.element_size == sizeof(double) ? lay_out_trial<TrialTiles<sizeof(double)>>
                                                       : lay_out_trial<TrialTiles<sizeof(float)>>;
  const int64_t most = over(std::min(batch_size, most_trial_rows), group_rows) * group_rows;
  for (int64_t blocks : {4, 2, 1})
    for (int64_t rows = most;; rows = over(rows / 2, group_rows) * group_rows) {
      const TrialPlan plan = of(shape, rows);
      if (plan.bytes <= room_of_each(blocks, limit)) return plan;
      if (rows <= (blocks == 1 ? group_rows : few_rows)) break;
    }
  return {};
}

}  // namespace torchnn::cuda
