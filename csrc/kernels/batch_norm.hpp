// Batch norm, ReLU and the sums between the convolutions, fused. Normalised tensors are computed where
// they are read (input.hpp), or stored only to be read there.
//
//   statistics   mean_c = E[y], var_c = E[(y - mean)^2] over images and pixels;  istd = 1 / sqrt(var + eps)
//   forward      z[c] = sum_s relu(gamma_s * (y_s[c] - mean_s) * istd_s + beta_s)          s runs over the terms that meet in channel c, some without ReLU
//   backward     g = [relu's argument > 0] * sum_f d_f[c]                                  f runs over the places where the term was read
//                dbeta = sum g,  dgamma = istd * sum g (y - mean)
//                dy = gamma * istd * (g - dbeta / m - (y - mean) * istd * dgamma / m)      m is the number of pixels in the batch
//
//   tangent      of both, along a change of y, gamma and beta: see the end of the file
//
// (Ioffe and Szegedy 2015, arXiv:1502.03167.) Adds with channel truncation, concatenation and the projected input are all "terms that meet".
// Precision: all is in the element type. Sums are taken of differences from the channel's first pixel,
// so that a mean far from zero does not spoil the variance.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "../plan/grid.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

inline constexpr int kMostTerms = 6;     // five interior predecessors and the projected input
inline constexpr int kMostColumns = 32;  // as many vectors of two lanes are in a row of 64 pixels

