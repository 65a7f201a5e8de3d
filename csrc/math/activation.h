// The list of activations. To add one: a struct here, an entry in Activations, a line in
// torchnn/reference.py. The tests find it by its name.
//
// backward takes the output a, not z, so that a layer keeps one tensor. An activation whose
// derivative cannot be had from its output (GELU, SiLU) does not fit this list.
#pragma once

#include <string_view>

#include "lane.h"
#include "list.h"

namespace torchnn {

struct Identity {  // a = z,  da/dz = 1
  static constexpr std::string_view name = "identity";
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z) {
    return z;
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane) {
    return grad;
  }
};

struct Sigmoid {  // a = 1 / (1 + e^-z),  da/dz = a (1 - a)
  static constexpr std::string_view name = "sigmoid";
  // e^-|z| never overflows, so that neither end saturates before the floating type does.
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z) {
    Lane e = exp_nonpositive(-abs(z));
    return divide_by_one_to_two(z < 0 ? e : Lane{} + 1, 1 + e);
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane a) {
    return grad * a * (1 - a);
  }
};

struct Relu {  // a = max(z, 0),  da/dz = 1 where a > 0, else 0
  static constexpr std::string_view name = "relu";
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z) {
    return z < 0 ? Lane{} : z;  // not z > 0 ? z : 0, which would turn NaN into 0
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane a) {
    return a <= 0 ? Lane{} : grad;
  }
};

struct Tanh {  // a = (e^z - e^-z) / (e^z + e^-z),  da/dz = 1 - a^2
  static constexpr std::string_view name = "tanh";
  // tanh|z| = -m / (2 + m) with m = e^(-2|z|) - 1, which loses nothing for small z.
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z) {
    Lane m = expm1_nonpositive(-2 * abs(z));
    Lane a = divide_by_one_to_two(-m, 2 + m);
    return z < 0 ? -a : a;
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane a) {
    return grad * (1 - a * a);
  }
};

using Activations = TypeList<Identity, Sigmoid, Relu, Tanh>;

}  // namespace torchnn
