// The list of losses that whole-network training knows. To add one: a struct here, an entry in
// Losses, a line in torchnn/ops/reference.py, and the class that names it in torchnn/losses.py.
//
// A loss sees all outputs of a sample, its row: what it needs to know of them together goes into a
// Row, made of outputs.a(n) and outputs.y(n) for n below outputs.units. Its loss is then the sum of
// value(a, y, row) over the outputs a and their targets y, or the mean if is_mean.
#pragma once

#include <string_view>

#include "lane.h"
#include "list.h"

namespace torchnn {

// The row of a loss that looks at one output at a time.
template <class Lane>
struct NoRow {
  template <class Outputs>
  TORCHNN_FN explicit NoRow(const Outputs&) {}
};

struct SquaredError {  // l = (a - y)^2,  dl/da = 2 (a - y)
  static constexpr std::string_view name = "mean_squared_error";
  static constexpr bool is_mean = true;
  template <class Lane>
  using Row = NoRow<Lane>;
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>&) {
    return (a - y) * (a - y);
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>&) {
    return 2 * (a - y);
  }
};

// l = -y log s - (1 - y) log(1 - s) with s = sigmoid(a),  dl/da = s - y: a is what goes into the
// sigmoid, so that neither vanishes nor overflows where the sigmoid saturates.
struct SigmoidCrossEntropy {
  static constexpr std::string_view name = "binary_crossentropy_from_logits";
  static constexpr bool is_mean = true;
  template <class Lane>
  using Row = NoRow<Lane>;
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>&) {
    return (a < 0 ? Lane{} : a) - a * y + log1p_fraction(exp_nonpositive(-abs(a)));
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>&) {
    Lane e = exp_nonpositive(-abs(a));
    return divide_by_one_to_two(a < 0 ? e : Lane{} + 1, 1 + e) - y;
  }
};

struct AbsoluteError {  // l = |a - y|,  dl/da = sign(a - y), 0 at 0
  static constexpr std::string_view name = "mean_absolute_error";
  static constexpr bool is_mean = true;
  template <class Lane>
  using Row = NoRow<Lane>;
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>&) {
    return abs(a - y);
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>&) {
    const Lane d = a - y;  // a NaN is neither, and stays
    return d > 0 ? Lane{} + 1 : d < 0 ? Lane{} - 1 : d;
  }
};

// l = -sum y log s with s = softmax(a),  dl/da = s sum(y) - y: a is what goes into the softmax,
// from whose highest all others are seen, so that nothing overflows.
struct SoftmaxCrossEntropy {
  static constexpr std::string_view name = "categorical_crossentropy_from_logits";
  static constexpr bool is_mean = false;
  template <class Lane>
  struct Row {
    Lane highest, sum{}, targets{};  // of a, of e^(a - highest), and of y
    template <class Outputs>
    TORCHNN_FN explicit Row(const Outputs& outputs) : highest(outputs.a(0)) {
      for (int n = 1; n < outputs.units; ++n) {
        const Lane a = outputs.a(n);
        highest = a > highest ? a : highest;
      }
      for (int n = 0; n < outputs.units; ++n) {
        sum += exp_nonpositive(outputs.a(n) - highest);
        targets += outputs.y(n);
      }
    }
  };
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>& row) {
    return y * (log_from_one(row.sum) - (a - row.highest));
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>& row) {
    return row.targets * exp_nonpositive(a - row.highest) / row.sum - y;
  }
};

using Losses = TypeList<SquaredError, SigmoidCrossEntropy, AbsoluteError, SoftmaxCrossEntropy>;

// What an output of one of so many rows counts for: the loss of a batch is the mean over its rows.
template <class T>
TORCHNN_FN T share_of_output(int64_t loss, int64_t rows, int64_t units) {
  T share = T(1) / T(rows);
  Losses::with(loss, [&](auto each) {
    if (each.is_mean) share /= T(units);
  });
  return share;
}

}  // namespace torchnn
