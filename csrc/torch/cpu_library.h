// The library behind torch.mm, which is made for large matrices.
#pragma once

#include "../product.h"

namespace torchnn {

// c = bias + a @ b, for a product without finish. Of PyTorch's threads it takes those that are
// free: all of them, or within parallel_for the caller's alone.
template <class T>
void multiply_by_library(const cpu::Product<T>& product);

// c += scale * a @ b, and no bias
template <class T>
void add_product_by_library(const cpu::Product<T>& product, T scale);

}  // namespace torchnn
