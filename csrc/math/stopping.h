// When the training of a model ends before its last epoch: once a loss has not improved for some of
// them. torchnn.callbacks.EarlyStopping says what each number is.
#pragma once

#include <cmath>
#include <cstdint>

#include "lane.h"

namespace torchnn {

// Numbers of a row of a table.
struct Stopping {
  double patience;       // below 0: it never ends early
  double of_validation;  // whether the loss of the validation rows is looked at
  double sign;           // 1 if the loss is to fall, -1 if it is to rise
  double min_delta;
  double baseline;  // NaN for none
  double start_from_epoch;
};

// What is known after some epochs: a row of another one.
struct StoppingState {
  double best;        // NaN for none
  double best_epoch;  // -1 for none
  double wait;
  double epochs;  // that have been trained
  double has_stopped;

  struct Verdict {
    bool is_best;  // so far: its weights are those to keep
    bool stops;
  };

  // Takes in the loss of the next epoch.
  TORCHNN_FN Verdict take(const Stopping& rule, double loss) {
    auto improves = [&](double other) {
      if (std::isnan(other)) return !std::isnan(loss);
      return rule.sign * loss + rule.min_delta < rule.sign * other;
    };
    const double epoch = epochs++;
    if (epoch < rule.start_from_epoch) return {};
    ++wait;
    if (improves(best)) {
      best = loss, best_epoch = epoch;
      if (improves(rule.baseline)) wait = 0;
      return {true, false};
    }
    // NaN so far: there must be something to keep all the same.
    const bool is_first = best_epoch < 0;
    if (is_first) best_epoch = epoch;
    has_stopped = wait >= rule.patience && epoch > 0;
    return {is_first, has_stopped != 0};
  }
};

inline constexpr int64_t numbers_of_stopping = sizeof(Stopping) / sizeof(double);
inline constexpr int64_t numbers_of_stopping_state = sizeof(StoppingState) / sizeof(double);

// The mean over an epoch's samples of the losses of its batches.
template <class T>
TORCHNN_FN double mean_loss(const T* losses, int64_t samples, int64_t batch_size) {
  double sum = 0;
  for (int64_t first = 0; first < samples; first += batch_size) {
    const int64_t left = samples - first;
    sum += double(*losses++) * double(left < batch_size ? left : batch_size);
  }
  return sum / double(samples);
}

}  // namespace torchnn
