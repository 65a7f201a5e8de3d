// Runs the kernels of csrc/cuda/dense.cu, over tails, odd widths, slices and more tiles than
// blocks, and compares them with plain loops in double. Each array ends where its allocation ends,
// so that a step too far is seen. tests/test_simt.py runs it on the CPU, under AddressSanitizer
// and ThreadSanitizer; benchmarks/gpu/run.sh on a GPU, under compute-sanitizer. With the argument
// "few", or the name of the kernel file, it runs the few cases that meet every barrier;
// TORCHNN_ONLY_FLOAT leaves all others out, to compile sooner.
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#define TORCHNN_MOST_BLOCKS 3
#include "../../csrc/cuda/dense.cu"

namespace torchnn {
namespace {

std::mt19937 generator(0);
int failures = 0;

template <class T>
using Lane = cuda::Lane<T>;

template <class T>
double epsilon() {
  if (std::is_same_v<T, __half>) return 0x1p-10;
  if (std::is_same_v<T, __nv_bfloat16>) return 0x1p-7;
  return std::numeric_limits<Lane<T>>::epsilon();
}

void expect_success(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("%s\n", cudaGetErrorString(error));
  std::exit(1);
}

// A matrix in double, on the host.
struct Exact {
  Exact(int64_t rows, int64_t columns) : rows(rows), columns(columns), values(rows * columns) {}
  double operator()(int64_t row, int64_t column) const { return values[row * columns + column]; }

  int64_t rows, columns;
  std::vector<double> values;
};

// A matrix in T on the device, `offset` elements into aligned memory, its rows `stride` apart, and
// a copy of it on the host.
template <class T>
struct Matrix {
  Matrix(int64_t rows, int64_t columns, int64_t stride, int64_t offset)
      : rows(rows),
        columns(columns),
        stride(stride),
        offset(offset),
        host(offset + (rows ? (rows - 1) * stride + columns : 0)) {
    T* memory;
    expect_success(cudaMalloc(&memory, host.size() * sizeof(T)));
    device = std::shared_ptr<T>(memory, [](T* p) { expect_success(cudaFree(p)); });
  }
  Matrix(int64_t rows, int64_t columns) : Matrix(rows, columns, columns, 0) {}

  T* data() const { return device.get() + offset; }
  double operator()(int64_t row, int64_t column) const {
    return cuda::widen(host[offset + row * stride + column]);
  }
  Matrix& fill() {
    std::normal_distribution<Lane<T>> normal;
    for (T& value : host) value = cuda::narrow<T>(normal(generator));
    copy(device.get(), host.data());
    return *this;
  }
  Matrix& fetch() {
    expect_success(cudaDeviceSynchronize());
    if (host.size() > size_t(offset))
      expect_success(cudaMemcpy(host.data() + offset, data(), (host.size() - offset) * sizeof(T),
                                cudaMemcpyDefault));
    return *this;
  }
  void copy(T* to, const T* from) {
    if (!host.empty())
      expect_success(cudaMemcpy(to, from, host.size() * sizeof(T), cudaMemcpyDefault));
  }

  int64_t rows, columns, stride, offset;
  std::vector<T> host;
  std::shared_ptr<T> device;
};

// The error of a sum grows with its length, and comes on top of the rounding of the result.
template <class T>
void expect_close(const char* what, Matrix<T>& ours, const Exact& exact, int64_t depth) {
  ours.fetch();
  const double sum = std::numeric_limits<Lane<T>>::epsilon() * (4 + 2 * std::sqrt(double(depth)));
  for (int64_t i = 0; i < ours.rows; ++i)
    for (int64_t j = 0; j < ours.columns; ++j) {
      const double off = std::abs(ours(i, j) - exact(i, j));
      if (off <= epsilon<T>() * std::abs(exact(i, j)) + sum * (1 + std::sqrt(double(depth))))
        continue;
      std::printf("%s[%d, %d] is %g, not %g\n", what, int(i), int(j), ours(i, j), exact(i, j));
      ++failures;
      return;
    }
}

template <class F>
void fill(Exact& m, const F& f) {
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t j = 0; j < m.columns; ++j) m.values[i * m.columns + j] = f(i, j);
}

// The sum of f(0) ... f(count - 1).
template <class F>
double sum(int64_t count, const F& f) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += f(i);
  return total;
}

struct Case {
  int64_t rows, in_features, units, activation;
  bool bias = true;
  int64_t gap = 0, offset = 0;  // of the rows of x, and of every first element
};

