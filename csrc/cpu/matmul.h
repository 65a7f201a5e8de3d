// Large products on one thread: behind grad_x, grad_weight and large forwards.
#pragma once

#include "../product.h"

namespace torchnn::cpu {

template <class T>
void multiply(const Product<T>& product);

}  // namespace torchnn::cpu
