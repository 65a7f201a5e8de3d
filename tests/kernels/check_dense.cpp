// Runs the CPU kernels in the register tiles of every instruction set, also of those that this
// machine lacks: the tiles are templates, and the compiler lowers a wide register to narrow ones.
// Each array ends where its allocation ends, so that AddressSanitizer sees a step too far.
// Built and run by tests/test_kernels.py.
#include <cstdio>
#include <random>
#include <vector>

#include "../../csrc/cpu/dense.cpp"
#include "../../csrc/cpu/elementwise.cpp"
#include "../../csrc/cpu/matmul.cpp"
#include "../../csrc/math/activation.h"

using namespace torchnn;
using namespace torchnn::cpu;

namespace {

std::mt19937 generator(0);
int failures = 0;

template <class T>
std::vector<T> random_values(int64_t count) {
  std::normal_distribution<T> normal;
  std::vector<T> values(count);
  for (T& value : values) value = normal(generator);
  return values;
}

template <class T>
void expect_close(const char* what, const std::vector<T>& ours, const std::vector<double>& exact,
                  int64_t depth) {
  const double tolerance = 20 * (1 + std::sqrt(depth)) * std::numeric_limits<T>::epsilon();
  for (size_t i = 0; i < ours.size(); ++i)
    if (!(std::abs(ours[i] - exact[i]) <= tolerance * (1 + std::abs(exact[i])))) {
      std::printf("%s: element %zu is %g, not %g\n", what, i, double(ours[i]), exact[i]);
      ++failures;
      return;
    }
}

// c = bias + a @ b with a (rows, depth) or its transpose, b (depth, columns) or its transpose.
template <class Isa, class T, class Kernel>
void check_product(const char* what, int64_t rows, int64_t columns, int64_t depth, bool a_turned,
                   bool b_turned) {
  const auto a = random_values<T>(rows * depth), b = random_values<T>(depth * columns);
  const auto bias = random_values<T>(columns);
  std::vector<T> c(rows * columns, std::numeric_limits<T>::quiet_NaN());
  const Product<T> product{
      .rows = rows,
      .columns = columns,
      .depth = depth,
      .a = {a.data(), a_turned ? 1 : depth, a_turned ? rows : 1},
      .b = {b.data(), b_turned ? 1 : columns, b_turned ? depth : 1},
      .bias = bias.data(),
      .c = c.data(),
      .c_stride = columns,
      .finish = nullptr,
  };
  Kernel::template run<Isa>(product);
  std::vector<double> exact(rows * columns);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      double sum = bias[j];
      for (int64_t k = 0; k < depth; ++k) sum += double(*product.a.at(i, k)) * *product.b.at(k, j);
      exact[i * columns + j] = sum;
    }
  expect_close(what, c, exact, depth);
}

template <class Isa, class T>
void check_in_place(const char* what, int64_t rows, int64_t units, int64_t depth) {
  const auto x = random_values<T>(rows * depth), weight = random_values<T>(units * depth);
  const auto bias = random_values<T>(units);
  std::vector<T> out(rows * units, std::numeric_limits<T>::quiet_NaN());
  const DenseForward<T> layer{.x = x.data(),
                              .weight = weight.data(),
                              .bias = bias.data(),
                              .out = out.data(),
                              .rows = rows,
                              .in_features = depth,
                              .units = units,
                              .x_stride = depth,
                              .activation = 0};
  ForwardInPlace<T>::template run<Isa>(layer, {0, rows}, {0, units});
  std::vector<double> exact(rows * units);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < units; ++j) {
      double sum = bias[j];
      for (int64_t k = 0; k < depth; ++k) sum += double(x[i * depth + k]) * weight[j * depth + k];
      exact[i * units + j] = sum;
    }
  expect_close(what, out, exact, depth);
}

template <class Isa, class T>
void check_activations(const char* what) {
  for (int64_t count : {1, 7, 16, 37}) {
    auto values = random_values<T>(count);
    for (T& value : values) value *= 10;
    std::vector<double> exact(values.begin(), values.end());
    for (double& value : exact) value = 1 / (1 + std::exp(-value));
    T* data = values.data();
    Forward<Sigmoid, T>::template run<Isa>(data, 1, count, count, T(no_slope));
    expect_close(what, values, exact, 1);
  }
}

template <class Isa, class T>
void check(const char* what) {
  constexpr int64_t width = lanes<Vector<T, Isa::vector_bytes>>;
  for (int64_t rows : {1, 5, 12, 75})
    for (int64_t columns : {int64_t(1), width + 3, 4 * width, 10 * width + 1})
      for (int64_t depth : {0, 1, 13, 300})
        for (int turned = 0; turned < 4; ++turned) {
          check_product<Isa, T, Multiply<T>>(what, rows, columns, depth, turned & 1, turned & 2);
          check_product<Isa, T, MultiplyRow<T>>(what, rows, columns, depth, turned & 1, turned & 2);
        }
  for (int64_t rows : {1, 2, 9, 13})
    for (int64_t units : {1, 5, 12, 13})
      for (int64_t depth : {width, 2 * width + 1, 5 * width - 1})
        check_in_place<Isa, T>(what, rows, units, depth);
  check_activations<Isa, T>(what);
}

}  // namespace

int main() {
  check<Baseline, float>("baseline float");
  check<Baseline, double>("baseline double");
  check<Avx2, float>("avx2 float");
  check<Avx2, double>("avx2 double");
  check<Avx512, float>("avx512 float");
  check<Avx512, double>("avx512 double");
  std::printf("%d failures\n", failures);
  return failures != 0;
}
