// Transposing in registers.
#pragma once

#include <cstdint>
#include <utility>

#include "../../math/lane.h"

namespace torchnn::cpu {

// A square as wide as a register: to[k * to_stride + i] = from(i)[k], from(i) being where row i
// begins. First the squares of 16 bytes inside it are transposed, then it is, as a matrix of these.
template <class V>
struct Square {
  static constexpr int side = lanes<V>;
  static constexpr int inner = 16 / sizeof(Element<V>);  // floats or doubles in 16 bytes
  static constexpr int outer = side / inner;

  template <class From>
  static TORCHNN_FN void transpose(const From& from, Element<V>* to, int64_t to_stride) {
    V rows[side];
#pragma GCC unroll 16
    for (int i = 0; i < side; ++i) rows[i] = load<V>(from(i));
#pragma GCC unroll 4
    for (int i = 0; i < outer; ++i) transpose_inner(rows + i * inner);
#pragma GCC unroll 4
    for (int k = 0; k < inner; ++k) {
      V column[outer];
#pragma GCC unroll 4
      for (int i = 0; i < outer; ++i) column[i] = rows[i * inner + k];
      transpose_outer(column);
#pragma GCC unroll 4
      for (int i = 0; i < outer; ++i) store<V>(to + (i * inner + k) * to_stride, column[i]);
    }
  }

 private:
  using Places = std::make_integer_sequence<int, side>;

  // Shuffles every 16 bytes of a and b alike; the places are those of four floats of a and four of
  // b, or of two and two doubles.
  template <int... place>
  static TORCHNN_FN V inside(V a, V b) {
    constexpr int places[] = {place...};
    return [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
      return __builtin_shufflevector(
          a, b,
          (i / inner * inner + places[i % inner] % inner + places[i % inner] / inner * side)...);
    }(Places());
  }

  // Shuffles whole 16 bytes.
  template <int... place>
  static TORCHNN_FN V across(V a, V b) {
    constexpr int places[] = {place...};
    return [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
      return __builtin_shufflevector(a, b, (places[i / inner] * inner + i % inner)...);
    }(Places());
  }

  static TORCHNN_FN void transpose_inner(V* r) {
    if constexpr (inner == 2) {
      const V a = r[0], b = r[1];
      r[0] = inside<0, 2>(a, b), r[1] = inside<1, 3>(a, b);
    } else {
      const V a = inside<0, 4, 1, 5>(r[0], r[1]), b = inside<2, 6, 3, 7>(r[0], r[1]);
      const V c = inside<0, 4, 1, 5>(r[2], r[3]), d = inside<2, 6, 3, 7>(r[2], r[3]);
      r[0] = inside<0, 1, 4, 5>(a, c), r[1] = inside<2, 3, 6, 7>(a, c);
      r[2] = inside<0, 1, 4, 5>(b, d), r[3] = inside<2, 3, 6, 7>(b, d);
    }
  }

  static TORCHNN_FN void transpose_outer(V* r) {
    if constexpr (outer == 2) {
      const V a = r[0], b = r[1];
      r[0] = across<0, 2>(a, b), r[1] = across<1, 3>(a, b);
    } else if constexpr (outer == 4) {
      const V a = across<0, 1, 4, 5>(r[0], r[1]), b = across<2, 3, 6, 7>(r[0], r[1]);
      const V c = across<0, 1, 4, 5>(r[2], r[3]), d = across<2, 3, 6, 7>(r[2], r[3]);
      r[0] = across<0, 2, 4, 6>(a, c), r[1] = across<1, 3, 5, 7>(a, c);
      r[2] = across<0, 2, 4, 6>(b, d), r[3] = across<1, 3, 5, 7>(b, d);
    }
  }
};

}  // namespace torchnn::cpu
