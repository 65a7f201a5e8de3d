// Operator schemas and the CPU registration; no arithmetic. The Python wrappers in torchnn/ops
// judge what a user can get wrong; the checks here are those that memory safety rests on, so that a
// direct torch.ops.torchnn call can be refused but never corrupt anything.
#include <Python.h>

#include <cstring>
#include <optional>
#include <string>
#include <tuple>

#include "../cpu/simd/isa.h"
#include "../dense.h"
#include "../hash.h"
#include "../math/shuffle.h"
#include "cpu_dense.h"
#include "cpu_library.h"
#include "cpu_ways.h"
#include "many.h"

namespace torchnn {
namespace {

// What is gone through as memory: it must all be there.
void check_whole(const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.is_cpu() && t.is_contiguous(), name, " must be contiguous, on the CPU");
  std::vector<Extent> extents;
  add_extent(extents, name, -1, t, false);
}

// In place. An element comes to the same bits wherever it lies, which is not so of PyTorch's own.
void activate_(const Tensor& x, int64_t activation) {
  check_whole("x", x);
  check_range("activation", activation, 0, Activations::size - 1);
  dispatch_float(x, [&]<class T>(T*) {
    T* a = mutable_data<T>(x);
    parallel_elements(x.numel(), 1, [&](int64_t begin, int64_t end) {
      cpu::activate(activation, a + begin, end - begin);
    });
  });
}

// ---- whole networks ----

// Calls f(context, 0) ... f(context, parts - 1) on PyTorch's threads.
void in_parallel(int64_t parts, void (*f)(void*, int64_t), void* context) {
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(context, i);
  });
}

// For train_ in training.h.
struct Cpu {
  static constexpr DeviceType type = DeviceType::CPU;
  static constexpr bool takes_snapshots = true;

  static void check_order(const char* name, const Tensor& order, int64_t rows) {
    const int64_t* row = data<int64_t>(order);
    const int64_t size = order.dim() == 2 ? order.size(1) : 0;  // of each, if there are several
    for (int64_t i = 0; i < order.numel(); ++i)
      if (row[i] < 0 || row[i] >= rows)
        STD_TORCH_CHECK(false, name, "[", size ? std::to_string(i / size) + ", " : "",
                        size ? i % size : i, "] is ", row[i], ", of ", rows, " rows");
  }

  template <class T>
  static void train(const Train<T>& job, const Models& models, const TrainTensors&) {
    cpu::train(on_this_machine(job), models);
  }

  template <class T>
  static void train_many(const Trials<T>& job, const Tensor&) {
    cpu::train_many(on_this_machine(job));
  }

 private:
  // The job with all that a CPU has for it.
  template <template <class> class Job, class T>
  static Job<T> on_this_machine(Job<T> job) {
    job.parallel = in_parallel;
    job.threads = int64_t(torch::stable::get_num_threads());
    if (may_use_library()) job.add_product = add_product_by_library<T>;
    return job;
  }
};

// For shuffle_schema in many.h.
void shuffle_(const Tensor& rows, const Tensor& seeds) {
  check_shuffle(rows, seeds, DeviceType::CPU);
  int64_t* const first = mutable_data<int64_t>(rows);
  const int64_t *const seed = data<int64_t>(seeds), size = rows.size(1);
  // A few short ones are done before another thread is awake; and none is in a process that was
  // forked off, where waking one would wait for ever.
  constexpr int64_t rows_a_thread = 1 << 15;
  const int64_t orders_a_thread = std::max<int64_t>(rows_a_thread / std::max<int64_t>(size, 1), 1);
  parallel_for(0, rows.size(0), orders_a_thread, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) shuffle(first + i * size, size, uint32_t(seed[i]));
  });
}

