// Where a network lies in the memory of the one warp that trains it, and which tiles its lanes
// take: plan.h for many small models. Matrices lie as they do there.
#pragma once

#include "plan.h"

namespace torchnn::cuda {

inline constexpr int warp_rows = 32;  // of a batch that go through at once: a lane has one
// The models that a multiprocessor has registers for, of 128 a lane in float32 and 255 in float64;
// and the fewest that are worth a warp each: one for each of its four schedulers.
constexpr int64_t most_warps(int64_t element_size) { return element_size == 8 ? 8 : 16; }
inline constexpr int64_t fewest_warps = 4;
inline constexpr int64_t bytes_of_a_block = 1024;  // that CUDA keeps of each block's memory

// Of a product, a lane has so many rows and columns, or packs of columns on the way back; of a
// gradient, so many units and packs of features.
template <int element_size>
struct WarpTiles {
  using Forward = TypeList<LaneTile<1, 8>, LaneTile<2, 4>, LaneTile<2, 8>, LaneTile<4, 2>,
                           LaneTile<4, 4>, LaneTile<4, 5>, LaneTile<4, 7>, LaneTile<4, 8>>;
  using Backward =
      TypeList<LaneTile<1, 2>, LaneTile<2, 1>, LaneTile<2, 2>, LaneTile<4, 1>, LaneTile<4, 2>>;
  using Gradient =
      TypeList<GradientTile<1, 1>, GradientTile<2, 1>, GradientTile<4, 1>, GradientTile<4, 2>>;
};
template <>
struct WarpTiles<sizeof(double)> {
  using Forward = TypeList<LaneTile<1, 8>, LaneTile<2, 4>, LaneTile<4, 4>, LaneTile<4, 7>>;
  using Backward = TypeList<LaneTile<1, 2>, LaneTile<2, 2>, LaneTile<4, 2>>;
  using Gradient = TypeList<GradientTile<1, 1>, GradientTile<2, 1>, GradientTile<4, 1>>;
};

// How lanes take items, one each; if there are fewer than lanes, several share one out by rows.
struct Shares {
  int items;
  int span_shift;  // 2^span_shift lanes take one each

