#include "calls.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>

#include "../threads/batch.hpp"

namespace spd {
namespace {

// Runs job(k, worker, control) for every motif. Motif k costs costs[k], in FLOPs or in steps of a supernet.
void run_all(const std::vector<double>& costs, const Run& run, const std::function<void(int, Worker&, Control&)>& job) {
  Control control;
  run_jobs(costs, run.threads, control, [&](int k, Worker& worker) { job(k, worker, control); }, run.poll);
}

// Returns cost(k), the FLOPs of motif k, for all motifs.
template <class T, class F>
std::vector<double> costs_of(const Motifs<T>& motifs, F&& cost) {
  std::vector<double> out;
  for (std::size_t k = 0; k < motifs.plans.size(); ++k) out.push_back(cost(k));
  return out;
}

template <class T>
T* zeroed(Memory& memory, std::size_t elements) {
  return static_cast<T*>(memory.zeroed(elements * sizeof(T)));
}
// Returns memory for a network, its gradient and the state of an optimiser.
template <class T>
T* memory_of(const Plan& plan, Memory& memory, Team& team) {
  return zeroed<T>(memory, engine().of<T>().memory(plan, team));
}

void require(bool holds, const char* name, std::int64_t got, const std::string& expected) {
  if (!holds) throw std::invalid_argument(name + (" is " + std::to_string(got)) + ", expected " + expected);
}
template <class T>
void require_order(const TrainSettings<T>& s) {
  const std::int64_t n = s.train.n, *end = s.order + s.epochs * n;
  const std::int64_t* wrong = std::find_if(s.order, end, [&](std::int64_t i) { return i < 0 || i >= n; });
  if (wrong != end) require(false, "an entry of order", *wrong, "0 to N - 1");
}

// Runs jobs that pass over their whole set once. passes: what such a job costs, counted in forward passes.
template <class T, class Job>
void run_passes(const Motifs<T>& motifs, std::vector<Job>& jobs, double passes, void (*function)(Job&, Control&, Team&), const Run& run) {
  const auto cost = [&](std::size_t k) { return passes * motifs.plans[k].flops * jobs[k].data.n; };
  run_all(costs_of(motifs, cost), run, [&](int k, Worker& worker, Control& control) {
    jobs[k].plan = &motifs.plans[k];
    jobs[k].memory = memory_of<T>(motifs.plans[k], worker.network, worker.team);
    function(jobs[k], control, worker.team);
  });
}

}  // namespace

template <class T>
Motifs<T>::Motifs(const std::vector<MotifSpec>& specs, int batch, Passes passes, bool direct_convolutions)
    : specs(specs), direct_convolutions(direct_convolutions) {
  for (std::size_t k = 0; k < specs.size(); ++k) plans.push_back(plan(k, batch, passes));
}
template <class T>
Plan Motifs<T>::plan(std::size_t k, int batch, Passes passes) const {
  return make_plan(specs[k], batch, passes, engine().of<T>().lanes, sizeof(T), direct_convolutions);
}

template <class T>
void set_batches(TrainSettings<T>& s, int batch, bool drop_last) {
  require(batch >= 1, "batch", batch, "at least 1");
  s.batch = std::min(batch, s.train.n);
  s.steps_per_epoch = drop_last ? s.train.n / s.batch : (s.train.n + s.batch - 1) / s.batch;
}

template <class T>
Motifs<T> motifs_to_train(const std::vector<MotifSpec>& specs, const TrainSettings<T>& s, bool direct_convolutions) {
  require_order(s);
  return {specs, s.batch, Passes::forward_backward, direct_convolutions};
}
template <class T>
void train(const Motifs<T>& motifs, const TrainSettings<T>& s, std::vector<TrainJob<T>>& jobs, const Run& run) {
  constexpr int running_batch = 100;  // images that are read at once where running statistics are used
  const EngineFunctions<T>& f = engine().of<T>();
  const auto cost = [&](std::size_t k) { return 3 * motifs.plans[k].flops * s.train.n * s.epochs + motifs.plans[k].flops; };
  run_all(costs_of(motifs, cost), run, [&](int k, Worker& worker, Control& control) {
    const auto start = std::chrono::steady_clock::now();
    TrainJob<T>& job = jobs[k];
    job.plan = &motifs.plans[k];
    job.memory = memory_of<T>(*job.plan, worker.network, worker.team);
    Plan plan_train, plan_valid;
    std::size_t most = 0;
    const auto metric_plan = [&](Plan& plan, const DataSet<T>& data) -> const Plan* {
      plan = motifs.plan(k, s.batch_statistics ? data.n : std::min(data.n, running_batch), Passes::forward);
      most = std::max(most, f.memory(plan, worker.team));
      return &plan;
    };
    if (s.evaluate) job.plan_train = metric_plan(plan_train, s.train);
    if (s.valid.n > 0) job.plan_valid = metric_plan(plan_valid, s.valid);
    if (most > 0) job.memory_metrics = zeroed<T>(worker.metrics, most);
    f.train(s, job, control, worker.team);
    job.plan_train = job.plan_valid = nullptr;
    job.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
}

template <class T>
void train_supernet(const std::vector<MotifSpec>& specs, const std::vector<std::size_t>& sizes, bool direct_convolutions, SupernetJob<T>& job, const Run& run) {
  const EngineFunctions<T>& f = engine().of<T>();
  run_all({static_cast<double>(job.steps)}, run, [&](int, Worker& worker, Control& control) {
    Plan plan;  // most cells are drawn once, so that plans are not kept
    job.prepare = [&](long i, Team& team) -> typename SupernetJob<T>::Step {
      plan = make_plan(specs[i], job.batch, Passes::forward_backward, f.lanes, sizeof(T), direct_convolutions);
      require(sizes[i] == plan.n_parameters, "the size of a slice", static_cast<std::int64_t>(sizes[i]), std::to_string(plan.n_parameters));
      return {&plan, zeroed<T>(worker.network, f.memory(plan, team) + plan.n_parameters)};
    };
    f.supernet(job, control, worker.team);
    job.prepare = nullptr;
  });
}

template <class T>
Motifs<T> motifs_to_reverse(const std::vector<MotifSpec>& specs, const TrainSettings<T>& s, long steps, long first_step, bool direct_convolutions) {
  const long most = static_cast<long>(s.epochs) * s.steps_per_epoch;
  require_order(s);
  require(steps >= 0 && steps <= most, "steps", steps, "0 to " + std::to_string(most));
  require(first_step >= 0 && first_step <= steps, "first_step", first_step, "0 to steps");
  return {specs, s.batch, Passes::kept, direct_convolutions};
}
template <class T>
void hypergradients(const Motifs<T>& motifs, const TrainSettings<T>& s, std::vector<HypergradientJob<T>>& jobs, double memory, const Run& run) {
  const EngineFunctions<T>& f = engine().of<T>();
  const DataSet<T>& read_on = s.valid.n > 0 ? s.valid : s.train;
  for (std::size_t k = 0; k < jobs.size(); ++k) {
    const double reversed = static_cast<double>(jobs[k].steps - jobs[k].first_step);
    jobs[k].kept_gradients = static_cast<long>(std::min(reversed, std::floor(memory / (sizeof(T) * motifs.plans[k].n_parameters))));
  }
  const auto cost = [&](std::size_t k) {
    const HypergradientJob<T>& job = jobs[k];
    return motifs.plans[k].flops * (s.batch * (3.0 * job.steps + 11.0 * (job.steps - job.first_step) - 3.0 * job.kept_gradients) + 4.0 * read_on.n);
  };
  run_all(costs_of(motifs, cost), run, [&](int k, Worker& worker, Control& control) {
    HypergradientJob<T>& job = jobs[k];
    job.settings = &s;
    job.plan = &motifs.plans[k];
    Plan plan_metric;
    if (job.metric_weight != 0) {
      plan_metric = motifs.plan(k, read_on.n, Passes::forward_backward);
      job.plan_metric = &plan_metric;
      job.memory_metric = memory_of<T>(plan_metric, worker.metrics, worker.team);
    }
    job.memory = zeroed<T>(worker.network, f.hypergradient_memory(*job.plan, job.steps, job.kept_gradients, worker.team));
    f.hypergradient(job, control, worker.team);
    job.plan_metric = nullptr;
    if (job.diverged_step >= 0) job.value = kNan;
  });
}

template <class T>
Motifs<T> motifs_to_read(const std::vector<MotifSpec>& specs, const DataSet<T>& data, bool backward, bool direct_convolutions) {
  return {specs, data.n, backward ? Passes::forward_backward : Passes::forward, direct_convolutions};
}
template <class T>
void gradients(const Motifs<T>& motifs, std::vector<GradientJob<T>>& jobs, const Run& run) {
  run_passes(motifs, jobs, 4, engine().of<T>().gradient, run);
}
template <class T>
void logit_gradients(const Motifs<T>& motifs, std::vector<LogitGradientJob<T>>& jobs, const Run& run) {
  run_passes(motifs, jobs, 4, engine().of<T>().logit_gradient, run);
}
template <class T>
void agreements(const Motifs<T>& motifs, std::vector<ActivationJob<T>>& jobs, const Run& run) {
  run_passes(motifs, jobs, 1, engine().of<T>().activations, run);
}

void profile(const Motifs<float>& motif, const float* parameters, ProfileJob<float>& job, const Run& run) {
  const Plan& plan = motif.plans[0];
  std::vector<float> own(parameters, parameters + plan.n_parameters), running(2 * plan.batch_norms, 1.0f);
  job.parameters = own.data(), job.running = running.data();
  run_all({6 * plan.flops * job.data.n * job.repeats}, {1, run.poll}, [&](int, Worker& worker, Control& control) {
    job.plan = &plan;
    job.memory = memory_of<float>(plan, worker.network, worker.team);
    engine().f32.profile(job, control, worker.team);
  });
}

Plan plan_of_one(const MotifSpec& spec) { return make_plan(spec, 1, Passes::forward, engine().f32.lanes, sizeof(float), false); }

std::size_t memory_of(const MotifSpec& spec, int batch, bool backward) {
  Team one;
  const Plan plan = make_plan(spec, batch, backward ? Passes::forward_backward : Passes::forward, engine().f32.lanes, sizeof(float), false);
  return engine().f32.memory(plan, one) * sizeof(float);
}

#define SPD_CALLS(T)                                                                                                               \
  template struct Motifs<T>;                                                                                                       \
  template void set_batches(TrainSettings<T>&, int, bool);                                                                         \
  template Motifs<T> motifs_to_train(const std::vector<MotifSpec>&, const TrainSettings<T>&, bool);                                \
  template void train(const Motifs<T>&, const TrainSettings<T>&, std::vector<TrainJob<T>>&, const Run&);                           \
  template void train_supernet(const std::vector<MotifSpec>&, const std::vector<std::size_t>&, bool, SupernetJob<T>&, const Run&); \
  template Motifs<T> motifs_to_reverse(const std::vector<MotifSpec>&, const TrainSettings<T>&, long, long, bool);                  \
  template void hypergradients(const Motifs<T>&, const TrainSettings<T>&, std::vector<HypergradientJob<T>>&, double, const Run&);  \
  template Motifs<T> motifs_to_read(const std::vector<MotifSpec>&, const DataSet<T>&, bool, bool);                                 \
  template void gradients(const Motifs<T>&, std::vector<GradientJob<T>>&, const Run&);                                             \
  template void logit_gradients(const Motifs<T>&, std::vector<LogitGradientJob<T>>&, const Run&);                                  \
  template void agreements(const Motifs<T>&, std::vector<ActivationJob<T>>&, const Run&);
SPD_CALLS(float)
SPD_CALLS(double)

}  // namespace spd