Tensor predict(const Tensor& x, const std::vector<int64_t>& activations, const Tensor& slopes,
               const std::vector<Tensor>& weights, const std::vector<Tensor>& biases) {
  const Network network{activations, slopes, weights, biases};
  check_prediction(x, network, DeviceType::CPU);
  const bool many = network.has_models();
  const int64_t units = network.outputs(), models = network.models();
  const int64_t samples = x.size(x.dim() - 2), x_stride = x.stride(x.dim() - 2);
  const int64_t x_of_model = model_stride("x", x, 2, network);
  constexpr int64_t rows_at_once = 64;  // so that what goes from layer to layer stays in the cache
  const int64_t blocks = (samples + rows_at_once - 1) / rows_at_once;
  const bool is_few =
      2 * samples * int64_t(x.element_size()) <= cpu::vector_bytes();  // half a register
  Tensor out =
      many ? new_tensor<3>(x, {models, samples, units}) : new_tensor<2>(x, {samples, units});
  dispatch_network(x, [&]<class T>(T*) {
    const auto layers = as_layers<T>(network, {});
    // Some blocks of the rows of one model.
    const auto predict_rows = [&](int64_t model, int64_t begin, int64_t end) {
      std::vector<TrainLayer<T>> own;
      for (const TrainLayer<T>& layer : layers) own.push_back(layer.moved(model));
      const int64_t first = begin * rows_at_once;
      cpu::predict(Train<T>{
          .layers = own.data(),
          .layer_count = int64_t(own.size()),
          .x = data<T>(x) + model * x_of_model + first * x_stride,
          .x_stride = x_stride,
          .samples = std::min(end * rows_at_once, samples) - first,
          .batch_size = is_few ? samples : rows_at_once,
          .predictions = mutable_data<T>(out) + (model * samples + first) * units,
      });
    };
    parallel_for(0, models * blocks, 16, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t model = begin / blocks, stop = std::min(end, (model + 1) * blocks);
        predict_rows(model, begin - model * blocks, stop - model * blocks);
        begin = stop;
      }
    });
  });
  return out;
}

// ---- what nobody may have touched ----

int64_t hash(const std::vector<Tensor>& tensors) {
  uint64_t all = tensors.size();
  for (const Tensor& t : tensors) {
    check_whole("each tensor", t);
    if (t.numel()) all = cpu::hash(data<char>(t), t.numel() * t.element_size(), all);
  }
  return int64_t(all);
}

// Gives a network the state that it had after an epoch, of which snapshots tell as in train_. If
// that of another epoch is expected, it must still have that one; if not, nothing changes.
bool restore_(const std::vector<Tensor>& state, const std::vector<Tensor>& snapshots, int64_t epoch,
              std::optional<int64_t> expected) {
  STD_TORCH_CHECK(state.size() == snapshots.size(), "there must be a snapshot of each tensor");
  std::vector<Extent> extents;
  extents.reserve(2 * state.size());
  for (size_t i = 0; i < state.size(); ++i) {
    const Tensor &t = state[i], &kept = snapshots[i];
    STD_TORCH_CHECK(kept.is_cpu() && kept.is_contiguous() && kept.dim() > 0,
                    "each snapshot must be contiguous, on the CPU");
    check_range("epoch", epoch, 0, kept.size(0) - 1);
    if (expected) check_range("expected", *expected, 0, kept.size(0) - 1);
    bool fits = is_like(t, kept) && t.is_contiguous() && t.dim() + 1 == kept.dim();
    for (int64_t d = 0; fits && d < t.dim(); ++d) fits = t.size(d) == kept.size(d + 1);
    STD_TORCH_CHECK(fits || expected, "state ", i, " must be contiguous and like its snapshots");
    if (!fits) return false;
    add_extent(extents, "state", int64_t(i), t, true);
    add_extent(extents, "snapshot", int64_t(i), kept, false);
  }
  check_overlaps(extents);
  auto each = [&](auto f) {  // with the memory of the state and of all its snapshots, and its size
    for (size_t i = 0; i < state.size(); ++i)
      if (const int64_t bytes = state[i].numel() * state[i].element_size())
        f(mutable_data<char>(state[i]), data<char>(snapshots[i]), bytes);
  };
  bool is_so = true;
  if (expected)
    each([&](const char* now, const char* kept, int64_t bytes) {
      is_so = is_so && std::memcmp(now, kept + *expected * bytes, bytes) == 0;
    });
  if (is_so)
    each([&](char* now, const char* kept, int64_t bytes) {
      std::memcpy(now, kept + epoch * bytes, bytes);
    });
  return is_so;
}

