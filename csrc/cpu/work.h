// What there is to do: one model of several, one step of it, and the chunks of its batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../math/loss.h"
#include "../train.h"

namespace torchnn::cpu {

// A chunk, and what its gradient and its loss are added to: those of its batch, or of a share of
// it.
template <class T>
struct Work : Chunk {
  T* loss = nullptr;
  int64_t gradient = 0;    // which of those that are put aside
  bool adds = false;       // to what others have left there
  bool takes_step = true;  // with what has been added up by then
  bool by_rows = false;    // so few rows that dot products, along the features, are faster
};

inline int64_t row_of(const int64_t* order, int64_t sample) {
  return order ? order[sample] : sample;
}

// The rows of a chunk's batch that the mean of its loss is over: those that have a class, if
// targets are classes.
template <class T>
int64_t counted_rows(int64_t loss, const T* y, const int64_t* order, const Chunk& chunk) {
  if (!has_labels(loss)) return chunk.batch_rows();
  int64_t count = 0;
  for (int64_t i = chunk.begin; i < chunk.end; ++i) count += y[row_of(order, i)] >= 0;
  return std::max<int64_t>(count, 1);
}

// The number of step i of a call, of all steps ever taken: 1, 2, ...
template <class T>
int64_t step_number(const Train<T>& job, int64_t i) {
  return (job.steps_before ? *job.steps_before : 0) + i + 1;
}

template <class T>
UpdateStep<T> step_of(const Train<T>& job, int64_t i) {
  return {job.options, job.learning_rates[i], step_number(job, i)};
}

template <class T>
int64_t weight_count(const Train<T>& job) {
  int64_t weights = 0;
  for (int64_t l = 0; l < job.layer_count; ++l)
    weights += job.layers[l].in_features * job.layers[l].units;
  return weights;
}

// Model m by itself, with layers in place of the job's.
template <class T>
Train<T> model_of(const Train<T>& job, const Models& models, int64_t m,
                  std::vector<TrainLayer<T>>& layers) {
  layers.clear();
  for (int64_t l = 0; l < job.layer_count; ++l) layers.push_back(job.layers[l].moved(m));
  Train<T> model = job;
  model.layers = layers.data();
  model.x += m * models.x, model.y += m * models.y;
  if (job.sample_weight) model.sample_weight += m * models.sample_weight;
  if (job.order) model.order += m * models.order;
  if (models.options) model.options = models.options[m];
  model.learning_rates += m * models.learning_rates;
  model.losses += m * step_count(job);
  if (job.predictions) model.predictions += m * job.samples * layers.back().units;
  return model;
}

}  // namespace torchnn::cpu
