// Batch norm, ReLU and the sums between the convolutions, fused: nothing normalised is stored but what a convolution reads.
//
//   statistics   mean_c = E[y], var_c = E[(y - mean)^2] over images and pixels;  istd = 1 / sqrt(var + eps)
//   forward      z[c] = sum_s relu(gamma_s * (y_s[c] - mean_s) * istd_s + beta_s)          s runs over the terms that meet in channel c
//   backward     g = [relu's argument > 0] * sum_f d_f[c]                                  f runs over the places where the term was read
//                dbeta = sum g,  dgamma = istd * sum g (y - mean)
//                dy = gamma * istd * (g - dbeta / m - (y - mean) * istd * dgamma / m)      m pixels of the batch
//
// (Ioffe and Szegedy 2015, arXiv:1502.03167.) Adds with channel truncation, concatenation and the projected input are all "terms that meet".
// Precision: element type. Sums are taken around a first pixel of the channel, so a mean far from zero does not cancel the variance away.
#pragma once

#include <cmath>
#include <limits>

#include "../grid.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

inline constexpr int kMostTerms = 6;       // five interior predecessors and the projected input
inline constexpr int kMostColumns = 32;    // vectors in a row of 64 pixels, two lanes each

// ---- the specification: (n, c, pixels) arrays

template <class T>
void batch_norm_relu_ref(T* z, T* mean, T* var, const T* y, const T* gamma, const T* beta, int n, int channels, int pixels, T eps) {
  for (int c = 0; c < channels; ++c) {
    T s = 0, q = 0;
    for (int b = 0; b < n; ++b)
      for (int p = 0; p < pixels; ++p) s += y[(b * channels + c) * pixels + p];
    mean[c] = s / (n * pixels);
    for (int b = 0; b < n; ++b)
      for (int p = 0; p < pixels; ++p) {
        const T d = y[(b * channels + c) * pixels + p] - mean[c];
        q += d * d;
      }
    var[c] = q / (n * pixels);
    for (int b = 0; b < n; ++b)
      for (int p = 0; p < pixels; ++p) {
        const int at = (b * channels + c) * pixels + p;
        const T v = (y[at] - mean[c]) / std::sqrt(var[c] + eps) * gamma[c] + beta[c];
        z[at] = v < 0 ? 0 : v;
      }
  }
}
template <class T>
void batch_norm_relu_backward_ref(T* dy, T* dgamma, T* dbeta, const T* dz, const T* y, const T* gamma, const T* beta, int n, int channels, int pixels,
                                  T eps) {
  for (int c = 0; c < channels; ++c) {
    const int m = n * pixels;
    T mean = 0, var = 0;
    const auto each = [&](auto f) {
      for (int b = 0; b < n; ++b)
        for (int p = 0; p < pixels; ++p) f((b * channels + c) * pixels + p);
    };
    each([&](int at) { mean += y[at] / m; });
    each([&](int at) { var += (y[at] - mean) * (y[at] - mean) / m; });
    const T istd = 1 / std::sqrt(var + eps);
    const auto g = [&](int at) { return (y[at] - mean) * istd * gamma[c] + beta[c] > 0 ? dz[at] : T(0); };
    dgamma[c] = dbeta[c] = 0;
    each([&](int at) { dbeta[c] += g(at), dgamma[c] += g(at) * (y[at] - mean) * istd; });
    each([&](int at) { dy[at] = gamma[c] * istd * (g(at) - dbeta[c] / m - (y[at] - mean) * istd * dgamma[c] / m); });
  }
}

// ---- lanes that count

// The valid lanes of each column, for a whole block and for the last one of a batch of n images.
template <class T>
struct LaneMasks {
  mask<T> whole[kMostColumns], last[kMostColumns];
  int whole_blocks;  // blocks that need no mask at all: no padding, every image there

  LaneMasks(const Grid& grid, int n) {
    const int blocks = grid.blocks(n), rest = n - (blocks - 1) * grid.images;
    for (int j = 0; j < grid.columns; ++j) {
      whole[j] = mask_of_bits<T>(grid.valid(j, grid.images));
      last[j] = mask_of_bits<T>(grid.valid(j, rest));
    }
    whole_blocks = grid.padded() ? 0 : rest == grid.images ? blocks : blocks - 1;
  }
};

// f(element offset in the plane, lanes that count) for every vector of one channel of block b.
template <class T, class F>
SPD_INLINE void each_vector(const Grid& grid, const LaneMasks<T>& masks, int b, int blocks, F&& f) {
  const std::size_t plane = grid.plane();
  if (b < masks.whole_blocks) {
    for (std::size_t at = 0; at < plane; at += lanes<T>) f(at, all_lanes{});
    return;
  }
  const mask<T>* m = b == blocks - 1 ? masks.last : masks.whole;
  for (std::size_t at = 0; at < plane;)
    for (int j = 0; j < grid.columns; ++j, at += lanes<T>) f(at, m[j]);
}

// ---- statistics

