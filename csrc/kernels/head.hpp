// The end of a motif: global average pooling, a dense layer, and the cross-entropy of a softmax or, for labels that are bits, of a sigmoid for each logit.
//
//   feature[n, c] = mean over pixels of x[n, c];   logit[n, k] = bias[k] + sum_c weight[k, c] * feature[n, c];   p = softmax(logit)
//   loss          = mean_n sum_k -q[n, k] log p[n, k]                 d loss / d logit[n, k] = (p[n, k] * sum_j q[n, j] - q[n, k]) / N
//   probability   = mean_n p[n, t_n], t_n = argmax_k q[n, k]          (Cassimon et al., eq. 4);  d / d logit[n, k] = p[n, t] ([k = t] - p[n, k]) / N
//
//   of bits       p = sigmoid(logit);  loss = mean_{n, k} -q log p - (1 - q) log(1 - p);  d loss / d logit[n, k] = (p - q) / (N K)
//                 probability = mean_{n, k} of p where q > 1/2, of 1 - p elsewhere
//
//   tangent       logit_t = bias_t + weight_t . feature + weight . feature_t;  p_t = p (logit_t - sum_j p_j logit_t_j), of bits p (1 - p) logit_t
//
// x is a view in the row-vector layout. q: (N, classes) labels, soft or one-hot. weight: (classes, channels).
// Precision: all is in the element type; sums over pixels are taken by lanes, then pairwise.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "../plan/grid.hpp"
#include "../plan/plan.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

// ---- the specification, on (n, c, pixels) arrays; it returns the loss

template <class T>
T head_ref(T* logit, T* dx, T* dweight, T* dbias, const T* x, const T* weight, const T* bias, const T* label, Loss kind, int n, int channels, int pixels,
           int classes) {
  T loss = 0;
  for (int i = 0; i < classes * channels; ++i) dweight[i] = 0;
  for (int k = 0; k < classes; ++k) dbias[k] = 0;
  for (int b = 0; b < n; ++b) {
    const auto feature = [&](int c) {
      T s = 0;
      for (int p = 0; p < pixels; ++p) s += x[(b * channels + c) * pixels + p];
      return s / pixels;
    };
    T total = 0, mass = 0;
    for (int k = 0; k < classes; ++k) {
      T z = bias[k];
      for (int c = 0; c < channels; ++c) z += weight[k * channels + c] * feature(c);
      logit[b * classes + k] = z;
      total += std::exp(z);
      mass += label[b * classes + k];
    }
    for (int i = 0; i < channels * pixels; ++i) dx[b * channels * pixels + i] = 0;
    for (int k = 0; k < classes; ++k) {
      const T q = label[b * classes + k], z = logit[b * classes + k];
      T d;
      if (kind == Loss::softmax) {
        const T log_p = z - std::log(total);
        loss -= q * log_p / n;
        d = (std::exp(log_p) * mass - q) / n;
      } else {
        const T p = 1 / (1 + std::exp(-z));
        loss -= (q * std::log(p) + (1 - q) * std::log(1 - p)) / (n * classes);
        d = (p - q) / (n * classes);
      }
      dbias[k] += d;
      for (int c = 0; c < channels; ++c) {
        dweight[k * channels + c] += d * feature(c);
        for (int p = 0; p < pixels; ++p) dx[(b * channels + c) * pixels + p] += d * weight[k * channels + c] / pixels;
      }
    }
  }
  return loss;
}

// Calls f.operator()<slot>() with the number of lanes that an image takes in a vector.
template <class T, class F>
SPD_INLINE void with_slot(const Grid& grid, F&& f) {
  const int slot = std::min(grid.slot, lanes<T>);
  with_constant<std::bit_width(static_cast<unsigned>(lanes<T>))>(std::bit_width(static_cast<unsigned>(slot)),
                                                                 [&]<int width>() { f.template operator()<(1 << (width - 1))>(); });
}

