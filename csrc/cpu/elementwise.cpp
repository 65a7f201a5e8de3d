#include "elementwise.h"

#include <type_traits>

#include "simd/isa.h"

namespace torchnn::cpu {
namespace {

// An activation with the slope that a network has, or its usual one.
template <class Activation, class T>
struct Sloped {
  T slope;
  explicit TORCHNN_FN Sloped(T given) : slope(given) {
    if constexpr (has_slope<Activation>)
      if (given < 0) slope = T(Activation::usual_slope);
  }
  template <class V>
  TORCHNN_FN V forward(V z) const {
    if constexpr (has_slope<Activation>)
      return Activation::forward(z, slope);
    else
      return Activation::forward(z);
  }
  template <class V>
  TORCHNN_FN V backward(V grad, V a) const {
    if constexpr (has_slope<Activation>)
      return Activation::backward(grad, a, slope);
    else
      return Activation::backward(grad, a);
  }
};

template <class Activation, class T>
struct Forward {
  template <class Isa>
  static TORCHNN_FN void run(T* const& first, int64_t rows, int64_t columns, int64_t stride,
                             T slope) {
    using V = Register<Isa, T>;
    const Sloped<Activation, T> activation(slope);
    if (stride == columns) columns *= rows, rows = 1;
    for (int64_t row = 0; row < rows; ++row) {
      T* a = first + row * stride;
      int64_t i = 0;
      for (; i + lanes<V> <= columns; i += lanes<V>)
        store(a + i, activation.forward(load<V>(a + i)));
      if (i < columns)
        store_part(a + i, activation.forward(load_part<V>(a + i, columns - i)), columns - i);
    }
  }
};

template <class Activation, class T>
struct Backward {
  template <class Isa>
  static TORCHNN_FN void run(const T* grad_out, const T* out, T* grad_z, int64_t rows,
                             int64_t columns, int64_t stride, T slope) {
    using V = Register<Isa, T>;
    const Sloped<Activation, T> activation(slope);
    if (stride == columns) columns *= rows, rows = 1;
    for (int64_t row = 0; row < rows; ++row, grad_out += stride, out += stride, grad_z += stride) {
      int64_t i = 0;
      for (; i + lanes<V> <= columns; i += lanes<V>)
        store(grad_z + i, activation.backward(load<V>(grad_out + i), load<V>(out + i)));
      if (i < columns) {
        const V grad = load_part<V>(grad_out + i, columns - i),
                a = load_part<V>(out + i, columns - i);
        store_part(grad_z + i, activation.backward(grad, a), columns - i);
      }
    }
  }
};

template <class T>
struct Drop {
  template <class Isa>
  static TORCHNN_FN void run(const Dropping<T>& dropping, const Key<T>* row_keys,
                             const Key<T>* column_keys, T* const& a, int64_t rows, int64_t columns,
                             int64_t stride) {
    using V = Register<Isa, T>;
    using Bits = BitsOf<V>;
    for (int64_t row = 0; row < rows; ++row) {
      T* own = a + row * stride;
      int64_t i = 0;
      for (; i + lanes<V> <= columns; i += lanes<V>) {
        const Bits keys = load<Bits>(column_keys + i) + row_keys[row];
        store(own + i, dropping.apply(load<V>(own + i), keys));
      }
      if (i < columns) {
        const Bits keys = load<Bits>(column_keys + i) + row_keys[row];
        store_part(own + i, dropping.apply(load_part<V>(own + i, columns - i), keys), columns - i);
      }
    }
  }
};

}  // namespace

template <class T>
void drop(const Dropping<T>& dropping, const Key<T>* row_keys, const Key<T>* column_keys, T* a,
          int64_t rows, int64_t columns, int64_t stride) {
  run<Drop<T>>(dropping, row_keys, column_keys, a, rows, columns, stride);
}
template void drop(const Dropping<float>&, const Key<float>*, const Key<float>*, float*, int64_t,
                   int64_t, int64_t);
template void drop(const Dropping<double>&, const Key<double>*, const Key<double>*, double*,
                   int64_t, int64_t, int64_t);

template <class T>
ActivationCalls<T> activation_calls(int64_t place) {
  ActivationCalls<T> calls{};
  Activations::with(place, [&](auto activation) {
    using A = decltype(activation);
    if constexpr (!std::is_same_v<A, Identity>) {
      calls.forward = [](T* a, int64_t rows, int64_t columns, int64_t stride, T slope) {
        run<Forward<A, T>>(a, rows, columns, stride, slope);
      };
      calls.usual_forward = [](T* a, int64_t rows, int64_t columns, int64_t stride) {
        run<Forward<A, T>>(a, rows, columns, stride, T(no_slope));
      };
    }
    calls.backward = [](const T* grad_out, const T* out, T* grad_z, int64_t rows, int64_t columns,
                        int64_t stride, T slope) {
      run<Backward<A, T>>(grad_out, out, grad_z, rows, columns, stride, slope);
    };
    calls.keeps_z = keeps_z<A>;
  });
  return calls;
}
template ActivationCalls<float> activation_calls(int64_t);
template ActivationCalls<double> activation_calls(int64_t);

}  // namespace torchnn::cpu
