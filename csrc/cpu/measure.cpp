#include "measure.h"

#include "../math/loss.h"
#include "simd/isa.h"

namespace torchnn::cpu {
namespace {

// A register of rows: their outputs, and their targets.
template <class Loss, class V>
struct Outputs {
  int64_t units, stride;
  const Element<V>*out, *targets;
  Element<V> delta;
  TORCHNN_FN V a(int64_t n) const { return load<V>(out + n * stride); }
  TORCHNN_FN V y(int64_t n) const {
    if constexpr (takes_labels<Loss>)
      return target_of_label(load<V>(targets), n);
    else
      return load<V>(targets + n * stride);
  }
};

template <class Loss, class T>
struct MeasureLoss {
  template <class Isa>
  static TORCHNN_FN void run(const LossOfOutputs<T>& o) {
    using V = Register<Isa, T>;
    for (int64_t first = 0; first < o.columns; first += lanes<V>) {
      const Outputs<Loss, V> outputs{o.units, o.stride, o.out + first, o.targets + first, o.delta};
      const typename Loss::template Row<V> row(outputs);
      const V scale = load<V>(o.scales + first);
      V value{};
      for (int64_t n = 0; n < o.units; ++n) {
        const V a = outputs.a(n), y = outputs.y(n);
        value += scale * Loss::value(a, y, row);
        store(o.grad + n * o.stride + first, scale * Loss::gradient(a, y, row));
      }
      store(o.values + first, value);
    }
  }
};

}  // namespace

template <class T>
void measure_loss(const LossOfOutputs<T>& outputs) {
  Losses::with(outputs.loss, [&](auto loss) { run<MeasureLoss<decltype(loss), T>>(outputs); });
}
template void measure_loss(const LossOfOutputs<float>&);
template void measure_loss(const LossOfOutputs<double>&);

}  // namespace torchnn::cpu
