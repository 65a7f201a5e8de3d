#include "lane_update.h"

#include "../math/dropout.h"
#include "simd/isa.h"
#include "simd/step.h"

namespace torchnn::cpu {
namespace {

template <class V>
using Signed = decltype(V{} < V{});

template <class V>
TORCHNN_FN Penalty<V> penalty_of(const LaneParameter<Element<V>>& parameter) {
  return {load<V>(parameter.penalty), load<V>(parameter.penalty + lanes<V>)};
}

template <class V>
TORCHNN_FN UpdateStep<V> step_of(const Element<V>* numbers) {
  struct Numbers {
    V of[step_size<Element<V>>];
  } step;
  static_assert(sizeof(step) == sizeof(UpdateStep<V>));
  __builtin_memcpy(&step, numbers, sizeof(step));
  return __builtin_bit_cast(UpdateStep<V>, step);
}

template <class Rule, class T>
struct TakeLaneStep {
  template <class Isa>
  static TORCHNN_FN void run(const LaneStep<T>& s) {
    using V = Register<Isa, T>;
    const LaneParameter<T>& p = s.parameter;
    const UpdateStep<V> step = step_of<V>(s.step);
    const Penalty<V> penalty = penalty_of<V>(p);
    const V scale = load<V>(p.scale);
    for (int64_t i = 0; i < s.rows; ++i) {
      const T* gradient = s.gradient + i * s.gradient_stride * lanes<V>;
      const int64_t first = (s.at + i * s.stride) * lanes<V>;
      for (int64_t k = 0; k < s.columns * lanes<V>; k += lanes<V>) {
        const int64_t at = first + k;
        V grad = load<V>(gradient + k);
        if (p.is_adjusted) grad = adjusted(grad, load<V>(p.values + at), penalty, scale, step);
        take_step<Rule>(p, at, grad, step);
      }
    }
  }
};

template <class T>
struct SpreadSteps {
  template <class Isa>
  static TORCHNN_FN void run(const UpdateStep<T>* steps, int64_t models, T* const& numbers) {
    constexpr int count = lanes<Register<Isa, T>>;
    for (int64_t m = 0; m < models; ++m) {
      T own[step_size<T>];
      __builtin_memcpy(own, &steps[m], sizeof(own));
      for (int64_t i = 0; i < step_size<T>; ++i) numbers[i * count + m] = own[i];
    }
  }
};

// sum += term(k) for each of so many numbers.
template <class V, class Term>
TORCHNN_FN void add_terms(int64_t count, Element<V>* sum, const Term& term) {
  V all = load<V>(sum);
  for (int64_t k = 0; k < count * lanes<V>; k += lanes<V>) all += term(k);
  store(sum, all);
}

template <class T>
struct AddPenalty {
  template <class Isa>
  static TORCHNN_FN void run(const LaneParameter<T>& p, T* const& sum) {
    using V = Register<Isa, T>;
    const Penalty<V> penalty = penalty_of<V>(p);
    add_terms<V>(p.size, sum, [&](int64_t k) __attribute__((always_inline)) {
      return penalty.value(load<V>(p.values + k));
    });
  }
};

template <class T>
struct AddSquares {
  template <class Isa>
  static TORCHNN_FN void run(const LaneParameter<T>& p, T* const& sum) {
    using V = Register<Isa, T>;
    const Penalty<V> penalty = penalty_of<V>(p);
    add_terms<V>(p.size, sum, [&](int64_t k) __attribute__((always_inline)) {
      const V all = load<V>(p.gradient + k) + penalty.gradient(load<V>(p.values + k));
      return all * all;
    });
  }
};

template <class T>
struct SumRows {
  template <class Isa>
  static TORCHNN_FN void run(const T* values, int64_t units, int64_t rows, int64_t stride,
                             bool adds, T* const& sums) {
    using V = Register<Isa, T>;
    for (int64_t n = 0; n < units; ++n) {
      V sum = adds ? load<V>(sums + n * lanes<V>) : V{};
      for (int64_t i = 0; i < rows; ++i) sum += load<V>(values + (n * stride + i) * lanes<V>);
      store(sums + n * lanes<V>, sum);
    }
  }
};

template <class T>
struct DropLanes {
  template <class Isa>
  static TORCHNN_FN void run(const LaneDropping<T>& dropping, int64_t first_row, int64_t first_unit,
                             T* const& values, int64_t units, int64_t rows, int64_t stride) {
    using V = Register<Isa, T>;
    using Bits = BitsOf<V>;
    Bits steps;
    Signed<V> bounds;
    V scales;
    for (int m = 0; m < lanes<V>; ++m) {
      const Dropping<T> own(dropping.rates[m]);
      steps[m] = dropping.step_keys[m], bounds[m] = own.bound, scales[m] = own.scale;
    }
    const Dropping<T, Signed<V>, V> own(bounds, scales);
    for (int64_t i = 0; i < rows; ++i) {
      const Bits row = mixed(Bits((steps + uint32_t(first_row + i)) & 0xffffffff));
      for (int64_t n = 0; n < units; ++n) {
        T* value = values + (n * stride + i) * lanes<V>;
        store(value, own.apply(load<V>(value), Bits(row + unit_key(first_unit + n))));
      }
    }
  }
};

template <class T>
struct ClearMissing {
  template <class Isa>
  static TORCHNN_FN void run(const int64_t* counts, T* const& values, int64_t units, int64_t rows,
                             int64_t stride) {
    using V = Register<Isa, T>;
    Signed<V> own;
    int64_t least = units;
    for (int m = 0; m < lanes<V>; ++m) own[m] = counts[m], least = std::min(least, counts[m]);
    for (int64_t n = least; n < units; ++n) {
      const Signed<V> is_there = own > Signed<V>{} + typename ExpConstants<T>::Integer(n);
      for (int64_t i = 0; i < rows; ++i) {
        T* value = values + (n * stride + i) * lanes<V>;
        store(value, is_there ? load<V>(value) : V{});
      }
    }
  }
};

}  // namespace

template <class T>
void take_lane_step(int64_t update, const LaneStep<T>& step) {
  Updates::with(update, [&](auto rule) { run<TakeLaneStep<decltype(rule), T>>(step); });
}

template <class T>
void spread_steps(const UpdateStep<T>* steps, int64_t models, T* numbers) {
  run<SpreadSteps<T>>(steps, models, numbers);
}

template <class T>
void add_penalty(const LaneParameter<T>& parameter, T* sum) {
  run<AddPenalty<T>>(parameter, sum);
}

template <class T>
void add_squares(const LaneParameter<T>& parameter, T* sum) {
  run<AddSquares<T>>(parameter, sum);
}

template <class T>
void sum_rows(const T* values, int64_t units, int64_t rows, int64_t stride, bool adds, T* sums) {
  run<SumRows<T>>(values, units, rows, stride, adds, sums);
}

template <class T>
void drop_lanes(const LaneDropping<T>& dropping, int64_t first_row, int64_t first_unit, T* values,
                int64_t units, int64_t rows, int64_t stride) {
  run<DropLanes<T>>(dropping, first_row, first_unit, values, units, rows, stride);
}

template <class T>
void clear_missing(const int64_t* counts, T* values, int64_t units, int64_t rows, int64_t stride) {
  run<ClearMissing<T>>(counts, values, units, rows, stride);
}

#define TORCHNN_INSTANTIATE(T)                                                             \
  template void take_lane_step(int64_t, const LaneStep<T>&);                               \
  template void spread_steps(const UpdateStep<T>*, int64_t, T*);                           \
  template void add_penalty(const LaneParameter<T>&, T*);                                  \
  template void add_squares(const LaneParameter<T>&, T*);                                  \
  template void sum_rows(const T*, int64_t, int64_t, int64_t, bool, T*);                   \
  template void drop_lanes(const LaneDropping<T>&, int64_t, int64_t, T*, int64_t, int64_t, \
                           int64_t);                                                       \
  template void clear_missing(const int64_t*, T*, int64_t, int64_t, int64_t);
TORCHNN_INSTANTIATE(float)
TORCHNN_INSTANTIATE(double)
#undef TORCHNN_INSTANTIATE

}  // namespace torchnn::cpu
