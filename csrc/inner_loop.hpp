// Training one motif: the ops of its plan over an arena, step by step, without allocating.
#pragma once

#include <cmath>
#include <cstring>

#include "engine.hpp"
#include "kernels/batch_norm.hpp"
#include "kernels/conv1x1.hpp"
#include "kernels/conv3x3.hpp"
#include "kernels/head.hpp"
#include "kernels/optimizer.hpp"
#include "kernels/pool.hpp"
#include "kernels/winograd.hpp"
#include "plan.hpp"

namespace spd::SPD_ISA {

// A plan and its memory: arena, batch-norm statistics, scratch.
template <class T>
class Network {
 public:
  Network(const Plan& plan, T* memory) : plan_(plan) {
    take(arena_, plan.arena, memory);
    const auto [packed, scratch] = scratch_of_convs(plan);
    take(packed_, packed, memory);
    take(scratch_, scratch, memory);
    take(mean_, plan.batch_norms, memory);
    take(var_, plan.batch_norms, memory);
    take(istd_, plan.batch_norms, memory);
    take(scale_, plan.batch_norms, memory);
    take(shift_, plan.batch_norms, memory);
    const std::size_t n = plan.batch, channels = plan.head.channels, classes = plan.head.classes;
    take(feature_, n * channels, memory);
    take(dfeature_, n * channels, memory);
    take(turned_, classes * channels, memory);
    take(logit_, n * classes, memory);
    take(dlogit_, n * classes, memory);
    take(label_, n * classes, memory);
    take(softmax_, classes, memory);
  }
  static std::size_t memory(const Plan& plan) {
    T* counted = nullptr;
    Network network(plan, counted);
    return network.used_;
  }

  const T* logits() const { return logit_; }
  const T* mean() const { return mean_; }
  const T* var() const { return var_; }

  // Images and labels index[0..n - 1] (null: 0, 1, ...) of the set become the batch.
  void load(const DataSet<T>& data, const std::int64_t* index, int first, int n) {
    const Grid& grid = plan_.grids[0];
    const std::size_t classes = plan_.head.classes, pixels = grid.pixels();
    for (int i = 0; i < n; ++i) {
      const std::size_t from = index ? index[i] : first + i;
      std::memcpy(label_ + i * classes, data.labels + from * classes, classes * sizeof(T));
      each_image_row(i, [&](T* row, int c, int h) {
        std::memcpy(row, data.images + (from * plan_.image_channels + c) * pixels + h * grid.width, grid.width * sizeof(T));
      });
    }
    for (int i = n; i % grid.images != 0; ++i) each_image_row(i, [&](T* row, int, int) { std::memset(row, 0, grid.width * sizeof(T)); });
  }
  void image_gradient(T* d_images, int n) {
    const Grid& grid = plan_.grids[0];
    for (int i = 0; i < n; ++i)
      each_image_row(i, [&](T* row, int c, int h) {
        std::memcpy(d_images + (static_cast<std::size_t>(i) * plan_.image_channels + c) * grid.pixels() + h * grid.width, row, grid.width * sizeof(T));
      });
  }

  // Of the mean over the batch; the probability does not depend on labels but by their argmax.
  void label_gradient(T* d_labels, Metric metric, int n) {
    std::memset(d_labels, 0, static_cast<std::size_t>(n) * plan_.head.classes * sizeof(T));
    if (metric == Metric::loss) add_label_gradient<T>(d_labels, T(1), logit_, n, plan_.head.classes);
  }

  // Up to the logits. running: (2, batch_norms) statistics to use instead of the batch's, or null.
  void forward(const T* w, int n, T eps, const T* running = nullptr) {
    if (running) {
      std::memcpy(mean_, running, plan_.batch_norms * sizeof(T));
      std::memcpy(var_, running + plan_.batch_norms, plan_.batch_norms * sizeof(T));
    }
    for (const Op& op : plan_.ops) switch (op.kind) {
        case Op::Kind::conv: conv_forward(plan_.convs[op.index], w, n, eps, running != nullptr); break;
        case Op::Kind::sum: sum_forward(plan_.sums[op.index], n); break;
        case Op::Kind::pool: pool_forward(plan_.pools[op.index], n); break;
        case Op::Kind::head: {
          const Head& h = plan_.head;
          average_pool_forward<T>(feature_, view<const T>(h.x), plan_.grids[h.grid], n, h.channels);
          dense_forward<T>(logit_, feature_, w + h.weight, w + h.bias, turned_, n, h.channels, h.classes);
        }
      }
  }
  // Sums over the batch; the gradient of the mean is kept for `backward`.
  HeadResult evaluate(int n, HeadGradient gradient) { return softmax_cross_entropy<T>(dlogit_, logit_, label_, n, plan_.head.classes, gradient, n, softmax_); }
  // g: (n_parameters), overwritten. After it the batch's place holds the images' gradient, if asked for.
  void backward(T* g, const T* w, int n, bool images) {
    for (std::size_t i = plan_.ops.size(); i-- > 0;) {
      const Op& op = plan_.ops[i];
      switch (op.kind) {
        case Op::Kind::conv: conv_backward(plan_.convs[op.index], g, w, n, images); break;
        case Op::Kind::sum: break;  // its gradient lies where its readers wrote it
        case Op::Kind::pool: pool_backward(plan_.pools[op.index], n); break;
        case Op::Kind::head: {
          const Head& h = plan_.head;
          dense_backward<T>(dfeature_, g + h.weight, g + h.bias, dlogit_, feature_, w + h.weight, n, h.channels, h.classes);
          average_pool_backward<T>(arena_ + h.dx, dfeature_, plan_.grids[h.grid], n, h.channels);
        }
      }
    }
  }