// Copies n <= most values. Nearly always n is `most`, and then no function is called.
template <int most, class T>
SPD_INLINE void copy_few(T* to, const T* from, int n) {
  if (n == most)
    std::memcpy(to, from, most * sizeof(T));
  else
    for (int i = 0; i < n; ++i) to[i] = from[i];
}

// Writes feature (n, channels) for the images of the blocks begin..end - 1.
template <class T>
void average_pool_forward(T* feature, View<const T> x, const Grid& grid, int n, int begin, int end, int channels) {
  const vec<T> scale = broadcast<T>(T(1) / grid.pixels());
  with_slot<T>(grid, [&]<int slot>() {  // `slot` channels are summed together, and lane m * slot + j is channel j of image m
    for (int b = begin; b < end; ++b)
      for (int first = 0; first < channels; first += slot) {
        const int together = std::min(slot, channels - first);
        vec<T> v[slot]{};
        SPD_UNROLL
        for (int j = 0; j < slot; ++j) {
          if (j >= together) continue;
          const T* p = x.at(b, first + j);
          vec<T> s{};
          for (std::size_t at = 0; at < grid.plane(); at += lanes<T>) s += load(p + at);
          v[j] = s;
        }
        T of[lanes<T>];
        store<T>(of, sum_each<T, slot, 1, slot>(v) * scale);
        for (int m = 0; m < grid.images && b * grid.images + m < n; ++m)
          copy_few<slot>(feature + static_cast<std::size_t>(b * grid.images + m) * channels + first, of + m * slot, together);
      }
  });
}
// Writes dx, one vector per block and channel. Every lane of an image's slot is d feature / pixels.
template <class T>
void average_pool_backward(T* dx, const T* dfeature, const Grid& grid, int n, int channels) {
  const T scale = T(1) / grid.pixels();
  with_slot<T>(grid, [&]<int slot>() {
    for (int b = 0; b < grid.blocks(n); ++b)
      for (int c = 0; c < channels; ++c)
        for (int i = b * grid.images; i < (b + 1) * grid.images; ++i, dx += slot) {
          const T d = i < n ? dfeature[static_cast<std::size_t>(i) * channels + c] * scale : T(0);
          SPD_UNROLL
          for (int lane = 0; lane < slot; ++lane) dx[lane] = d;
        }
  });
}

inline std::size_t turned_size(int channels, int classes, int lanes) { return static_cast<std::size_t>(channels) * ((classes + lanes - 1) / lanes * lanes); }

