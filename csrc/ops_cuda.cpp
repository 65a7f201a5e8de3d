// The CUDA registration of the operators that ops.cpp defines: checks, stream and device; no
// arithmetic. It is a library of its own, built where nvcc is, which also loads beside a PyTorch
// without CUDA.
#include <Python.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/csrc/stable/accelerator.h>

#include <tuple>

#include "binding.h"
#include "dense.h"

// Weak: it is in a PyTorch with CUDA alone.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace torchnn {
namespace {

// Calls f with a null pointer of the tensor's element type, and one of the type it is computed in.
template <class F>
void dispatch_float(const Tensor& t, F&& f) {
  float* single = nullptr;
  double* twice = nullptr;
  switch (t.scalar_type()) {
    case ScalarType::Float: return f(single, single);
    case ScalarType::Double: return f(twice, twice);
    case ScalarType::Half: return f(static_cast<__half*>(nullptr), single);
    case ScalarType::BFloat16: return f(static_cast<__nv_bfloat16*>(nullptr), single);
    default: STD_TORCH_CHECK(false, "x must be float32, float64, float16 or bfloat16");
  }
}

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

// t (..., columns) as (rows, columns).
Tensor flat(const Tensor& t, int64_t rows) {
  return t.dim() == 2 ? t : torch::stable::reshape(t, {rows, t.size(t.dim() - 1)});
}

int64_t row_count(const Tensor& x) {
  int64_t count = 1;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) count *= x.size(i);
  return count;
}

// x @ weight.T by the library, then bias and activation in place. Half types leave the bias to the
// library, which adds it before it rounds: a z that is rounded alone may be far off beside z +
// bias.
Tensor large_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                   int64_t activation) {
  if (activation == 0) return linear(x, weight, bias);  // Identity
  const bool in_pass = bias && x.element_size() > 2;
  Tensor out = make_contiguous(linear(x, weight, in_pass ? std::nullopt : bias));
  const Tensor b = in_pass ? make_contiguous(*bias) : weight;
  const OnDevice device(x);
  dispatch_float(x, [&]<class T, class L>(T*, L*) {
    DenseForward<T> layer{};
    layer.bias = in_pass ? data<T>(b) : nullptr;
    layer.out = mutable_data<T>(out);
    layer.rows = row_count(x);
    layer.units = weight.size(0);
    layer.activation = activation;
    cuda::activate(layer, device.stream);
  });
  return out;
}

Tensor dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
             int64_t activation) {
  check_dense(x, weight, bias, activation, DeviceType::CUDA);
  const int64_t in_features = weight.size(1), units = weight.size(0);
  if (!cuda::fuses_forward(row_count(x), in_features, units))
    return large_dense(x, weight, bias, activation);
  const OnDevice device(x);
  const Rows rows = as_rows(x);
  const Tensor w = make_contiguous(weight), b = bias ? make_contiguous(*bias) : w;
  Tensor out = new_output(x, units);
  dispatch_float(x, [&]<class T, class L>(T*, L*) {
    const DenseForward<T> layer{
        .x = data<T>(rows.tensor),
        .weight = data<T>(w),
        .bias = bias ? data<T>(b) : nullptr,
        .out = mutable_data<T>(out),
        .rows = rows.count,
        .in_features = in_features,
        .units = units,
        .x_stride = rows.row_stride,
        .activation = activation,
    };
    cuda::dense_forward(layer, device.stream);
  });
  return out;
}

// The gradients of dense; one that is not needed comes back with no elements.
std::tuple<Tensor, Tensor, Tensor> dense_backward(const Tensor& grad_out, const Tensor& out,
                                                  const Tensor& x, const Tensor& weight,
                                                  int64_t activation, bool need_x, bool need_weight,
                                                  bool need_bias) {
  check_dense_backward(grad_out, out, x, weight, activation, DeviceType::CUDA);
  const OnDevice device(x);
  const int64_t rows = row_count(x), in_features = weight.size(1), units = weight.size(0);
  const bool fused = cuda::fuses_backward(rows, in_features, units);
  const bool linear = activation == 0;  // Identity: grad_z is grad_out
  const Tensor a = make_contiguous(out), grad = make_contiguous(grad_out);
  const Tensor grad_z = fused || linear ? grad : new_output(x, units);
  Tensor grad_x = need_x && fused ? new_output(x, in_features) : new_tensor<1>(x, {0});
  Tensor grad_weight = new_tensor<2>(x, {need_weight && fused ? units : 0, in_features});
  Tensor grad_bias = new_tensor<1>(x, {need_bias ? units : 0});
  dispatch_float(x, [&]<class T, class L>(T*, L*) {
    DenseBackward<T> layer{
        .grad_out = data<T>(grad),
        .out = data<T>(a),
        .x = nullptr,
        .weight = nullptr,
        .grad_z = nullptr,
        .grad_x = nullptr,
        .grad_weight = nullptr,
        .grad_bias = need_bias ? mutable_data<T>(grad_bias) : nullptr,
        .rows = rows,
        .in_features = in_features,
        .units = units,
        .x_stride = 0,
        .activation = activation,
    };
    if (fused) {
      const Rows x_rows = as_rows(x);
      const Tensor w = make_contiguous(weight);
      layer.x = data<T>(x_rows.tensor);
      layer.x_stride = x_rows.row_stride;
      layer.weight = data<T>(w);
      layer.grad_x = need_x ? mutable_data<T>(grad_x) : nullptr;
      layer.grad_weight = need_weight ? mutable_data<T>(grad_weight) : nullptr;
      cuda::dense_backward(layer, device.stream);
      return;
    }
    if (!linear) layer.grad_z = mutable_data<T>(grad_z);
    const int32_t lane =
        sizeof(L) == sizeof(double) ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
    const Tensor sums = new_tensor<2>(x, {need_bias ? cuda::bias_parts(rows) : 0, units}, lane);
    cuda::dense_backward_z(layer, need_bias ? mutable_data<L>(sums) : nullptr, device.stream);
    if (need_bias) cuda::dense_backward_bias(layer, data<L>(sums), device.stream);
  });
  if (!fused && need_x) grad_x = torch::stable::matmul(grad_z, weight);
  if (!fused && need_weight) {
    Tensor grad_z_rows = flat(grad_z, rows);
    grad_weight = torch::stable::matmul(torch::stable::transpose(grad_z_rows, 0, 1), flat(x, rows));
  }
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace
}  // namespace torchnn

STABLE_TORCH_LIBRARY_IMPL(torchnn, CUDA, m) {
  m.impl("dense", TORCH_BOX(&torchnn::dense));
  m.impl("dense_forward", TORCH_BOX(&torchnn::dense));
  m.impl("dense_backward", TORCH_BOX(&torchnn::dense_backward));
}

// Importing the module loads the library, whose static initialisers register the kernels.
PyMODINIT_FUNC PyInit__cuda() {
  static PyModuleDef module{
      PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