 protected:
  void take(T*& part, std::size_t n, T* memory) {
    part = memory + used_;
    used_ += (n + 2 * lanes<T> - 1) / lanes<T> * lanes<T>;  // a vector more: whole vectors may be written at the end
  }
  // Elements of the largest packed weights and of the largest scratch of a convolution.
  static std::pair<std::size_t, std::size_t> scratch_of_convs(const Plan& plan) {
    std::size_t packed = 0, scratch = 0;
    for (const Conv& c : plan.convs) {
      packed = std::max(packed, static_cast<std::size_t>(c.c_in) * c.c_out * (c.winograd ? 18 : c.size * c.size));
      const Grid& grid = plan.grids[c.grid];
      if (c.winograd) scratch = std::max({scratch, winograd_scratch<T>(c.c_in), winograd_scratch<T>(c.c_out)});
      if (c.winograd_wgrad) scratch = std::max(scratch, winograd_wgrad_scratch<T>(grid, grid.blocks(plan.batch), c.c_in, c.c_out));
    }
    return {packed, scratch};
  }
  template <class U>
  View<U> view(const Place& p) const {
    return {arena_ + p.offset, p.block, p.channel};
  }
  template <class F>
  void each_image_row(int i, F&& f) {
    const Grid& grid = plan_.grids[0];
    for (int c = 0; c < plan_.image_channels; ++c)
      for (int h = 0; h < grid.height; ++h)
        f(arena_ + plan_.images.offset + i / grid.images * plan_.images.block + c * plan_.images.channel + h * grid.pitch() + i % grid.images * grid.slot, c,
          h);
  }

  void conv_forward(const Conv& c, const T* w, int n, T eps, bool given_statistics) {
    const Grid& grid = plan_.grids[c.grid];
    run_conv(c, view<T>(c.y), view<const T>(c.x), w + c.weight, n, false);
    T *mean = mean_ + c.batch_norm, *var = var_ + c.batch_norm;
    if (!given_statistics) batch_statistics<T>(mean, var, view<const T>(c.y), grid, n, c.c_out);
    for (int o = 0; o < c.c_out; ++o) {
      const T istd = 1 / std::sqrt(var[o] + eps);
      istd_[c.batch_norm + o] = istd;
      scale_[c.batch_norm + o] = w[c.gamma + o] * istd;
      shift_[c.batch_norm + o] = w[c.beta + o] - mean[o] * w[c.gamma + o] * istd;
    }
  }
  // Forward, or dgrad (`turned`: to and from change places).
  void run_conv(const Conv& c, View<T> to, View<const T> from, const T* k, int n, bool turned, bool accumulate = false) {
    const Grid& grid = plan_.grids[c.grid];
    const int c_in = turned ? c.c_out : c.c_in, c_out = turned ? c.c_in : c.c_out, blocks = grid.blocks(n);
    if (c.winograd) {
      winograd_pack<T>(packed_, k, c_in, c_out, turned);
      winograd_forward<T>(to, from, packed_, scratch_, grid, 0, blocks, c_in, c_out, accumulate);
    } else if (c.size == 3) {
      conv3x3_pack<T>(packed_, k, c_in, c_out, turned);
      conv3x3_forward<T>(to, from, packed_, grid, 0, blocks, c_in, c_out, accumulate);
    } else {
      conv1x1_pack<T>(packed_, k, c_in, c_out, turned);
      conv1x1_forward<T>(to, from, packed_, grid, 0, blocks, c_in, c_out, accumulate);
    }
  }
  void conv_backward(const Conv& c, T* g, const T* w, int n, bool images) {
    const Grid& grid = plan_.grids[c.grid];
    for (const Segment& s : c.flows) {
      Flow<T> flows[kMostSources];
      flows_of(s, flows);
      const int bn = c.batch_norm + s.begin;
      Place y = c.y;
      y.offset += s.begin * y.channel;
      with_constant<kMostSources>(s.n, [&]<int K>() {
        batch_norm_relu_backward<T, K>(view<T>(y), g + c.gamma + s.begin, g + c.beta + s.begin, flows, mean_ + bn, istd_ + bn, scale_ + bn, shift_ + bn, grid,
                                       n, s.end - s.begin);
      });
    }
    run_wgrad(c, g + c.weight, view<const T>(c.y), view<const T>(c.x), n);
    if (!c.reads_images || images) run_conv(c, view<T>(c.x), view<const T>(c.y), w + c.weight, n, true);
  }
  void run_wgrad(const Conv& c, T* dk, View<const T> dy, View<const T> x, int n) {
    const Grid& grid = plan_.grids[c.grid];
    const int blocks = grid.blocks(n);
    if (c.winograd_wgrad)
      winograd_wgrad<T>(dk, dy, x, scratch_, grid, 0, blocks, c.c_in, c.c_out);
    else if (c.size == 3)
      conv3x3_wgrad<T>(dk, dy, x, grid, 0, blocks, c.c_in, c.c_out);
    else
      conv1x1_wgrad<T>(dk, dy, x, grid, 0, blocks, c.c_in, c.c_out);
  }
  void flows_of(const Segment& s, Flow<T>* flows) const {
    for (int i = 0; i < s.n; ++i) flows[i] = {arena_ + s.source[i].place.offset, s.source[i].place.block, s.source[i].place.channel, s.source[i].step};
  }

