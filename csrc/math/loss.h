// The list of losses that whole-network training knows. To add one: a struct here, an entry in
// Losses, a line in torchnn/ops/reference.py, and the class that names it in torchnn/losses.
//
// A loss sees all outputs of a sample, its row: what it needs to know of them together goes into a
// Row, made of outputs.a(n) and outputs.y(n) for n below outputs.units, and of outputs.delta, the
// loss's number, if it has one. Its loss is then the sum of value(a, y, row) over the outputs a and
// their targets y, or the mean if is_mean.
//
// A loss that takes_labels is given the number of a class in place of targets: y is 1 for that
// output and 0 for the others. A negative number is no class: then all are 0, and so is the loss.
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
    Lane log_sum, share;             // log(sum), and targets / sum
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
      log_sum = log_from_one(sum), share = targets / sum;
    }
  };
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>& row) {
    return y * (row.log_sum - (a - row.highest));
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>& row) {
    return row.share * exp_nonpositive(a - row.highest) - y;
  }
};

// The same of the number of a class, in place of the targets of all.
struct SparseSoftmaxCrossEntropy : SoftmaxCrossEntropy {
  static constexpr std::string_view name = "sparse_categorical_crossentropy_from_logits";
  static constexpr bool takes_labels = true;
};

// With d = |a - y|: l = d^2 / 2 up to delta, else delta (d - delta / 2);
// dl/da = a - y, kept within -delta and delta
// Source: P. Huber, Robust estimation of a location parameter, 1964.
struct Huber {
  static constexpr std::string_view name = "huber";
  static constexpr bool is_mean = true;
  template <class Lane>
  struct Row {
    ElementOf<Lane> delta;
    template <class Outputs>
    TORCHNN_FN explicit Row(const Outputs& outputs) : delta(outputs.delta) {}
  };
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>& row) {
    const Lane d = abs(a - y);
    return d > row.delta ? row.delta * (d - row.delta / 2) : d * d / 2;
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>& row) {
    const Lane d = a - y, delta = Lane{} + row.delta;
    return d > delta ? delta : d < -delta ? -delta : d;
  }
};

// l = (log(1 + a) - log(1 + y))^2,  dl/da = 2 (log(1 + a) - log(1 + y)) / (1 + a), where a and y
// are at least epsilon; below they are taken to be epsilon
struct SquaredLogarithmicError {
  static constexpr std::string_view name = "mean_squared_logarithmic_error";
  static constexpr bool is_mean = true;
  template <class Lane>
  using Row = NoRow<Lane>;
  template <class Lane>
  static TORCHNN_FN Lane difference(Lane a, Lane y) {
    const Lane least = Lane{} + ElementOf<Lane>(1e-7);
    return log_from_one(1 + (a < least ? least : a)) - log_from_one(1 + (y < least ? least : y));
  }
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>&) {
    const Lane d = difference(a, y);
    return d * d;
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>&) {
    return a < ElementOf<Lane>(1e-7) ? Lane{} : 2 * difference(a, y) / (1 + a);
  }
};

struct LogCosh {  // l = log(cosh(a - y)),  dl/da = tanh(a - y)
  static constexpr std::string_view name = "log_cosh";
  static constexpr bool is_mean = true;
  template <class Lane>
  using Row = NoRow<Lane>;
  // log(cosh d) = |d| + log(1 + e^(-2|d|)) - log 2, which does not overflow.
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>&) {
    const Lane d = abs(a - y);
    return d + log1p_fraction(exp_nonpositive(-2 * d)) - ElementOf<Lane>(0.69314718055994530942);
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>&) {
    const Lane d = a - y, m = expm1_nonpositive(-2 * abs(d));
    const Lane t = divide_by_one_to_two(-m, 2 + m);
    return d < 0 ? -t : t;
  }
};

struct Hinge {  // l = max(1 - y a, 0),  dl/da = -y where that is not 0; y is -1 or 1
  static constexpr std::string_view name = "hinge";
  static constexpr bool is_mean = true;
  template <class Lane>
  using Row = NoRow<Lane>;
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>&) {
    const Lane missing = 1 - y * a;
    return missing < 0 ? Lane{} : missing;
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>&) {
    return 1 - y * a <= 0 ? Lane{} : -y;
  }
};

struct SquaredHinge {  // l = max(1 - y a, 0)^2,  dl/da = -2 y max(1 - y a, 0); y is -1 or 1
  static constexpr std::string_view name = "squared_hinge";
  static constexpr bool is_mean = true;
  template <class Lane>
  using Row = NoRow<Lane>;
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>& row) {
    const Lane missing = Hinge::value(a, y, row);
    return missing * missing;
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>& row) {
    return -2 * y * Hinge::value(a, y, row);
  }
};

struct Poisson {  // l = a - y log(a + epsilon),  dl/da = 1 - y / (a + epsilon)
  static constexpr std::string_view name = "poisson";
  static constexpr bool is_mean = true;
  template <class Lane>
  using Row = NoRow<Lane>;
  template <class Lane>
  static TORCHNN_FN Lane value(Lane a, Lane y, const Row<Lane>&) {
    return a - y * log(a + ElementOf<Lane>(1e-7));
  }
  template <class Lane>
  static TORCHNN_FN Lane gradient(Lane a, Lane y, const Row<Lane>&) {
    return 1 - y / (a + ElementOf<Lane>(1e-7));
  }
};

using Losses = TypeList<SquaredError, SigmoidCrossEntropy, AbsoluteError, SoftmaxCrossEntropy,
                        SparseSoftmaxCrossEntropy, Huber, SquaredLogarithmicError, LogCosh, Hinge,
                        SquaredHinge, Poisson>;

template <class Loss>
inline constexpr bool takes_labels = false;
template <class Loss>
  requires(Loss::takes_labels)
inline constexpr bool takes_labels<Loss> = true;

constexpr bool has_labels(int64_t loss) {
  bool has = false;
  Losses::with(loss, [&](auto each) { has = takes_labels<decltype(each)>; });
  return has;
}

// The numbers of a row of y, for so many outputs.
constexpr int64_t target_count(int64_t loss, int64_t units) { return has_labels(loss) ? 1 : units; }

// The target of output n, given the number of the class.
template <class Lane>
TORCHNN_FN Lane target_of_label(Lane label, int64_t n) {
  return label == ElementOf<Lane>(n) ? Lane{} + 1 : Lane{};
}

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
