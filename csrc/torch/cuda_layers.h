// Training on CUDA layer by layer, of a network that does not go into a launch of many steps.
#pragma once

#include "training.h"

namespace torchnn {

// Step after step, each some launches. What it does can be recorded in a CUDA graph.
template <class T>
void train_by_layers(const Train<T>& job, const TrainTensors& tensors, cuda::Stream stream);

}  // namespace torchnn