// ---- the specification, on (n, c, pixels) arrays

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
void batch_norm_relu_backward_ref(T* dy, T* dgamma, T* dbeta, const T* dz, const T* y, const T* gamma, const T* beta, int n, int channels, int pixels, T eps) {
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

// Masks of the lanes that hold a pixel, for each column of vectors: in a whole block, and in the last block of a batch of n images.
template <class T>
struct LaneMasks {
  mask<T> whole[kMostColumns], last[kMostColumns];
  int whole_blocks;  // blocks that need no mask, as all images are there and rows have no padding
  int columns;
  std::size_t whole_vectors, last_vectors;  // the vectors of a channel that need no mask; the number of vectors before the last block

  LaneMasks(const Grid& grid, int n) : columns(grid.columns) {
    const int blocks = grid.blocks(n), rest = n - (blocks - 1) * grid.images;
    whole_blocks = grid.padded() ? 0 : rest == grid.images ? blocks : blocks - 1;
    whole_vectors = static_cast<std::size_t>(whole_blocks) * grid.vectors(), last_vectors = static_cast<std::size_t>(blocks - 1) * grid.vectors();
    for (int j = 0; j < grid.columns; ++j) {
      whole[j] = mask_of_bits<T>(whole_blocks > 0 ? ~std::uint64_t{0} : grid.valid(j, grid.images));
      last[j] = whole_blocks == blocks ? whole[j] : mask_of_bits<T>(grid.valid(j, rest));
    }
  }
};

// Returns whether each block of a tensor begins where the one before ends.
template <class Tensor>
SPD_INLINE bool is_adjacent(const Tensor& x, const Grid& grid) {
  return x.block == grid.plane();
}

// Calls f(b, until) for the blocks begin..end - 1 in turn. They are taken one by one, but `adjacent` blocks that need no mask all at once.
template <class T, class F>
SPD_INLINE void each_run(const LaneMasks<T>& masks, int begin, int end, bool adjacent, F&& f) {
  for (int b = begin, until; b < end; b = until) {
    until = adjacent && b < masks.whole_blocks ? std::min(end, masks.whole_blocks) : b + 1;
    f(b, until);
  }
}
// Calls f(element offset, lanes that count) for every vector of one channel in the blocks b..until - 1.
template <class T, class F>
SPD_INLINE void each_vector(const Grid& grid, const LaneMasks<T>& masks, int b, int until, int blocks, F&& f) {
  const std::size_t end = grid.plane() * (until - b);
  if (b < masks.whole_blocks) {
    for (std::size_t at = 0; at < end; at += lanes<T>) f(at, all_lanes{});
    return;
  }
  const mask<T>* m = b == blocks - 1 ? masks.last : masks.whole;
  for (std::size_t at = 0; at < end;)
    for (int j = 0; j < grid.columns; ++j, at += lanes<T>) f(at, m[j]);
}
// Takes two sums over those vectors. f(s, q, element offset, lanes that count) adds one vector to both. Every second vector is added to two other sums, which
// do not have to wait for the first.
template <class T, class F>
SPD_INLINE void sum_vectors(vec<T>& s, vec<T>& q, const Grid& grid, const LaneMasks<T>& masks, int b, int until, int blocks, F&& f) {
  vec<T> s0 = s, q0 = q, s1{}, q1{};
  if (b < masks.whole_blocks) {
    const std::size_t end = grid.plane() * (until - b);
    std::size_t at = 0;
    for (; at + lanes<T> < end; at += 2 * lanes<T>) {
      f(s0, q0, at, all_lanes{});
      f(s1, q1, at + lanes<T>, all_lanes{});
    }
    if (at < end) f(s0, q0, at, all_lanes{});
  } else {
    each_vector(grid, masks, b, until, blocks, [&](std::size_t at, auto valid) { f(s0, q0, at, valid); });
  }
  s = s0 + s1, q = q0 + q1;
}

// ---- statistics are taken of every chunk of the batch, and then combined (Chan, Golub and LeVeque 1983)

// Computes mean[c] and deviations[c] = sum (y - mean)^2 of the channels 0..channels - 1 in the blocks begin..end - 1.
template <class T>
void chunk_statistics(T* mean, T* deviations, View<const T> y, const Grid& grid, int n, int begin, int end, int channels) {
  y = y.around(begin);
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  const T m = static_cast<T>(std::min(end * grid.images, n) - begin * grid.images) * grid.pixels();
  constexpr int together = lanes<T> / 2;  // channels, with two sums each
  for (int first = 0; first < channels; first += together) {
    const int count = std::min(together, channels - first);
    vec<T> sums[lanes<T>]{};
    T origin[together], of[lanes<T>];
    for (int c = 0; c < count; ++c) {
      const T* p = y.data + (first + c) * y.channel;
      origin[c] = p[begin * y.block];
      const vec<T> around = broadcast<T>(origin[c]);
      each_run(masks, begin, end, is_adjacent(y, grid), [&](int b, int until) {
        const T* from = p + b * y.block;
        sum_vectors<T>(sums[2 * c], sums[2 * c + 1], grid, masks, b, until, blocks, [=](vec<T>& s, vec<T>& q, std::size_t at, auto valid) {
          const vec<T> d = keep<T>(valid, load(from + at) - around);
          s += d;
          q += d * d;
        });
      });
    }
    store<T>(of, sum_each<T>(sums));
    for (int c = 0; c < count; ++c) {
      const T shift = of[2 * c] / m;
      mean[first + c] = origin[c] + shift;
      deviations[first + c] = of[2 * c + 1] - shift * of[2 * c];
    }
  }
}
// Computes mean and var (biased) of all chunks. The statistics of a chunk begin `apart` elements behind those of the chunk before. No arrays overlap.
template <class T>
void batch_statistics(T* __restrict mean, T* __restrict var, const T* __restrict chunk_mean, const T* __restrict chunk_deviations, std::size_t apart,
                      const Grid& grid, int n, int channels) {
  const int chunks = grid.chunks(n), images = grid.chunk() * grid.images;
  const T pixels = static_cast<T>(n) * grid.pixels();
  const auto each_chunk = [&](auto&& f) {
    for (int k = 0; k < chunks; ++k) f(k * apart, static_cast<T>(std::min(images, n - k * images)) / n);
  };
  for (int c = 0; c < channels; ++c) mean[c] = var[c] = 0;
  each_chunk([=](std::size_t at, T share) {  // differences from the first chunk's means
    for (int c = 0; c < channels; ++c) mean[c] += share * (chunk_mean[at + c] - chunk_mean[c]);
  });
  each_chunk([=](std::size_t at, T share) {
    for (int c = 0; c < channels; ++c) {
      const T d = chunk_mean[at + c] - chunk_mean[c] - mean[c];
      var[c] += chunk_deviations[at + c] / pixels + share * d * d;
    }
  });
  for (int c = 0; c < channels; ++c) {
    mean[c] += chunk_mean[c];
    var[c] = var[c] < 0 ? 0 : var[c];  // NaN stays NaN
  }
}

// ---- forward

// One tensor that is added to a sum. It is read through batch norm (a scale and a shift per channel),
// or as it is where scale is null, and perhaps through ReLU.
template <class T>
struct Term {
  const T* data;  // its blocks follow each other; from block Grid::half on they are `gap` elements further
  std::size_t channel, gap;
  const T* scale;
  const T* shift;
  bool relu;
};

// Returns the value below which nothing passes.
template <class T>
SPD_INLINE vec<T> threshold(bool relu) {
  return broadcast<T>(relu ? T(0) : -std::numeric_limits<T>::infinity());
}

// Adds up the channels first..until - 1, and of each the vectors begin..end - 1, counted over the blocks of the batch. They are all in one slice, the second
// one if `second`. z is where the first of these vectors goes.
template <class T, int K>
SPD_NOINLINE void add_terms(T* z, std::size_t z_channel, const Term<T>* terms, int first, int until, const LaneMasks<T>& masks, std::size_t begin,
                            std::size_t end, bool second) {
  const std::size_t whole = std::clamp(masks.whole_vectors, begin, end);
  for (int c = first; c < until; ++c, z += z_channel) {
    const T* from[K];
    vec<T> scale[K], shift[K], low[K];
    SPD_UNROLL
    for (int s = 0; s < K; ++s) {
      const bool normalised = terms[s].scale != nullptr;
      from[s] = terms[s].data + c * terms[s].channel + begin * lanes<T> + (second ? terms[s].gap : 0);
      scale[s] = broadcast<T>(normalised ? terms[s].scale[c] : T(1));
      shift[s] = broadcast<T>(normalised ? terms[s].shift[c] : T(0));
      low[s] = threshold<T>(terms[s].relu);
    }
    const auto add_up = [&](std::size_t at, auto valid) {
      vec<T> v = at_least<T>(low[0], load(from[0] + at) * scale[0] + shift[0]);
      SPD_UNROLL
      for (int s = 1; s < K; ++s) v += at_least<T>(low[s], load(from[s] + at) * scale[s] + shift[s]);
      store<T>(z + at, keep<T>(valid, v));
    };
    std::size_t at = 0;
    for (; at < (whole - begin) * lanes<T>; at += lanes<T>) add_up(at, all_lanes{});
    for (std::size_t v = whole; v < end; ++v, at += lanes<T>) add_up(at, (v < masks.last_vectors ? masks.whole : masks.last)[v % masks.columns]);
  }
}

// ---- backward

// A tensor from which a part of a term's gradient comes. step is 0 where one vector per channel serves all pixels (global average pooling).
template <class T>
struct Flow : View<const T> {
  int step;
};

// The flows to channel c of block b.
template <class T, int K>
struct Arrivals {
  const T* data[K];
  std::size_t step[K];

  SPD_INLINE Arrivals(const Flow<T>* flows, int b, int c) {
    SPD_UNROLL
    for (int i = 0; i < K; ++i) data[i] = flows[i].at(b, c), step[i] = flows[i].step;
  }
  SPD_INLINE vec<T> sum(std::size_t at) const {
    vec<T> d = load(data[0] + at * step[0]);
    SPD_UNROLL
    for (int i = 1; i < K; ++i) d += load(data[i] + at * step[i]);
    return d;
  }
};

// The backward for channels whose gradients come from the same K tensors. dy overwrites y.
template <class T, int K>
class BatchNormBackward {
 public:
  // scale = gamma * istd and shift are those of the forward. Without relu every pixel passes. sums: [slice][channel][2]; slices are `apart` elements apart.
  BatchNormBackward(View<T> y, const Flow<T>* flows, const T* mean, const T* istd, const T* scale, const T* shift, bool relu, const Grid& grid, int n, T* sums,
                    std::size_t apart)
      : y_(y),
        flows_(flows),
        mean_(mean),
        istd_(istd),
        scale_(scale),
        shift_(shift),
        low_(threshold<T>(relu)),
        grid_(grid),
        blocks_(grid.blocks(n)),
        slices_(grid.slices(blocks_)),
        pixels_(static_cast<T>(n) * grid.pixels()),
        sums_(sums),
        apart_(apart),
        masks_(grid, n),
        adjacent_(is_adjacent(y, grid)) {
    for (int i = 0; i < K; ++i) adjacent_ &= flows[i].step == 1 && is_adjacent(flows[i], grid);
    for (int slice = 0; slice < slices_; ++slice) begin_[slice] = grid.slice_begin(slice);
    begin_[slices_] = blocks_;
  }

  // For the slices first..last - 1 of every channel: add_up sums what flows in, and apply uses the sums
  // of all slices. dgamma and dbeta are written with slice 0.
  SPD_NOINLINE void run(int channels, int first, int last, bool add_up, bool apply, T* dgamma, T* dbeta) const {
    for (int c = 0; c < channels; ++c) {
      for (int slice = first; add_up && slice < last; ++slice) add_up_slice(slice, c);
      if (apply) apply_sums(first, last, c, dgamma[c], dbeta[c]);
    }
  }

 private:
  SPD_INLINE void add_up_slice(int slice, int c) const {
    const vec<T> low = low_, centre = broadcast<T>(mean_[c]), k = broadcast<T>(scale_[c]), k0 = broadcast<T>(shift_[c]);
    vec<T> s{}, q{};
    each_run(masks_, begin_[slice], begin_[slice + 1], adjacent_, [&](int b, int until) {
      const T* py = y_.at(b, c);
      const Arrivals<T, K> arrivals(flows_, b, c);
      sum_vectors<T>(s, q, grid_, masks_, b, until, blocks_, [=](vec<T>& s, vec<T>& q, std::size_t at, auto valid) {
        const vec<T> v = in_register<T>(load(py + at)), d = in_register<T>(arrivals.sum(at));
        const mask<T> passes = both<T>(greater<T>(v * k + k0, low), valid);
        s = add_where<T>(passes, s, d);
        q = add_product_where<T>(passes, q, d, v - centre);
      });
    });
    T* to = sums_ + slice * apart_ + 2 * c;
    to[0] = sum<T>(s), to[1] = sum<T>(q);
  }
  SPD_INLINE void apply_sums(int first, int last, int c, T& dgamma, T& dbeta) const {
    const T* sums = sums_ + 2 * c;
    T s = sums[0], q = sums[1];
    for (int slice = 1; slice < slices_; ++slice) s += sums[slice * apart_], q += sums[slice * apart_ + 1];
    q *= istd_[c];
    if (first == 0) dbeta = s, dgamma = q;
    const T slope = -scale_[c] * istd_[c] * q / pixels_;  // dy = k g + slope (y - mean) - k dbeta / m
    const vec<T> low = low_, k = broadcast<T>(scale_[c]), k0 = broadcast<T>(shift_[c]);
    const vec<T> a = broadcast<T>(slope), a0 = broadcast<T>(-scale_[c] * s / pixels_ - slope * mean_[c]);
    for (int slice = first; slice < last; ++slice)
      each_run(masks_, begin_[slice], begin_[slice + 1], adjacent_, [&](int b, int until) {
        T* py = y_.at(b, c);
        const Arrivals<T, K> arrivals(flows_, b, c);
        each_vector(grid_, masks_, b, until, blocks_, [=](std::size_t at, auto valid) {
          const vec<T> v = in_register<T>(load(py + at));
          const mask<T> passes = greater<T>(v * k + k0, low);
          store<T>(py + at, keep<T>(valid, add_product_where<T>(passes, a * v + a0, arrivals.sum(at), k)));
        });
      });
  }

  const View<T> y_;
  const Flow<T>* flows_;
  const T *mean_, *istd_, *scale_, *shift_;
  const vec<T> low_;
  const Grid& grid_;
  const int blocks_, slices_;
  const T pixels_;
  T* sums_;
  const std::size_t apart_;
  const LaneMasks<T> masks_;
  bool adjacent_;
  int begin_[Grid::kMostSlices + 1];
};

// z = sum of the flows (what a pooling vertex receives), for the blocks begin..end - 1.
template <class T, int K>
SPD_NOINLINE void add_flows(View<T> z, const Flow<T>* flows, const Grid& grid, int n, int begin, int end, int channels) {
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  for (int b = begin; b < end; ++b)
    for (int c = 0; c < channels; ++c) {
      const Arrivals<T, K> arrivals(flows, b, c);
      T* out = z.at(b, c);
      each_vector(grid, masks, b, b + 1, blocks, [=](std::size_t at, auto valid) { store<T>(out + at, keep<T>(valid, arrivals.sum(at))); });
    }
}

// ---- tangents; the tangent of every array in the arena is `apart` elements behind it

// Calls f(b, until) for all blocks of the batch, slice by slice, as each_run does.
template <class T, class F>
SPD_INLINE void each_run_of_all(const Grid& grid, const LaneMasks<T>& masks, int blocks, bool adjacent, F&& f) {
  grid.each_slice(0, blocks, [&](int begin, int end) { each_run(masks, begin, end, adjacent, f); });
}

// mean_t = E[y_t],  var_t = 2 E[(y - mean) y_t]
template <class T>
void batch_statistics_tangent(T* mean_t, T* var_t, View<const T> y, std::ptrdiff_t apart, const T* mean, const Grid& grid, int n, int channels) {
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  const T m = static_cast<T>(n) * grid.pixels();
  for (int c = 0; c < channels; ++c) {
    const T origin = y.at(0, c)[apart];
    const vec<T> centre = broadcast<T>(mean[c]), around = broadcast<T>(origin);
    vec<T> s{}, q{};
    each_run_of_all(grid, masks, blocks, is_adjacent(y, grid), [&](int b, int until) {
      const T* from = y.at(b, c);
      sum_vectors<T>(s, q, grid, masks, b, until, blocks, [=](vec<T>& s, vec<T>& q, std::size_t at, auto valid) {
        const T* v = from + at;
        const vec<T> d = keep<T>(valid, load(v + apart) - around);
        s += d;
        q += d * (load(v) - centre);
      });
    });
    mean_t[c] = origin + sum<T>(s) / m;
    var_t[c] = 2 * sum<T>(q) / m;
  }
}

// The tangents of a term's scale and shift, which are null where the term is read as it is.
template <class T>
struct TermTangent {
  const T* scale;
  const T* shift;
};

// z_t = sum_s [relu's argument > 0] * (scale_t y + scale y_t + shift_t)
template <class T, int K>
SPD_NOINLINE void add_terms_tangent(View<T> z, std::ptrdiff_t apart, const Term<T>* terms, const TermTangent<T>* tangents, const Grid& grid, int n,
                                    int channels) {
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  for (int c = 0; c < channels; ++c) {
    vec<T> scale[K], shift[K], scale_t[K], shift_t[K], low[K];
    SPD_UNROLL
    for (int s = 0; s < K; ++s) {
      const bool normalised = terms[s].scale != nullptr;
      scale[s] = broadcast<T>(normalised ? terms[s].scale[c] : T(1));
      shift[s] = broadcast<T>(normalised ? terms[s].shift[c] : T(0));
      scale_t[s] = broadcast<T>(normalised ? tangents[s].scale[c] : T(0));
      shift_t[s] = broadcast<T>(normalised ? tangents[s].shift[c] : T(0));
      low[s] = threshold<T>(terms[s].relu);
    }
    each_run_of_all(grid, masks, blocks, is_adjacent(z, grid), [&](int b, int until) {
      const T* from[K];
      SPD_UNROLL
      for (int s = 0; s < K; ++s) from[s] = terms[s].data + b * grid.plane() + c * terms[s].channel + (b >= grid.half ? terms[s].gap : 0);
      T* out = z.at(b, c) + apart;
      each_vector(grid, masks, b, until, blocks, [&](std::size_t at, auto valid) {
        vec<T> total{};
        SPD_UNROLL
        for (int s = 0; s < K; ++s) {
          const vec<T> y = load(from[s] + at);
          const vec<T> v_t = y * scale_t[s] + (load(from[s] + at + apart) * scale[s] + shift_t[s]);
          total += keep<T>(greater<T>(y * scale[s] + shift[s], low[s]), v_t);
        }
        store<T>(out + at, keep<T>(valid, total));
      });
    });
  }
}

template <class T>
struct NormStatistics {  // per channel
  const T *mean, *istd, *scale, *shift;
};

// What flows to a channel where its ReLU passes, written to `arrived` block by block, and the sums over the batch that the backward pass takes of it; its tangent
// is `room` elements behind.
template <class T>
struct Arrived {
  T* arrived;
  std::size_t room;
  T sum, centred, sum_t, centred_t;
};
template <class T, int K>
SPD_NOINLINE void arrive_tangent(Arrived<T>& to, View<const T> y, std::ptrdiff_t apart, const Flow<T>* flows, const NormStatistics<T>& norm, const T* mean_t,
                                 bool relu, const Grid& grid, const LaneMasks<T>& masks, int blocks, int c) {
  bool adjacent = is_adjacent(y, grid);
  Flow<T> flows_t[K];
  for (int i = 0; i < K; ++i) {
    adjacent &= flows[i].step == 1 && is_adjacent(flows[i], grid);
    flows_t[i] = flows[i], flows_t[i].data += apart;
  }
  const vec<T> k = broadcast<T>(norm.scale[c]), k0 = broadcast<T>(norm.shift[c]), low = threshold<T>(relu);
  const vec<T> centre = broadcast<T>(norm.mean[c]), centre_t = broadcast<T>(mean_t[c]);
  vec<T> s{}, q{}, s_t{}, q_t{};
  each_run_of_all(grid, masks, blocks, adjacent, [&](int b, int until) {
    const T* py = y.at(b, c);
    T *g_to = to.arrived + b * grid.plane(), *g_t_to = g_to + to.room;
    const Arrivals<T, K> arrivals(flows, b, c), arrivals_t(flows_t, b, c);
    each_vector(grid, masks, b, until, blocks, [&](std::size_t at, auto valid) {
      const vec<T> v = load(py + at), d = v - centre;
      const mask<T> passes = greater<T>(v * k + k0, low);
      const vec<T> g = keep<T>(valid, keep<T>(passes, arrivals.sum(at)));
      const vec<T> g_t = keep<T>(valid, keep<T>(passes, arrivals_t.sum(at)));
      store<T>(g_to + at, g);
      store<T>(g_t_to + at, g_t);
      s += g;
      q += g * d;
      s_t += g_t;
      q_t += g_t * d + keep<T>(valid, g * (load(py + at + apart) - centre_t));
    });
  });
  to.sum = sum<T>(s), to.centred = sum<T>(q), to.sum_t = sum<T>(s_t), to.centred_t = sum<T>(q_t);
}

// Returns the elements of scratch that the backward takes for its tangent.
inline std::size_t backward_tangent_scratch(const Grid& grid, int n) { return 2 * grid.blocks(n) * grid.plane(); }

// dy overwrites y, and dy_t overwrites y_t. What flows in comes from `sources` tensors, at most kMost.
template <class T, int kMost>
void batch_norm_relu_backward_tangent(View<T> y, std::ptrdiff_t apart, T* dgamma_t, T* dbeta_t, const Flow<T>* flows, int sources,
                                      const NormStatistics<T>& norm, const NormStatistics<T>& norm_t, bool relu, T* scratch, const Grid& grid, int n,
                                      int channels) {
  const LaneMasks<T> masks(grid, n);
  const int blocks = grid.blocks(n);
  const T m = static_cast<T>(n) * grid.pixels();
  const std::size_t room = blocks * grid.plane();
  for (int c = 0; c < channels; ++c) {
    Arrived<T> in{scratch, room, 0, 0, 0, 0};
    with_constant<kMost>(sources, [&]<int K>() { arrive_tangent<T, K>(in, y, apart, flows, norm, norm_t.mean, relu, grid, masks, blocks, c); });
    const T istd = norm.istd[c], istd_t = norm_t.istd[c], scale = norm.scale[c], scale_t = norm_t.scale[c];
    const T beta = in.sum, gamma = istd * in.centred;
    dbeta_t[c] = in.sum_t;
    dgamma_t[c] = istd_t * in.centred + istd * in.centred_t;
    // dy = scale g + slope (y - mean) + level
    const T slope = -scale * istd * gamma / m, level = -scale * beta / m;
    const T slope_t = -(scale_t * istd * gamma + scale * istd_t * gamma + scale * istd * dgamma_t[c]) / m;
    const T level_t = -(scale_t * beta + scale * dbeta_t[c]) / m;
    const vec<T> k = broadcast<T>(scale), k_t = broadcast<T>(scale_t), centre = broadcast<T>(norm.mean[c]), centre_t = broadcast<T>(norm_t.mean[c]);
    const vec<T> a = broadcast<T>(slope), a_t = broadcast<T>(slope_t), l = broadcast<T>(level), l_t = broadcast<T>(level_t);
    each_run_of_all(grid, masks, blocks, is_adjacent(y, grid), [&](int b, int until) {
      T* py = y.at(b, c);
      const T* from = scratch + b * grid.plane();
      each_vector(grid, masks, b, until, blocks, [=](std::size_t at, auto valid) {
        const vec<T> g = load(from + at), g_t = load(from + at + room);
        const vec<T> v = load(py + at) - centre, v_t = load(py + at + apart) - centre_t;
        store<T>(py + at, keep<T>(valid, k * g + (a * v + l)));
        store<T>(py + at + apart, keep<T>(valid, k_t * g + k * g_t + (a_t * v + a * v_t) + l_t));
      });
    });
  }
}

}  // namespace spd::SPD_ISA