template <class T>
void check_forward(const Case& c) {
  auto x = Matrix<T>(c.rows, c.in_features, c.in_features + c.gap, c.offset).fill();
  auto weight = Matrix<T>(c.units, c.in_features).fill(), bias = Matrix<T>(1, c.units).fill();
  Matrix<T> out(c.rows, c.units, c.units, c.offset);
  const DenseForward<T> layer{.x = x.data(),
                              .weight = weight.data(),
                              .bias = c.bias ? bias.data() : nullptr,
                              .out = out.data(),
                              .rows = c.rows,
                              .in_features = c.in_features,
                              .units = c.units,
                              .x_stride = x.stride,
                              .activation = c.activation};
  cuda::dense_forward(layer, nullptr);
  Exact z(c.rows, c.units), exact = z;
  fill(z, [&](int64_t i, int64_t j) {
    return (c.bias ? bias(0, j) : 0) +
           sum(c.in_features, [&](int64_t k) { return x(i, k) * weight(j, k); });
  });
  Activations::with(c.activation, [&](auto activation) {
    fill(exact, [&](int64_t i, int64_t j) { return activation.forward(z(i, j)); });
    expect_close("dense_forward", out, exact, c.in_features);

    auto in_place = Matrix<T>(c.rows, c.units, c.units, c.offset).fill();
    fill(exact, [&](int64_t i, int64_t j) {
      return activation.forward(in_place(i, j) + (c.bias ? bias(0, j) : 0));
    });
    cuda::activate(c.activation, in_place.data(), c.bias ? bias.data() : nullptr, c.units,
                   c.rows * c.units, nullptr);
    expect_close("activate", in_place, exact, 1);
  });
}

template <class T>
void check_backward(const Case& c) {
  auto x = Matrix<T>(c.rows, c.in_features, c.in_features + c.gap, c.offset).fill();
  auto weight = Matrix<T>(c.units, c.in_features).fill();
  auto grad_out = Matrix<T>(c.rows, c.units, c.units, c.offset).fill();
  auto out = Matrix<T>(c.rows, c.units).fill();
  Matrix<T> grad_z(c.rows, c.units), grad_x(c.rows, c.in_features), grad_bias(1, c.units);
  Matrix<T> grad_weight(c.units, c.in_features), grad_bias_in_one(1, c.units);
  DenseBackward<T> layer{.grad_out = grad_out.data(),
                         .out = out.data(),
                         .x = x.data(),
                         .weight = weight.data(),
                         .grad_z = grad_z.data(),
                         .grad_x = grad_x.data(),
                         .grad_weight = grad_weight.data(),
                         .grad_bias = grad_bias.data(),
                         .rows = c.rows,
                         .in_features = c.in_features,
                         .units = c.units,
                         .x_stride = x.stride,
                         .activation = c.activation};
  Matrix<Lane<T>> sums(cuda::bias_sums<T>(c.rows, c.units), c.units);
  cuda::dense_backward_z(layer, sums.rows == 1 ? nullptr : sums.data(), nullptr);
  if (sums.rows != 1) cuda::dense_backward_bias(layer, sums.data(), nullptr);
  layer.grad_z = nullptr;
  layer.grad_bias = grad_bias_in_one.data();
  cuda::dense_backward(layer, nullptr);

  Exact z(c.rows, c.units), exact_x(c.rows, c.in_features), exact_weight(c.units, c.in_features);
  Exact exact_bias(1, c.units);
  Activations::with(c.activation, [&](auto activation) {
    fill(z, [&](int64_t i, int64_t j) { return activation.backward(grad_out(i, j), out(i, j)); });
  });
  fill(exact_bias,
       [&](int64_t, int64_t j) { return sum(c.rows, [&](int64_t i) { return z(i, j); }); });
  fill(exact_x, [&](int64_t i, int64_t k) {
    return sum(c.units, [&](int64_t j) { return z(i, j) * weight(j, k); });
  });
  fill(exact_weight, [&](int64_t j, int64_t k) {
    return sum(c.rows, [&](int64_t i) { return z(i, j) * x(i, k); });
  });
  expect_close("dense_backward_z", grad_z, z, 4);
  expect_close("dense_backward_bias", grad_bias, exact_bias, c.rows);
  expect_close("dense_backward: grad_bias", grad_bias_in_one, exact_bias, c.rows);
  expect_close("dense_backward: grad_x", grad_x, exact_x, c.units);
  expect_close("dense_backward: grad_weight", grad_weight, exact_weight, c.rows);
}