  void terms_of(const Segment& s, Term<T>* terms) const {
    for (int i = 0; i < s.n; ++i) {
      const Place& p = s.source[i].place;
      const int bn = s.source[i].batch_norm;
      terms[i] = {arena_ + p.offset, p.block, p.channel, bn >= 0 ? scale_ + bn : nullptr, bn >= 0 ? shift_ + bn : nullptr};
    }
  }
  void sum_forward(const Sum& sum, int n) {
    for (const Segment& s : sum.terms) {
      Term<T> terms[kMostSources];
      terms_of(s, terms);
      Place z = sum.z;
      z.offset += s.begin * z.channel;
      with_constant<kMostSources>(s.n, [&]<int K>() { add_terms<T, K>(view<T>(z), terms, plan_.grids[sum.grid], n, s.end - s.begin); });
    }
  }

  template <class W>
  W* taken(const Pool& p) {
    return reinterpret_cast<W*>(arena_ + p.taken);
  }
  void pool_forward(const Pool& p, int n) {
    const Grid &from = plan_.grids[p.from], &to = plan_.grids[p.to];
    if (p.from == p.to)
      maxpool3x3_forward<T>(view<T>(p.y), taken<Winners>(p), view<const T>(p.x), from, from.blocks(n), p.channels);
    else
      maxpool2x2_forward<T>(view<T>(p.y), taken<QuadWinners>(p), view<const T>(p.x), from, to, n, p.channels);
  }
  void pool_backward(const Pool& p, int n) {
    const Grid &from = plan_.grids[p.from], &to = plan_.grids[p.to];
    for (const Segment& s : p.flows) {  // none behind a 2x2: its gradient is already in its place
      if (s.n == 0) continue;
      Flow<T> flows[kMostSources];
      flows_of(s, flows);
      Place y = p.y;
      y.offset += s.begin * y.channel;
      with_constant<kMostSources>(s.n, [&]<int K>() { add_flows<T, K>(view<T>(y), flows, to, n, s.end - s.begin); });
    }
    if (p.from == p.to)
      maxpool3x3_backward<T>(view<T>(p.x), view<const T>(p.y), taken<Winners>(p), from, from.blocks(n), p.channels);
    else
      maxpool2x2_backward<T>(view<T>(p.x), view<const T>(p.y), taken<QuadWinners>(p), from, to, n, p.channels);
  }