// turned is scratch of turned_size elements. Where bias is null, the result is added to logit.
template <class T>
void dense_forward(T* logit, const T* feature, const T* weight, const T* bias, T* turned, int n, int channels, int classes) {
  const std::size_t padded = turned_size(1, classes, lanes<T>);
  for (int c = 0; c < channels; ++c)
    for (std::size_t k = 0; k < padded; ++k) turned[c * padded + k] = static_cast<int>(k) < classes ? weight[k * channels + c] : T(0);
  constexpr int most = 4;  // images at a time
  for (int i = 0; i < n; i += most)
    with_constant<most>(std::min(most, n - i), [&]<int N>() {
      for (int first = 0; first < classes; first += lanes<T>) {
        vec<T> z[N]{};
        for (int c = 0; c < channels; ++c) {
          const vec<T> column = load<T>(turned + c * padded + first);
          SPD_UNROLL
          for (int j = 0; j < N; ++j) z[j] += column * broadcast<T>(feature[static_cast<std::size_t>(i + j) * channels + c]);
        }
        const int together = std::min(lanes<T>, classes - first);
        for (int j = 0; j < N; ++j) {
          T of[lanes<T>], *to = logit + static_cast<std::size_t>(i + j) * classes + first;
          store<T>(of, z[j]);
          for (int k = 0; k < together; ++k) to[k] = (bias ? bias[first + k] : to[k]) + of[k];
        }
      }
    });
}
// out[r, c] = sum_s a[r, s] in[s, c] for `rows` rows of `channels` channels, or adds it. Rows of a are a_row elements apart, and its columns a_sum.
template <class T>
void multiply_rows(T* out, int rows, const T* a, std::size_t a_row, std::size_t a_sum, int terms, const T* in, int channels, bool add) {
  constexpr int most = 5;  // rows at a time
  for (int r = 0; r < rows; r += most)
    with_constant<most>(std::min(most, rows - r), [&]<int N>() {
      T* to = out + static_cast<std::size_t>(r) * channels;
      const T* factors = a + r * a_row;
      int c = 0;
      for (; c + lanes<T> <= channels; c += lanes<T>) {
        vec<T> z[N]{};
        if (add) SPD_UNROLL
        for (int j = 0; j < N; ++j) z[j] = load<T>(to + j * channels + c);
        for (int s = 0; s < terms; ++s) {
          const vec<T> row = in_register<T>(load<T>(in + static_cast<std::size_t>(s) * channels + c));
          SPD_UNROLL
          for (int j = 0; j < N; ++j) z[j] += row * broadcast<T>(factors[j * a_row + s * a_sum]);
        }
        SPD_UNROLL
        for (int j = 0; j < N; ++j) store<T>(to + j * channels + c, z[j]);
      }
      for (; c < channels; ++c) {
        T z[N]{};
        if (add)
          for (int j = 0; j < N; ++j) z[j] = to[j * channels + c];
        for (int s = 0; s < terms; ++s) SPD_UNROLL
        for (int j = 0; j < N; ++j) z[j] += in[static_cast<std::size_t>(s) * channels + c] * factors[j * a_row + s * a_sum];
        for (int j = 0; j < N; ++j) to[j * channels + c] = z[j];
      }
    });
}
// Where dbias is null, the results are added to dfeature and dweight.
template <class T>
void dense_backward(T* dfeature, T* dweight, T* dbias, const T* dlogit, const T* feature, const T* weight, int n, int channels, int classes) {
  multiply_rows<T>(dfeature, n, dlogit, classes, 1, classes, weight, channels, !dbias);
  multiply_rows<T>(dweight, classes, dlogit, 1, classes, n, feature, channels, !dbias);
  if (!dbias) return;
  std::memset(dbias, 0, classes * sizeof(T));
  for (int i = 0; i < n; ++i)
    for (int k = 0; k < classes; ++k) dbias[k] += dlogit[static_cast<std::size_t>(i) * classes + k];
}

struct HeadResult {
  double loss = 0, probability = 0, correct = 0;  // sums over the images, not means
};

enum class HeadGradient { none, loss, probability };

// Writes dlogit, the gradient of the mean over `count` images. It may be null for `none`.
template <class T>
HeadResult softmax_cross_entropy(T* dlogit, const T* logit, const T* label, int n, int classes, HeadGradient gradient, int count, T* p) {
  HeadResult out;
  for (int i = 0; i < n; ++i) {
    const T* z = logit + static_cast<std::size_t>(i) * classes;
    const T* q = label + static_cast<std::size_t>(i) * classes;
    const int best = static_cast<int>(std::max_element(z, z + classes) - z), target = static_cast<int>(std::max_element(q, q + classes) - q);
    T total = 0, mass = 0, loss = 0;
    for (int k = 0; k < classes; ++k) total += p[k] = std::exp(z[k] - z[best]);
    const T log_total = std::log(total);
    for (int k = 0; k < classes; ++k) {
      p[k] /= total;
      mass += q[k];
      if (q[k] != 0) loss += q[k] * (log_total - (z[k] - z[best]));
    }
    out.loss += loss;
    out.probability += p[target];
    out.correct += best == target;
    if (gradient == HeadGradient::none) continue;
    T* d = dlogit + static_cast<std::size_t>(i) * classes;
    for (int k = 0; k < classes; ++k) d[k] = (gradient == HeadGradient::loss ? p[k] * mass - q[k] : p[target] * ((k == target) - p[k])) / count;
  }
  return out;
}

