// Reads the metrics of a motif whose weights are fixed, and computes their gradient in weights, images and labels.
#pragma once

#include <algorithm>
#include <cstring>

#include "../network/network.hpp"

namespace spd::SPD_ISA {

// Reads metrics on a whole set. Without running statistics it is one batch, whose statistics are used. With them it is read in batches of the plan's size.
template <class T>
void measure(Metrics<T>& out, const Plan& plan, T* memory, const T* w, const T* running, const DataSet<T>& data, T eps, const Control& control, Team& team) {
  Network<T> network(plan, memory, team);
  HeadResult total;
  for (int first = 0; first < data.n && !control.stop.load(std::memory_order_relaxed); first += plan.batch) {
    const int n = std::min(plan.batch, data.n - first);
    network.load(data, nullptr, first, n);
    network.forward(w, n, eps, control, running);
    const HeadResult part = network.evaluate(n, HeadGradient::none);
    total.loss += part.loss, total.probability += part.probability, total.correct += part.correct;
    const std::size_t classes = plan.head.classes;
    std::memcpy(out.logits + first * classes, network.logits(), n * classes * sizeof(T));
  }
  out.loss = total.loss / data.n;
  out.probability = total.probability / data.n;
  out.accuracy = total.correct / data.n;
}

// What a job begins with that passes over its whole set once. The network, of class N, holds the set as one batch. Behind the network's memory there is room
// for the gradient of the weights.
template <class T, class N>
struct WholeSet {
  const FlushDenormals flush;
  const Plan& plan;
  const int n;
  N network;
  T* gradient;

  template <class Job>
  WholeSet(const Job& job, Team& team) : plan(*job.plan), n(job.data.n), network(plan, job.memory, team), gradient(job.memory + N::memory(plan, team)) {
    network.load(job.data, nullptr, 0, n);
  }
};

template <class T>
void motif_gradient(GradientJob<T>& job, Control& control, Team& team) {
  WholeSet<T, Network<T>> set(job, team);
  Network<T>& network = set.network;
  const int n = set.n;
  network.forward(job.parameters, n, static_cast<T>(job.batch_norm_eps), control);
  const HeadResult head = network.evaluate(n, job.metric == Metric::loss ? HeadGradient::loss : HeadGradient::probability);
  job.values.loss = head.loss / n;
  job.values.probability = head.probability / n;
  job.values.accuracy = head.correct / n;
  if (job.d_parameters || job.d_images) {
    network.backward(set.gradient, job.parameters, n, job.d_images != nullptr, control);
    if (job.d_parameters) std::memcpy(job.d_parameters, set.gradient, set.plan.n_parameters * sizeof(T));
    if (job.d_images) network.image_gradient(job.d_images, n);
    if (job.d_labels) network.label_gradient(job.d_labels, job.metric, n);
  }
  control.add(4 * n * set.plan.flops);
}

}  // namespace spd::SPD_ISA
