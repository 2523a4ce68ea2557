// conv3x3 by Winograd's F(4, 3) along columns. It computes four rows of output with six multiplications instead of twelve, so 18 multiply-adds for four pixels
// where direct takes 36. Rows are vectors, so the transforms are plain vector arithmetic. Along a row the three taps stay direct.
//
//   y = A^T [ (G k) . (B^T x) ]      x is six rows, k the three taps of a column, y four rows            (Lavin and Gray 2016, arXiv:1509.09308)
//
//   B^T x    = (4 x0 - 5 x2 + x4,  -4 (x1 + x2) + x3 + x4,  4 (x1 - x2) - x3 + x4,  -2 x1 - x2 + 2 x3 + x4,  2 x1 - x2 - 2 x3 + x4,  4 x1 - 5 x3 + x5)
//   G k      = (k0 / 4,  -(k0 + k1 + k2) / 6,  -(k0 - k1 + k2) / 6,  (k0 + 2 k1 + 4 k2) / 24,  (k0 - 2 k1 + 4 k2) / 24,  k2)
//   A^T m    = (m0 + m1 + m2 + m3 + m4,  m1 - m2 + 2 (m3 - m4),  m1 + m2 + 4 (m3 + m4),  m1 - m2 + 8 (m3 - m4) + m5)
//   wgrad    dk = G^T sum over tiles (A dy) . (B^T x)
//
// Arrays and preconditions are those of conv3x3.hpp. Besides, the height is a multiple of 4, and a row takes one vector or, where vectors have two lanes, a
// number of vectors that divides kTiles (`Grid::fits_winograd`). Precision: all is in the element type. The transforms round about two to four times as much as
// direct: the largest relative error is 0.4e-6 to 3.0e-6 in float.
#pragma once

#include "../threads/team.hpp"
#include "conv3x3.hpp"

