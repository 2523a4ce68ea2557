// Runs one training step many times, and measures by turns the time of the whole step and of each
// part (span.hpp). It calls the same functions as training does.
#pragma once

#include "../span.hpp"
#include "train.hpp"

namespace spd::SPD_ISA {

template <class T>
void motif_profile(ProfileJob<T>& job, Control& control, Team& team) {
  const FlushDenormals flush;
  const Plan& plan = *job.plan;
  const int n = job.data.n;
  const std::size_t n_parameters = plan.n_parameters, cells = (plan.ops.size() + 1) * kParts;
  Network<T> network(plan, job.memory, team);
  T* g = job.memory + Network<T>::memory(plan, team);
  T *a = g + n_parameters, *b = a + n_parameters;
  optimizer_start<T>(a, b, job.optimizer, n_parameters);
  long t = 0;
  const auto step = [&](StepTimes* times) {
    const double start = seconds_now();
    network.time(times);
    const auto beside = [&] {
      if (times) times->op = plan.ops.size();
    };
    {
      beside();
      const Span span(times, Part::load);
      network.load(job.data, nullptr, 0, n);
    }
    network.forward(job.parameters, n, static_cast<T>(job.batch_norm_eps), control);
    {
      beside();
      const Span span(times, Part::loss);
      network.evaluate(n, HeadGradient::loss);
    }
    network.backward(g, job.parameters, n, false, control);
    {
      beside();
      Span span(times, Part::optimizer);
      optimizer_step<T>(job.parameters, g, a, b, job.optimizer, job.rate, ++t, n_parameters);
      span.next(Part::running);
      update_running<T>(job.running, network, plan, n, static_cast<T>(job.batch_norm_momentum));
    }
    return seconds_now() - start;
  };
  step(nullptr);  // the first step is slower and does not count
  for (int r = 0; r < job.repeats && !control.stop.load(std::memory_order_relaxed); ++r) {
    job.whole[r] = step(nullptr);
    StepTimes times{job.seconds + r * cells, 0};
    job.timed[r] = step(&times);
    control.add(6 * n * plan.flops);
  }
}

}  // namespace spd::SPD_ISA