// The same for bits. With e = exp(-|z|), -log p = log(1 + e) + max(-z, 0). The logarithms of an image are taken as one logarithm of a product.
template <class T>
HeadResult binary_cross_entropy(T* dlogit, const T* logit, const T* label, int n, int classes, HeadGradient gradient, int count) {
  constexpr int most = 64;  // factors of at most 2 in a product
  HeadResult out;
  for (int i = 0; i < n; ++i) {
    const T *z = logit + static_cast<std::size_t>(i) * classes, *q = label + static_cast<std::size_t>(i) * classes;
    for (int first = 0; first < classes; first += most) {
      T product = 1;
      for (int k = first; k < std::min(classes, first + most); ++k) {
        const T e = std::exp(-std::abs(z[k])), larger = 1 / (1 + e), p = z[k] > 0 ? larger : e * larger;
        const bool set = q[k] > T(0.5);
        product *= 1 + e;
        out.loss += std::max(z[k], T(0)) - q[k] * z[k];
        out.probability += set ? p : 1 - p;
        out.correct += (z[k] > 0) == set;
        if (gradient == HeadGradient::none) continue;
        dlogit[static_cast<std::size_t>(i) * classes + k] = (gradient == HeadGradient::loss ? p - q[k] : (set ? 1 : -1) * p * (1 - p)) / (classes * count);
      }
      out.loss += std::log(product);
    }
  }
  out.loss /= classes, out.probability /= classes, out.correct /= classes;
  return out;
}

// ---- derivatives in the labels, and tangents, of the mean cross-entropy over n images

// dlabel[n, k] += factor * d loss / d q[n, k] = -factor * log p[n, k] / n
template <class T>
void add_label_gradient(T* dlabel, T factor, const T* logit, int n, int classes) {
  for (int i = 0; i < n; ++i) {
    const T* z = logit + static_cast<std::size_t>(i) * classes;
    const T top = *std::max_element(z, z + classes);
    T total = 0;
    for (int k = 0; k < classes; ++k) total += std::exp(z[k] - top);
    for (int k = 0; k < classes; ++k) dlabel[static_cast<std::size_t>(i) * classes + k] += factor * (std::log(total) - (z[k] - top)) / n;
  }
}

// The same for bits: -factor * logit[n, k] / (n K).
template <class T>
void add_bit_gradient(T* dlabel, T factor, const T* logit, int n, int classes) {
  for (int i = 0; i < n * classes; ++i) dlabel[i] -= factor * logit[i] / (n * classes);
}

// dlogit_t = p_t * sum_j q_j / n, and dlabel_t is the tangent of -log p / n. Both are overwritten. p is scratch of `classes` elements.
template <class T>
void softmax_tangent(T* dlogit_t, T* dlabel_t, const T* logit, const T* logit_t, const T* label, int n, int classes, T* p) {
  for (int i = 0; i < n; ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * classes;
    const T *z = logit + at, *z_t = logit_t + at, *q = label + at;
    const T top = *std::max_element(z, z + classes);
    T total = 0, mass = 0, mean_t = 0;
    for (int k = 0; k < classes; ++k) total += p[k] = std::exp(z[k] - top), mass += q[k];
    for (int k = 0; k < classes; ++k) p[k] /= total, mean_t += p[k] * z_t[k];
    for (int k = 0; k < classes; ++k) {
      dlogit_t[at + k] = p[k] * (z_t[k] - mean_t) * mass / n;
      dlabel_t[at + k] = -(z_t[k] - mean_t) / n;
    }
  }
}

// The same for bits.
template <class T>
void binary_tangent(T* dlogit_t, T* dlabel_t, const T* logit, const T* logit_t, int n, int classes) {
  for (int i = 0; i < n * classes; ++i) {
    const T p = 1 / (1 + std::exp(-logit[i]));
    dlogit_t[i] = p * (1 - p) * logit_t[i] / (n * classes);
    dlabel_t[i] = -logit_t[i] / (n * classes);
  }
}

}  // namespace spd::SPD_ISA
