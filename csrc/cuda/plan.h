// Where a network lies in the memory that the threads of one block share, and how its threads share
// out the products: the one place that computes it, on the host, without CUDA. All places are
// counted in elements of the network's type.
//
// Matrices have rows of whole packs of 16 bytes, an odd number of them apart: eight neighbouring
// rows then begin in eight different banks. What is beyond their columns is zero.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../math/list.h"
#include "../train.h"

namespace torchnn::cuda {

// Of a block that trains a model; tests make do with few.
#if !defined(TORCHNN_TRAIN_THREADS)
#define TORCHNN_TRAIN_THREADS 512
#endif
inline constexpr int train_threads = TORCHNN_TRAIN_THREADS;
inline constexpr int train_warps = train_threads / 32;
// The last one fetches the next rows while the others multiply with the first layer's weights.
inline constexpr int first_warps = train_warps - 1;
// Blocks that train one model together, if several do: as many as every GPU with clusters has room
// for.
inline constexpr int cluster_blocks = 8;

inline constexpr int most_rows = 128;   // of a batch that go through the network at once
inline constexpr int most_layers = 64;  // they travel as arguments of the kernel
// More than any network has, and than any GPU: below, no product of such numbers overflows.
inline constexpr int64_t most_units = std::numeric_limits<int32_t>::max();
inline constexpr int64_t most_shared_bytes = 1 << 20;
// Layers of so few weights go through row by row, in one warp, with all that come after them.
inline constexpr int64_t few_weights = 1024;

// An UpdateStep<T> is so many T.
inline constexpr int numbers_a_step = sizeof(UpdateStep<float>) / sizeof(float);
static_assert(sizeof(UpdateStep<double>) == numbers_a_step * sizeof(double));

inline constexpr int chunks_known = 4;  // the one in work, and those after it

constexpr int64_t over(int64_t n, int64_t parts) { return (n + parts - 1) / parts; }

// n / divisor for 0 <= n with n * divisor below 2^32, by a multiplication: a division takes a GPU
// some thirty instructions.
struct Divider {
  int divisor = 1;
  uint32_t multiplier = 0;  // 2^32 / divisor, rounded up; 0 for a divisor of one

