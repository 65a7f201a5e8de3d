// A design tried out alone: one warp trains one model, so that thousands train side by side.
//
// The model is in_features-H-H-1 with H <= 32: sigmoids, binary cross-entropy of the logit,
// gradient descent in batches of 32. A lane is a unit and has its weights in registers; outputs are
// handed over through shared memory, within the warp alone. All models read the same data. The loss
// of an epoch's last batch is compared with that of a plain loop in double, then each number of
// models is timed: a line of JSON for each. prepare.sh builds it, run.sh runs it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace {

constexpr int warps = 4;      // a block
constexpr int rows = 4;       // samples at a time
constexpr int batch = 32;     // samples a step
constexpr int epoch = 31;     // steps
constexpr int lanes = 32;     // a warp
constexpr int stride = 33;    // of a weight in shared memory: no two lanes in one bank
constexpr float base = 0.01;  // learning rate of model 0

// Where the parts of a model's weights begin: w1 (H, in), b1 (H), w2 (H, H), b2 (H), w3 (H), b3.
template <int in, int H>
struct Offsets {
  static constexpr int b1 = H * in, w2 = b1 + H, b2 = w2 + H * H, w3 = b2 + H, b3 = w3 + H;
  static constexpr int size = b3 + 1;
};

// What a warp shares: outputs of the first layer, gradients of the second, its weights.
template <int H>
struct alignas(16) Own {
  float a1[rows][lanes], grad_z2[rows][lanes], w2[H * stride + lanes - 1];
};

struct Data {
  const float* x;  // (epoch * batch, in)
  const float* y;  // (epoch * batch)
};

__device__ float sigmoid(float z) {
  float e = __expf(-fabsf(z));
  return __fdividef(z < 0 ? e : 1.f, 1.f + e);
}

__device__ float element(const float4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// A lane's part of one model, and of its gradients: w1 and w2 are its unit's rows.
template <int in, int padded>
struct Unit {
  float w1[in] = {}, w2[padded] = {}, b1 = 0, b2 = 0, w3 = 0, b3 = 0;
};

template <int in, int H, int padded>
__device__ Unit<in, padded> load(const float* w, int lane) {
  using At = Offsets<in, H>;
  Unit<in, padded> own;
  own.b3 = w[At::b3];
  if (lane >= H) return own;
  for (int i = 0; i < in; ++i) own.w1[i] = w[lane * in + i];
  for (int k = 0; k < H; ++k) own.w2[k] = w[At::w2 + lane * H + k];
  own.b1 = w[At::b1 + lane], own.b2 = w[At::b2 + lane], own.w3 = w[At::w3 + lane];
  return own;
}

template <int in, int H, int padded>
__device__ void store(const Unit<in, padded>& own, float* w, int lane) {
  using At = Offsets<in, H>;
  if (lane == 0) w[At::b3] = own.b3;
  if (lane >= H) return;
  for (int i = 0; i < in; ++i) w[lane * in + i] = own.w1[i];
  for (int k = 0; k < H; ++k) w[At::w2 + lane * H + k] = own.w2[k];
  w[At::b1 + lane] = own.b1, w[At::b2 + lane] = own.b2, w[At::w3 + lane] = own.w3;
}

// Adds the gradients of a few samples to `grad`, and returns the sum of their losses.
template <int in, int H, int padded>
__device__ float back_propagate(const Unit<in, padded>& unit, Unit<in, padded>& grad, Own<H>& own,
                                const float* x, const float* y, int lane) {
  const bool is_unit = lane < H;
  float xs[rows][in], a1[rows], a2[rows], z3[rows], loss = 0;
  // 1. the first layer
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    float z = unit.b1;
#pragma unroll
    for (int i = 0; i < in; ++i) z += unit.w1[i] * (xs[r][i] = __ldg(x + r * in + i));
    own.a1[r][lane] = a1[r] = is_unit ? sigmoid(z) : 0;
  }
  __syncwarp();
  // 2. the second layer, and the third, whose sum goes over the lanes
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    float z = unit.b2;
#pragma unroll
    for (int k = 0; k < padded; k += 4) {
      const float4 a = *reinterpret_cast<const float4*>(&own.a1[r][k]);
      z += unit.w2[k] * a.x + unit.w2[k + 1] * a.y + unit.w2[k + 2] * a.z + unit.w2[k + 3] * a.w;
    }
    a2[r] = is_unit ? sigmoid(z) : 0;
    z3[r] = a2[r] * unit.w3;
  }
#pragma unroll
  for (int half = lanes / 2; half; half /= 2)
