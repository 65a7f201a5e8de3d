// Which of two ways to a product is the faster one: our blocks, or the library behind torch.mm.
// That differs from processor to processor, and on one of them from size to size, so the clock says
// it: both compute a part of the first product of a size, and the choice is kept for the process.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "../dense.h"

namespace torchnn {

// c (rows, columns) = a @ b, summed over depth. Where its operands lie, and so what is known of its
// speed, differs between these.
struct ProductKind {
  enum Place : int64_t { forward, grad_x, grad_weight };
  Place place;
  int64_t rows, columns, depth;
  int64_t element_size;

  // It takes no longer than to ask the library: always ours.
  bool is_small() const {
    constexpr double least = 1 << 17;  // multiply-adds
    return double(rows) * double(columns) * double(depth) < least;
  }
};

// Computes a rectangle of c.
using Compute = std::function<void(Range rows, Range columns)>;

// Whether to leave a product that is not small to the library. Both must be able to compute any
// rectangle of it, again and again.
bool is_for_library(const ProductKind& kind, const Compute& ours, const Compute& library);

// Whether it may be the library at all.
bool may_use_library();

// How to choose from now on: 0 by the clock, 1 always ours, 2 always the library.
void choose_ways(int64_t how);
std::string ways();  // how that is, and what has been measured, a line for each choice

}  // namespace torchnn
