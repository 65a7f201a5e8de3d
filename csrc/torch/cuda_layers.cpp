#include "cuda_layers.h"

#include "cuda_dense.h"

namespace torchnn {
namespace {

// Rows first ... first + count - 1 of t, or those that order names there.
Tensor rows_of(Tensor t, std::optional<Tensor> order, int64_t first, int64_t count) {
  if (!order) return torch::stable::narrow(t, 0, first, count);
  std::array<StableIValue, 3> stack{
      torch::stable::detail::from(t), torch::stable::detail::from(int64_t(0)),
      torch::stable::detail::from(torch::stable::narrow(*order, 0, first, count))};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::index_select", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

template <class T>
class LayerByLayer {
 public:
  LayerByLayer(const Train<T>& job, const TrainTensors& t, cuda::Stream stream)
      : job_(job),
        t_(t),
        stream_(stream),
        units_(t.network.outputs()),
        targets_(target_count(job.loss, units_)),
        numbers_(new_tensor<1>(t.x, {cuda::step_numbers(job, {})})),
        y_(rows_of(t.y, t.order, 0, job.samples)),
        weight_(t.sample_weight ? rows_of(*t.sample_weight, t.order, 0, job.samples) : y_),
        sums_(new_tensor<1>(t.x, {cuda::loss_parts(job.batch_size * units_)})),
        sums_of_parameters_(new_tensor<1>(t.x, {needs_sums() ? most_sums() : 0})) {}

  void train() const {
    auto* const steps = reinterpret_cast<UpdateStep<T>*>(mutable_data<T>(numbers_));
    cuda::make_steps(job_, {}, steps, stream_);
    for (Chunk batch = chunk_after(job_, {}, job_.batch_size); batch.rows;
         batch = chunk_after(job_, batch, job_.batch_size)) {
      // 1. fetch the batch
      const Tensor x = left_of(rows_of(t_.x, t_.order, batch.first, batch.rows), batch.step);
      // 2. forward
      const std::vector<Passed> passed = forward(x, batch.step);
      // 3. loss
      const Tensor grad_out = measure(passed.back().out, batch);
      // 4. backward
      const Found found = backward(x, passed, grad_out, batch.step);
      // 5. update
      update(found.parameters, steps + batch.step, job_.losses + batch.step);
    }
  }

 private:
  // What a layer leaves behind: what its derivative is computed from, and what goes on.
  struct Passed {
    Tensor kept, out;
  };

  struct Found {
    std::vector<cuda::Parameter<T>> parameters;
    std::vector<Tensor> grads;  // theirs, until they are used
  };

  bool needs_sums() const { return job_.has_penalties() || job_.options.clips_norms(); }
  // There are a weight and a bias a layer at most.
  int64_t most_sums() const { return cuda::sums_of_parameters(2 * job_.layer_count); }

  std::vector<Passed> forward(const Tensor& x, int64_t step) const {
    std::vector<Passed> passed;
    for (int64_t l = 0; l < job_.layer_count; ++l)
      passed.push_back(forward(l, l ? passed[l - 1].out : x, step));
    return passed;
  }

  Passed forward(int64_t l, const Tensor& x, int64_t step) const {
    constexpr int64_t identity = Activations::place<Identity>();
    const int64_t activation = job_.layers[l].activation;
    const bool keeps_z = keeps_z_at(activation);
    const Tensor kept = make_contiguous(
        cuda_dense(x, t_.network.weights[l], t_.network.bias(l), keeps_z ? identity : activation));
    if (!keeps_z && job_.layers[l].dropout == 0) return {kept, kept};
    const Tensor out = new_output(kept, job_.layers[l].units);
    finish(l, keeps_z ? activation : identity, kept, out, step);
    return {kept, out};
  }

  // Drops some of x.
  Tensor left_of(const Tensor& x, int64_t step) const {
    if (job_.input_dropout == 0) return x;
    const Tensor from = make_contiguous(x), to = new_output(from, from.size(1));
    finish(Activations::place<Identity>(), job_.input_dropout, job_.input_seed, from, to, step);
    return to;
  }

  // Activates a layer's z, or leaves a as it is, and drops some of it.
  void finish(int64_t l, int64_t activation, const Tensor& from, const Tensor& to,
              int64_t step) const {
    finish(activation, job_.layers[l].dropout, job_.layers[l].seed, from, to, step);
  }

  void finish(int64_t activation, double dropout, int64_t seed, const Tensor& from,
              const Tensor& to, int64_t step) const {
    cuda::finish(
        cuda::LayerOutputs<T>{
            .from = data<T>(from),
            .to = mutable_data<T>(to),
            .rows = from.size(0),
            .units = from.size(1),
            .activation = activation,
            .dropout = dropout,
            .seed = seed,
            .step = step,
            .steps_before = job_.steps_before,
        },
        stream_);
  }

  // Returns the derivative with respect to the outputs.
  Tensor measure(const Tensor& out, const Chunk& batch) const {
    const Tensor grad_out = new_tensor<2>(out, {batch.rows, units_});
    cuda::measure(
        cuda::BatchLoss<T>{
            .out = data<T>(out),
            .y = data<T>(y_) + batch.first * targets_,
            .sample_weight = t_.sample_weight ? data<T>(weight_) + batch.first : nullptr,
            .grad_out = mutable_data<T>(grad_out),
            .sums = mutable_data<T>(sums_),
            .loss = job_.losses + batch.step,
            .predictions = job_.predictions ? job_.predictions + batch.first * units_ : nullptr,
            .rows = batch.rows,
            .units = units_,
            .place = job_.loss,
            .delta = T(job_.options.delta),
        },
        stream_);
    return grad_out;
  }

  Found backward(const Tensor& x, const std::vector<Passed>& passed, Tensor grad,
                 int64_t step) const {
    Found found;
    for (int64_t l = job_.layer_count - 1; l >= 0; --l) {
      const TrainLayer<T>& layer = job_.layers[l];
      if (layer.dropout > 0) {
        grad = make_contiguous(grad);  // nobody else's: it changes in place
        finish(l, Activations::place<Identity>(), grad, grad, step);
      }
      const auto [grad_x, grad_weight, grad_bias] =
          cuda_dense_backward(grad, passed[l].kept, l ? passed[l - 1].out : x,
                              t_.network.weights[l], layer.activation, l > 0, true, layer.bias);
      add_parameters(found, layer, grad_weight, grad_bias);
      grad = grad_x;
    }
    return found;
  }

  static void add_parameters(Found& found, const TrainLayer<T>& layer, const Tensor& grad_weight,
                             const Tensor& grad_bias) {
    const Tensor of_weight = make_contiguous(grad_weight);
    found.parameters.push_back({.values = layer.weight,
                                .slots = {layer.weight_slots[0], layer.weight_slots[1]},
                                .grad = data<T>(of_weight),
                                .size = layer.units * layer.in_features,
                                .penalty = layer.weight_penalty});
    if (layer.bias)
      found.parameters.push_back({.values = layer.bias,
                                  .slots = {layer.bias_slots[0], layer.bias_slots[1]},
                                  .grad = data<T>(grad_bias),
                                  .size = layer.units,
                                  .penalty = layer.bias_penalty});
    found.grads.insert(found.grads.end(), {of_weight, grad_bias});
  }

  void update(const std::vector<cuda::Parameter<T>>& parameters, const UpdateStep<T>* step,
              T* loss) const {
    const int64_t count = int64_t(parameters.size());
    T* const sums = mutable_data<T>(sums_of_parameters_);
    if (needs_sums()) cuda::sum_up(parameters.data(), count, job_.options, sums, loss, stream_);
    const T* const scales = job_.options.clips_norms() ? sums : nullptr;
    cuda::update(parameters.data(), count, job_.update, step, scales, stream_);
  }

  const Train<T>& job_;
  const TrainTensors& t_;
  const cuda::Stream stream_;
  const int64_t units_, targets_;  // of the last layer; numbers of a row of y
  const Tensor numbers_;
  const Tensor y_, weight_;  // of all steps: targets are small, and fetched at once
  const Tensor sums_, sums_of_parameters_;
};

}  // namespace

template <class T>
void train_by_layers(const Train<T>& job, const TrainTensors& tensors, cuda::Stream stream) {
  LayerByLayer<T>(job, tensors, stream).train();
}

template void train_by_layers(const Train<float>&, const TrainTensors&, cuda::Stream);
template void train_by_layers(const Train<double>&, const TrainTensors&, cuda::Stream);

}  // namespace torchnn