#pragma unroll
    for (int r = 0; r < rows; ++r) z3[r] += __shfl_xor_sync(~0u, z3[r], half);
  // 3. the loss, and the gradients of the third and the second layer
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    const float z = z3[r] + unit.b3, target = __ldg(y + r);
    const float grad_z3 = (sigmoid(z) - target) / batch;
    loss += fmaxf(z, 0.f) - z * target + log1pf(__expf(-fabsf(z)));
    grad.w3 += grad_z3 * a2[r];
    grad.b3 += grad_z3;
    const float grad_z2 = grad_z3 * unit.w3 * a2[r] * (1 - a2[r]);
    grad.b2 += grad_z2;
    own.grad_z2[r][lane] = grad_z2;
#pragma unroll
    for (int k = 0; k < padded; k += 4) {
      const float4 a = *reinterpret_cast<const float4*>(&own.a1[r][k]);
#pragma unroll
      for (int q = 0; q < 4; ++q) grad.w2[k + q] += grad_z2 * element(a, q);
    }
  }
  __syncwarp();
  // 4. the gradients of the first layer
  float grad_a1[rows] = {};
#pragma unroll
  for (int m = 0; m < H; m += 4) {
    float4 g[rows];
#pragma unroll
    for (int r = 0; r < rows; ++r) g[r] = *reinterpret_cast<const float4*>(&own.grad_z2[r][m]);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if (m + q >= H) continue;
      const float w = own.w2[(m + q) * stride + lane];
#pragma unroll
      for (int r = 0; r < rows; ++r) grad_a1[r] += w * element(g[r], q);
    }
  }
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    const float grad_z1 = grad_a1[r] * a1[r] * (1 - a1[r]);
    grad.b1 += grad_z1;
#pragma unroll
    for (int i = 0; i < in; ++i) grad.w1[i] += grad_z1 * xs[r][i];
  }
  return loss;
}

template <int in, int H, int padded>
__device__ void update(Unit<in, padded>& unit, const Unit<in, padded>& grad, Own<H>& own,
                       float rate, int lane) {
  for (int i = 0; i < in; ++i) unit.w1[i] -= rate * grad.w1[i];
  unit.b1 -= rate * grad.b1, unit.b2 -= rate * grad.b2;
  unit.w3 -= rate * grad.w3, unit.b3 -= rate * grad.b3;
#pragma unroll
  for (int k = 0; k < H; ++k) {
    unit.w2[k] -= rate * grad.w2[k];
    if (lane < H) own.w2[lane * stride + k] = unit.w2[k];
  }
  __syncwarp();
}

// `losses` gets the last epoch's, shape (models, epoch).
template <int in, int H>
__global__ void __launch_bounds__(warps* lanes, 4)
    train(float* weights, Data data, float* losses, int models, int steps) {
  extern __shared__ int4 memory[];
  constexpr int padded = (H + 3) / 4 * 4;
  const int lane = threadIdx.x % lanes, warp = threadIdx.x / lanes;
  const int model = blockIdx.x * warps + warp;
  if (model >= models) return;
  Own<H>& own = reinterpret_cast<Own<H>*>(memory)[warp];
  float* w = weights + size_t(model) * Offsets<in, H>::size;
  const float rate = base * (1 + model % 16);

  Unit<in, padded> unit = load<in, H, padded>(w, lane);
  for (int i = lane; i < H * stride + lanes - 1; i += lanes) own.w2[i] = 0;
  __syncwarp();
  if (lane < H) {
    for (int k = 0; k < H; ++k) own.w2[lane * stride + k] = unit.w2[k];
  }
  __syncwarp();
  for (int step = 0; step < steps; ++step) {
    const int first = step % epoch * batch;
    Unit<in, padded> grad;
    float loss = 0;
    for (int r = first; r < first + batch; r += rows) {
      const float* x = data.x + size_t(r) * in;
      loss += back_propagate(unit, grad, own, x, data.y + r, lane);
    }
    update(unit, grad, own, rate, lane);
    if (lane == 0 && step + epoch >= steps) {
      losses[size_t(model) * epoch + step % epoch] = loss / batch;
    }
  }
  store<in, H>(unit, w, lane);
}

// ---- the plain loop, for model 0 ----

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