  constexpr Divider() = default;
  constexpr explicit Divider(int64_t by) : divisor(int(by)) {
    if (by > 1) multiplier = uint32_t(((int64_t(1) << 32) + by - 1) / by);
  }
  constexpr int quotient(int n) const {
    return multiplier ? int((uint64_t(uint32_t(n)) * multiplier) >> 32) : n;
  }
};

// How the warps share out c = a @ b. A warp takes a tile of c, 32 columns wide and 16 or 32 rows
// high, or what there is of it, over one of `splits` parts of the depth: its lanes lie 8 down and 4
// across. A lane keeps sums for every eighth row and every fourth column, and puts them down as
// parts[split][tile], one after the other, each 33 numbers from the next: written side by side,
// read across, and both without two lanes in one bank.
inline constexpr int tile_columns = 32, lanes_down = 8, lanes_across = 4;
inline constexpr int sums_apart = 33;

struct Product {
  int kind;                   // place in Forward or Backward
  int rows_shift;             // a tile has 2^rows_shift rows
  int lane_columns;           // of a tile, that one lane has
  Divider tiles;              // of c, for all rows of the plan
  Divider across;             // tiles side by side
  int splits;                 // of the depth
  int packs, longer;          // in each part; the first `longer` parts have one more
  int tile_size, split_size;  // of the parts, in elements
};

// The rows and columns that a lane has. The first in a list that is large enough is taken.
template <int lane_rows, int lane_columns>
struct LaneTile {
  static constexpr int rows = lane_rows, columns = lane_columns;
};

// Of the gradient of a weight, a thread adds up so many units x so many packs of features at a
// time; or so many lanes do, each some of the rows. In a row of grad_z each of these tiles but the
// smallest begins a pack. Behind those of odd_tile units there are gaps: they are for the first
// layer, since no layer before it reads its grad_z.
inline constexpr int odd_tile = 5;
template <int unit_count, int pack_count, int lane_count = 1>
struct GradientTile {
  static constexpr int units = unit_count, packs = pack_count, lanes = lane_count;
};

// What is compiled for numbers of so many bytes, in one block or several.
template <int element_size, bool clustered>
struct TilesOf {
  using Forward = TypeList<LaneTile<2, 4>, LaneTile<2, 8>, LaneTile<4, 3>, LaneTile<4, 4>,
                           LaneTile<4, 5>, LaneTile<4, 6>, LaneTile<4, 7>, LaneTile<4, 8>>;
  using Backward = TypeList<LaneTile<2, 8>, LaneTile<4, 8>>;
  using Gradient = TypeList<GradientTile<1, 1>, GradientTile<4, 1>, GradientTile<odd_tile, 2>,
                            GradientTile<8, 1>>;
};
template <>
struct TilesOf<sizeof(float), true> {  // a block has little to do, so that all warps should
  using Forward =
      TypeList<LaneTile<2, 4>, LaneTile<2, 5>, LaneTile<2, 6>, LaneTile<2, 7>, LaneTile<2, 8>>;
  using Backward = TypeList<LaneTile<2, 8>>;
  using Gradient = TypeList<GradientTile<1, 1>, GradientTile<4, 1>, GradientTile<4, 1, 4>,
                            GradientTile<8, 1, 4>>;
};
template <>
struct TilesOf<sizeof(double), false> {  // of which a thread's registers hold half as many
  using Forward = TypeList<LaneTile<2, 4>, LaneTile<2, 8>>;
  using Backward = TypeList<LaneTile<2, 8>>;
  using Gradient = TypeList<GradientTile<1, 1>, GradientTile<4, 1>, GradientTile<odd_tile, 1>,
                            GradientTile<8, 1>>;
};
template <>
struct TilesOf<sizeof(double), true> {
  using Forward = TypeList<LaneTile<1, 4>, LaneTile<1, 8>>;
  using Backward = TypeList<LaneTile<1, 8>>;
  using Gradient = TypeList<GradientTile<1, 1>, GradientTile<4, 1, 2>>;
};

struct alignas(16) LayerPlace {
  int in_features, units;
  int activation;    // place in Activations; this and biases train sets
  int biases;        // units, or 0 if there are none
  int weight, bias;  // (units, in_stride), (units)
  int weight_slots[most_slots], bias_slots[most_slots];
  int out, grad;                // (rows, out_stride), (rows, grad_stride): a, and grad_z
  int in_stride, input_stride;  // of weight, and of what the layer takes in
  int out_stride, grad_stride;
  int share_stride;             // of its z, where several blocks add it up
  int tile;                     // place in Gradient
  int tile_units, units_apart;  // of such a tile, and from one to the next in a row of grad_z
  Divider tiles_across;         // over in_features
  int tiles;
  int items;                  // lanes of all tiles; whole warps where several lanes share a tile
  Product forward, backward;  // z, and grad_x

