// Operator schemas, argument checks and the CPU registration; no arithmetic. The Python wrapper in
// torchnn/ops.py judges what a user can get wrong; the checks here are those that memory safety
// rests on, so that a direct torch.ops.torchnn call can be refused but never corrupt anything.
#include <Python.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <string>
#include <tuple>

#include "activation.h"
#include "cpu/isa.h"
#include "dense.h"

namespace torchnn {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A contiguous tensor of the dtype and device of `like`. The raw call takes a fifth of the time of
// stable::new_empty.
template <int dim>
Tensor new_tensor(const Tensor& like, std::array<int64_t, dim> sizes) {
  std::array<int64_t, dim> strides;
  int64_t stride = 1;
  for (int i = dim - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  int32_t dtype, device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, sizes.data(), strides.data(), dtype,
                                                         device_type, device_index, &handle));
  return Tensor(handle);
}

// A tensor like x, of shape (..., columns).
Tensor new_output(const Tensor& x, int64_t columns) {
  if (x.dim() == 2) return new_tensor<2>(x, {x.size(0), columns});
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes.back() = columns;
  return torch::stable::new_empty(x, sizes);
}

Tensor make_contiguous(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// A tensor (..., columns) as a matrix: rows contiguous in themselves, row_stride apart.
struct Rows {
  Tensor tensor;
  int64_t count, row_stride;
};

Rows as_rows(const Tensor& t) {
  const int64_t dim = t.dim();
  if (dim == 2 && (t.stride(1) == 1 || t.size(1) <= 1)) return {t, t.size(0), t.stride(0)};
  const Tensor whole = make_contiguous(t);
  int64_t count = 1;
  for (int64_t i = 0; i + 1 < dim; ++i) count *= t.size(i);
  return {whole, count, t.size(dim - 1)};
}

bool cpu_like(const Tensor& t, const Tensor& x) {
  return t.is_cpu() && t.scalar_type() == x.scalar_type();
}

void check_layer(const Tensor& x, const Tensor& weight, int64_t activation) {
  STD_TORCH_CHECK(x.dim() >= 1 && weight.dim() == 2 && weight.size(1) == x.size(x.dim() - 1),
                  "x must be (..., in_features) and weight (units, in_features)");
  STD_TORCH_CHECK(x.is_cpu() && cpu_like(weight, x),
                  "x and weight must be on the CPU, of one dtype");
  STD_TORCH_CHECK(activation >= 0 && activation < Activations::size, "no activation ", activation);
}

// Calls f with a null pointer of the tensor's element type.
template <class F>
void dispatch_float(const Tensor& t, F&& f) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return f(static_cast<float*>(nullptr));
    case ScalarType::Double: return f(static_cast<double*>(nullptr));
    default: STD_TORCH_CHECK(false, "x must be float32 or float64");
  }
}

// Shares the longer side of a (rows, columns) output out among the threads: one call of
// f(rows, columns) for each. Waking them takes microseconds, so little work stays on this thread.
template <class F>
void parallel_rectangles(int64_t rows, int64_t columns, int64_t depth, const F& f) {
  constexpr int64_t serial_products = 1 << 20;  // 10 to 20 us of arithmetic
  constexpr int64_t multiple = 24;              // whole register tiles for every thread but one
  const bool by_rows = rows >= columns;
  const int64_t length = by_rows ? rows : columns;
  if (rows * columns * depth < 2 * serial_products || torch::stable::get_num_threads() == 1)
    return f(Range{0, rows}, Range{0, columns});
  const int64_t parts = (length + multiple - 1) / multiple;
  const int64_t grain = std::max<int64_t>(1, serial_products * parts / (rows * columns * depth));
  torch::stable::parallel_for(0, parts, grain, [&](int64_t begin, int64_t end) {
    const Range part{begin * multiple, std::min(end * multiple, length)};
    if (by_rows)
      f(part, Range{0, columns});
    else
      f(Range{0, rows}, part);
  });
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* mutable_data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

Tensor dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
             int64_t activation) {
  check_layer(x, weight, activation);
  const int64_t in_features = weight.size(1), units = weight.size(0);
  STD_TORCH_CHECK(!bias || (cpu_like(*bias, x) && bias->dim() == 1 && bias->size(0) == units),
                  "bias must be (units,), on the CPU, of the dtype of x");
  const Rows rows = as_rows(x);
  const Tensor w = make_contiguous(weight), b = bias ? make_contiguous(*bias) : w;
  Tensor out = new_output(x, units);
  dispatch_float(x, [&]<class T>(T*) {
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
    parallel_rectangles(rows.count, units, in_features,
                        [&](Range rows, Range units) { cpu::dense_forward(layer, rows, units); });
  });
  return out;
}