  const Plan& plan_;
  std::size_t used_ = 0;
  T *arena_, *packed_, *scratch_, *mean_, *var_, *istd_, *scale_, *shift_, *feature_, *dfeature_, *turned_, *logit_, *dlogit_, *label_, *softmax_;
};

// Metrics over a whole set: in one batch with its statistics, or in batches of the plan's size with running ones.
template <class T>
void measure(Metrics<T>& out, const Plan& plan, T* memory, const T* w, const T* running, const DataSet<T>& data, T eps) {
  Network<T> network(plan, memory);
  HeadResult total;
  for (int first = 0; first < data.n; first += plan.batch) {
    const int n = std::min(plan.batch, data.n - first);
    network.load(data, nullptr, first, n);
    network.forward(w, n, eps, running);
    const HeadResult part = network.evaluate(n, HeadGradient::none);
    total.loss += part.loss, total.probability += part.probability, total.correct += part.correct;
    const std::size_t classes = plan.head.classes;
    std::memcpy(out.logits + first * classes, network.logits(), n * classes * sizeof(T));
  }
  out.loss = total.loss / data.n;
  out.probability = total.probability / data.n;
  out.accuracy = static_cast<double>(total.correct) / data.n;
}

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

// Memory behind the network's: gradient and two optimiser states.
template <class T>
std::size_t training_memory(const Plan& plan) {
  return Network<T>::memory(plan) + 3 * (plan.n_parameters + lanes<T>);
}

template <class T>
void train_motif(const TrainSettings<T>& s, TrainJob<T>& job, Control& control) {
  const FlushDenormals flush;
  const Plan& plan = *job.plan;
  const std::size_t n_parameters = plan.n_parameters;
  Network<T> network(plan, job.memory);
  T* g = job.memory + Network<T>::memory(plan);
  T *a = g + n_parameters, *b = a + n_parameters;
  const T eps = static_cast<T>(s.batch_norm_eps), momentum = static_cast<T>(s.batch_norm_momentum);
  optimizer_start<T>(a, b, s.optimizer, n_parameters);
  job.diverged_step = -1;
  long step = 0;
  for (int epoch = 0; epoch < s.epochs && job.diverged_step < 0; ++epoch) {
    double loss = 0, accuracy = 0;
    for (int i = 0; i < s.steps_per_epoch && job.diverged_step < 0; ++i, ++step) {
      if (control.stop.load(std::memory_order_relaxed)) return;
      const int first = i * s.batch, n = std::min(s.batch, s.train.n - first);
      network.load(s.train, s.order + static_cast<std::size_t>(epoch) * s.train.n + first, 0, n);
      network.forward(job.parameters, n, eps);
      const HeadResult head = network.evaluate(n, HeadGradient::loss);
      if (!std::isfinite(head.loss)) {
        job.diverged_step = step;
        break;
      }
      network.backward(g, job.parameters, n, false);
      optimizer_step<T>(job.parameters, g, a, b, s.optimizer, s.rates[step], step + 1, n_parameters);
      update_running<T>(job.running, network, plan, n, momentum);
      loss += head.loss / n;
      accuracy += static_cast<double>(head.correct) / n;
      if (job.step_loss) job.step_loss[step] = head.loss / n;
      if (job.step_accuracy) job.step_accuracy[step] = static_cast<double>(head.correct) / n;
      control.add(3 * n * plan.flops);
    }
    if (job.diverged_step >= 0) break;
    job.loss[epoch] = loss / s.steps_per_epoch;
    job.accuracy[epoch] = accuracy / s.steps_per_epoch;
  }
  if (job.diverged_step >= 0) return;
  const T* running = s.batch_statistics ? nullptr : job.running;
  if (job.plan_train) measure<T>(job.train, *job.plan_train, job.memory_metrics, job.parameters, running, s.train, eps);
  if (job.plan_valid) measure<T>(job.valid, *job.plan_valid, job.memory_metrics, job.parameters, running, s.valid, eps);
  if ((job.plan_train && !std::isfinite(job.train.loss)) || (job.plan_valid && !std::isfinite(job.valid.loss))) job.diverged_step = step;
}

template <class T>
void motif_gradient(GradientJob<T>& job, Control& control) {
  const FlushDenormals flush;
  const Plan& plan = *job.plan;
  const int n = job.data.n;
  Network<T> network(plan, job.memory);
  T* g = job.memory + Network<T>::memory(plan);
  network.load(job.data, nullptr, 0, n);
  network.forward(job.parameters, n, static_cast<T>(job.batch_norm_eps));
  const HeadResult head = network.evaluate(n, job.metric == Metric::loss ? HeadGradient::loss : HeadGradient::probability);
  job.values.loss = head.loss / n;
  job.values.probability = head.probability / n;
  job.values.accuracy = static_cast<double>(head.correct) / n;
  if (job.d_parameters || job.d_images) {
    network.backward(g, job.parameters, n, job.d_images != nullptr);
    if (job.d_parameters) std::memcpy(job.d_parameters, g, plan.n_parameters * sizeof(T));
    if (job.d_images) network.image_gradient(job.d_images, n);
    if (job.d_labels) network.label_gradient(job.d_labels, job.metric, n);
  }
  control.add(4 * n * plan.flops);
}

}  // namespace spd::SPD_ISA