  // Where a unit is in a row of grad_z.
  constexpr int grad_place(int unit) const {
    return tile_units == odd_tile ? unit + unit / odd_tile * (units_apart - odd_tile) : unit;
  }
};

struct Plan {
  int rows = 0;              // of a batch that go through at once; 0: the network does not fit
  int64_t bytes = 0;         // what it takes, or would take at the least
  bool keeps_slots = false;  // beside the weights; else they stay in the device's memory
  int blocks = 1;            // that train a model together
  int features;              // of the first layer, that each of them has
  int wide_layers;           // the first ones, which all warps share; the rest go row by row
  int places;                // (layers), LayerPlace: the kernel's copy of layers
  int chunks;                // (chunks_known), Chunk
  int arrivals;              // what counts the rows that the copy engine has brought
  // Each twice, for the chunk in work and the one that is fetched meanwhile.
  int listed[2];         // (rows), int64: where in x the rows are
  int x[2], y[2];        // (rows, in_stride of the first layer), (rows, units of the last) at most
  int sample_weight[2];  // (rows)
  int step[2];           // an UpdateStep
  int values[2];         // (rows, units of the last layer): what adds up to the loss
  int parts;             // what the parts of a product sum up to
  int shares;            // (blocks, rows of a block, share_stride): of the first layer's z
  // (rows, packs): of several blocks, out and grad of all layers, so that a row is in one piece.
  int records;
  Divider record_packs;
  Divider own_rows;  // the rows of a chunk that a block takes
  LayerPlace layers[most_layers];
};

// The distance of rows of n elements of so many bytes.
constexpr int64_t odd_packs(int64_t n, int64_t element_size) {
  const int64_t pack = 16 / element_size, packs = (n + pack - 1) / pack;
  return (packs | 1) * pack;
}

// A product of (rows, depth) with (depth, columns) for so many warps; its depth is cut into at most
// most_splits parts.
template <class List>
constexpr Product share_out(int64_t rows, int64_t columns, int64_t packs, int64_t warps,
                            int64_t most_splits) {
  int64_t highest = 0;
  List::each([&](auto tile) { highest = std::max<int64_t>(highest, tile.rows * lanes_down); });
  Product p{};
  int place = 0, lane_rows = 0;
  List::each([&](auto tile) {
    const bool fits = tile.rows * lanes_down >= std::min(rows, highest) &&
                      tile.columns * lanes_across >= std::min<int64_t>(columns, tile_columns);
    if (fits && !lane_rows) p.kind = place, lane_rows = tile.rows, p.lane_columns = tile.columns;
    ++place;
  });
  for (int tile_rows = lane_rows * lanes_down; tile_rows > 1; tile_rows /= 2) ++p.rows_shift;
  const int64_t across = over(columns, tile_columns);
  const int64_t tiles = over(rows, int64_t(1) << p.rows_shift) * across;
  p.across = Divider(across), p.tiles = Divider(tiles);
  p.splits = int(std::clamp<int64_t>(warps / tiles, 1, std::min(packs, most_splits)));
  p.packs = int(packs / p.splits), p.longer = int(packs % p.splits);
  p.tile_size = lane_rows * p.lane_columns * sums_apart;
  p.split_size = int(tiles) * p.tile_size;
  return p;
}

// Sets the tile that keeps the warps busy for the shortest time, four of them taking turns; the
// last of those that do, since larger tiles leave warps to other layers. Lanes that share a tile
// have fewer rows to wait for, and hand over to each other what they have added up.
template <class List>
void choose_gradient_tile(LayerPlace& layer, int64_t rows, int64_t pack, bool is_first) {
  constexpr int64_t schedulers = 4;
  int64_t least = std::numeric_limits<int64_t>::max();
  int place = 0;
  bool whole_warps = false;  // of all layers, if of any
  List::each([&](auto tile) { whole_warps |= tile.lanes > 1; });
  List::each([&](auto tile) {
    const int64_t across = over(layer.in_features, tile.packs * pack);
    const int64_t tiles = over(layer.units, tile.units) * across;
    const int64_t work = (tile.units * pack + 1) * tile.packs + over(tile.units, pack);
    const int64_t sums = tile.units * pack * tile.packs;
    const int64_t waits = whole_warps ? 25 * rows / tile.lanes : 0;
    const int64_t cost = over(over(tiles * tile.lanes, 32), schedulers) *
                             (rows * work / tile.lanes + 3 * (sums - sums / tile.lanes)) +
                         waits;
    const bool may_be = is_first || tile.units != odd_tile;
    if (may_be && cost <= least) {
      least = cost;
      layer.tile = place, layer.tile_units = tile.units;
      layer.units_apart = tile.units == odd_tile ? int(over(odd_tile, pack) * pack) : tile.units;
      layer.tiles_across = Divider(across), layer.tiles = int(tiles);
      layer.items = int(whole_warps ? over(tiles * tile.lanes, 32) * 32 : tiles);
    }
    ++place;
  });
}

struct Shape {
  std::vector<int64_t> widths;  // features, then the units of each layer
  int64_t slots;                // of the update rule
  int64_t element_size;
  int64_t blocks = 1;  // that train a model together

