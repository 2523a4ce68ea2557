// The tangent of a network's forward and backward pass, along a direction of its weights.
#pragma once

#include <cstring>
#include <optional>

#include "network.hpp"

namespace spd::SPD_ISA {

// A network with a second arena behind the first. It has the same layout and holds the tangent of every tensor.
template <class T>
class TangentNetwork : public Network<T> {
 public:
  TangentNetwork(const Plan& plan, T* memory, Team& team) : Network<T>(plan, memory, team, 2) {
    T* arena_t;
    this->take(arena_t, plan.arena, memory);
    apart_ = arena_t - arena_;
    for (T** part : {&mean_t_, &var_t_, &istd_t_, &scale_t_, &shift_t_}) this->take(*part, plan.batch_norms, memory);
    const std::size_t n = plan.batch, channels = plan.head.channels, classes = plan.head.classes;
    this->take(feature_t_, n * channels, memory);
    this->take(dfeature_t_, n * channels, memory);
    this->take(logit_t_, n * classes, memory);
    this->take(dlogit_t_, n * classes, memory);
    this->take(dlabel_t_, n * classes, memory);
    this->take(spare_, plan.n_parameters, memory);
    std::size_t scratch = 0;
    for (const Grid& grid : plan.grids) scratch = std::max(scratch, backward_tangent_scratch(grid, plan.batch));
    this->take(arrived_, scratch, memory);
  }
  static std::size_t memory(const Plan& plan, Team& team) {
    T* counted = nullptr;
    TangentNetwork network(plan, counted, team);
    return network.used_;
  }

  // Computes the logits of the loaded batch and their gradients, and the tangents of both along w + s w_t.
  HeadResult forward_tangent(const T* w, const T* w_t, int n, T eps) {
    clear_images_tangent();
    for (int i = 0; i < static_cast<int>(plan_.ops.size()); ++i) {
      const Op& op = plan_.ops[i];
      this->forward_run(i, i + 1, w, n, eps, false);
      switch (op.kind) {
        case Op::Kind::conv: conv_tangent(plan_.convs[op.index], w, w_t, n); break;
        case Op::Kind::sum: sum_tangent(plan_.sums[op.index], n); break;
        case Op::Kind::pool: pool_tangent(plan_.pools[op.index], n); break;
        case Op::Kind::dense: layer_tangent(plan_.dense[op.index], w, w_t, n); break;
        case Op::Kind::head: {
          const Head& h = plan_.head;
          average_pool_forward<T>(feature_t_, tangent<const T>(h.x), plan_.grids[h.grid], n, 0, plan_.grids[h.grid].blocks(n), h.channels);
          dense_forward<T>(logit_t_, feature_, w_t + h.weight, w_t + h.bias, turned_, n, h.channels, h.classes);
          dense_forward<T>(logit_t_, feature_t_, w + h.weight, nullptr, turned_, n, h.channels, h.classes);
        }
      }
    }
    const HeadResult result = this->evaluate(n, HeadGradient::loss);
    plan_.head.loss == Loss::softmax ? softmax_tangent<T>(dlogit_t_, dlabel_t_, logit_, logit_t_, label_, n, plan_.head.classes, softmax_)
                                     : binary_tangent<T>(dlogit_t_, dlabel_t_, logit_, logit_t_, n, plan_.head.classes);
    return result;
  }

  // Overwrites g_t with the tangent of the gradient. The gradient of the images is then in the images' place, and its tangent `apart_` elements behind it.
  void backward_tangent(T* g_t, const T* w, const T* w_t, int n) {
    for (std::size_t i = plan_.ops.size(); i-- > 0;) {
      const Op& op = plan_.ops[i];
      switch (op.kind) {
        case Op::Kind::conv: conv_backward_tangent(plan_.convs[op.index], g_t, w, w_t, n); break;
        case Op::Kind::sum:
          this->sum_backward(plan_.sums[op.index], n);
          this->sum_backward(plan_.sums[op.index], n, apart_);
          break;
        case Op::Kind::pool:
          this->pool_backward(plan_.pools[op.index], n);
          this->pool_backward(plan_.pools[op.index], n, apart_);
          break;
        case Op::Kind::dense: layer_backward_tangent(plan_.dense[op.index], g_t, w, w_t, n); break;
        case Op::Kind::head: {
          const Head& h = plan_.head;
          const Grid& grid = plan_.grids[h.grid];
          T *dweight_t = g_t + h.weight, *dbias_t = g_t + h.bias;
          dense_backward<T>(dfeature_, spare_ + h.weight, spare_ + h.bias, dlogit_, feature_, w + h.weight, n, h.channels, h.classes);
          dense_backward<T>(dfeature_t_, dweight_t, dbias_t, dlogit_t_, feature_, w + h.weight, n, h.channels, h.classes);
          // This adds dlogit . weight_t to dfeature_t, and dlogit . feature_t to dweight_t.
          dense_backward<T>(dfeature_t_, dweight_t, nullptr, dlogit_, feature_t_, w_t + h.weight, n, h.channels, h.classes);
          average_pool_backward<T>(arena_ + h.dx, dfeature_, grid, n, h.channels);
          average_pool_backward<T>(arena_ + h.dx + apart_, dfeature_t_, grid, n, h.channels);
        }
      }
    }
  }

