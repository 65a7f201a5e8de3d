// Which of two ways to a product is the faster one: our blocks, or the library behind torch.mm. That
// differs from processor to processor, and on one of them from size to size, so the clock says it:
// both compute a part of the first product of a size, and the choice is kept for the process.
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
};

// Computes a rectangle of c.
using Compute = std::function<void(Range rows, Range columns)>;

// Whether to leave a product to the library. Both must be able to compute any rectangle of it, and
// what they computed may be overwritten. Called on a product that is too small for a measurement,
// it says no.
bool is_for_library(const ProductKind& kind, const Compute& ours, const Compute& library);

// How to choose from now on: "measured", "ours" or "library".
void choose_ways(std::string how);
std::string ways();  // how that is, and what has been measured, a line for each choice

}  // namespace torchnn
