// One dense layer on CPU tensors, and what the bindings for the CPU share.
#pragma once

#include <optional>
#include <tuple>

#include "../dense.h"
#include "binding.h"

namespace torchnn {

// Calls f with a null pointer of the tensor's element type.
template <class F>
void dispatch_float(const Tensor& t, F&& f) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return f(static_cast<float*>(nullptr));
    case ScalarType::Double: return f(static_cast<double*>(nullptr));
    default: STD_TORCH_CHECK(false, "x must be float32 or float64");
  }
}

// f(begin, end) for parts of `count` rows of so many elements that are worth a thread.
template <class F>
void parallel_elements(int64_t count, int64_t row, const F& f) {
  constexpr int64_t worth = 1 << 15;
  if (count * row <= worth) return f(0, count);
  parallel_for(0, count, std::max<int64_t>(1, worth / row), f);
}

// activation(x @ weight.T + bias)
Tensor cpu_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                 int64_t activation);

// The gradients of dense; one that is not needed comes back with no elements.
std::tuple<Tensor, Tensor, Tensor> cpu_dense_backward(const Tensor& grad_out,
                                                      const std::optional<Tensor>& out,
                                                      const std::optional<Tensor>& x,
                                                      const std::optional<Tensor>& weight,
                                                      int64_t activation, bool need_x,
                                                      bool need_weight, bool need_bias);

}  // namespace torchnn
