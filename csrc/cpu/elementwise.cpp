#include "elementwise.h"

#include <type_traits>

#include "../activation.h"
#include "isa.h"

namespace torchnn::cpu {
namespace {

template <class Activation, class T>
struct Forward {
  template <class Isa>
  static TORCHNN_FN void run(T* const& first, int64_t rows, int64_t columns, int64_t stride) {
    using V = Vector<T, Isa::vector_bytes>;
    if (stride == columns) columns *= rows, rows = 1;
    for (int64_t row = 0; row < rows; ++row) {
      T* a = first + row * stride;
      int64_t i = 0;
      for (; i + lanes<V> <= columns; i += lanes<V>)
        store(a + i, Activation::forward(load<V>(a + i)));
      if (i < columns)
        store_part(a + i, Activation::forward(load_part<V>(a + i, columns - i)), columns - i);
    }
  }
};

template <class Activation, class T>
struct Backward {
  template <class Isa>
  static TORCHNN_FN void run(const T* const& grad_out, const T* const& out, T* const& grad_z,
                             int64_t count) {
    using V = Vector<T, Isa::vector_bytes>;
    int64_t i = 0;
    for (; i + lanes<V> <= count; i += lanes<V>)
      store(grad_z + i, Activation::backward(load<V>(grad_out + i), load<V>(out + i)));
    if (i < count) {
      const V grad = load_part<V>(grad_out + i, count - i), a = load_part<V>(out + i, count - i);
      store_part(grad_z + i, Activation::backward(grad, a), count - i);
    }
  }
};

}  // namespace

template <class T>
ActivationCalls<T> activation_calls(int64_t place) {
  ActivationCalls<T> calls{};
  Activations::with(place, [&](auto activation) {
    using A = decltype(activation);
    if constexpr (!std::is_same_v<A, Identity>)
      calls.forward = [](T* a, int64_t rows, int64_t columns, int64_t stride) {
        run<Forward<A, T>>(a, rows, columns, stride);
      };
    calls.backward = [](const T* grad_out, const T* out, T* grad_z, int64_t count) {
      run<Backward<A, T>>(grad_out, out, grad_z, count);
    };
  });
  return calls;
}
template ActivationCalls<float> activation_calls(int64_t);
template ActivationCalls<double> activation_calls(int64_t);

}  // namespace torchnn::cpu