  // For every image i of the batch, adds the tangent of its gradient + factor * its gradient to d_images[index[i]].
  void add_image_gradient(T* d_images, const std::int64_t* index, int n, T factor) {
    const Grid& grid = plan_.grids[0];
    for (int i = 0; i < n; ++i)
      this->each_image_row(i, [&](T* row, int c, int h) {
        T* to = d_images + (index[i] * plan_.image_channels + c) * grid.pixels() + h * grid.width;
        for (int x = 0; x < grid.width; ++x) to[x] += row[apart_ + x] + factor * row[x];
      });
  }
  // Does the same for the labels.
  void add_label_gradient(T* d_labels, const std::int64_t* index, int n, T factor) {
    const std::size_t classes = plan_.head.classes;
    if (factor != 0) this->add_loss_by_labels(dlabel_t_, factor, n);
    for (int i = 0; i < n; ++i)
      for (std::size_t k = 0; k < classes; ++k) d_labels[index[i] * classes + k] += dlabel_t_[i * classes + k];
  }

 private:
  using Network<T>::plan_, Network<T>::arena_, Network<T>::mean_, Network<T>::var_, Network<T>::istd_, Network<T>::scale_, Network<T>::shift_,
      Network<T>::feature_, Network<T>::dfeature_, Network<T>::turned_, Network<T>::logit_, Network<T>::dlogit_, Network<T>::label_, Network<T>::softmax_;

  template <class U>
  View<U> tangent(const Place& p) const {
    return this->template view<U>(p).moved(apart_);
  }
  template <class U>
  View<U> primal(const Place& p) const {
    return this->template view<U>(p);
  }
  // The tangent of the images is 0, because only the weights move along w_t.
  void clear_images_tangent() {
    const Grid& grid = plan_.grids[0];
    for (int b = 0; b < grid.blocks(plan_.batch); ++b)
      for (int c = 0; c < plan_.image_channels; ++c) std::memset(tangent<T>(plan_.images).at(b, c), 0, grid.plane() * sizeof(T));
  }

