// What zero-cost proxies need from an untrained motif, besides the gradient of its loss (spd_fast/predictors/proxies.py defines them):
//
//   logit_gradient   d / d weights and d / d images of the sum of all logits, over images and classes; with batch norm in training mode, or without batch norm
//   activations      agreements[i, j] = the number of ReLUs that are open for both image i and image j, or closed for both
//
// Without batch norm the weights and the images must not be negative, gamma must be 1 and beta 0. Then every ReLU is open and the network is piecewise linear.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "gradient.hpp"

namespace spd::SPD_ISA {

template <class T>
class ProxyNetwork : public Network<T> {
 public:
  using Network<T>::Network;

  void logit_gradient(T* g, const T* w, int n, bool batch_norm, const Control& control) {
    std::fill(dlogit_, dlogit_ + static_cast<std::size_t>(n) * plan_.head.classes, T(1));
    batch_norm ? this->backward(g, w, n, true, control) : backward_open(g, w, n);
  }

  void add_agreements(std::int64_t* agreements, int n) const {
    for (const Conv& c : plan_.convs)
      if (c.relu) add_agreements_of(agreements, plan_.grids[c.grid], c.y, c.c_out, scale_ + c.batch_norm, shift_ + c.batch_norm, n);
    for (const Sum& s : plan_.sums)  // what a ReLU of a sum wrote is above zero where the ReLU is open
      if (s.relu) add_agreements_of(agreements, plan_.grids[s.grid], s.z, s.channels, nullptr, nullptr, n);
  }

 private:
  using Network<T>::plan_, Network<T>::arena_, Network<T>::scale_, Network<T>::shift_, Network<T>::dlogit_;

  void add_agreements_of(std::int64_t* agreements, const Grid& grid, const Place& y, int channels, const T* scale, const T* shift, int n) const {
    std::vector<std::uint64_t> codes;
    const std::size_t words = codes_of(codes, grid, y, channels, scale, shift, n);
    const std::int64_t units = static_cast<std::int64_t>(channels) * grid.pixels();
    const auto at = [&](int i, int j) -> std::int64_t& { return agreements[static_cast<std::size_t>(i) * n + j]; };
    for (int i = 0; i < n; ++i) {
      at(i, i) += units;
      for (int j = 0; j < i; ++j) {
        std::int64_t apart = 0;
        for (std::size_t word = 0; word < words; ++word) apart += std::popcount(codes[i * words + word] ^ codes[j * words + word]);
        at(i, j) += units - apart;
        at(j, i) += units - apart;
      }
    }
  }

  // The backward pass where every ReLU is open and nothing is normalised. The gradient of a convolution's output is then that of its activation.
  void backward_open(T* g, const T* w, int n) {
    for (std::size_t i = plan_.ops.size(); i-- > 0;) {
      const Op& op = plan_.ops[i];
      switch (op.kind) {
        case Op::Kind::conv: {
          const Conv& c = plan_.convs[op.index];
          this->flows_to(c.y, c.flows, plan_.grids[c.grid], n);
          this->product_backward(c, g, w, n, true);
          break;
        }
        case Op::Kind::sum: {
          const Sum& s = plan_.sums[op.index];
          this->flows_to(s.z, s.flows, plan_.grids[s.grid], n);
          break;
        }
        case Op::Kind::pool: this->pool_backward(plan_.pools[op.index], n); break;
        case Op::Kind::dense: break;  // only perceptrons have these, and proxies are for cells
        case Op::Kind::head: this->head_backward(g, w, n);
      }
    }
  }

  // Sets one bit for every lane of an image's slot where the ReLU of a pixel is open. Returns how many words an image has.
  std::size_t codes_of(std::vector<std::uint64_t>& codes, const Grid& grid, const Place& place, int channels, const T* scales, const T* shifts, int n) const {
    const int bits = std::min(grid.slot, lanes<T>);  // a power of two, so that the bits of one image in one vector are in one word
    const std::uint64_t own = (std::uint64_t{1} << bits) - 1;
    const std::size_t words = (static_cast<std::size_t>(channels) * grid.vectors() * bits + 63) / 64;
    codes.assign(n * words, 0);
    std::uint64_t valid[kMostColumns];
    for (int j = 0; j < grid.columns; ++j) valid[j] = grid.valid(j, grid.images);
    const View<const T> y = this->template view<const T>(place);
    for (int o = 0; o < channels; ++o) {
      const vec<T> scale = broadcast<T>(scales ? scales[o] : T(1)), shift = broadcast<T>(shifts ? shifts[o] : T(0));
      for (int b = 0; b < grid.blocks(n); ++b)
        for (int v = 0; v < grid.vectors(); ++v) {
          const T* p = y.at(b, o) + v * lanes<T>;
          const std::uint64_t open = bits_of_mask<T>(greater<T>(load<T>(p) * scale + shift, zeros<T>())) & valid[v % grid.columns];
          const std::size_t bit = (static_cast<std::size_t>(o) * grid.vectors() + v) * bits;
          for (int k = 0; k < grid.images && b * grid.images + k < n; ++k)
            codes[(b * grid.images + k) * words + bit / 64] |= (open >> k * bits & own) << bit % 64;
        }
    }
    return words;
  }
};

template <class T>
void logit_gradient(LogitGradientJob<T>& job, Control& control, Team& team) {
  WholeSet<T, ProxyNetwork<T>> set(job, team);
  ProxyNetwork<T>& network = set.network;
  const Plan& plan = set.plan;
  const int n = set.n;
  std::vector<T> neutral(job.batch_norm ? 0 : 2 * plan.batch_norms, T(0));  // means and variances that change nothing
  if (!job.batch_norm) std::fill(neutral.begin() + plan.batch_norms, neutral.end(), T(1));
  network.forward(job.parameters, n, job.batch_norm ? static_cast<T>(job.batch_norm_eps) : T(0), control, job.batch_norm ? nullptr : neutral.data());
  network.logit_gradient(set.gradient, job.parameters, n, job.batch_norm, control);
  std::memcpy(job.d_parameters, set.gradient, plan.n_parameters * sizeof(T));
  network.image_gradient(job.d_images, n);
  control.add(4 * n * plan.flops);
}

template <class T>
void activations(ActivationJob<T>& job, Control& control, Team& team) {
  WholeSet<T, ProxyNetwork<T>> set(job, team);
  set.network.forward(job.parameters, set.n, static_cast<T>(job.batch_norm_eps), control);
  set.network.add_agreements(job.agreements, set.n);
  control.add(set.n * set.plan.flops);
}

}  // namespace spd::SPD_ISA