// Of an activation that keeps z, the way back to it.
template <class T>
void check_activate_backward(const Case& c) {
  auto grad_out = Matrix<T>(c.rows, c.units, c.units, c.offset).fill();
  auto z = Matrix<T>(c.rows, c.units).fill();
  Matrix<T> grad_z(c.rows, c.units);
  cuda::activate_backward(c.activation, grad_out.data(), z.data(), grad_z.data(), c.rows * c.units,
                          nullptr);
  Exact exact(c.rows, c.units);
  Activations::with(c.activation, [&](auto activation) {
    fill(exact, [&](int64_t i, int64_t j) { return activation.backward(grad_out(i, j), z(i, j)); });
  });
  expect_close("activate_backward", grad_z, exact, 4);
}

template <class T>
void check(const Case& c) {
  check_forward<T>(c);
  if (keeps_z_at(c.activation))
    check_activate_backward<T>(c);
  else
    check_backward<T>(c);
}

// Two steps of depth, and several tiles for a block.
constexpr Case deep{.rows = 290, .in_features = 3, .units = 5, .activation = 1};
// Two warps share in_features, and several tiles go to a block.
constexpr Case shared{.rows = 9, .in_features = 140, .units = 9, .activation = 1};

// So wide that each warp has a tile of its own, and takes several steps along in_features.
constexpr Case wide{.rows = 9, .in_features = 261, .units = 1025, .activation = 1};

void check_few() {
  check_forward<float>(shared);
  check_backward<float>(deep);
}

#if !defined(TORCHNN_ONLY_FLOAT)

template <class T>
void check_all() {
  const Case cases[] = {
      {1, 1, 1, 0},
      {.rows = 3, .in_features = 0, .units = 2, .activation = 3},
      {5, 16, 17, 1},
      {.rows = 7, .in_features = 33, .units = 31, .activation = 2, .bias = false, .gap = 1},
      {.rows = 6, .in_features = 40, .units = 24, .activation = 3, .offset = 1},
      {.rows = 9, .in_features = 32, .units = 5, .activation = 0, .gap = 3, .offset = 3},
      {2, 300, 3, 1},
  };
  for (const Case& c : cases) check<T>(c);
  for (int64_t activation = 0; activation < Activations::size; ++activation) {
    check<T>({.rows = 6, .in_features = 5, .units = 7, .activation = activation});
    check<T>({.rows = 61, .in_features = 2, .units = 71, .activation = activation, .offset = 1});
  }
  check_forward<T>(wide);
  check_backward<T>({130, 6, 300, 3});
  check_backward<T>({.rows = 1040, .in_features = 2, .units = 5, .activation = 1});  // joined rows
  check_backward<T>({.rows = 0, .in_features = 3, .units = 2, .activation = 1});
  check_backward<T>(deep);
}

// Which layers run in kernels of ours: those that docs/kernels.md speaks of.
void check_crossovers() {
  struct Layer {
    int64_t rows, in_features, units, element_size;
    bool forward, backward;
  };
  const Layer layers[] = {
      {32, 400, 25, 4, true, true},       {32, 400, 25, 2, true, true},
      {1000, 400, 25, 4, true, false},    {1000, 400, 25, 2, true, false},
      {128, 784, 128, 4, true, true},     {128, 784, 128, 2, false, false},
      {8192, 512, 4096, 4, false, false}, {8192, 4096, 1, 4, true, false},
      {16, 512, 4096, 4, true, false},    {16, 512, 4096, 2, false, false},
      {17, 512, 4096, 4, false, false},   {16, 8192, 4096, 4, false, false},
  };
  for (const auto& [rows, in_features, units, element_size, forward, backward] : layers) {
    if (cuda::fuses_forward(rows, in_features, units, element_size) == forward &&
        cuda::fuses_backward(rows, in_features, units, element_size) == backward)
      continue;
    std::printf("%d x %d x %d, %d bytes: another way\n", int(rows), int(in_features), int(units),
                int(element_size));
    ++failures;
  }
}

void check_a_failed_launch() {
  try {
    cuda::launch("impossible", +[](int) {}, 1, 2048, 0, nullptr, 0);
    std::printf("a block of 2048 threads was launched\n"), ++failures;
  } catch (const std::runtime_error& error) {
    const std::string message = error.what();
    if (message.find("the launch of the CUDA kernel impossible failed") == message.npos)
      std::printf("%s\n", error.what()), ++failures;
  }
}

void check_everything() {
  check_all<float>();
  check_all<double>();
  check_all<__half>();
  check_all<__nv_bfloat16>();
  check_crossovers();
  check_a_failed_launch();
}

#endif

}  // namespace
}  // namespace torchnn

int main(int count, char** arguments) {
  using namespace torchnn;
  const std::string what = count > 1 ? arguments[1] : "";
#if !defined(TORCHNN_ONLY_FLOAT)
  if (what.empty()) check_everything();
#endif
  if (what == "few" || what == "dense") check_few();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
