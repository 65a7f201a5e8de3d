// The list of activations. To add one: a struct here, an entry in Activations, a line in
// torchnn/ops/reference.py. The tests find it by its name.
//
// backward takes the output a, so that a layer keeps one tensor. An activation whose derivative
// cannot be had from its output has keeps_z, and backward takes z. One that a network may have with
// another slope, its derivative just below 0, names its usual_slope, and both functions take one.
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

struct LeakyRelu {  // a = z where z > 0, else slope z;  da/dz = 1 where a > 0, else slope
  static constexpr std::string_view name = "leaky_relu";
  static constexpr double usual_slope = 0.2;  // Keras's
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z, ElementOf<Lane> slope = usual_slope) {
    return z < 0 ? z * slope : z;
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane a, ElementOf<Lane> slope = usual_slope) {
    return a <= 0 ? grad * slope : grad;
  }
};

struct Elu {  // a = z where z > 0, else slope (e^z - 1);  da/dz = 1 where a > 0, else a + slope
  static constexpr std::string_view name = "elu";
  static constexpr double usual_slope = 1;
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z, ElementOf<Lane> slope = usual_slope) {
    return z < 0 ? slope * expm1_nonpositive(z > 0 ? Lane{} : z) : z;
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane a, ElementOf<Lane> slope = usual_slope) {
    return a <= 0 ? grad * (a + slope) : grad;
  }
};

// a = scale z where z > 0, else scale alpha (e^z - 1);  da/dz = scale, else a + scale alpha
// Source: G. Klambauer et al., Self-normalizing neural networks, 2017.
struct Selu {
  static constexpr std::string_view name = "selu";
  static constexpr double scale = 1.0507009873554804934193349852946;
  static constexpr double alpha = 1.6732632423543772848170429916717;
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z) {
    using T = ElementOf<Lane>;
    return z < 0 ? T(scale * alpha) * expm1_nonpositive(z > 0 ? Lane{} : z) : T(scale) * z;
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane a) {
    using T = ElementOf<Lane>;
    return grad * (a <= 0 ? a + T(scale * alpha) : Lane{} + T(scale));
  }
};

struct Softplus {  // a = log(1 + e^z),  da/dz = 1 - e^-a
  static constexpr std::string_view name = "softplus";
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z) {
    return (z < 0 ? Lane{} : z) + log1p_fraction(exp_nonpositive(-abs(z)));
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane a) {
    return -grad * expm1_nonpositive(-a);
  }
};

struct Silu {  // a = z s with s = sigmoid(z),  da/dz = s (1 + z (1 - s))
  static constexpr std::string_view name = "silu";
  static constexpr bool keeps_z = true;
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z) {
    return z * Sigmoid::forward(z);
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane z) {
    const Lane s = Sigmoid::forward(z);
    return grad * s * (1 + z * (1 - s));
  }
};

// a = z P(z), with the probability P(z) that a standard normal number is below z, and its density
// p(z);  da/dz = P(z) + z p(z). Source: D. Hendrycks and K. Gimpel, Gaussian error linear units,
// 2016.
struct Gelu {
  static constexpr std::string_view name = "gelu";
  static constexpr bool keeps_z = true;
  template <class Lane>
  static TORCHNN_FN Lane forward(Lane z) {
    return z * normal_cdf(z);
  }
  template <class Lane>
  static TORCHNN_FN Lane backward(Lane grad, Lane z) {
    using T = ElementOf<Lane>;
    constexpr T height = T(0.39894228040143267794);  // of the density: 1 / sqrt(2 pi)
    return grad * (normal_cdf(z) + height * z * exp_nonpositive(T(-0.5) * z * z));
  }
};

using Activations =
    TypeList<Identity, Sigmoid, Relu, Tanh, LeakyRelu, Elu, Selu, Softplus, Silu, Gelu>;

// Whether backward takes z.
template <class Activation>
inline constexpr bool keeps_z = false;
template <class Activation>
  requires(Activation::keeps_z)
inline constexpr bool keeps_z<Activation> = true;

// Whether it may have another slope, of at least 0.
template <class Activation>
inline constexpr bool has_slope = requires { Activation::usual_slope; };

// What stands for the usual slope where one may be given.
inline constexpr double no_slope = -1;

// That of the activation at that place, or no_slope for one that has none to choose.
constexpr double usual_slope_at(int64_t place) {
  double slope = no_slope;
  Activations::with(place, [&](auto each) {
    if constexpr (has_slope<decltype(each)>) slope = each.usual_slope;
  });
  return slope;
}

// Whether the activation at that place keeps z.
constexpr bool keeps_z_at(int64_t place) {
  bool keeps = false;
  Activations::with(place, [&](auto each) { keeps = keeps_z<decltype(each)>; });
  return keeps;
}

}  // namespace torchnn