// The names of a list, separated by spaces.
template <class List>
std::string names() {
  std::string all;
  List::each([&](auto entry) {
    if (!all.empty()) all += " ";
    all += entry.name;
  });
  return all;
}

std::string train_options() { return std::string(TrainOptions::names); }

std::string cpu_capability() { return cpu::name(cpu::capability_in_use()); }

}  // namespace
}  // namespace torchnn

STABLE_TORCH_LIBRARY(torchnn, m) {
  // torchnn/ops/_dense.py makes dense, with gradients, of the two others, which are bare kernels.
  m.def("dense(Tensor x, Tensor weight, Tensor? bias, int activation) -> Tensor");
  m.def("dense_forward(Tensor x, Tensor weight, Tensor? bias, int activation) -> Tensor");
  m.def(
      "dense_backward(Tensor grad_out, Tensor? out, Tensor? x, Tensor? weight, int activation, "
      "bool need_x, bool need_weight, bool need_bias) -> (Tensor, Tensor, Tensor)");
  m.def(torchnn::train_schema);
  m.def(torchnn::train_many_schema);
  m.def(torchnn::shuffle_schema);
  m.def(
      "predict(Tensor x, int[] activations, Tensor slopes, Tensor[] weights, Tensor[] biases) -> "
      "Tensor");
  m.def("activate_(Tensor(a!) x, int activation) -> ()");
  m.def("restore_(Tensor(a!)[] state, Tensor[] snapshots, int epoch, int? expected) -> bool");
  m.def("hash(Tensor[] tensors) -> int");
  m.def("activations() -> str");
  m.def("losses() -> str");
  m.def("updates() -> str");
  m.def("train_options() -> str");
  m.def("cpu_capability() -> str");
  m.def("choose_ways(int how) -> ()");
  m.def("ways() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(torchnn, CPU, m) {
  m.impl("dense_forward", TORCH_BOX(&torchnn::cpu_dense));
  m.impl("dense_backward", TORCH_BOX(&torchnn::cpu_dense_backward));
  m.impl("train_", TORCH_BOX(&torchnn::train_<torchnn::Cpu>));
  m.impl("train_many_", TORCH_BOX(&torchnn::train_many_<torchnn::Cpu>));
  m.impl("shuffle_", TORCH_BOX(&torchnn::shuffle_));
  m.impl("predict", TORCH_BOX(&torchnn::predict));
  m.impl("activate_", TORCH_BOX(&torchnn::activate_));
  m.impl("restore_", TORCH_BOX(&torchnn::restore_));
  m.impl("hash", TORCH_BOX(&torchnn::hash));
}

STABLE_TORCH_LIBRARY_IMPL(torchnn, CompositeExplicitAutograd, m) {
  m.impl("activations", TORCH_BOX(&torchnn::names<torchnn::Activations>));
  m.impl("losses", TORCH_BOX(&torchnn::names<torchnn::Losses>));
  m.impl("updates", TORCH_BOX(&torchnn::names<torchnn::Updates>));
  m.impl("train_options", TORCH_BOX(&torchnn::train_options));
  m.impl("cpu_capability", TORCH_BOX(&torchnn::cpu_capability));
  m.impl("choose_ways", TORCH_BOX(&torchnn::choose_ways));
  m.impl("ways", TORCH_BOX(&torchnn::ways));
}

// Importing the module loads the library, whose static initialisers register the operators.
PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module{
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
