// The list of losses that whole-network training knows. To add one: a struct here, an entry in
// Losses, a line in torchnn/reference.py.
//
// Each is a function of one output a and its target y; a sample's loss is the mean over its
// outputs.
#pragma once

#include <string_view>

#include "lane.h"
#include "list.h"

namespace torchnn {

struct SquaredError {  // l = (a - y)^2,  dl/da = 2 (a - y)
  static constexpr std::string_view name = "mean_squared_error";
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y) {
    return (a - y) * (a - y);
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y) {
    return 2 * (a - y);
  }
};

// l = -y log s - (1 - y) log(1 - s) with s = sigmoid(a),  dl/da = s - y: a is what goes into the
// sigmoid, so that neither vanishes nor overflows where the sigmoid saturates.
struct SigmoidCrossEntropy {
  static constexpr std::string_view name = "binary_crossentropy_from_logits";
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y) {
    return (a < 0 ? Lane{} : a) - a * y + log1p_fraction(exp_nonpositive(-abs(a)));
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y) {
    Lane e = exp_nonpositive(-abs(a));
    return divide_by_one_to_two(a < 0 ? e : Lane{} + 1, 1 + e) - y;
  }
};

using Losses = TypeList<SquaredError, SigmoidCrossEntropy>;

}  // namespace torchnn
