// One dense layer on CUDA tensors, and what the bindings for CUDA share: the element types, the
// device and its stream.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/csrc/stable/accelerator.h>

#include <optional>
#include <tuple>

#include "../dense.h"
#include "binding.h"

// Weak: it is in a PyTorch with CUDA alone.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace torchnn {

// Makes a tensor's device the current one while it lives.
struct OnDevice {
  torch::stable::accelerator::DeviceGuard guard;
  cuda::Stream stream;

  explicit OnDevice(const Tensor& x) : guard(x.get_device_index()) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this PyTorch has no CUDA");
    void* current;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &current));
    stream = static_cast<cuda::Stream>(current);
  }
};

// activation(x @ weight.T + bias)
Tensor cuda_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                  int64_t activation);

using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // of x, weight and bias

// The gradients of dense; one that is not needed comes back with no elements.
Gradients cuda_dense_backward(const Tensor& grad_out, const std::optional<Tensor>& out,
                              const std::optional<Tensor>& x, const std::optional<Tensor>& weight,
                              int64_t activation, bool need_x, bool need_weight, bool need_bias);

}  // namespace torchnn
