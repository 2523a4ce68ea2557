// Trains a supernet: every step takes the weights of one cell's motif out of the supernet's, trains them for one step, and puts them back.
//
//   w = W[slice], a = A[slice], b = B[slice];  g = the gradient of the motif's loss on the batch;  one step of the optimiser on w, a and b, which counts all
//   steps of the supernet (t of optimizer.hpp);  W[slice] = w, A[slice] = a, B[slice] = b
//
// Weights outside the slice keep their value and their state. Nothing is allocated here, but `prepare` makes plans.
#pragma once

#include <cmath>

#include "../kernels/optimizer.hpp"
#include "gradient.hpp"
#include "sharing.hpp"

namespace spd::SPD_ISA {

template <class T>
void train_supernet(SupernetJob<T>& job, Control& control, Team& team) {
  const FlushDenormals flush;
  const T eps = static_cast<T>(job.batch_norm_eps);
  if (job.first_step == 0) optimizer_start<T>(job.a, job.b, job.optimizer, job.n_weights);
  job.diverged_step = -1;
  Sharing sharing;
  for (long i = 0; i < job.steps && !control.stop.load(std::memory_order_relaxed); ++i) {
    const auto step = job.prepare(i, team);
    const std::size_t n = step.plan->n_parameters;
    Network<T> network(*step.plan, step.memory, team);
    T* g = step.memory + Network<T>::memory(*step.plan, team);
    T *a = g + n, *b = a + n, *w = b + n;
    const std::int32_t* slice = job.slices[i];
    for (std::size_t j = 0; j < n; ++j) w[j] = job.weights[slice[j]], a[j] = job.a[slice[j]], b[j] = job.b[slice[j]];
    HeadResult head;
    sharing.step(network, team, job.batch, [&] {
      network.load(job.data, job.order + i * job.batch, 0, job.batch);
      network.forward(w, job.batch, eps, control);
      head = network.evaluate(job.batch, HeadGradient::loss);
      if (std::isfinite(head.loss)) network.backward(g, w, job.batch, false, control);
    });
    if (control.stop.load(std::memory_order_relaxed)) return;
    if (!std::isfinite(head.loss)) {
      job.diverged_step = job.first_step + i;
      return;
    }
    optimizer_step<T>(w, g, a, b, job.optimizer, job.rates[i], job.first_step + i + 1, n);
    for (std::size_t j = 0; j < n; ++j) job.weights[slice[j]] = w[j], job.a[slice[j]] = a[j], job.b[slice[j]] = b[j];
    job.step_loss[i] = head.loss / job.batch;
    job.step_accuracy[i] = head.correct / job.batch;
    control.add(1);
  }
}

}  // namespace spd::SPD_ISA