  constexpr Shares() = default;
  constexpr explicit Shares(int64_t count) : items(int(count)), span_shift(0) {
    while (span_shift < 5 && (1 << span_shift) < count) ++span_shift;
  }
  constexpr int span() const { return 1 << span_shift; }
};

struct alignas(16) WarpLayer {
  int in_features, units;
  int activation;    // place in Activations; this and biases train_warps sets
  int biases;        // units, or 0 if there are none
  int weight, bias;  // (units, in_stride), (units): behind them zeros up to whole packs
  int weight_slots[most_slots], bias_slots[most_slots];
  int out, grad;  // (rows, out_stride): a, and grad_z
  int in_stride, out_stride;
  int forward, backward;  // places in Forward and Backward: z, and grad_x
  int gradient;           // place in Gradient
  Divider across;         // its tiles side by side
  Shares tiles, units_shared;
};

struct WarpPlan {
  static constexpr int blocks = 1;  // that train a model, of one warp each
  int rows = 0;       // of a batch that go through at once, a power of 2; 0: no warp for a model
  int rows_shift;     // 2^rows_shift rows
  int64_t bytes = 0;  // of each model
  Divider features, packs;  // of a row of x
  int places;               // (layers), WarpLayer: the kernel's copy of layers
  int chunks;               // (2), Chunk
  int from;                 // (rows), int64: where in x the rows are
  int x, y;           // (rows, in_stride of the first layer), (rows, units of the last) at most
  int sample_weight;  // (rows)
  int step;           // an UpdateStep
  WarpLayer layers[most_layers];
};

// The place of the tiles that cost the fewest instructions.
template <class List>
int choose_product(int64_t rows, int64_t columns) {
  int64_t least = std::numeric_limits<int64_t>::max();
  int place = 0, chosen = 0;
  List::each([&](auto tile) {
    const int64_t rounds = over(columns, tile.columns * lanes_across);
    const int64_t cost = rounds * (tile.rows * tile.columns * 4 + 2 * (tile.rows + tile.columns));
    if (tile.rows * lanes_down >= rows && cost < least) least = cost, chosen = place;
    ++place;
  });
  return chosen;
}

template <class List>
void choose_gradient(WarpLayer& layer, int64_t rows, int64_t pack) {
  int64_t least = std::numeric_limits<int64_t>::max();
  int place = 0;
  List::each([&](auto tile) {
    const int64_t across = over(layer.in_features, tile.packs * pack);
    const Shares tiles(over(layer.units, tile.units) * across);
    const int64_t sums = tile.units * tile.packs * pack;
    const int64_t loads = tile.packs + over(tile.units, tile.units < pack ? 1 : pack);
    const int64_t meetings = 5 - tiles.span_shift;  // of lanes that share a tile
    const int64_t cost = over(tiles.items, 32) *
                         (over(rows, 1 << meetings) * (sums + loads + 2) + 2 * meetings * sums);
    if (cost < least) {
      least = cost;
      layer.gradient = place, layer.across = Divider(across), layer.tiles = tiles;
    }
    ++place;
  });
}

template <class Of>
WarpPlan lay_out_in_a_warp(const Shape& shape, int64_t batch_size) {
  WarpPlan plan;
  plan.rows = lanes_down, plan.rows_shift = 3;
  for (; plan.rows < std::min<int64_t>(batch_size, warp_rows); plan.rows *= 2) ++plan.rows_shift;
  const int64_t rows = plan.rows, pack = 16 / shape.element_size;
  const int64_t features = shape.widths.front(), outputs = shape.widths.back();
  int64_t size = 0;
  auto take = [&](int64_t count) {
    const int64_t place = size;
    size += over(count, pack) * pack;
    return int(place);
  };
  auto stride = [&](int64_t n) { return odd_packs(n, shape.element_size); };
  plan.features = Divider(features), plan.packs = Divider(over(features, pack));
  plan.places = take(shape.layers() * int64_t(sizeof(WarpLayer)) / shape.element_size);
  plan.chunks = take(2 * int64_t(sizeof(Chunk)) / shape.element_size);
  plan.from = take(rows * 8 / shape.element_size);
  plan.x = take(rows * stride(features)), plan.y = take(rows * outputs);
  plan.sample_weight = take(rows), plan.step = take(numbers_a_step);
  for (int64_t l = 0; l < shape.layers(); ++l) {
    const int64_t in_features = shape.widths[l], units = shape.widths[l + 1];
    const int64_t weight = (l ? over(units, pack) * pack : units) * stride(in_features);
    WarpLayer& layer = plan.layers[l];
    layer.in_features = int(in_features), layer.units = int(units);
    layer.in_stride = int(stride(in_features)), layer.out_stride = int(stride(units));
    layer.weight = take(weight), layer.bias = take(units);
    for (int64_t s = 0; s < shape.slots; ++s)
      layer.weight_slots[s] = take(units * stride(in_features)), layer.bias_slots[s] = take(units);
    // What a layer puts out is not needed any more when grad_z of the one before takes its place.
    layer.out = take(rows * std::max(stride(units), l ? stride(in_features) : 0));
    if (l > 0) plan.layers[l - 1].grad = layer.out;
    layer.forward = choose_product<typename Of::Forward>(rows, units);
    layer.backward = choose_product<typename Of::Backward>(rows, over(in_features, pack));
    choose_gradient<typename Of::Gradient>(layer, rows, pack);
    layer.units_shared = Shares(units);
  }
  plan.layers[shape.layers() - 1].grad = take(rows * stride(outputs));
  plan.bytes = size * shape.element_size;
  return plan;
}

// The plan for models in warps of their own, if enough of them have room in so many bytes at once
// that they leave a block for each behind. The number of models must not matter here, since a
// model's bits depend on the kernel: whoever trains a thousand may repeat one of them.
inline WarpPlan make_warp_plan(const Shape& shape, int64_t batch_size, int64_t limit) {
  const int64_t most = limit / fewest_warps - bytes_of_a_block;
  if (shape.layers() > most_layers) return {};
  for (int64_t width : shape.widths)
    if (width > most) return {};  // and no product of widths overflows
  const auto of = shape.element_size == sizeof(double) ? lay_out_in_a_warp<WarpTiles<8>>
                                                       : lay_out_in_a_warp<WarpTiles<4>>;
  const WarpPlan plan = of(shape, batch_size);
  return plan.bytes <= most ? plan : WarpPlan{};
}

}  // namespace torchnn::cuda
