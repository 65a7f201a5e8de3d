// What the programs that run the kernels of whole networks have in common: arrays on the device,
// what is expected, losses in double, and targets.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/math/activation.h"
#include "../../csrc/math/loss.h"

namespace torchnn {
namespace {

std::mt19937 generator(0);
int failures = 0;

inline void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  ++failures;
}

inline void expect_success(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("%s\n", cudaGetErrorString(error));
  std::exit(1);
}

// An array on the device, `offset` elements into aligned memory, and its copy on the host.
template <class T>
struct Array {
  explicit Array(int64_t size, int64_t offset = 0) : offset(offset), host(offset + size) {
    T* memory;
    expect_success(cudaMalloc(&memory, host.size() * sizeof(T)));
    device = std::shared_ptr<T>(memory, [](T* p) { expect_success(cudaFree(p)); });
  }
  explicit Array(const std::vector<T>& values) : Array(int64_t(values.size())) {
    host = values;
    copy(device.get(), host.data());
  }

  T* data() const { return device.get() + offset; }
  const T* copied() const { return host.data() + offset; }
  double operator[](int64_t i) const { return double(host[offset + i]); }
  int64_t size() const { return int64_t(host.size()) - offset; }
  Array& fill(double scale) {
    std::normal_distribution<double> normal;
    for (T& value : host) value = T(scale * normal(generator));
    copy(device.get(), host.data());
    return *this;
  }
  Array& zero() {
    std::fill(host.begin(), host.end(), T(0));
    copy(device.get(), host.data());
    return *this;
  }
  void send() { copy(device.get(), host.data()); }
  void fetch() {
    expect_success(cudaDeviceSynchronize());
    copy(host.data(), device.get());
  }
  std::vector<double> exact(int64_t first, int64_t count) const {
    return {host.begin() + offset + first, host.begin() + offset + first + count};
  }

  int64_t offset;
  std::vector<T> host;
  std::shared_ptr<T> device;

 private:
  void copy(T* to, const T* from) {
    if (!host.empty())
      expect_success(cudaMemcpy(to, from, host.size() * sizeof(T), cudaMemcpyDefault));
  }
};

constexpr int64_t labels = Losses::place<SparseSoftmaxCrossEntropy>();
constexpr double delta = 0.7;  // of every loss that has one

// The outputs of a sample and their targets, of which a loss makes its Row.
struct Sample {
  const double *outputs, *targets;
  int64_t units;
  bool has_label = false;
  double delta = torchnn::delta;
  double a(int64_t n) const { return outputs[n]; }
  double y(int64_t n) const { return has_label ? double(targets[0] == double(n)) : targets[n]; }
};

// Returns the loss of a sample in a batch of so many, and fills in the derivative with respect to
// its outputs.
inline double measure(int64_t place, Sample sample, double weight, int64_t batch_rows,
                      double* grad_out) {
  double sum = 0;
  Losses::with(place, [&](auto loss) {
    sample.has_label = takes_labels<decltype(loss)>;
    const typename decltype(loss)::template Row<double> row(sample);
    const double scale = weight / double(batch_rows * (loss.is_mean ? sample.units : 1));
    for (int64_t n = 0; n < sample.units; ++n) {
      sum += scale * loss.value(sample.a(n), sample.y(n), row);
      grad_out[n] = scale * loss.gradient(sample.a(n), sample.y(n), row);
    }
  });
  return sum;
}

// The activation of the last layer: a logarithm is taken of what Poisson is given.
inline int64_t last_for(int64_t loss, int64_t activation = 0) {
  const bool is_positive =
      activation == Activations::place<Sigmoid>() || activation == Activations::place<Softplus>();
  return loss != Losses::place<Poisson>() || is_positive ? activation
                                                         : Activations::place<Softplus>();
}

// Targets as a loss takes them: the number of a class, -1 or 1, or any number.
template <class T>
void fill_targets(Array<T>& y, int64_t loss, int64_t units) {
  y.fill(1);
  const bool are_signs = loss == Losses::place<Hinge>() || loss == Losses::place<SquaredHinge>();
  for (T& value : y.host) {
    if (loss == labels) value = T(generator() % units);
    if (are_signs) value = value < 0 ? T(-1) : T(1);
  }
  y.send();
}

}  // namespace
}  // namespace torchnn
