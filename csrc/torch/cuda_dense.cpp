#include "cuda_dense.h"

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

// t (..., columns) as (rows, columns).
Tensor flat(const Tensor& t, int64_t rows) {
  return t.dim() == 2 ? t : torch::stable::reshape(t, {rows, t.size(t.dim() - 1)});
}

int64_t row_count(const Tensor& x) {
  int64_t count = 1;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) count *= x.size(i);
  return count;
}

// x @ weight.T by the library; then the activation in place, and the bias before it where the
// library does not add that as it stores.
Tensor large_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                   int64_t activation) {
  if (activation == 0) return linear(x, weight, bias);  // Identity
  const bool apart = bias && cuda::adds_bias_apart(row_count(x), x.element_size());
  Tensor out = make_contiguous(linear(x, weight, apart ? std::nullopt : bias));
  const Tensor b = apart ? make_contiguous(*bias) : out;
  const OnDevice device(x);
  dispatch_float(x, [&]<class T, class L>(T*, L*) {
    cuda::activate(activation, mutable_data<T>(out), apart ? data<T>(b) : nullptr, weight.size(0),
                   out.numel(), device.stream);
  });
  return out;
}

// One pass for grad_z and grad_bias, then two products by the library.
Gradients large_dense_backward(const BackwardOf& of) {
  const int64_t rows = of.rows, units = of.units;
  const Tensor a = make_contiguous(of.out), grad = make_contiguous(of.grad_out);
  const Tensor grad_z = of.is_linear() ? grad : new_output(grad, units);
  const Tensor grad_bias = new_tensor<1>(grad, {of.need_bias ? units : 0});
  if (!of.is_linear() || of.need_bias) {
    const OnDevice device(grad);
    dispatch_float(grad, [&]<class T, class L>(T*, L*) {
      DenseBackward<T> layer{};
      layer.grad_out = data<T>(grad);
      layer.out = data<T>(a);
      layer.grad_z = of.is_linear() ? nullptr : mutable_data<T>(grad_z);
      layer.grad_bias = of.need_bias ? mutable_data<T>(grad_bias) : nullptr;
      layer.rows = rows;
      layer.units = units;
      layer.activation = of.activation;
      const int64_t sum_count = cuda::bias_sums<T>(rows, units);
      if (!of.need_bias || sum_count == 1) {
        cuda::dense_backward_z(layer, static_cast<L*>(nullptr), device.stream);
        return;
      }
      const int32_t lane =
          sizeof(L) == sizeof(double) ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
      const Tensor sums = new_tensor<2>(grad, {sum_count, units}, lane);
      cuda::dense_backward_z(layer, mutable_data<L>(sums), device.stream);
      cuda::dense_backward_bias(layer, data<L>(sums), device.stream);
    });
  }
  return {of.need_x ? torch::stable::matmul(grad_z, of.weight) : new_tensor<1>(grad, {0}),
          of.need_weight ? torch::stable::matmul(torch::stable::transpose(flat(grad_z, rows), 0, 1),
                                                 flat(of.x, rows))
                         : new_tensor<2>(grad, {0, of.in_features}),
          grad_bias};
}

// grad_z, of an activation that keeps z.
Tensor grad_of_kept(const Tensor& grad_out, const Tensor& z, int64_t activation) {
  const Tensor grad = make_contiguous(grad_out), own = make_contiguous(z);
  const Tensor grad_z = new_output(grad, grad.size(grad.dim() - 1));
  const OnDevice device(grad);
  dispatch_float(grad, [&]<class T, class L>(T*, L*) {
    cuda::activate_backward(activation, data<T>(grad), data<T>(own), mutable_data<T>(grad_z),
                            grad.numel(), device.stream);
  });
  return grad_z;
}

}  // namespace

Tensor cuda_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                  int64_t activation) {
  check_dense(x, weight, bias, activation, DeviceType::CUDA);
  const int64_t in_features = weight.size(1), units = weight.size(0);
  if (!cuda::fuses_forward(row_count(x), in_features, units, x.element_size()))
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

Gradients cuda_dense_backward(const Tensor& grad_out, const std::optional<Tensor>& out,
                              const std::optional<Tensor>& x, const std::optional<Tensor>& weight,
                              int64_t activation, bool need_x, bool need_weight, bool need_bias) {
  const BackwardOf of(grad_out, out, x, weight, activation, need_x, need_weight, need_bias,
                      DeviceType::CUDA);
  if (keeps_z_at(activation))
    return cuda_dense_backward(grad_of_kept(grad_out, of.out, activation), std::nullopt, x, weight,
                               Activations::place<Identity>(), need_x, need_weight, need_bias);
  const int64_t in_features = of.in_features, units = of.units;
  if (!cuda::fuses_backward(of.rows, in_features, units, grad_out.element_size()))
    return large_dense_backward(of);
  const OnDevice device(grad_out);
  const Rows rows = as_rows(of.x);
  const Tensor a = make_contiguous(of.out), grad = make_contiguous(grad_out);
  const Tensor w = make_contiguous(of.weight);
  const Tensor grad_x = need_x ? new_output(grad, in_features) : new_tensor<1>(grad, {0});
  const Tensor grad_weight = new_tensor<2>(grad, {need_weight ? units : 0, in_features});
  const Tensor grad_bias = new_tensor<1>(grad, {need_bias ? units : 0});
  dispatch_float(grad, [&]<class T, class L>(T*, L*) {
    const DenseBackward<T> layer{
        .grad_out = data<T>(grad),
        .out = data<T>(a),
        .x = data<T>(rows.tensor),
        .weight = data<T>(w),
        .grad_z = nullptr,
        .grad_x = need_x ? mutable_data<T>(grad_x) : nullptr,
        .grad_weight = need_weight ? mutable_data<T>(grad_weight) : nullptr,
        .grad_bias = need_bias ? mutable_data<T>(grad_bias) : nullptr,
        .rows = of.rows,
        .in_features = in_features,
        .units = units,
        .x_stride = rows.row_stride,
        .activation = activation,
    };
    cuda::dense_backward(layer, device.stream);
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace torchnn