  // Runs the forward of a convolution's tangent, or its dgrad if `turned`; `to`, `to_t`, `from` and `from_t` are then gradients. Where `to` is given, it also runs
  // what this is the tangent of.
  void run_conv(const Conv& c, std::optional<View<T>> to, View<T> to_t, View<const T> from, View<const T> from_t, const T* k, const T* k_t, int n,
                bool turned) {
    const Grid& grid = plan_.grids[c.grid];
    const Algorithm how = turned ? c.dgrad : c.forward;
    const int c_in = turned ? c.c_out : c.c_in, c_out = turned ? c.c_in : c.c_out;
    this->each_chunk(
        grid, n, c.c_out, [&](T* packed) { conv_pack_tangent<T>(how, packed, k, k_t, c.size, c_in, c_out, turned); },
        [&](int, int begin, int end, const T* packed, T* scratch) {
          conv_run_tangent<T>(how, to ? &*to : nullptr, to_t, from, from_t, packed, scratch, grid, begin, end, c.size, c_in, c_out);
        });
  }
  void product_tangent(const Conv& c, const T* w, const T* w_t, int n) {
    if (!c.reads_images) return run_conv(c, {}, tangent<T>(c.y), primal<const T>(c.x), tangent<const T>(c.x), w + c.weight, w_t + c.weight, n, false);
    const Grid& grid = plan_.grids[c.grid];  // the tangent of the images is 0
    this->each_chunk(
        grid, n, c.c_out, [&](T* packed) { conv_pack<T>(c.forward, packed, w_t + c.weight, c.size, c.c_in, c.c_out, false); },
        [&](int, int begin, int end, const T* packed, T* scratch) {
          conv_run<T>(c.forward, tangent<T>(c.y), primal<const T>(c.x), packed, scratch, grid, begin, end, c.size, c.c_in, c.c_out, false);
        });
  }
  void layer_tangent(const Dense& d, const T* w, const T* w_t, int n) {
    const Conv& c = d.product;
    const Grid& grid = plan_.grids[c.grid];
    product_tangent(c, w, w_t, n);
    sigmoid_tangent<T>(primal<T>(c.y), primal<T>(d.a), apart_, w_t + d.bias, static_cast<T>(d.slope), grid, grid.blocks(n), c.c_out);
  }
  void layer_backward_tangent(const Dense& d, T* g_t, const T* w, const T* w_t, int n) {
    const Conv& c = d.product;
    const Grid& grid = plan_.grids[c.grid];
    sigmoid_backward_tangent<T>(primal<T>(c.y), g_t + d.bias, primal<const T>(d.da), apart_, static_cast<T>(d.slope), grid, grid.blocks(n), c.c_out);
    product_backward_tangent(c, g_t, w, w_t, n);
  }
  void conv_tangent(const Conv& c, const T* w, const T* w_t, int n) {
    const Grid& grid = plan_.grids[c.grid];
    product_tangent(c, w, w_t, n);
    const int bn = c.batch_norm;
    batch_statistics_tangent<T>(mean_t_ + bn, var_t_ + bn, primal<const T>(c.y), apart_, mean_ + bn, grid, n, c.c_out);
    for (int o = 0; o < c.c_out; ++o) {
      const T istd = istd_[bn + o], istd_t = -istd * istd * istd * var_t_[bn + o] / 2;
      const T gamma = w[c.gamma + o], scale_t = w_t[c.gamma + o] * istd + gamma * istd_t;
      istd_t_[bn + o] = istd_t;
      scale_t_[bn + o] = scale_t;
      shift_t_[bn + o] = w_t[c.beta + o] - mean_t_[bn + o] * gamma * istd - mean_[bn + o] * scale_t;
    }
  }
  void sum_tangent(const Sum& sum, int n) {
    for (const Segment& s : sum.terms) {
      Term<T> terms[kMostSources];
      TermTangent<T> tangents[kMostSources];
      this->terms_of(s, terms);
      for (int i = 0; i < s.n; ++i) {
        const int bn = s.source[i].batch_norm;
        tangents[i] = {bn >= 0 ? scale_t_ + bn : nullptr, bn >= 0 ? shift_t_ + bn : nullptr};
      }
      Place z = sum.z;
      z.offset += s.begin * z.channel;
      with_constant<kMostSources>(s.n,
                                  [&]<int K>() { add_terms_tangent<T, K>(primal<T>(z), apart_, terms, tangents, plan_.grids[sum.grid], n, s.end - s.begin); });
    }
    const Grid& grid = plan_.grids[sum.grid];
    if (sum.relu) relu_backward<T>(tangent<T>(sum.z), this->template taken<Open>(sum.open), grid, 0, grid.blocks(n), sum.channels);
  }
  void pool_tangent(const Pool& p, int n) {
    const Grid &from = plan_.grids[p.from], &to = plan_.grids[p.to];
    if (p.average)
      avgpool3x3<T>(tangent<T>(p.y), tangent<const T>(p.x), from, 0, from.blocks(n), p.channels, false);
    else if (p.from == p.to)
      maxpool3x3_tangent<T>(tangent<T>(p.y), this->winners(p), tangent<const T>(p.x), from, 0, from.blocks(n), p.channels);
    else
      maxpool2x2_tangent<T>(tangent<T>(p.y), this->template taken<QuadWinners>(p.taken), tangent<const T>(p.x), from, to, n, 0, p.channels);
  }

  void conv_backward_tangent(const Conv& c, T* g_t, const T* w, const T* w_t, int n) {
    const Grid& grid = plan_.grids[c.grid];
    for (const Segment& s : c.flows) {
      Flow<T> flows[kMostSources];
      this->flows_of(s, 0, flows);
      const int bn = c.batch_norm + s.begin;
      Place y = c.y;
      y.offset += s.begin * y.channel;
      const NormStatistics<T> norm{mean_ + bn, istd_ + bn, scale_ + bn, shift_ + bn}, norm_t{mean_t_ + bn, istd_t_ + bn, scale_t_ + bn, shift_t_ + bn};
      batch_norm_relu_backward_tangent<T, kMostSources>(primal<T>(y), apart_, g_t + c.gamma + s.begin, g_t + c.beta + s.begin, flows, s.n, norm, norm_t, c.relu,
                                                        arrived_, grid, n, s.end - s.begin);
    }
    product_backward_tangent(c, g_t, w, w_t, n);
  }
  // For the convolution without its batch norm. y and y_t hold dy and dy_t.
  void product_backward_tangent(const Conv& c, T* g_t, const T* w, const T* w_t, int n) {
    this->run_wgrad(c, g_t + c.weight, tangent<const T>(c.y), primal<const T>(c.x), n);
    if (!c.reads_images) {
      this->run_wgrad(c, spare_ + c.weight, primal<const T>(c.y), tangent<const T>(c.x), n);
      const std::size_t weights = static_cast<std::size_t>(c.size) * c.size * c.c_in * c.c_out;
      for (std::size_t i = c.weight; i < c.weight + weights; ++i) g_t[i] += spare_[i];
    }
    run_conv(c, primal<T>(c.x), tangent<T>(c.x), primal<const T>(c.y), tangent<const T>(c.y), w + c.weight, w_t + c.weight, n, true);
  }
  std::ptrdiff_t apart_ = 0;
  T *mean_t_, *var_t_, *istd_t_, *scale_t_, *shift_t_, *feature_t_, *dfeature_t_, *logit_t_, *dlogit_t_, *dlabel_t_, *spare_, *arrived_;
};

}  // namespace spd::SPD_ISA
