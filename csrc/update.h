// The list of update rules. To add one: a struct here, an entry in Updates, and its optimizer in
// torchnn/optimizers.py. The formulas are Keras's.
//
// apply changes a weight w and what the rule remembers of it (slots), given dJ/dw.
#pragma once

#include <cmath>
#include <string_view>

#include "lane.h"
#include "list.h"

namespace torchnn {

// The numbers of an optimizer.
struct UpdateOptions {
  double momentum, beta_1, beta_2, epsilon, weight_decay;
};

// The same for one step, in the dtype of the weights. Adam's correction for its zero start is in
// the learning rate: learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) at step t = 1, 2, ...
template <class T>
struct UpdateStep {
  T learning_rate, corrected_rate, decay, momentum, epsilon;
  T rest_1, rest_2;  // 1 - beta: taken in double, since 1 - float(0.999) is off by 1e-5 of itself

  TORCHNN_FN UpdateStep(const UpdateOptions& o, double learning_rate, int64_t t)
      : learning_rate(T(learning_rate)),
        corrected_rate(T(learning_rate * std::sqrt(1 - std::pow(o.beta_2, double(t))) /
                         (1 - std::pow(o.beta_1, double(t))))),
        decay(T(1 - o.weight_decay * learning_rate)),
        momentum(T(o.momentum)),
        epsilon(T(o.epsilon)),
        rest_1(T(1 - o.beta_1)),
        rest_2(T(1 - o.beta_2)) {}
};

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

inline constexpr int most_slots = 2;
using Updates = TypeList<GradientDescent, Momentum, Nesterov, Adam>;

}  // namespace torchnn
