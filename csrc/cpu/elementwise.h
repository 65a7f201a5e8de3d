// Activations and their derivatives over arrays. They are called through pointers, so that what
// surrounds them is compiled once and not once for each activation.
#pragma once

#include <cstring>

#include "../math/activation.h"
#include "../math/dropout.h"
#include "../math/lane.h"

namespace torchnn::cpu {

template <class T>
struct ActivationCalls {
  // a[rows, columns] = activation(a), in place; null for the identity. slope: one of its own, or
  // no_slope.
  void (*forward)(T* a, int64_t rows, int64_t columns, int64_t stride, T slope);
  void (*usual_forward)(T* a, int64_t rows, int64_t columns, int64_t stride);
  // grad_z = grad_out * da/dz, given a, or z if keeps_z, all of that shape and stride; grad_z may
  // be grad_out.
  void (*backward)(const T* grad_out, const T* out, T* grad_z, int64_t rows, int64_t columns,
                   int64_t stride, T slope);
  bool keeps_z;
};

// The calls of the activation at that place in Activations.
template <class T>
ActivationCalls<T> activation_calls(int64_t place);

// A key as wide as a T.
template <class T>
using Key = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// Drops of a[rows, columns] what has the key row_keys[row] + column_keys[column]; of the second
// there are whole registers.
template <class T>
void drop(const Dropping<T>& dropping, const Key<T>* row_keys, const Key<T>* column_keys, T* a,
          int64_t rows, int64_t columns, int64_t stride);

// The last, partial register of an array goes through a copy.
template <class V>
TORCHNN_FN V load_part(const Element<V>* p, int64_t count) {
  V v{};
  std::memcpy(&v, p, count * sizeof(Element<V>));
  return v;
}

template <class V>
TORCHNN_FN void store_part(Element<V>* p, V v, int64_t count) {
  std::memcpy(p, &v, count * sizeof(Element<V>));
}

}  // namespace torchnn::cpu
