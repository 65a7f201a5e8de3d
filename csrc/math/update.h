// The list of update rules. To add one: a struct here, an entry in Updates, a line in
// torchnn/ops/reference.py, and the optimizer that names it in torchnn/optimizers. The formulas are
// Keras's.
//
// apply changes a weight w and what the rule remembers of it (slots), given dJ/dw.
#pragma once

#include <algorithm>
#include <cmath>
#include <string_view>

#include "lane.h"
#include "list.h"

namespace torchnn {

// The numbers of an optimizer and of a loss, 0 where there is no use for one: clip_value, clip_norm
// and global_clip_norm, where gradients are not clipped.
struct TrainOptions {
  double momentum, beta_1, beta_2, epsilon, weight_decay, rho;
  double clip_value, clip_norm, global_clip_norm;
  double delta;
  static constexpr std::string_view names =
      "momentum beta_1 beta_2 epsilon weight_decay rho clip_value clip_norm global_clip_norm delta";
  constexpr bool clips_norms() const { return clip_norm > 0 || global_clip_norm > 0; }
};
inline constexpr int64_t option_count = sizeof(TrainOptions) / sizeof(double);
static_assert(std::ranges::count(TrainOptions::names, ' ') + 1 == option_count);

// Adam's correction for its zero start, at step t = 1, 2, ...: learning rates are multiplied by the
// one and divided by the other.
struct ZeroStart {
  double second, first;
  TORCHNN_FN ZeroStart(const TrainOptions& o, int64_t t)
      : second(std::sqrt(1 - std::pow(o.beta_2, double(t)))),
        first(1 - std::pow(o.beta_1, double(t))) {}
};

// The options for one step, in the dtype of the weights.
template <class T>
struct UpdateStep {
  T learning_rate, corrected_rate, decay, momentum, epsilon;
  // 1 - beta, 1 - rho: taken in double, since 1 - float(0.999) is off by 1e-5 of itself.
  T rest_1, rest_2, rest_rho;
  T clip_value;  // infinite for none
  T delta;

  TORCHNN_FN UpdateStep(const TrainOptions& o, double learning_rate, int64_t t)
      : UpdateStep(o, learning_rate, ZeroStart(o, t)) {}
  TORCHNN_FN UpdateStep(const TrainOptions& o, double learning_rate, const ZeroStart& start)
      : learning_rate(T(learning_rate)),
        corrected_rate(T(learning_rate * start.second / start.first)),
        decay(T(1 - o.weight_decay * learning_rate)),
        momentum(T(o.momentum)),
        epsilon(T(o.epsilon)),
        rest_1(T(1 - o.beta_1)),
        rest_2(T(1 - o.beta_2)),
        rest_rho(T(1 - o.rho)),
        clip_value(o.clip_value > 0 ? T(o.clip_value) : T(INFINITY)),
        delta(T(o.delta)) {}
};

// l1 |w| + l2 w^2, which a weight adds to the loss
template <class T>
struct Penalty {
  T l1 = 0, l2 = 0;

