// The jobs of the engine, and the table of functions that each instruction set fills in. All arrays are row major and belong to the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
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
  DataSet<T> train, valid;    // valid.n is 0 where there is no validation set
  const std::int64_t* order;  // (epochs, train.n)
  int epochs, batch, steps_per_epoch;
  Optimizer optimizer;
  const double* rates;  // (epochs * steps_per_epoch)
  double batch_norm_momentum, batch_norm_eps;
  bool batch_statistics;  // the final metrics use the statistics of the whole set, otherwise the running ones
  bool evaluate;          // metrics on the training set are read at the end
};

template <class T>
struct Metrics {  // of one motif on one data set; NaN where they were not read
  double probability = kNan, loss = kNan, accuracy = kNan;
  T* logits = nullptr;  // (n, classes)
};

template <class T>
struct TrainJob {
  const Plan* plan;        // for a batch
  const Plan* plan_train;  // for the final metrics on the training set, or null where they are not wanted
  const Plan* plan_valid;  // the same for the validation set
  T* memory;               // as many elements as EngineFunctions::memory says, zeroed, aligned to a vector
  T* memory_metrics;       // enough for plan_train and for plan_valid, which use it in turn
  T* parameters;           // (n_parameters): the initial ones, which become the trained ones
  T* running;              // (2, batch_norms): means, variances
  double* loss;            // (epochs)
  double* accuracy;
  double* step_loss;  // (steps), or null where it is not wanted
  double* step_accuracy;
  Metrics<T> train, valid;
  std::int64_t diverged_step;  // -1 where the motif did not diverge
  double seconds;              // that making the plans, training and reading the metrics took
};

// Some steps of the training of a supernet. Every step trains the motif of another cell, whose weights are a slice of the supernet's: weight j of the motif of
// step i is weight slices[i][j] of the supernet. No two weights of a motif are the same one.
template <class T>
struct SupernetJob {
  struct Step {
    const Plan* plan;  // for a batch
    T* memory;         // as many elements as EngineFunctions::memory says and n_parameters more, zeroed, aligned to a vector
  };
  std::function<Step(long i, Team&)> prepare;  // what it returns is valid until it is called again
  DataSet<T> data;
  const std::int64_t* order;  // (steps, batch)
  int batch;
  long steps, first_step;  // the optimiser counts steps from the supernet's first one
  Optimizer optimizer;
  const double* rates;  // (steps)
  double batch_norm_eps;
  const std::int32_t* const* slices;  // (steps)
  T *weights, *a, *b;                 // (n_weights): the supernet's, and the state of the optimiser, which is made where first_step is 0
  std::size_t n_weights;
  double *step_loss, *step_accuracy;  // (steps)
  std::int64_t diverged_step;         // counted from the supernet's first step; -1 where no loss was infinite or NaN
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
  T* d_labels;      // (n, classes) or null; asked for only with one of the others
};

// The derivative of
//
//   metric_weight * (metric at the end, on the validation set, or on the training set where there is none) + sum_t step_weights[t] * (loss of step t)
//
// through the steps first_step .. steps - 1 of a training. The caller zeroes all arrays.
template <class T>
struct HypergradientJob {
  const TrainSettings<T>* settings;
  const Plan* plan;         // for a batch
  const Plan* plan_metric;  // for the whole set that the metric is read on
  T* memory;                // as many elements as hypergradient_memory says
  T* memory_metric;
  const T* initial;                        // (n_parameters)
  long steps, first_step, kept_gradients;  // the gradients of the last kept_gradients steps are kept
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

// One training step on all of `data`, `repeats` times. Each step trains on from where the last one ended.
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
  double *whole, *timed;  // (repeats): seconds of a step as it is, and of a step whose parts are timed
  double* seconds;        // (repeats, ops + 1, kParts), zeroed by the caller: seconds of those parts (span.hpp)
};

// The gradient of the sum of all logits (loops/proxies.hpp).
template <class T>
struct LogitGradientJob {
  const Plan* plan;
  T* memory;
  const T* parameters;
  DataSet<T> data;
  bool batch_norm;  // the network has batch norm; without it weights and images must not be negative
  double batch_norm_eps;
  T* d_parameters;  // (n_parameters)
  T* d_images;      // (n, channels, height, width)
};
// How alike the ReLUs react to each pair of images (loops/proxies.hpp).
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
  std::size_t (*memory)(const Plan&, Team&);  // how many elements running a plan takes, training included
  void (*train)(const TrainSettings<T>&, TrainJob<T>&, Control&, Team&);
  void (*supernet)(SupernetJob<T>&, Control&, Team&);
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
  // What one thread can do at most, measured for so many seconds (checks/machine.hpp): FLOP/s, bytes/s of reading and of writing n elements, cycles/s.
  double (*peak)(double seconds);
  double (*read)(const T* data, std::size_t n, double seconds);
  double (*write)(T* data, std::size_t n, double seconds);
  double (*clock)(double seconds);
};

struct Engine {
  const char* isa;
  int few;  // with so many input channels or fewer, Winograd's weight gradient keeps what it transforms of dy in registers (kFewWgrad)
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

// Returns the best engine that this machine runs, or the one that SPD_FAST_ISA names. Throws std::invalid_argument where that one cannot run.
const Engine& engine();

}  // namespace spd
