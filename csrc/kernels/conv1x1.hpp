// conv1x1: a matrix product over channels at every pixel.
//
//   forward   y[n, o, p]  = sum_i k[o, i] * x[n, i, p]
//   dgrad     dx[n, i, p] = sum_o k[o, i] * dy[n, o, p]      the forward with the matrix turned
//   wgrad     dk[o, i]    = sum_{n, p} dy[n, o, p] * x[n, i, p]
//
// x, y: views in the row-vector layout; k: (c_out, c_in). y and dk are overwritten; nothing aliases.
// `accumulate` adds to y (tangents: conv3x3.hpp). Precondition: lanes without a pixel are zero in dy. Precision: element type, one chain of fused multiply-adds per output.
// The specification is conv_forward_ref / conv_backward_ref with size 1 (conv3x3.hpp).
#pragma once

#include "../team.hpp"
#include "conv3x3.hpp"

namespace spd::SPD_ISA {

inline constexpr int kPixels = kManyRegisters ? 4 : 2, kBlock1x1 = 6;  // vectors of kBlock1x1 output channels that are kept in registers

// k -> [channel block][c_in][channel of the block]; `turned` packs the weights of dgrad.
template <class T>
void conv1x1_pack(T* packed, const T* k, int c_in, int c_out, bool turned) {
  const int parts = parts_of(c_out, kBlock1x1);
  for (int p = 0; p < parts; ++p)
    for (int i = 0; i < c_in; ++i)
      for (int o = part_begin(c_out, parts, p); o < part_begin(c_out, parts, p + 1); ++o)
        *packed++ = turned ? k[static_cast<std::size_t>(i) * c_out + o] : k[static_cast<std::size_t>(o) * c_in + i];
}

template <class T, int C, int R>
SPD_INLINE void conv1x1_tile(T* y, std::size_t y_channel, const T* x, std::size_t x_channel, int c_in, const T* k, bool accumulate) {
  vec<T> acc[C][R]{};
  if (accumulate) SPD_UNROLL
  for (int c = 0; c < C; ++c) SPD_UNROLL
  for (int r = 0; r < R; ++r) acc[c][r] = load<T>(y + c * y_channel + r * lanes<T>);
#pragma GCC unroll 2
  for (int i = 0; i < c_in; ++i, x += x_channel, k += C) {
    vec<T> in[R];
    SPD_UNROLL
    for (int r = 0; r < R; ++r) in[r] = load<T>(x + r * lanes<T>);
    SPD_UNROLL
    for (int c = 0; c < C; ++c) {
      const vec<T> tap = broadcast<T>(k[c]);
      SPD_UNROLL
      for (int r = 0; r < R; ++r) acc[c][r] += in[r] * tap;
    }
  }
  SPD_UNROLL
  for (int c = 0; c < C; ++c, y = from_here(y + y_channel)) SPD_UNROLL
  for (int r = 0; r < R; ++r) store(y + r * lanes<T>, acc[c][r]);
}
template <class T, int C>
SPD_NOINLINE void conv1x1_plane(T* y, std::size_t y_channel, const T* x, std::size_t x_channel, int vectors, int c_in, const T* k, bool accumulate) {
  int v = 0;
  for (; v + kPixels <= vectors; v += kPixels) conv1x1_tile<T, C, kPixels>(y + v * lanes<T>, y_channel, x + v * lanes<T>, x_channel, c_in, k, accumulate);
  with_constant<kPixels - 1>(vectors - v,
                             [&]<int R>() { conv1x1_tile<T, C, R>(y + v * lanes<T>, y_channel, x + v * lanes<T>, x_channel, c_in, k, accumulate); });
}
template <class T>
void conv1x1_forward(View<T> y, View<const T> x, const T* packed, const Grid& grid, int begin, int end, int c_in, int c_out, bool accumulate = false) {
  const int parts = parts_of(c_out, kBlock1x1);
  for (int b = begin; b < end; ++b) {
    const T* k = packed;
    for (int p = 0; p < parts; ++p) {
      const int first = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - first;
      with_constant<kBlock1x1>(size, [&]<int C>() {
        conv1x1_plane<T, C>(y.data + b * y.block + first * y.channel, y.channel, x.data + b * x.block, x.channel, grid.vectors(), c_in, k, accumulate);
      });
      k += static_cast<std::size_t>(size) * c_in;
    }
  }
}

// ---- wgrad: kWgradOut x kWgradIn entries of dk stay in registers over the whole batch

inline constexpr int kWgradOut = kManyRegisters ? 6 : 4, kWgradIn = kManyRegisters ? 4 : 3;

// acc[i * B + j] += channel i of dy times channel j of x, vector by vector.
template <class T, int A, int B>
SPD_INLINE void add_outer_products(vec<T> (&acc)[A * B], const T* dy, std::size_t dy_channel, const T* x, std::size_t x_channel, int vectors) {
  for (int v = 0; v < vectors; ++v, x += lanes<T>, dy += lanes<T>) {
    vec<T> in[B];
    SPD_UNROLL
    for (int j = 0; j < B; ++j) in[j] = in_register<T>(load<T>(x + j * x_channel));
    SPD_UNROLL
    for (int i = 0; i < A; ++i) {
      const vec<T> d = in_register<T>(load<T>(dy + i * dy_channel));
      SPD_UNROLL
      for (int j = 0; j < B; ++j) acc[i * B + j] += in[j] * d;
    }
  }
}
template <class T, int A, int B>
SPD_NOINLINE void conv1x1_wgrad_block(T* dk, int c_in, View<const T> dy, View<const T> x, const Grid& grid, int begin, int end) {
  vec<T> acc[A * B]{};
  for (int b = begin; b < end; ++b) add_outer_products<T, A, B>(acc, dy.data + b * dy.block, dy.channel, x.data + b * x.block, x.channel, grid.vectors());
  T sums[A * B];
  sum_lanes<T, A * B>(sums, acc);
  for (int i = 0; i < A; ++i)
    for (int j = 0; j < B; ++j) dk[static_cast<std::size_t>(i) * c_in + j] = sums[i * B + j];
}
// scratch: dk of every slice but the first.
template <class T>
void conv1x1_wgrad(T* dk, View<const T> dy, View<const T> x, T* scratch, const Grid& grid, int blocks, int c_in, int c_out, Team& team) {
  const int slices = grid.slices(blocks), parts_o = parts_of(c_out, kWgradOut), parts_i = parts_of(c_in, kWgradIn);
  const std::size_t pairs = static_cast<std::size_t>(c_out) * c_in;
  team.split(slices, parts_o, [&](int slice, int p, int until, int) {
    T* of_slice = slice > 0 ? scratch + (slice - 1) * pairs : dk;
    for (; p < until; ++p)
      for (int q = 0; q < parts_i; ++q) {
        const int o = part_begin(c_out, parts_o, p), n_o = part_begin(c_out, parts_o, p + 1) - o;
        const int i = part_begin(c_in, parts_i, q), n_i = part_begin(c_in, parts_i, q + 1) - i;
        with_constant<kWgradOut>(n_o, [&]<int A>() {
          with_constant<kWgradIn>(n_i, [&]<int B>() {
            conv1x1_wgrad_block<T, A, B>(of_slice + static_cast<std::size_t>(o) * c_in + i, c_in, {dy.data + o * dy.channel, dy.block, dy.channel},
                                         {x.data + i * x.channel, x.block, x.channel}, grid, grid.slice_begin(blocks, slice), grid.slice_end(blocks, slice));
          });
        });
      }
  });
  for (int slice = 1; slice < slices; ++slice)
    for (std::size_t j = 0; j < pairs; ++j) dk[j] += scratch[(slice - 1) * pairs + j];
}

}  // namespace spd::SPD_ISA