  TORCHNN_FN explicit operator bool() const { return l1 != 0 || l2 != 0; }
  template <class Lane>
  TORCHNN_FN Lane value(Lane w) const {
    return l1 * abs(w) + l2 * w * w;
  }
  template <class Lane>
  TORCHNN_FN Lane gradient(Lane w) const {  // of |w|, 0 at 0
    return 2 * l2 * w + (w > 0 ? Lane{} + l1 : w < 0 ? Lane{} - l1 : Lane{});
  }
};

// x, kept within -most and most
template <class Lane, class T>
TORCHNN_FN Lane clip(Lane x, T most) {
  return x > most ? Lane{} + most : x < -most ? Lane{} - most : x;
}

// What a gradient is multiplied with, so that a norm is no more than that.
template <class T>
TORCHNN_FN T clip_scale(T most, T norm) {
  return norm > most ? most / norm : T(1);
}

struct GradientDescent {  // w -= learning_rate * grad
  static constexpr std::string_view name = "gradient_descent";
  static constexpr int slots = 0;
  template <class Lane, class T>
  static TORCHNN_FN void apply(Lane& w, Lane* /*slots*/, Lane grad, const UpdateStep<T>& step) {
    w -= step.learning_rate * grad;
  }
};

struct Momentum {  // velocity = momentum * velocity - learning_rate * grad,  w += velocity
  static constexpr std::string_view name = "momentum";
  static constexpr int slots = 1;
  template <class Lane, class T>
  static TORCHNN_FN void apply(Lane& w, Lane* slots, Lane grad, const UpdateStep<T>& step) {
    slots[0] = step.momentum * slots[0] - step.learning_rate * grad;
    w += slots[0];
  }
};

struct Nesterov {  // the same velocity,  w += momentum * velocity - learning_rate * grad
  static constexpr std::string_view name = "nesterov";
  static constexpr int slots = 1;
  template <class Lane, class T>
  static TORCHNN_FN void apply(Lane& w, Lane* slots, Lane grad, const UpdateStep<T>& step) {
    const Lane change = step.learning_rate * grad;
    slots[0] = step.momentum * slots[0] - change;
    w += step.momentum * slots[0] - change;
  }
};

// m += (grad - m) (1 - beta_1),  v += (grad^2 - v) (1 - beta_2),  w -= rate * m / (sqrt(v) +
// epsilon) Source: D. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, 2015.
struct Adam {
  static constexpr std::string_view name = "adam";
  static constexpr int slots = 2;
  template <class Lane, class T>
  static TORCHNN_FN void apply(Lane& w, Lane* slots, Lane grad, const UpdateStep<T>& step) {
    slots[0] += (grad - slots[0]) * step.rest_1;
    slots[1] += (grad * grad - slots[1]) * step.rest_2;
    w -= step.corrected_rate * slots[0] / (sqrt(slots[1]) + step.epsilon);
  }
};

// v += (grad^2 - v) (1 - rho),  w -= learning_rate * grad / sqrt(v + epsilon)
// Source: T. Tieleman and G. Hinton, Lecture 6.5 of Neural Networks for Machine Learning, 2012.
struct RMSprop {
  static constexpr std::string_view name = "rmsprop";
  static constexpr int slots = 1;
  template <class Lane, class T>
  static TORCHNN_FN Lane change(Lane& v, Lane grad, const UpdateStep<T>& step) {
    v += (grad * grad - v) * step.rest_rho;
    return step.learning_rate * grad / sqrt(v + step.epsilon);
  }
  template <class Lane, class T>
  static TORCHNN_FN void apply(Lane& w, Lane* slots, Lane grad, const UpdateStep<T>& step) {
    w -= change(slots[0], grad, step);
  }
};

// The same of gradients whose mean is subtracted: m += (grad - m) (1 - rho),
// w -= learning_rate * grad / sqrt(v - m^2 + epsilon)
struct RMSpropCentered {
  static constexpr std::string_view name = "rmsprop_centered";
  static constexpr int slots = 2;
  template <class Lane, class T>
  static TORCHNN_FN Lane change(Lane& v, Lane& m, Lane grad, const UpdateStep<T>& step) {
    v += (grad * grad - v) * step.rest_rho;
    m += (grad - m) * step.rest_rho;
    return step.learning_rate * grad / sqrt(v - m * m + step.epsilon);
  }
  template <class Lane, class T>
  static TORCHNN_FN void apply(Lane& w, Lane* slots, Lane grad, const UpdateStep<T>& step) {
    w -= change(slots[0], slots[1], grad, step);
  }
};

// v += grad^2,  w -= learning_rate * grad / sqrt(v + epsilon)
// Source: J. Duchi, E. Hazan and Y. Singer, Adaptive subgradient methods, 2011.
struct Adagrad {
  static constexpr std::string_view name = "adagrad";
  static constexpr int slots = 1;
  template <class Lane, class T>
  static TORCHNN_FN void apply(Lane& w, Lane* slots, Lane grad, const UpdateStep<T>& step) {
    slots[0] += grad * grad;
    w -= step.learning_rate * grad / sqrt(slots[0] + step.epsilon);
  }
};

struct RMSpropMomentum {  // velocity = momentum * velocity + that change,  w -= velocity
  static constexpr std::string_view name = "rmsprop_momentum";
  static constexpr int slots = 2;
  template <class Lane, class T>
  static TORCHNN_FN void apply(Lane& w, Lane* slots, Lane grad, const UpdateStep<T>& step) {
    slots[1] = step.momentum * slots[1] + RMSprop::change(slots[0], grad, step);
    w -= slots[1];
  }
};

inline constexpr int most_slots = 2;
using Updates = TypeList<GradientDescent, Momentum, Nesterov, Adam, RMSprop, RMSpropMomentum,
                         RMSpropCentered, Adagrad>;

// dJ/dw of a weight with a penalty, clipped, given that of the loss alone; scale is what brings its
// norm down, 1 where norms are not clipped.
template <class Lane, class T>
TORCHNN_FN Lane adjusted(Lane grad, Lane w, const Penalty<T>& penalty, T scale,
                         const UpdateStep<T>& step) {
  return clip(scale * (grad + penalty.gradient(w)), step.clip_value);
}

}  // namespace torchnn
