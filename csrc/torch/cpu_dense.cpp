#include "cpu_dense.h"

#include <functional>

#include "cpu_library.h"
#include "cpu_ways.h"

namespace torchnn {
namespace {

// Shares the longer side of a rectangle of an output out among the threads: one call of
// f(rows, columns) for each. Waking them takes microseconds, so little work stays on this thread.
template <class F>
void parallel_rectangles(Range rows, Range columns, int64_t depth, const F& f) {
  constexpr int64_t serial = 1 << 20;  // multiply-adds: 10 to 20 us
  constexpr int64_t activation = 32;   // what an activation costs in these
  constexpr int64_t operand = 4;       // and a number that is read, which counts for few rows
  constexpr int64_t multiple = 24;     // whole register tiles for every thread but one
  const int64_t height = rows.size(), width = columns.size();
  if (height == 0 || width == 0) return;  // of nothing there may be very much
  const bool by_rows = height >= width;
  const Range side = by_rows ? rows : columns;
  const int64_t work = height * width * (depth + activation) + operand * (height + width) * depth;
  if (work < 2 * serial || torch::stable::get_num_threads() == 1) return f(rows, columns);
  const int64_t parts = (side.size() + multiple - 1) / multiple;
  const int64_t grain = std::max<int64_t>(1, serial * parts / work);
  parallel_for(0, parts, grain, [&](int64_t begin, int64_t end) {
    const Range part{side.begin + begin * multiple,
                     std::min(side.begin + end * multiple, side.end)};
    if (by_rows)
      f(part, columns);
    else
      f(rows, part);
  });
}

// A whole product, by whichever way is faster.
template <class Ours, class Library>
void multiply(const ProductKind& kind, const Ours& ours, const Library& library) {
  const Range rows{0, kind.rows}, columns{0, kind.columns};
  if (!kind.is_small() && is_for_library(kind, std::cref(ours), std::cref(library)))
    library(rows, columns);
  else
    ours(rows, columns);
}

template <class T>
void forward(const DenseForward<T>& layer) {
  const int64_t in_features = layer.in_features;
  auto ours = [&](Range rows, Range units) {
    parallel_rectangles(rows, units, in_features,
                        [&](Range rows, Range units) { cpu::dense_forward(layer, rows, units); });
  };
  auto library = [&](Range rows, Range units) {
    const int64_t width = units.size();
    T* const out = layer.out + rows.begin * layer.units + units.begin;
    multiply_by_library<T>({
        .rows = rows.size(),
        .columns = width,
        .depth = in_features,
        .a = {layer.x + rows.begin * layer.x_stride, layer.x_stride, 1},
        .b = {layer.weight + units.begin * in_features, 1, in_features},
        .bias = layer.bias ? layer.bias + units.begin : nullptr,
        .c = out,
        .c_stride = layer.units,
    });
    parallel_elements(rows.size(), width, [&](int64_t begin, int64_t end) {
      T* a = out + begin * layer.units;
      if (width == layer.units) return cpu::activate(layer.activation, a, (end - begin) * width);
      for (; begin < end; ++begin, a += layer.units) cpu::activate(layer.activation, a, width);
    });
  };
  multiply({ProductKind::forward, layer.rows, layer.units, in_features, sizeof(T)}, ours, library);
}

template <class T>
void backward_x(const DenseBackward<T>& layer) {
  auto ours = [&](Range rows, Range features) {
    parallel_rectangles(rows, features, layer.units, [&](Range rows, Range features) {
      cpu::dense_backward_x(layer, rows, features);
    });
  };
  auto library = [&](Range rows, Range features) {
    multiply_by_library<T>({
        .rows = rows.size(),
        .columns = features.size(),
        .depth = layer.units,
        .a = {layer.grad_z + rows.begin * layer.units, layer.units, 1},
        .b = {layer.weight + features.begin, layer.in_features, 1},
        .c = layer.grad_x + rows.begin * layer.in_features + features.begin,
        .c_stride = layer.in_features,
    });
  };
  multiply({ProductKind::grad_x, layer.rows, layer.in_features, layer.units, sizeof(T)}, ours,
           library);
}

template <class T>
void backward_weight(const DenseBackward<T>& layer) {
  auto ours = [&](Range units, Range features) {
    parallel_rectangles(units, features, layer.rows, [&](Range units, Range features) {
      cpu::dense_backward_weight(layer, units, features);
    });
  };
  auto library = [&](Range units, Range features) {
    multiply_by_library<T>({
        .rows = units.size(),
        .columns = features.size(),
        .depth = layer.rows,
        .a = {layer.grad_z + units.begin, 1, layer.units},
        .b = {layer.x + features.begin, layer.x_stride, 1},
        .c = layer.grad_weight + units.begin * layer.in_features + features.begin,
        .c_stride = layer.in_features,
    });
  };
  multiply({ProductKind::grad_weight, layer.units, layer.in_features, layer.rows, sizeof(T)}, ours,
           library);
}

}  // namespace

Tensor cpu_dense(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                 int64_t activation) {
  check_dense(x, weight, bias, activation, DeviceType::CPU);
  const int64_t in_features = weight.size(1), units = weight.size(0);
  const Rows rows = as_rows(x);
  const Tensor w = make_contiguous(weight), b = bias ? make_contiguous(*bias) : w;
  Tensor out = new_output(x, units);
  dispatch_float(x, [&]<class T>(T*) {
    forward(DenseForward<T>{
        .x = data<T>(rows.tensor),
        .weight = data<T>(w),
        .bias = bias ? data<T>(b) : nullptr,
        .out = mutable_data<T>(out),
        .rows = rows.count,
        .in_features = in_features,
        .units = units,
        .x_stride = rows.row_stride,
        .activation = activation,
    });
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> cpu_dense_backward(const Tensor& grad_out,
                                                      const std::optional<Tensor>& out,
                                                      const std::optional<Tensor>& x,
                                                      const std::optional<Tensor>& weight,
                                                      int64_t activation, bool need_x,
                                                      bool need_weight, bool need_bias) {
  const BackwardOf of(grad_out, out, x, weight, activation, need_x, need_weight, need_bias,
                      DeviceType::CPU);
  const int64_t rows = of.rows, in_features = of.in_features, units = of.units;
  const Rows x_rows = as_rows(of.x);
  const Tensor w = make_contiguous(of.weight), a = make_contiguous(of.out),
               grad = make_contiguous(grad_out);
  const Tensor grad_z = of.is_linear() ? grad : new_output(grad_out, units);
  Tensor grad_x = need_x ? new_output(grad_out, in_features) : new_tensor<1>(grad_out, {0});
  Tensor grad_weight = new_tensor<2>(grad_out, {need_weight ? units : 0, in_features});
  Tensor grad_bias = new_tensor<1>(grad_out, {need_bias ? units : 0});
  dispatch_float(grad_out, [&]<class T>(T*) {
    const DenseBackward<T> layer{
        .grad_out = data<T>(grad),
        .out = data<T>(a),
        .x = data<T>(x_rows.tensor),
        .weight = data<T>(w),
        .grad_z = static_cast<T*>(grad_z.data_ptr()),
        .grad_x = mutable_data<T>(grad_x),
        .grad_weight = mutable_data<T>(grad_weight),
        .grad_bias = mutable_data<T>(grad_bias),
        .rows = rows,
        .in_features = in_features,
        .units = units,
        .x_stride = x_rows.row_stride,
        .activation = activation,
    };
    if (!of.is_linear())
      parallel_elements(rows, units, [&](int64_t begin, int64_t end) {
        cpu::dense_backward_z(layer, {begin, end});
      });
    if (need_bias)
      parallel_elements(units, rows, [&](int64_t begin, int64_t end) {
        cpu::dense_backward_bias(layer, {begin, end});
      });
    if (need_x) backward_x(layer);
    if (need_weight) backward_weight(layer);
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace torchnn
