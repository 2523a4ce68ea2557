// Runs convolutions by the algorithm that the plan chose. Only this file knows which kernel belongs to which algorithm.
#pragma once

#include "../plan/plan.hpp"
#include "../threads/team.hpp"
#include "conv1x1.hpp"
#include "conv3x3.hpp"
#include "conv3x3_channels.hpp"
#include "winograd.hpp"
#include "winograd2d.hpp"
#include "winograd2d_wgrad.hpp"

namespace spd::SPD_ISA {

// These return elements: of the packed weights, of the scratch of a forward from c_in channels, and of the scratch of wgrad.
inline std::size_t conv_packed(Algorithm how, int size, int c_in, int c_out) {
  if (how == Algorithm::channels) return conv3x3_channels_packed(c_in, c_out);
  const int entries = how == Algorithm::direct ? size * size : how == Algorithm::winograd ? 18 : 4 * kPlanes;
  return static_cast<std::size_t>(entries) * c_in * c_out;
}
template <class T>
std::size_t conv_scratch(Algorithm how, const Grid& grid, int size, int c_in, int c_out, bool is_made) {
  if (how == Algorithm::channels) return conv3x3_channels_scratch<T>(grid, c_out);
  if (how == Algorithm::winograd2d) return winograd2d_scratch<T>(grid, c_in, is_made);
  if (how == Algorithm::winograd) return winograd_scratch<T>(c_in);
  return size == 1 ? conv1x1_scratch<T>(grid, c_in, is_made) : 0;
}
// threads: how many may work on it.
template <class T>
std::size_t conv_wgrad_scratch(Algorithm how, const Grid& grid, int blocks, int size, int c_in, int c_out, int threads) {
  if (how == Algorithm::winograd2d) return winograd2d_wgrad_scratch<T>(grid, blocks, c_in, c_out, threads);
  if (how == Algorithm::channels) return conv3x3_channels_wgrad_scratch<T>(grid, blocks, c_out);
  if (how == Algorithm::winograd) return winograd_wgrad_scratch<T>(grid, blocks, c_in, c_out);
  return size == 1 ? conv1x1_wgrad_scratch<T>(grid, blocks, c_in, c_out, threads) : 0;
}

// Calls f.operator()<S>() for rows of S vectors. Vectors of two lanes have no 2-D tiles (Grid::fits_winograd2d).
template <class T, class F>
void with_tile_columns(const Grid& grid, F&& f) {
  if constexpr (lanes<T> >= 4) with_columns(grid, f);
}

// Packs k: (c_out, c_in, size, size). `turned` packs for dgrad; then k is (c_in, c_out, size, size), that of the convolution.
template <class T>
void conv_pack(Algorithm how, T* packed, const T* k, int size, int c_in, int c_out, bool turned) {
  if (how == Algorithm::winograd2d) {
    if constexpr (lanes<T> >= 4) winograd2d_pack<T>(packed, k, c_in, c_out, turned, 0, c_in);
  } else if (how == Algorithm::winograd)
    winograd_pack<T>(packed, k, c_in, c_out, turned);
  else if (how == Algorithm::channels) {
    if constexpr (lanes<T> >= 4) conv3x3_channels_pack<T>(packed, k, c_in, c_out, turned);
  } else if (size == 3)
    conv3x3_pack<T>(packed, k, c_in, c_out, turned);
  else
    conv1x1_pack<T>(packed, k, c_in, c_out, turned);
}
// Runs the blocks begin..end - 1 of the batch, which are in one slice. `accumulate` adds to y. Only 1x1 and 2-D Winograd convolutions can compute x themselves
// (let_sums_pass, plan.cpp).
template <class T>
void conv_run(Algorithm how, View<T> y, std::type_identity_t<Input<T>> x, const T* packed, T* scratch, const Grid& grid, int begin, int end, int size, int c_in,
              int c_out, bool accumulate) {
  x = x.around(begin, grid), y = y.around(begin);
  if (how == Algorithm::winograd2d)
    with_tile_columns<T>(grid, [&]<int S>() { winograd2d_forward<T, S>(y, x, packed, scratch, grid, begin, end, c_in, c_out, accumulate); });
  else if (how == Algorithm::winograd)
    winograd_forward<T>(y, x.view(), packed, scratch, grid, begin, end, c_in, c_out, accumulate);
  else if (how == Algorithm::channels) {
    if constexpr (lanes<T> >= 4) conv3x3_channels_forward<T>(y, x.view(), packed, scratch, grid, begin, end, c_in, c_out, accumulate);
  } else if (size == 3)
    conv3x3_forward<T>(y, x.view(), packed, grid, begin, end, c_in, c_out, accumulate);
  else
    conv1x1_forward<T>(y, x, packed, scratch, grid, begin, end, c_in, c_out, accumulate);
}
// A convolution and its tangent: y = k * x, and y_t = k_t * x + k * x_t. These pack k and k_t, and run the blocks begin..end - 1 of the batch. Where y is null,
// y_t alone is computed.
inline bool multiplies_together(Algorithm how, int c_in) { return how == Algorithm::winograd2d && c_in > kFew; }
template <class T>
void conv_pack_tangent(Algorithm how, T* packed, const T* k, const T* k_t, int size, int c_in, int c_out, bool turned) {
  if (multiplies_together(how, c_in)) {
    if constexpr (lanes<T> >= 4) {
      winograd2d_pack<T>(packed, k_t, c_in, c_out, turned, 0, 2 * c_in);
      winograd2d_pack<T>(packed, k, c_in, c_out, turned, c_in, 2 * c_in);
    }
  } else {
    conv_pack<T>(how, packed, k_t, size, c_in, c_out, turned);
    conv_pack<T>(how, packed + conv_packed(how, size, c_in, c_out), k, size, c_in, c_out, turned);
  }
}
template <class T>
void conv_run_tangent(Algorithm how, const View<T>* y, View<T> y_t, View<const T> x, View<const T> x_t, const T* packed, T* scratch, const Grid& grid,
                      int begin, int end, int size, int c_in, int c_out) {
  if (multiplies_together(how, c_in)) {
    const View<T> here = y ? y->around(begin) : y_t;
    with_tile_columns<T>(grid, [&]<int S>() {
      winograd2d_tangent<T, S>(y ? &here : nullptr, y_t.around(begin), x.around(begin), x_t.around(begin), packed, scratch, grid, begin, end, c_in, c_out);
    });
  } else {
    const T* packed_k = packed + conv_packed(how, size, c_in, c_out);
    conv_run<T>(how, y_t, x, packed, scratch, grid, begin, end, size, c_in, c_out, false);
    conv_run<T>(how, y_t, x_t, packed_k, scratch, grid, begin, end, size, c_in, c_out, true);
    if (y) conv_run<T>(how, *y, x, packed_k, scratch, grid, begin, end, size, c_in, c_out, false);
  }
}
// Computes dk. When no thread needs some blocks of x and dy any more, done(begin, end, rank) is called for them: once for every block of the batch, for blocks
// of one slice at a time, and by several threads of the team at the same time.
template <class T>
void conv_wgrad(Algorithm how, T* dk, View<const T> dy, std::type_identity_t<Input<T>> x, T* scratch, const Grid& grid, int blocks, int size, int c_in,
                int c_out, Team& team, const Hook& done = {}) {
  if (how == Algorithm::winograd2d)
    with_tile_columns<T>(grid, [&]<int S>() { Winograd2dWgrad<T, S>(dy, x, scratch, grid, blocks, c_in, c_out, team.most()).run(dk, team, done); });
  else if (how == Algorithm::direct && size == 1)
    conv1x1_wgrad<T>(dk, dy, x, scratch, grid, blocks, c_in, c_out, team, done);
  else {
    if (how == Algorithm::winograd)
      winograd_wgrad<T>(dk, dy, x.view(), scratch, grid, 0, blocks, c_in, c_out, team);
    else if (how == Algorithm::channels) {
      if constexpr (lanes<T> >= 4) {
        team.split(blocks, [&](int b, int b_end, int) { conv3x3_channels_turn<T>(scratch, dy, grid, b, b_end, c_out); });
        team.split(c_in, [&](int i, int i_end, int) { conv3x3_channels_wgrad<T>(dk, scratch, x.view(), grid, blocks, i, i_end, c_in, c_out); });
      }
    } else
      team.split(c_in, [&](int i, int i_end, int) { conv3x3_wgrad<T>(dk, dy, x.view(), grid, 0, blocks, i, i_end, c_in, c_out); });
    done_with_all(team, grid, blocks, done);
  }
}

}  // namespace spd::SPD_ISA