// mean, var: of channels 0..channels - 1 of y over n images (biased variance).
template <class T>
void batch_statistics(T* mean, T* var, View<const T> y, const Grid& grid, int n, int channels) {
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  const T m = static_cast<T>(n) * grid.pixels();
  for (int c = 0; c < channels; ++c) {
    const T* p = y.data + c * y.channel;
    const T origin = p[0];
    const vec<T> around = broadcast<T>(origin);
    vec<T> s{}, q{};
    for (int b = 0; b < blocks; ++b)
      each_vector(grid, masks, b, blocks, [&](std::size_t at, auto valid) {
        const vec<T> d = keep<T>(valid, load(p + b * y.block + at) - around);
        s += d;
        q += d * d;
      });
    const T shift = sum<T>(s) / m;
    const T v = sum<T>(q) / m - shift * shift;
    mean[c] = origin + shift;
    var[c] = v < 0 ? 0 : v;  // NaN stays NaN
  }
}

// ---- forward

// One raw tensor read through batch norm and ReLU (scale, shift per channel, low = 0), or as it is (scale = nullptr).
template <class T>
struct Term {
  const T* data;
  std::size_t block, channel;
  const T* scale;
  const T* shift;
};

template <class T, int K>
SPD_NOINLINE void add_terms(View<T> z, const Term<T>* terms, const Grid& grid, int n, int channels) {
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  for (int b = 0; b < blocks; ++b)
    for (int c = 0; c < channels; ++c) {
      const T* p[K];
      vec<T> scale[K], shift[K], low[K];
      SPD_UNROLL
      for (int s = 0; s < K; ++s) {
        const bool raw = terms[s].scale != nullptr;
        p[s] = terms[s].data + b * terms[s].block + c * terms[s].channel;
        scale[s] = broadcast<T>(raw ? terms[s].scale[c] : T(1));
        shift[s] = broadcast<T>(raw ? terms[s].shift[c] : T(0));
        low[s] = broadcast<T>(raw ? T(0) : -std::numeric_limits<T>::infinity());
      }
      T* out = z.data + b * z.block + c * z.channel;
      each_vector(grid, masks, b, blocks, [&](std::size_t at, auto valid) {
        vec<T> v = at_least<T>(low[0], load(p[0] + at) * scale[0] + shift[0]);
        SPD_UNROLL
        for (int s = 1; s < K; ++s) v += at_least<T>(low[s], load(p[s] + at) * scale[s] + shift[s]);
        store<T>(out + at, keep<T>(valid, v));
      });
    }
}

// ---- backward

// A place where a term's gradient comes from; step 0: one vector per channel serves all pixels (global average pooling).
template <class T>
struct Flow {
  const T* data;
  std::size_t block, channel;
  int step;
};

template <class T, int K>
SPD_INLINE vec<T> sum_flows(const T* const (&p)[K], const Flow<T>* flows, std::size_t at) {
  vec<T> d = load(p[0] + at * flows[0].step);
  SPD_UNROLL
  for (int f = 1; f < K; ++f) d += load(p[f] + at * flows[f].step);
  return d;
}

// dy overwrites y. scale = gamma * istd and shift are those of the forward.
template <class T, int K>
SPD_NOINLINE void batch_norm_relu_backward(View<T> y, T* dgamma, T* dbeta, const Flow<T>* flows, const T* mean, const T* istd, const T* scale,
                                           const T* shift, const Grid& grid, int n, int channels) {
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  const T m = static_cast<T>(n) * grid.pixels();
  for (int c = 0; c < channels; ++c) {
    const vec<T> centre = broadcast<T>(mean[c]), k = broadcast<T>(scale[c]), k0 = broadcast<T>(shift[c]);
    const auto each = [&](auto f) {
      for (int b = 0; b < blocks; ++b) {
        T* py = y.data + b * y.block + c * y.channel;
        const T* p[K];
        SPD_UNROLL
        for (int i = 0; i < K; ++i) p[i] = flows[i].data + b * flows[i].block + c * flows[i].channel;
        each_vector(grid, masks, b, blocks, [&](std::size_t at, auto valid) {
          const vec<T> v = load(py + at);
          const vec<T> g = keep<T>(valid, keep<T>(greater<T>(v * k + k0, zeros<T>()), sum_flows<T, K>(p, flows, at)));
          f(py + at, v, g, valid);
        });
      }
    };
    vec<T> s{}, q{};
    each([&](T*, vec<T> v, vec<T> g, auto) {
      s += g;
      q += g * (v - centre);
    });
    dbeta[c] = sum<T>(s);
    dgamma[c] = sum<T>(q) * istd[c];
    const T slope = -scale[c] * istd[c] * dgamma[c] / m;  // dy = k g + slope (y - mean) - k dbeta / m
    const vec<T> a = broadcast<T>(slope), a0 = broadcast<T>(-scale[c] * dbeta[c] / m - slope * mean[c]);
    each([&](T* to, vec<T> v, vec<T> g, auto valid) { store<T>(to, keep<T>(valid, k * g + (a * v + a0))); });
  }
}

// z = sum of the flows (what a pooling vertex receives).
template <class T, int K>
SPD_NOINLINE void add_flows(View<T> z, const Flow<T>* flows, const Grid& grid, int n, int channels) {
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  for (int b = 0; b < blocks; ++b)
    for (int c = 0; c < channels; ++c) {
      const T* p[K];
      SPD_UNROLL
      for (int i = 0; i < K; ++i) p[i] = flows[i].data + b * flows[i].block + c * flows[i].channel;
      T* out = z.data + b * z.block + c * z.channel;
      each_vector(grid, masks, b, blocks, [&](std::size_t at, auto valid) { store<T>(out + at, keep<T>(valid, sum_flows<T, K>(p, flows, at))); });
    }
}

}  // namespace spd::SPD_ISA
