#include "cpu_library.h"

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <optional>
#include <type_traits>

#include "../cpu/simd/subnormals.h"
#include "binding.h"

namespace torchnn {
namespace {

// Memory as the library takes it; it must live as long.
template <class T>
Tensor view(const T* first, int64_t rows, int64_t columns, int64_t row_stride,
            int64_t column_stride) {
  return torch::stable::from_blob(
      const_cast<T*>(first), {rows, columns}, {row_stride, column_stride},
      torch::stable::Device(DeviceType::CPU),
      std::is_same_v<T, float> ? ScalarType::Float : ScalarType::Double);
}

// Calls f(c, a, b), which goes straight to PyTorch's kernel for the CPU: past autograd, autocast
// and all other modes, which are not meant for what happens here.
template <class T, class F>
void with_library(const cpu::Product<T>& p, const F& f) {
  const Tensor a = view(p.a.data, p.rows, p.depth, p.a.row_stride, p.a.column_stride);
  const Tensor b = view(p.b.data, p.depth, p.columns, p.b.row_stride, p.b.column_stride);
  const Tensor c = view(p.c, p.rows, p.columns, p.c_stride, int64_t(1));
  std::optional<cpu::FlushSubnormals> flush;  // where the library begins no threads
  if (torch::stable::get_num_threads() == 1) flush.emplace();
  TORCH_ERROR_CODE_CHECK(f(c.get(), a.get(), b.get()));
}

}  // namespace

template <class T>
void multiply_by_library(const cpu::Product<T>& product) {
  if (!product.bias) return with_library(product, aoti_torch_cpu_mm_out);
  const Tensor bias = view(product.bias, 1, product.columns, product.columns, int64_t(1));
  with_library(product, [&](AtenTensorHandle c, AtenTensorHandle a, AtenTensorHandle b) {
    return aoti_torch_cpu_addmm_out(c, bias.get(), a, b, 1, 1);
  });
}

template <class T>
void add_product_by_library(const cpu::Product<T>& product, T scale) {
  with_library(product, [scale](AtenTensorHandle c, AtenTensorHandle a, AtenTensorHandle b) {
    return aoti_torch_cpu_addmm_out(c, c, a, b, 1, scale);
  });
}

#define TORCHNN_INSTANTIATE(T)                               \
  template void multiply_by_library(const cpu::Product<T>&); \
  template void add_product_by_library(const cpu::Product<T>&, T);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)
#undef TORCHNN_INSTANTIATE

}  // namespace torchnn
