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

}  // namespace

template <class T>
void train_by_layers(const Train<T>& job, const TrainTensors& t, cuda::Stream stream) {
  const Network& network = t.network;
  const Tensor numbers = new_tensor<1>(t.x, {cuda::step_numbers(job, {})});
  auto* const steps = reinterpret_cast<UpdateStep<T>*>(mutable_data<T>(numbers));
  cuda::make_steps(job, {}, steps, stream);
  // Targets are small: those of all steps are fetched at once.
  const int64_t units = network.outputs();
  const Tensor y = rows_of(t.y, t.order, 0, job.samples);
  const Tensor weight = t.sample_weight ? rows_of(*t.sample_weight, t.order, 0, job.samples) : y;
  const Tensor sums = new_tensor<1>(y, {cuda::loss_parts(job.batch_size * units)});
  for (Chunk batch = chunk_after(job, {}, job.batch_size); batch.rows;
       batch = chunk_after(job, batch, job.batch_size)) {
    // 1. fetch the batch
    std::vector<Tensor> a{rows_of(t.x, t.order, batch.first, batch.rows)};
    // 2. forward
    for (int64_t l = 0; l < job.layer_count; ++l)
      a.push_back(cuda_dense(a[l], network.weights[l], network.bias(l), network.activations[l]));
    // 3. loss
    Tensor grad = new_tensor<2>(y, {batch.rows, units});
    cuda::measure(
        cuda::BatchLoss<T>{
            .out = data<T>(a.back()),
            .y = data<T>(y) + batch.first * units,
            .sample_weight = t.sample_weight ? data<T>(weight) + batch.first : nullptr,
            .grad_out = mutable_data<T>(grad),
            .sums = mutable_data<T>(sums),
            .loss = job.losses + batch.step,
            .predictions = job.predictions ? job.predictions + batch.first * units : nullptr,
            .rows = batch.rows,
            .units = units,
            .place = job.loss,
        },
        stream);
    // 4. backward
    std::vector<Tensor> grads;  // until they are used
    std::vector<cuda::Parameter<T>> parameters;
    for (int64_t l = job.layer_count - 1; l >= 0; --l) {
      const TrainLayer<T>& layer = job.layers[l];
      const auto [grad_x, grad_weight, grad_bias] = cuda_dense_backward(
          grad, a[l + 1], a[l], network.weights[l], layer.activation, l > 0, true, layer.bias);
      parameters.push_back({.values = layer.weight,
                            .slots = {layer.weight_slots[0], layer.weight_slots[1]},
                            .grad = data<T>(grad_weight),
                            .size = layer.units * layer.in_features});
      if (layer.bias)
        parameters.push_back({.values = layer.bias,
                              .slots = {layer.bias_slots[0], layer.bias_slots[1]},
                              .grad = data<T>(grad_bias),
                              .size = layer.units});
      grads.insert(grads.end(), {grad_weight, grad_bias});
      grad = grad_x;
    }
    // 5. update
    cuda::update(parameters.data(), int64_t(parameters.size()), job.update, steps + batch.step,
                 stream);
  }
}

template void train_by_layers(const Train<float>&, const TrainTensors&, cuda::Stream);
template void train_by_layers(const Train<double>&, const TrainTensors&, cuda::Stream);

}  // namespace torchnn