namespace spd::SPD_ISA {

// kTiles vectors of four rows are transformed together. Products with kBlockWinograd output channels are added up in as many registers as the two multiply to.
inline constexpr int kTiles = 4, kBlockWinograd = kManyRegisters ? 6 : 3;

template <class T>
SPD_INLINE void transform_input(vec<T> (&o)[6], vec<T> x0, vec<T> x1, vec<T> x2, vec<T> x3, vec<T> x4, vec<T> x5) {
  const vec<T> two = broadcast<T>(2), four = broadcast<T>(4), five = broadcast<T>(5);
  const vec<T> even = x4 - four * x2, odd = x3 - four * x1, even2 = x4 - x2, odd2 = x3 - x1;
  o[0] = four * x0 + (x4 - five * x2);
  o[1] = even + odd;
  o[2] = even - odd;
  o[3] = even2 + two * odd2;
  o[4] = even2 - two * odd2;
  o[5] = four * x1 + (x5 - five * x3);
}
template <class T>
SPD_INLINE void transform_output(vec<T> (&y)[4], const vec<T> (&m)[6]) {
  const vec<T> s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
  y[0] = m[0] + s + s2;
  y[1] = d + broadcast<T>(2) * d2;
  y[2] = s + broadcast<T>(4) * s2;
  y[3] = d + broadcast<T>(8) * d2 + m[5];
}
template <class T>
SPD_INLINE void transform_dy(vec<T> (&o)[6], vec<T> y0, vec<T> y1, vec<T> y2, vec<T> y3) {  // A y
  const vec<T> s = y0 + y2, t = y1 + y3, u = y0 + broadcast<T>(4) * y2, v = broadcast<T>(2) * y1 + broadcast<T>(8) * y3;
  o[0] = y0, o[1] = s + t, o[2] = s - t, o[3] = u + v, o[4] = u - v, o[5] = y3;
}

template <class T, class V>
SPD_INLINE void transform_taps(V (&u)[6], V k0, V k1, V k2) {  // G k, of numbers or vectors of T
  const V ends = (k0 + k2) * (T(-1) / 6), middle = k1 * (T(1) / 6), far = k0 * (T(1) / 24) + k2 * (T(1) / 6), far_middle = k1 * (T(1) / 12);
  u[0] = k0 * (T(1) / 4), u[1] = ends - middle, u[2] = ends + middle, u[3] = far + far_middle, u[4] = far - far_middle, u[5] = k2;
}
template <class T, class V>
SPD_INLINE void gather_taps(V (&k)[3], const V (&u)[6]) {  // G^T u, of numbers or vectors of T
  k[0] = u[0] * (T(1) / 4) - (u[1] + u[2]) * (T(1) / 6) + (u[3] + u[4]) * (T(1) / 24);
  k[1] = (u[2] - u[1]) * (T(1) / 6) + (u[3] - u[4]) * (T(1) / 12);
  k[2] = (u[3] + u[4] - u[1] - u[2]) * (T(1) / 6) + u[5];
}

// Transforms one column of vectors, in the four rows from row h on. Writes the components first .. first + count - 1, which are `stride` elements apart.
template <class T, int first = 0, int count = 6>
SPD_INLINE void transform_tile(T* out, std::size_t stride, const T* x, int h, const Grid& grid) {
  const std::size_t pitch = grid.pitch();
  const T* p = x + h * pitch;
  const vec<T> above = h > 0 ? load<T>(p - pitch) : zeros<T>(), below = h + 4 < grid.height ? load<T>(p + 4 * pitch) : zeros<T>();
  vec<T> o[6];
  transform_input<T>(o, above, load<T>(p), load<T>(p + pitch), load<T>(p + 2 * pitch), load<T>(p + 3 * pitch), below);
  SPD_UNROLL
  for (int k = 0; k < count; ++k) store<T>(out + k * stride, o[first + k]);
}

// Packs k as [channel block][component][c_in][kw][channel of the block]. `turned` packs the weights of dgrad.
template <class T>
void winograd_pack(T* packed, const T* k, int c_in, int c_out, bool turned) {
  const int parts = parts_of(c_out, kBlockWinograd);
  for (int p = 0; p < parts; ++p) {
    const int begin = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - begin;
    const std::size_t component = static_cast<std::size_t>(c_in) * 3 * size;
    for (int i = 0; i < c_in; ++i)
      for (int kw = 0; kw < 3; ++kw)
        for (int o = 0; o < size; ++o) {
          const T* tap =
              turned ? k + (static_cast<std::size_t>(i) * c_out + begin + o) * 9 + 2 - kw : k + (static_cast<std::size_t>(begin + o) * c_in + i) * 9 + kw;
          T u[6];
          transform_taps<T>(u, tap[turned ? 6 : 0], tap[3], tap[turned ? 0 : 6]);
          for (int q = 0; q < 6; ++q) packed[q * component + (i * 3 + kw) * size + o] = u[q];
        }
    packed += 6 * component;
  }
}

// m[component][channel][tile] = sum over c_in and kw of packed * shifted x, for N tiles with S vectors a row and C channels.
template <class T, int C, int N, int S>
SPD_NOINLINE void winograd_multiply(T* m, const T* x, std::size_t component, int c_in, const T* packed, const mask<T>* left, const mask<T>* right) {
  constexpr int V = N * S;
  for (int k = 0; k < 6; ++k, x += component) {
    vec<T> acc[C][V]{};
    const T* in = x;
    for (int i = 0; i < c_in; ++i, in += V * lanes<T>) SPD_UNROLL
    for (int kw = 0; kw < 3; ++kw, packed += C) {
      vec<T> row[V];
      SPD_UNROLL
      for (int v = 0; v < V; ++v) row[v] = load_shifted<T>(in + v * lanes<T>, kw, left[v % S], right[v % S]);
      SPD_UNROLL
      for (int c = 0; c < C; ++c) {
        const vec<T> tap = broadcast<T>(packed[c]);
        SPD_UNROLL
        for (int v = 0; v < V; ++v) acc[c][v] += row[v] * tap;
      }
    }
    SPD_UNROLL
    for (int c = 0; c < C; ++c) SPD_UNROLL
    for (int v = 0; v < V; ++v) store<T>(m + ((k * C + c) * V + v) * lanes<T>, acc[c][v]);
  }
}

// Returns the elements of scratch that the forward takes.
template <class T>
std::size_t winograd_scratch(int c_in) {
  return static_cast<std::size_t>(6 * kTiles * lanes<T>) * (c_in + kBlockWinograd) + 2 * lanes<T>;
}

// The forward for the blocks begin..end - 1 of the batch. It is dgrad where `packed` is turned and the channel counts are exchanged.
template <class T, int S>
void winograd_forward_of(View<T> y, View<const T> x, const T* packed, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out, bool accumulate) {
  const int per_block = grid.height / 4, tiles = (end - begin) * per_block, groups = parts_of(tiles, kTiles / S), parts = parts_of(c_out, kBlockWinograd);
  const std::size_t pitch = grid.pitch();
  mask<T> left[S], right[S];
  for (int j = 0; j < S; ++j) left[j] = mask_of_bits<T>(grid.has_left(j)), right[j] = mask_of_bits<T>(grid.has_right(j));
  T* transformed = scratch + lanes<T>;
  for (int group = 0; group < groups; ++group) {
    const int first = part_begin(tiles, groups, group);
    with_constant<kTiles / S>(part_begin(tiles, groups, group + 1) - first, [&]<int N>() {
      constexpr int V = N * S;
      const std::size_t component = static_cast<std::size_t>(c_in) * V * lanes<T>;
      T* m = transformed + 6 * component + lanes<T>;
      const auto place = [&](int tile) { return std::pair{begin + (first + tile) / per_block, (first + tile) % per_block * 4}; };  // block, row
      for (int i = 0; i < c_in; ++i)
        for (int n = 0; n < N; ++n) {
          const auto [block, h] = place(n);
          for (int j = 0; j < S; ++j)
            transform_tile<T>(transformed + (i * V + n * S + j) * lanes<T>, component, x.data + block * x.block + i * x.channel + j * lanes<T>, h, grid);
        }
      const T* k = packed;
      for (int p = 0; p < parts; ++p) {
        const int o = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - o;
        with_constant<kBlockWinograd>(size, [&]<int C>() { winograd_multiply<T, C, N, S>(m, transformed, component, c_in, k, left, right); });
        k += static_cast<std::size_t>(size) * c_in * 18;
        for (int c = 0; c < size; ++c)
          for (int n = 0; n < N; ++n) {
            const auto [block, h] = place(n);
            T* out = y.data + block * y.block + (o + c) * y.channel + h * pitch;
            for (int j = 0; j < S; ++j) {
              vec<T> components[6], rows[4];
              SPD_UNROLL
              for (int q = 0; q < 6; ++q) components[q] = load<T>(m + ((q * size + c) * V + n * S + j) * lanes<T>);
              transform_output<T>(rows, components);
              SPD_UNROLL
              for (int r = 0; r < 4; ++r) {
                T* row = out + r * pitch + j * lanes<T>;
                store<T>(row, accumulate ? load<T>(row) + rows[r] : rows[r]);
              }
            }
          }
      }
    });
  }
}
// Calls f.operator()<S>() for rows of S vectors, which are 1, 2 or 4.
template <class F>
SPD_INLINE void with_columns(const Grid& grid, F&& f) {
  if (grid.columns == 1)
    f.template operator()<1>();
  else if (grid.columns == 2)
    f.template operator()<2>();
  else
    f.template operator()<4>();
}
// The same for the numbers of vectors that rows have where `Grid::fits_winograd` holds.
template <class T, class F>
SPD_INLINE void with_narrow_columns(const Grid& grid, F&& f) {
  if constexpr (lanes<T> < 4)
    with_columns(grid, f);
  else
    f.template operator()<1>();
}
template <class T>
void winograd_forward(View<T> y, View<const T> x, const T* packed, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out, bool accumulate) {
  with_narrow_columns<T>(grid, [&]<int S>() { winograd_forward_of<T, S>(y, x, packed, scratch, grid, begin, end, c_in, c_out, accumulate); });
}

// ---- wgrad: kWide output x kNarrow input channels x 3 taps of one component stay in registers over the whole batch

inline constexpr int kWide = kManyRegisters ? 4 : 2, kNarrow = kManyRegisters ? 2 : 1;

template <class T, int A, int B, int S>
SPD_NOINLINE void winograd_wgrad_block(T* out, const T* dy, std::size_t dy_channel, const T* x, std::size_t x_channel, int vectors, const mask<T>* left,
                                       const mask<T>* right) {
  vec<T> acc[A * B * 3]{};
  for (int v = 0; v < vectors; v += S) SPD_UNROLL
  for (int j = 0; j < S; ++j, x += lanes<T>, dy += lanes<T>) {
    vec<T> d[A];
    SPD_UNROLL
    for (int a = 0; a < A; ++a) d[a] = in_register<T>(load<T>(dy + a * dy_channel));
    SPD_UNROLL
    for (int b = 0; b < B; ++b) SPD_UNROLL
    for (int kw = 0; kw < 3; ++kw) {
      const vec<T> in = load_shifted<T>(x + b * x_channel, kw, left[j], right[j]);
      SPD_UNROLL
      for (int a = 0; a < A; ++a) acc[(a * B + b) * 3 + kw] += in * d[a];
    }
  }
  sum_lanes<T, A * B * 3>(out, acc);
}

// Half of the components are transformed and multiplied together, so that the transformed planes stay in the cache.
inline constexpr int kTogether = 3;

// Returns the elements of one transformed plane, which is `blocks` blocks of one channel and component.
template <class T>
std::size_t winograd_plane(const Grid& grid, int blocks) {
  return static_cast<std::size_t>(blocks) * grid.vectors() / 4 * lanes<T> + lanes<T>;
}
// Returns the elements from component to component. They are an odd number of vectors, for the reason that Grid::strides gives.
template <class T>
std::size_t winograd_component(std::size_t plane, int channels) {
  return (plane / lanes<T> * channels | 1) * lanes<T>;
}
template <class T>
std::size_t winograd_wgrad_scratch(const Grid& grid, int blocks, int c_in, int c_out) {
  const std::size_t plane = winograd_plane<T>(grid, blocks);
  return kTogether * (winograd_component<T>(plane, c_in) + winograd_component<T>(plane, c_out)) + 18 * static_cast<std::size_t>(c_in) * c_out + 4 * lanes<T>;
}

template <class T>
void winograd_wgrad(T* dk, View<const T> dy, View<const T> x, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out, Team& team) {
  const std::size_t pitch = grid.pitch(), plane = winograd_plane<T>(grid, end - begin);
  const std::size_t x_component = winograd_component<T>(plane, c_in), y_component = winograd_component<T>(plane, c_out);
  const int vectors = (end - begin) * grid.vectors() / 4;
  T *xt = scratch + lanes<T>, *yt = xt + kTogether * x_component, *u = yt + kTogether * y_component + lanes<T>;  // u: [component][c_out][c_in][kw]
  const auto each_tile = [&](auto f) {
    int v = 0;
    for (int b = begin; b < end; ++b)
      for (int h = 0; h < grid.height; h += 4)
        for (int j = 0; j < grid.columns; ++j, ++v) f(b, h, j, v * lanes<T>);
  };
  const auto transform = [&]<int first>(int channel) {  // the channels of x come first, then those of dy
    if (const int i = channel; i < c_in)
      each_tile(
          [&](int b, int h, int j, int at) { transform_tile<T, first, kTogether>(xt + i * plane + at, x_component, x.at(b, i) + j * lanes<T>, h, grid); });
    else
      each_tile([&, o = channel - c_in](int b, int h, int j, int at) {
        const T* p = dy.at(b, o) + h * pitch + j * lanes<T>;
        vec<T> t[6];
        transform_dy<T>(t, load<T>(p), load<T>(p + pitch), load<T>(p + 2 * pitch), load<T>(p + 3 * pitch));
        SPD_UNROLL
        for (int k = 0; k < kTogether; ++k) store<T>(yt + o * plane + at + k * y_component, t[first + k]);
      });
  };
  const int parts_o = parts_of(c_out, kWide), parts_i = parts_of(c_in, kNarrow);
  with_narrow_columns<T>(grid, [&]<int S>() {
    mask<T> left[S], right[S];
    for (int j = 0; j < S; ++j) left[j] = mask_of_bits<T>(grid.has_left(j)), right[j] = mask_of_bits<T>(grid.has_right(j));
    const auto multiply = [&](int first, int k, int p) {
      for (int q = 0; q < parts_i; ++q) {
        const int o = part_begin(c_out, parts_o, p), n_o = part_begin(c_out, parts_o, p + 1) - o;
        const int i = part_begin(c_in, parts_i, q), n_i = part_begin(c_in, parts_i, q + 1) - i;
        T sums[kWide * kNarrow * 3];
        with_constant<kWide>(n_o, [&]<int A>() {
          with_constant<kNarrow>(n_i, [&]<int B>() {
            winograd_wgrad_block<T, A, B, S>(sums, yt + k * y_component + o * plane, plane, xt + k * x_component + i * plane, plane, vectors, left, right);
          });
        });
        for (int a = 0; a < n_o; ++a)
          for (int b = 0; b < n_i * 3; ++b) u[((static_cast<std::size_t>(first + k) * c_out + o + a) * c_in + i) * 3 + b] = sums[a * n_i * 3 + b];
      }
    };
    const auto pass = [&]<int first>() {
      team.split(c_in + c_out, [&](int channel, int until, int) {
        for (; channel < until; ++channel) transform.template operator()<first>(channel);
      });
      team.split(kTogether * parts_o, [&](int j, int until, int) {
        for (; j < until; ++j) multiply(first, j / parts_o, j % parts_o);
      });
    };
    pass.template operator()<0>();
    pass.template operator()<kTogether>();
  });
  const std::size_t component = static_cast<std::size_t>(c_out) * c_in * 3;
  for (std::size_t oi = 0; oi < static_cast<std::size_t>(c_out) * c_in; ++oi)
    for (int kw = 0; kw < 3; ++kw) {
      T t[6], taps[3];
      for (int q = 0; q < 6; ++q) t[q] = u[q * component + oi * 3 + kw];
      gather_taps<T>(taps, t);
      for (int kh = 0; kh < 3; ++kh) dk[oi * 9 + kh * 3 + kw] = taps[kh];
    }
}

}  // namespace spd::SPD_ISA
