// The register tile that every product of ours is made of.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../math/lane.h"

namespace torchnn::cpu {

// A tile of a @ b, `height` rows high and `registers` registers wide, summed in registers.
template <class V, int height, int registers>
struct Tile {
  V sum[height][registers] = {};

  // sum += a @ b over so many columns of a and rows of b. a is the first of these columns, b(k) is
  // where row k begins, and the tile's part of it `offset` further on.
  template <class Column, class Rows>
  TORCHNN_FN void accumulate(int64_t depth, Column a, const Rows& b, int64_t offset = 0) {
    for (int64_t k = 0; k < depth; ++k, a.next()) {
      const auto* from = b(k) + offset;
      V b_row[registers];
#pragma GCC unroll 32
      for (int j = 0; j < registers; ++j) b_row[j] = load<V>(from + j * lanes<V>);
#pragma GCC unroll 16
      for (int i = 0; i < height; ++i) {
        const Element<V> factor = a[i];
#pragma GCC unroll 32
        for (int j = 0; j < registers; ++j) sum[i][j] += factor * b_row[j];
      }
    }
  }
};

// How n rows are cut into tiles of at most `most` rows, as even as they come: 25 are 13 and 12.
struct EvenTiles {
  int64_t count, least, higher;  // tiles, rows of one; the first few are a row higher
  EvenTiles(int64_t n, int64_t most) : count((n + most - 1) / most) {
    least = count ? n / count : 0, higher = n - least * count;
  }
  int64_t begin(int64_t tile) const { return tile * least + std::min(tile, higher); }
  int64_t most() const { return least + (higher > 0); }
};

// Calls f.template run<height>() with height, from 1 to most, known to the compiler.
template <int most, class F>
TORCHNN_FN void with_height(int64_t height, const F& f) {
  if constexpr (most > 0) {
    if (height == most)
      f.template run<most>();
    else
      with_height<most - 1>(height, f);
  }
}

}  // namespace torchnn::cpu