  int64_t layers() const { return int64_t(widths.size()) - 1; }
  // The first layers up to the last that has many weights; the very last goes row by row anyhow.
  int64_t wide_layers() const {
    int64_t wide = layers() - 1;
    while (wide > 0 && widths[wide - 1] * widths[wide] <= few_weights) --wide;
    return wide;
  }
};

// The plan for so many rows at once, whatever memory it takes.
template <class Of>
Plan lay_out(const Shape& shape, int64_t rows, bool keeps_slots, int64_t most_splits) {
  Plan plan{};
  const int64_t pack = 16 / shape.element_size;
  int64_t size = 0;
  auto take = [&](int64_t count) {
    const int64_t place = size;
    size += over(count, pack) * pack;
    return int(place);
  };
  auto take_twice = [&](int (&places)[2], int64_t count) {
    for (int& place : places) place = take(count);
  };
  auto stride = [&](int64_t n) { return odd_packs(n, shape.element_size); };
  const int64_t outputs = shape.widths.back();
  plan.blocks = int(shape.blocks), plan.wide_layers = int(shape.wide_layers());
  // Blocks share out the features of the first layer, and the rows of all others.
  const int64_t packs = over(shape.widths.front(), pack);
  const int64_t features =
      shape.blocks > 1 ? over(packs, shape.blocks) * pack : shape.widths.front();
  const int64_t own_rows = over(rows, shape.blocks);
  plan.features = int(features), plan.own_rows = Divider(own_rows);
  plan.places = take(shape.layers() * int64_t(sizeof(LayerPlace)) / shape.element_size);
  plan.chunks = take(chunks_known * int64_t(sizeof(Chunk)) / shape.element_size);
  plan.arrivals = take(8 / shape.element_size);
  take_twice(plan.listed, rows * 8 / shape.element_size);
  take_twice(plan.x, rows * stride(features));
  take_twice(plan.y, rows * outputs);
  take_twice(plan.sample_weight, rows);
  take_twice(plan.step, numbers_a_step);
  take_twice(plan.values, rows * outputs);
  int64_t parts = 0, record = 0;
  for (int64_t l = 0; l < shape.layers(); ++l) {
    const int64_t in_features = l ? shape.widths[l] : features, units = shape.widths[l + 1];
    const int64_t weight = over(units, pack) * pack * stride(in_features);
    LayerPlace& layer = plan.layers[l];
    layer.in_features = int(in_features), layer.units = int(units);
    layer.in_stride = layer.input_stride = int(stride(in_features));
    layer.out_stride = layer.share_stride = int(stride(units));
    choose_gradient_tile<typename Of::Gradient>(layer, rows, pack, l == 0);
    layer.grad_stride = int(stride(over(units, layer.tile_units) * layer.units_apart));
    layer.weight = take(l ? weight : units * stride(in_features)), layer.bias = take(units);
    for (int64_t s = 0; keeps_slots && s < shape.slots; ++s)
      layer.weight_slots[s] = take(units * stride(in_features)), layer.bias_slots[s] = take(units);
    if (shape.blocks > 1) {  // places in a record, at first
      layer.out = int(record), layer.grad = layer.out + layer.out_stride;
      record = layer.grad + layer.grad_stride;
    } else {
      layer.out = take(rows * layer.out_stride), layer.grad = take(rows * layer.grad_stride);
    }
    if (l >= plan.wide_layers) continue;
    const int64_t warps = l || shape.blocks > 1 ? train_warps : first_warps;
    layer.forward = share_out<typename Of::Forward>(l ? own_rows : rows, units,
                                                    over(in_features, pack), warps, most_splits);
    layer.backward = share_out<typename Of::Backward>(own_rows, in_features, over(units, pack),
                                                      train_warps, most_splits);
    parts = std::max<int64_t>(parts, layer.forward.splits * layer.forward.split_size);
    if (l > 0) parts = std::max<int64_t>(parts, layer.backward.splits * layer.backward.split_size);
  }
  plan.parts = take(parts);
  if (shape.blocks > 1) {
    record = stride(record);
    plan.shares = take(shape.blocks * own_rows * plan.layers[0].share_stride);
    const int64_t records = plan.records = take(rows * record);
    plan.record_packs = Divider(record / pack);
    for (int64_t l = 0; l < shape.layers(); ++l) {
      LayerPlace& layer = plan.layers[l];
      layer.out = int(layer.out + records), layer.grad = int(layer.grad + records);
      layer.out_stride = layer.grad_stride = int(record);
      if (l) layer.input_stride = int(record);
    }
  }
  plan.rows = int(rows), plan.bytes = size * shape.element_size, plan.keeps_slots = keeps_slots;
  return plan;
}

inline Plan lay_out(const Shape& shape, int64_t rows, bool keeps_slots,
                    int64_t most_splits = train_warps) {
  const auto of = [&]<bool clustered>() {
    return shape.element_size == sizeof(double)
               ? lay_out<TilesOf<sizeof(double), clustered>>(shape, rows, keeps_slots, most_splits)
               : lay_out<TilesOf<sizeof(float), clustered>>(shape, rows, keeps_slots, most_splits);
  };
  return shape.blocks > 1 ? of.template operator()<true>() : of.template operator()<false>();
}

// The plan with the most rows at once that so many bytes have room for; of those, one that keeps
// the slots too, and then one whose products have many parts.
inline Plan make_plan(const Shape& shape, int64_t batch_size, int64_t limit) {
  constexpr int64_t fewest_rows = 4;
  Plan none;
  if (shape.layers() > most_layers) return none;
  if (shape.blocks > 1 && !shape.wide_layers()) return none;  // there is too little to share out
  for (int64_t width : shape.widths)
    if (width > limit) return none;  // and no product of widths overflows
  for (int64_t rows = std::clamp<int64_t>(batch_size, fewest_rows, most_rows);; rows /= 2) {
    for (bool keeps_slots : {true, false}) {
      if (!keeps_slots && shape.blocks > 1) break;  // blocks would get in each other's way there
      for (int64_t most_splits : {train_warps, train_warps / 4}) {
        const Plan plan = lay_out(shape, rows, keeps_slots, std::max<int64_t>(most_splits, 1));
        if (plan.bytes <= limit) return plan;
        none.bytes = plan.bytes;
      }
    }
    if (rows < 2 * fewest_rows) return none;
  }
}

// ---- which way is the fastest: fitted to an H100 (benchmarks/results/training-cuda.json) ----

// A step of so many rows in the blocks of a shape, in microseconds: what waits for one another in
// each chunk of the batch, and its products.
inline double step_microseconds(const Shape& shape, int64_t rows, int64_t rows_at_once) {
  const double first = double(shape.widths[0]) * double(shape.widths[1]);
  double rest = 0;
  for (int64_t l = 1; l < shape.layers(); ++l)
    rest += double(shape.widths[l]) * double(shape.widths[l + 1]);
  const double layers = double(shape.layers()), wide = double(shape.wide_layers());
  const double chunks = std::ceil(double(rows) / double(rows_at_once));
  if (shape.blocks == 1)
    return chunks * (3 + layers + (wide > 0 ? 1.5 : 0)) +
           double(rows) * (2 * first + 3 * rest) / 130'000;
  const double blocks = double(shape.blocks);  // which all make the gradients of the rest
  const double products = 2 * first / blocks + (1 + 2 / blocks) * rest;
  return chunks * (2.4 + 1.2 * layers + 5 * (wide - 1)) + double(rows) * (0.06 + products / 61'000);
}

// A step whose every part is a launch, three a layer and four more, from a CUDA graph. They have
// all multiprocessors, so that what they cost is the launches.
inline double layers_microseconds(const Shape& shape) { return 3 * double(3 * shape.layers() + 4); }

// The plan for a network by itself, of a shape with as many blocks as there may be: that with one
// or that with all of them, whichever takes less time. No rows at once if it fits in neither, or is
// better off layer by layer.
inline Plan choose_plan(Shape shape, int64_t batch_size, int64_t limit) {
  Plan best;
  double least = layers_microseconds(shape);
  const int64_t most = shape.wide_layers() ? shape.blocks : 1;
  for (int64_t blocks : {int64_t(1), most}) {
    shape.blocks = blocks;
    const Plan plan = make_plan(shape, batch_size, limit);
    const double cost = plan.rows ? step_microseconds(shape, batch_size, plan.rows) : least;
    if (cost < least) least = cost, best = plan;
    if (!best.rows) best.bytes = plan.bytes;
  }
  return best;
}

// The most rows of a batch for which there is such a plan, 0 if there is none.
inline int64_t most_batch_rows(const Shape& shape, int64_t limit) {
  int64_t most = 0, too_many = 1 << 20;
  while (too_many - most > 1) {
    const int64_t rows = (most + too_many) / 2;
    (choose_plan(shape, rows, limit).rows ? most : too_many) = rows;
  }
  return most;
}

}  // namespace torchnn::cuda