// The gradients of dense; one that is not needed comes back with no elements.
std::tuple<Tensor, Tensor, Tensor> dense_backward(const Tensor& grad_out, const Tensor& out,
                                                  const Tensor& x, const Tensor& weight,
                                                  int64_t activation, bool need_x, bool need_weight,
                                                  bool need_bias) {
  check_layer(x, weight, activation);
  const int64_t in_features = weight.size(1), units = weight.size(0);
  for (const Tensor* t : {&grad_out, &out}) {
    STD_TORCH_CHECK(cpu_like(*t, x) && t->dim() == x.dim() && t->size(t->dim() - 1) == units,
                    "grad_out and out must be (..., units), on the CPU, of the dtype of x");
    for (int64_t i = 0; i + 1 < x.dim(); ++i)
      STD_TORCH_CHECK(t->size(i) == x.size(i), "grad_out and out must have as many rows as x");
  }
  const Rows rows = as_rows(x);
  const Tensor w = make_contiguous(weight), a = make_contiguous(out),
               grad = make_contiguous(grad_out);
  const bool linear = activation == 0;  // Identity: grad_z is grad_out
  const Tensor grad_z = linear ? grad : new_output(x, units);
  Tensor grad_x = need_x ? new_output(x, in_features) : new_tensor<1>(x, {0});
  Tensor grad_weight = new_tensor<2>(x, {need_weight ? units : 0, in_features});
  Tensor grad_bias = new_tensor<1>(x, {need_bias ? units : 0});
  dispatch_float(x, [&]<class T>(T*) {
    const DenseBackward<T> layer{
        .grad_out = data<T>(grad),
        .out = data<T>(a),
        .x = data<T>(rows.tensor),
        .weight = data<T>(w),
        .grad_z = static_cast<T*>(grad_z.data_ptr()),
        .grad_x = mutable_data<T>(grad_x),
        .grad_weight = mutable_data<T>(grad_weight),
        .grad_bias = mutable_data<T>(grad_bias),
        .rows = rows.count,
        .in_features = in_features,
        .units = units,
        .x_stride = rows.row_stride,
        .activation = activation,
    };
    if (!linear) cpu::dense_backward_z(layer, {0, rows.count});
    if (need_bias) cpu::dense_backward_bias(layer, {0, units});
    if (need_x)
      parallel_rectangles(rows.count, in_features, units, [&](Range rows, Range features) {
        cpu::dense_backward_x(layer, rows, features);
      });
    if (need_weight)
      parallel_rectangles(units, in_features, rows.count, [&](Range units, Range features) {
        cpu::dense_backward_weight(layer, units, features);
      });
  });
  return {grad_x, grad_weight, grad_bias};
}

// The names of the activations, separated by spaces.
std::string activations() {
  std::string names;
  Activations::each([&](auto activation) {
    if (!names.empty()) names += " ";
    names += activation.name;
  });
  return names;
}

std::string cpu_capability() { return cpu::name(cpu::capability_in_use()); }

}  // namespace
}  // namespace torchnn

STABLE_TORCH_LIBRARY(torchnn, m) {
  // dense is differentiable (torchnn/ops.py registers how); dense_forward is the bare kernel, free
  // of the cost of an autograd registration.
  m.def("dense(Tensor x, Tensor weight, Tensor? bias, int activation) -> Tensor");
  m.def("dense_forward(Tensor x, Tensor weight, Tensor? bias, int activation) -> Tensor");
  m.def(
      "dense_backward(Tensor grad_out, Tensor out, Tensor x, Tensor weight, int activation, "
      "bool need_x, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)");
  m.def("activations() -> str");
  m.def("cpu_capability() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(torchnn, CPU, m) {
  m.impl("dense", TORCH_BOX(&torchnn::dense));
  m.impl("dense_forward", TORCH_BOX(&torchnn::dense));
  m.impl("dense_backward", TORCH_BOX(&torchnn::dense_backward));
}

STABLE_TORCH_LIBRARY_IMPL(torchnn, CompositeExplicitAutograd, m) {
  m.impl("activations", TORCH_BOX(&torchnn::activations));
  m.impl("cpu_capability", TORCH_BOX(&torchnn::cpu_capability));
}

// Importing the module loads the library, whose static initialisers register the operators.
PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module{
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
