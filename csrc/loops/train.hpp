// Trains one motif step by step. Nothing is allocated here.
#pragma once

#include <algorithm>
#include <cmath>

#include "../kernels/optimizer.hpp"
#include "gradient.hpp"
#include "sharing.hpp"

namespace spd::SPD_ISA {

template <class T>
void update_running(T* running, const Network<T>& network, const Plan& plan, int n, T momentum) {
  for (const Conv& c : plan.convs) {
    const T m = static_cast<T>(n) * plan.grids[c.grid].pixels(), unbiased = m > 1 ? m / (m - 1) : T(1);
    for (int i = c.batch_norm; i < c.batch_norm + c.c_out; ++i) {
      running[i] += momentum * (network.mean()[i] - running[i]);
      T& var = running[plan.batch_norms + i];
      var += momentum * (network.var()[i] * unbiased - var);
    }
  }
}

// Returns the elements that a training needs: those of the network, of the gradient and of two vectors of the optimiser.
template <class T>
std::size_t training_memory(const Plan& plan, Team& team) {
  return Network<T>::memory(plan, team) + 3 * (plan.n_parameters + lanes<T>);
}

template <class T>
void train_motif(const TrainSettings<T>& s, TrainJob<T>& job, Control& control, Team& team) {
  const FlushDenormals flush;
  const Plan& plan = *job.plan;
  const std::size_t n_parameters = plan.n_parameters;
  Network<T> network(plan, job.memory, team);
  T* g = job.memory + Network<T>::memory(plan, team);
  T *a = g + n_parameters, *b = a + n_parameters;
  const T eps = static_cast<T>(s.batch_norm_eps), momentum = static_cast<T>(s.batch_norm_momentum);
  optimizer_start<T>(a, b, s.optimizer, n_parameters);
  job.diverged_step = -1;
  Sharing sharing;
  long step = 0;
  for (int epoch = 0; epoch < s.epochs && job.diverged_step < 0; ++epoch) {
    double loss = 0, accuracy = 0;
    for (int i = 0; i < s.steps_per_epoch && job.diverged_step < 0; ++i, ++step) {
      if (control.stop.load(std::memory_order_relaxed)) return;
      const int first = i * s.batch, n = std::min(s.batch, s.train.n - first);
      HeadResult head;
      sharing.step(network, team, n, [&] {
        network.load(s.train, s.order + static_cast<std::size_t>(epoch) * s.train.n + first, 0, n);
        network.forward(job.parameters, n, eps, control);
        head = network.evaluate(n, HeadGradient::loss);
        if (std::isfinite(head.loss)) network.backward(g, job.parameters, n, false, control);
      });
      if (!std::isfinite(head.loss)) {
        job.diverged_step = step;
        break;
      }
      optimizer_step<T>(job.parameters, g, a, b, s.optimizer, s.rates[step], step + 1, n_parameters);
      update_running<T>(job.running, network, plan, n, momentum);
      loss += head.loss / n;
      accuracy += head.correct / n;
      if (job.step_loss) job.step_loss[step] = head.loss / n;
      if (job.step_accuracy) job.step_accuracy[step] = head.correct / n;
      control.add(3 * n * plan.flops);
    }
    if (job.diverged_step >= 0) break;
    job.loss[epoch] = loss / s.steps_per_epoch;
    job.accuracy[epoch] = accuracy / s.steps_per_epoch;
  }
  if (job.diverged_step >= 0) return;
  const T* running = s.batch_statistics ? nullptr : job.running;
  if (job.plan_train) measure<T>(job.train, *job.plan_train, job.memory_metrics, job.parameters, running, s.train, eps, control, team);
  if (job.plan_valid) measure<T>(job.valid, *job.plan_valid, job.memory_metrics, job.parameters, running, s.valid, eps, control, team);
  if ((job.plan_train && !std::isfinite(job.train.loss)) || (job.plan_valid && !std::isfinite(job.valid.loss))) job.diverged_step = step;
}

}  // namespace spd::SPD_ISA