// Adds the gradients of one sample to `grad`, and returns its loss.
template <int in, int H>
double plain_sample(const std::vector<double>& w, std::vector<double>& grad, const float* x,
                    double y) {
  using At = Offsets<in, H>;
  double a1[H], a2[H], grad_a1[H] = {}, z3 = w[At::b3];
  for (int n = 0; n < H; ++n) {
    double z = w[At::b1 + n];
    for (int i = 0; i < in; ++i) z += w[n * in + i] * x[i];
    a1[n] = sigmoid(z);
  }
  for (int n = 0; n < H; ++n) {
    double z = w[At::b2 + n];
    for (int k = 0; k < H; ++k) z += w[At::w2 + n * H + k] * a1[k];
    a2[n] = sigmoid(z);
    z3 += a2[n] * w[At::w3 + n];
  }
  const double grad_z3 = (sigmoid(z3) - y) / batch;
  grad[At::b3] += grad_z3;
  for (int n = 0; n < H; ++n) {
    const double grad_z2 = grad_z3 * w[At::w3 + n] * a2[n] * (1 - a2[n]);
    grad[At::w3 + n] += grad_z3 * a2[n];
    grad[At::b2 + n] += grad_z2;
    for (int k = 0; k < H; ++k) {
      grad[At::w2 + n * H + k] += grad_z2 * a1[k];
      grad_a1[k] += grad_z2 * w[At::w2 + n * H + k];
    }
  }
  for (int n = 0; n < H; ++n) {
    const double grad_z1 = grad_a1[n] * a1[n] * (1 - a1[n]);
    grad[At::b1 + n] += grad_z1;
    for (int i = 0; i < in; ++i) grad[n * in + i] += grad_z1 * x[i];
  }
  return std::max(z3, 0.) - z3 * y + std::log1p(std::exp(-std::fabs(z3)));
}

// The loss of the last step of an epoch.
template <int in, int H>
double plain_epoch(std::vector<double> w, const std::vector<float>& x,
                   const std::vector<float>& y) {
  double loss = 0;
  for (int step = 0; step < epoch; ++step) {
    std::vector<double> grad(w.size());
    loss = 0;
    for (int r = step * batch; r < (step + 1) * batch; ++r) {
      loss += plain_sample<in, H>(w, grad, &x[size_t(r) * in], y[r]) / batch;
    }
    for (size_t i = 0; i < w.size(); ++i) w[i] -= base * grad[i];
  }
  return loss;
}

// ---- running ----

void expect_success(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("%s\n", cudaGetErrorString(error));
  std::exit(1);
}

// An array on the device, with a copy of the host's numbers.
struct Array {
  explicit Array(const std::vector<float>& values) {
    expect_success(cudaMalloc(&data, values.size() * sizeof(float)));
    expect_success(
        cudaMemcpy(data, values.data(), values.size() * sizeof(float), cudaMemcpyDefault));
  }
  Array(const Array&) = delete;
  ~Array() { cudaFree(data); }
  float* data;
};

// The least of five times, in milliseconds.
template <class Function>
float least_time(Function function) {
  cudaEvent_t start, end;
  expect_success(cudaEventCreate(&start));
  expect_success(cudaEventCreate(&end));
  float least = 1e9, taken;
  for (int i = 0; i < 5; ++i) {
    expect_success(cudaEventRecord(start));
    function();
    expect_success(cudaEventRecord(end));
    expect_success(cudaEventSynchronize(end));
    expect_success(cudaEventElapsedTime(&taken, start, end));
    least = std::min(least, taken);
  }
  return least;
}

template <int in, int H>
void run() {
  std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> x(epoch * batch * in), y(epoch * batch);
  for (float& v : x) v = normal(generator);
  for (size_t i = 0; i < y.size(); ++i) y[i] = x[i * in] > 0;
  const Array x_there(x), y_there(y);

  constexpr int threads = warps * lanes, memory = warps * sizeof(Own<H>);
  int blocks;
  expect_success(
      cudaFuncSetAttribute(train<in, H>, cudaFuncAttributeMaxDynamicSharedMemorySize, memory));
  expect_success(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, train<in, H>, threads, memory));
  for (int models : {1, 132, 2112, 8448, 33792}) {
    std::vector<float> w(size_t(models) * Offsets<in, H>::size), losses(size_t(models) * epoch);
    for (float& v : w) v = 0.3f * normal(generator);
    const std::vector<double> first(w.begin(), w.begin() + Offsets<in, H>::size);
    const Array w_there(w), losses_there(losses);
    auto launch = [&](int steps) {
      train<in, H><<<(models + warps - 1) / warps, threads, memory>>>(
          w_there.data, {x_there.data, y_there.data}, losses_there.data, models, steps);
      expect_success(cudaGetLastError());
    };

    launch(epoch);
    expect_success(
        cudaMemcpy(losses.data(), losses_there.data, epoch * sizeof(float), cudaMemcpyDefault));
    const double off = std::fabs(losses[epoch - 1] - plain_epoch<in, H>(first, x, y));
    const int steps = (models > 4000 ? 10 : 40) * epoch;
    const float ms = least_time([&] { launch(steps); });
    std::printf(
        "{\"probe\": \"a warp a model\", \"network\": \"%d-%d-%d-1\", \"models\": %d, "
        "\"us_a_step\": %.3f, \"million_model_steps_a_second\": %.2f, \"loss_off\": %.1e, "
        "\"warps_an_sm\": %d}\n",
        in, H, H, models, ms * 1e3 / steps, 1e-3 * models * steps / ms, off, blocks * warps);
  }
}

}  // namespace

int main() {
  run<2, 16>();
  run<8, 25>();
}
