// The exact derivative of a motif's metric through its whole training: back to the images, the labels, the learning rates and the initial weights.
//
// Step t takes the state (w, a, b) to the next one with g = grad_w L(w; batch_t); a and b belong to the optimiser. An adjoint is the derivative of the result
// in a value. Written with ', the adjoints before the step follow from those after it. With e the adjoint of g,
//
//   w' += d/ds grad_w L(w + s e)        images'[batch_t] += d/ds grad_images L(w + s e)        labels'[batch_t] += d/ds grad_labels L(w + s e)
//
// One tangent of the forward and backward pass gives all three (Pearlmutter 1994). The optimiser has a reverse of its own (optimizer.hpp). The state is kept at
// every sqrt(T)-th step. From there the steps of a segment are taken again, segment by segment from the end (Griewank 1992). The gradients of the last steps
// are kept as well, as many as the caller has memory for. Where a gradient was kept, only the optimiser runs again; otherwise the whole step is trained again.
// Both ways call the same functions, so they give the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "../kernels/optimizer.hpp"
#include "../network/tangent.hpp"
#include "gradient.hpp"
#include "sharing.hpp"

namespace spd::SPD_ISA {

// Returns the number of steps from one kept state to the next.
inline long segment_length(long steps) { return std::max(1L, static_cast<long>(std::ceil(std::sqrt(static_cast<double>(steps))))); }

// Returns the elements that a hypergradient needs: for the tangent network, the kept states (w, a, b), the steps of one segment (w, a, b, g), the kept
// gradients, and eight vectors of parameters.
template <class T>
std::size_t hypergradient_memory(const Plan& plan, long steps, long kept_gradients, Team& team) {
  const long segment = segment_length(steps);
  return TangentNetwork<T>::memory(plan, team) + plan.n_parameters * (3 * ((steps + segment - 1) / segment) + 4 * segment + kept_gradients + 8) + 64;
}

template <class T>
void motif_hypergradient(HypergradientJob<T>& job, Control& control, Team& team) {
  const FlushDenormals flush;
  const TrainSettings<T>& s = *job.settings;
  const Plan& plan = *job.plan;
  const std::size_t p = plan.n_parameters, state = 3 * p;  // w, a, b
  const long steps = job.steps, segment = segment_length(steps), segments = (steps + segment - 1) / segment;
  const T eps = static_cast<T>(s.batch_norm_eps);
  TangentNetwork<T> network(plan, job.memory, team);
  T* free = job.memory + TangentNetwork<T>::memory(plan, team);
  const auto take = [&](std::size_t n) { return std::exchange(free, free + n); };
  T *kept = take(state * segments), *trail = take(4 * p * segment), *now = take(state), *w_a = take(p), *a_a = take(p), *b_a = take(p), *g_a = take(p),
    *g_t = take(p), *gradients = take(p * job.kept_gradients);
  const long first_kept = steps - job.kept_gradients;

  struct Batch {
    const std::int64_t* index;
    int n;
  };
  const auto batch_of = [&](long t) {
    const int i = static_cast<int>(t % s.steps_per_epoch) * s.batch;
    return Batch{s.order + t / s.steps_per_epoch * s.train.n + i, std::min(s.batch, s.train.n - i)};
  };
  const auto update = [&](long t, const T* g) { optimizer_step<T>(now, g, now + p, now + 2 * p, s.optimizer, s.rates[t], t + 1, p); };
  Sharing training, reversing;
  // Takes one training step from the state `now`, and writes its gradient to g.
  const auto train_step = [&](long t, T* g) {
    const Batch batch = batch_of(t);
    HeadResult head;
    training.step(network, team, batch.n, [&] {
      network.load(s.train, batch.index, 0, batch.n);
      network.forward(now, batch.n, eps, control);
      head = network.evaluate(batch.n, HeadGradient::loss);
      network.backward(g, now, batch.n, false, control);
    });
    update(t, g);
    control.add(3 * batch.n * plan.flops);
    return head.loss / batch.n;
  };

  // Train, and keep the state before every segment.
  std::memcpy(now, job.initial, p * sizeof(T));
  optimizer_start<T>(now + p, now + 2 * p, s.optimizer, p);
  job.value = 0;
  job.diverged_step = -1;
  for (long t = 0; t < steps; ++t) {
    if (control.stop.load(std::memory_order_relaxed)) return;
    if (t % segment == 0) std::memcpy(kept + t / segment * state, now, state * sizeof(T));
    const double loss = train_step(t, t < first_kept ? g_t : gradients + (t - first_kept) * p);
    if (!std::isfinite(loss)) {
      job.diverged_step = t;
      return;
    }
    if (job.step_weights) job.value += job.step_weights[t] * loss;
    job.step_loss[t] = loss;
  }
  std::memcpy(job.trained, now, p * sizeof(T));

  // Read the metric at the end, and take its gradient as the adjoint of the weights.
  std::memset(w_a, 0, p * sizeof(T));
  std::memset(a_a, 0, p * sizeof(T));
  std::memset(b_a, 0, p * sizeof(T));
  if (job.metric_weight != 0) {
    GradientJob<T> last{};
    last.plan = job.plan_metric;
    last.memory = job.memory_metric;
    last.parameters = now;
    last.data = s.valid.n > 0 ? s.valid : s.train;
    last.metric = job.metric;
    last.batch_norm_eps = s.batch_norm_eps;
    last.d_parameters = w_a;
    last.d_images = s.valid.n > 0 ? job.d_valid_images : job.d_images;
    last.d_labels = s.valid.n > 0 ? job.d_valid_labels : job.d_labels;
    motif_gradient<T>(last, control, team);
    job.metrics = last.values;
    const double value = job.metric == Metric::loss ? last.values.loss : last.values.probability;
    const std::size_t pixels = static_cast<std::size_t>(last.data.n) * plan.image_channels * plan.grids[0].pixels();
    if (!std::isfinite(value)) {  // a diverged motif has no derivative
      std::memset(last.d_images, 0, pixels * sizeof(T));
      std::memset(last.d_labels, 0, static_cast<std::size_t>(last.data.n) * plan.head.classes * sizeof(T));
      job.diverged_step = steps;
      return;
    }
    job.value += job.metric_weight * value;
    const T factor = static_cast<T>(job.metric_weight);
    for (std::size_t i = 0; i < p; ++i) w_a[i] *= factor;
    for (std::size_t i = 0; i < pixels; ++i) last.d_images[i] *= factor;
    for (std::size_t i = 0; i < static_cast<std::size_t>(last.data.n) * plan.head.classes; ++i) last.d_labels[i] *= factor;
  }

  // Go backwards, segment by segment.
  for (long first = (segments - 1) * segment; first >= 0 && first + segment > job.first_step; first -= segment) {
    const long end = std::min(steps, first + segment);
    std::memcpy(now, kept + first / segment * state, state * sizeof(T));
    for (long t = first; t < end; ++t) {
      if (control.stop.load(std::memory_order_relaxed)) return;
      T *at = trail + (t - first) * 4 * p, *g = at + state;
      std::memcpy(at, now, state * sizeof(T));
      if (t < first_kept) {
        train_step(t, g);
      } else {
        std::memcpy(g, gradients + (t - first_kept) * p, p * sizeof(T));
        update(t, g);
      }
    }
    for (long t = end - 1; t >= std::max(first, job.first_step); --t) {
      if (control.stop.load(std::memory_order_relaxed)) return;
      const T *w = trail + (t - first) * 4 * p, *a = w + p, *b = w + 2 * p, *g = w + 3 * p;
      double by_momentum = 0;
      job.d_rates[t] = optimizer_reverse<T>(w_a, a_a, b_a, g_a, &by_momentum, w, a, b, g, s.optimizer, s.rates[t], t + 1, p);
      job.d_momenta[t] = by_momentum;
      const Batch batch = batch_of(t);
      reversing.step(network, team, batch.n, [&] {
        network.load(s.train, batch.index, 0, batch.n);
        network.forward_tangent(w, g_a, batch.n, eps);
        network.backward_tangent(g_t, w, g_a, batch.n);
      });
      const T factor = job.step_weights ? static_cast<T>(job.step_weights[t]) : T(0);
      for (std::size_t i = 0; i < p; ++i) w_a[i] += g_t[i] + factor * g[i];
      network.add_image_gradient(job.d_images, batch.index, batch.n, factor);
      network.add_label_gradient(job.d_labels, batch.index, batch.n, factor);
      control.add(8 * batch.n * plan.flops);
    }
  }
  std::memcpy(job.d_initial, w_a, p * sizeof(T));
}

}  // namespace spd::SPD_ISA
