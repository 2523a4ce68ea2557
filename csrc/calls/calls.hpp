// A call of the engine for many motifs. It decides which plans a motif needs, what it costs and how much memory it takes. Threads then do the jobs.
#pragma once

#include <functional>
#include <vector>

#include "../engine.hpp"

namespace spd {

// How a call runs.
struct Run {
  int threads;  // both are run_jobs' arguments
  std::function<bool(double)> poll;
};

// The motifs of a call, each with a plan for the size of batch in which most of the call is spent.
template <class T>
struct Motifs {
  const std::vector<MotifSpec>& specs;
  bool direct_convolutions;  // no convolution runs by Winograd's algorithms
  std::vector<Plan> plans;

  Motifs(const std::vector<MotifSpec>& specs, int batch, Passes passes, bool direct_convolutions);
  // Returns a plan of motif k for another size of batch.
  Plan plan(std::size_t k, int batch, Passes passes) const;
};

// Divides s.train into batches of at most `batch` images. drop_last leaves out a smaller last one. Throws std::invalid_argument where batch is below 1.
template <class T>
void set_batches(TrainSettings<T>& s, int batch, bool drop_last);

// A call has three steps. `motifs_to_...` checks the values of the settings (std::invalid_argument) and makes the motifs, whose plans say how long the arrays
// must be. The caller then fills in a job for each motif, all but its plans and memory. Last, the jobs are run.
template <class T>
Motifs<T> motifs_to_train(const std::vector<MotifSpec>& specs, const TrainSettings<T>& s, bool direct_convolutions);
template <class T>
void train(const Motifs<T>& motifs, const TrainSettings<T>& s, std::vector<TrainJob<T>>& jobs, const Run& run);

// Trains a supernet for some steps, step i with the motif of specs[i]. sizes: how many weights each slice of the job has. Throws std::invalid_argument where a
// size is not that of the motif; the steps before are done then.
template <class T>
void train_supernet(const std::vector<MotifSpec>& specs, const std::vector<std::size_t>& sizes, bool direct_convolutions, SupernetJob<T>& job, const Run& run);

// A training takes `steps` steps, of which those from first_step on are reversed.
template <class T>
Motifs<T> motifs_to_reverse(const std::vector<MotifSpec>& specs, const TrainSettings<T>& s, long steps, long first_step, bool direct_convolutions);
// memory: the bytes in which a motif may keep the gradients of its last steps.
template <class T>
void hypergradients(const Motifs<T>& motifs, const TrainSettings<T>& s, std::vector<HypergradientJob<T>>& jobs, double memory, const Run& run);

template <class T>
Motifs<T> motifs_to_read(const std::vector<MotifSpec>& specs, const DataSet<T>& data, bool backward, bool direct_convolutions);
template <class T>
void gradients(const Motifs<T>& motifs, std::vector<GradientJob<T>>& jobs, const Run& run);
template <class T>
void logit_gradients(const Motifs<T>& motifs, std::vector<LogitGradientJob<T>>& jobs, const Run& run);
template <class T>
void agreements(const Motifs<T>& motifs, std::vector<ActivationJob<T>>& jobs, const Run& run);

// Profiles one motif on one thread. It trains a copy of the parameters.
void profile(const Motifs<float>& motif, const float* parameters, ProfileJob<float>& job, const Run& run);

// Returns a plan for one image. The names and sizes of a motif's weights and statistics, and the FLOPs of an image's forward pass, are the same for any batch.
Plan plan_of_one(const MotifSpec& spec);
// Returns the bytes that a training step on so many images takes in float. Without `backward` it is those of a forward pass.
std::size_t memory_of(const MotifSpec& spec, int batch, bool backward);

}  // namespace spd
