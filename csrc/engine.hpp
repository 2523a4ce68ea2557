// The jobs of the engine, and the table of functions that each instruction set fills in. Arrays are row major and belong to the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "checks/jobs.hpp"
#include "plan/plan.hpp"
#include "threads/control.hpp"
#include "threads/team.hpp"

namespace spd {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <class T>
struct DataSet {
  const T* images = nullptr;  // (n, channels, height, width)
  const T* labels = nullptr;  // (n, classes)
  int n = 0;
};

template <class T>
struct TrainSettings {
  DataSet<T> train, valid;    // valid.n == 0: none
  const std::int64_t* order;  // (epochs, train.n)
  int epochs, batch, steps_per_epoch;
  Optimizer optimizer;
  const double* rates;  // (epochs * steps_per_epoch)
  double batch_norm_momentum, batch_norm_eps;
  bool batch_statistics;  // of the final metrics; else running statistics
  bool evaluate;          // read metrics on the training set at the end
};

template <class T>
struct Metrics {  // of one motif on one data set; NaN where they were not read
  double probability = kNan, loss = kNan, accuracy = kNan;
  T* logits = nullptr;  // (n, classes)
};

template <class T>
struct TrainJob {
  const Plan* plan;        // for a batch
  const Plan* plan_train;  // for the final metrics on the training set, on the validation set; null: not wanted
  const Plan* plan_valid;
  T* memory;          // network_memory(...) elements, zeroed, aligned to a vector
  T* memory_metrics;  // for the larger of plan_train, plan_valid
  T* parameters;      // (n_parameters): before, and after
  T* running;         // (2, batch_norms): mean, variance
  double* loss;       // (epochs)
  double* accuracy;
  double* step_loss;  // (steps) or null
  double* step_accuracy;
  Metrics<T> train, valid;
  std::int64_t diverged_step;  // -1: did not
  double seconds;              // from the first plan to the last metric
};

enum class Metric { loss, probability };
inline constexpr const char* kMetricNames[] = {"loss", "probability"};

template <class T>
struct GradientJob {
  const Plan* plan;  // for the whole set
  T* memory;
  const T* parameters;
  DataSet<T> data;
  Metric metric;
  double batch_norm_eps;
  Metrics<T> values;
  T* d_parameters;  // (n_parameters) or null
  T* d_images;      // (n, channels, height, width) or null
  T* d_labels;      // (n, classes) or null; only beside another
};

// The derivative of
//
//   metric_weight * (metric at the end, on the validation set, or on the training set where there is none) + sum_t step_weights[t] * (loss of step t)
//
// through the steps first_step .. steps - 1 of a training. All arrays zeroed by the caller.
template <class T>
struct HypergradientJob {
  const TrainSettings<T>* settings;
  const Plan* plan;         // for a batch
  const Plan* plan_metric;  // for the whole set that the metric is read on
  T* memory;                // hypergradient_memory(...) elements
  T* memory_metric;
  const T* initial;                        // (n_parameters)
  long steps, first_step, kept_gradients;  // kept: of the last steps, at most `steps`
  Metric metric;
  double metric_weight;
  const double* step_weights;  // (steps) or null
  double value;
  Metrics<T> metrics;
  double* step_loss;  // (steps)
  T* trained;         // (n_parameters)
  T *d_images, *d_labels, *d_valid_images, *d_valid_labels;
  double *d_rates, *d_momenta;  // (steps)
  T* d_initial;                 // (n_parameters): of the weights before step first_step
  std::int64_t diverged_step;
};

// One training step on all of `data`, `repeats` times; the state trains on.
template <class T>
struct ProfileJob {
  const Plan* plan;
  T* memory;
  T* parameters;  // (n_parameters)
  T* running;     // (2, batch_norms)
  DataSet<T> data;
  Optimizer optimizer;
  double rate, batch_norm_momentum, batch_norm_eps;
  int repeats;
  double *whole, *timed;  // (repeats): seconds of a step as it is, and of one with its parts timed
  double* seconds;        // (repeats, ops + 1, kParts), zeroed by the caller: those parts (span.hpp)
};

// Gradient of the sum of all logits; loops/proxies.hpp.
template <class T>
struct LogitGradientJob {
  const Plan* plan;
  T* memory;
  const T* parameters;
  DataSet<T> data;
  bool batch_norm;  // else none: weights and images must not be negative
  double batch_norm_eps;
  T* d_parameters;  // (n_parameters)
  T* d_images;      // (n, channels, height, width)
};
template <class T>
struct ActivationJob {
  const Plan* plan;
  T* memory;
  const T* parameters;
  DataSet<T> data;
  double batch_norm_eps;
  std::int64_t* agreements;  // (n, n), zeroed by the caller
};

template <class T>
struct EngineFunctions {
  int lanes;
  std::size_t (*memory)(const Plan&, Team&);  // elements that running a plan takes
  void (*train)(const TrainSettings<T>&, TrainJob<T>&, Control&, Team&);
  void (*gradient)(GradientJob<T>&, Control&, Team&);
  std::size_t (*hypergradient_memory)(const Plan&, long steps, long kept_gradients, Team&);
  void (*hypergradient)(HypergradientJob<T>&, Control&, Team&);
  void (*conv)(ConvCheck<T>&);
  void (*batch_norm)(BatchNormCheck<T>&);
  void (*pool)(PoolCheck<T>&);
  void (*relu)(ReluCheck<T>&);
  void (*head)(HeadCheck<T>&);
  void (*dense)(DenseCheck<T>&);
  void (*profile)(ProfileJob<T>&, Control&, Team&);
  void (*logit_gradient)(LogitGradientJob<T>&, Control&, Team&);
  void (*activations)(ActivationJob<T>&, Control&, Team&);
  // Of one thread, measured for so many seconds (checks/machine.hpp): FLOP/s, bytes/s of n elements, read and written, cycles/s.
  double (*peak)(double seconds);
  double (*read)(const T* data, std::size_t n, double seconds);
  double (*write)(T* data, std::size_t n, double seconds);
  double (*clock)(double seconds);
};

struct Engine {
  const char* isa;
  int few;  // input channels, no more than which Winograd's weight gradient keeps in registers (kernels/winograd2d_tiles.hpp)
  EngineFunctions<float> f32;
  EngineFunctions<double> f64;

  template <class T>
  const EngineFunctions<T>& of() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

namespace avx512 {
const Engine& engine();
}
namespace avx2 {
const Engine& engine();
}
namespace baseline {
const Engine& engine();
}

// The best that this machine runs, or the one named in SPD_FAST_ISA (std::invalid_argument where it cannot run).
const Engine& engine();

}  // namespace spd
