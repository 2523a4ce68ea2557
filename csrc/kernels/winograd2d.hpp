// conv3x3 by Winograd's F(4 x 4, 3 x 3), with the transforms of winograd.hpp along columns and along rows. A
// tile of 4 x 4 pixels takes 36 multiply-adds, where direct takes 144.
//
//   forward  Y  = A^T [ (G k G^T) . (B^T X B) ] A        X: 6 x 6 pixels, k: 3 x 3 taps, Y: 4 x 4 pixels           (Lavin and Gray 2016, arXiv:1509.09308)
//   wgrad    dk = G^T [ sum over tiles (A dY A^T) . (B^T X B) ] G                                                   (winograd2d_wgrad.hpp)
//
// Arrays and preconditions are those of winograd.hpp. Besides, an image row takes at least four lanes (`Grid::fits_winograd2d`). Precision: all is in the
// element type. The transforms round 2 to 15 times as much as direct (root mean square). The largest error,
// relative to the largest value, is 1.1e-6 to 9.3e-6 in float.
#pragma once

#include "winograd2d_tiles.hpp"

namespace spd::SPD_ISA {

inline constexpr int kForwardRows = 8;  // tile rows (an even number) that are transformed together

// ---- with few input channels, one output channel is computed at a time

// The forward for one output channel. k points to its taps in the first plane; k_channel and k_plane
// are the elements between input channels and between planes.
template <class T, int S, int I>
SPD_NOINLINE void forward_of_few(T* y, const TilePlanes<T>& x, const T* k, std::size_t k_channel, std::size_t k_plane, int pairs, const TileRows* to,
                                 const Grid& grid, bool accumulate) {
  const std::size_t both = x.both();
  vec<T> taps[6][I], last[kForwardRows / 2 * S][4];
  const auto take_taps = [&](int odd) {
    SPD_UNROLL
    for (int q = 0; q < 6; ++q) SPD_UNROLL
    for (int i = 0; i < I; ++i) taps[q][i] = fours<T>(k + (2 * q + odd) * k_plane + i * k_channel);
  };
  const auto along_rows = [&](vec<T>(&o)[4], const T* p, std::size_t channel) {
    vec<T> in[6];
    SPD_UNROLL
    for (int q = 0; q < 6; ++q, p = from_here(p + both)) {
      in[q] = load<T>(p) * taps[q][0];
      SPD_UNROLL
      for (int i = 1; i < I; ++i) in[q] += load<T>(p + i * channel) * taps[q][i];
    }
    transform_output_row<T>(o, in);
  };
  take_taps(1);
  for (int v = 0; v < pairs * S; ++v) along_rows(last[v], x.at(1, 0) + v * lanes<T>, x.channel(1));
  take_taps(0);
  for (int pair = 0; pair < pairs; ++pair)
    transform_output_planes<T, S>(y, pair, to[pair], grid, accumulate, [&](vec<T>(&o)[4], int odd, int v) {
      if (!odd) return along_rows(o, x.at(0, 0) + v * lanes<T>, x.channel(0));
      SPD_UNROLL
      for (int h = 0; h < 4; ++h) o[h] = last[v][h];
    });
}

// ---- forward; output channels x vectors of a plane stay in registers, with 16 registers eight sums as in conv1x1.hpp

inline constexpr int kChannels2d = 4, kVectors2d = kManyRegisters ? 6 : 2;

// Computes G k G^T for n <= lanes / 4 output and m <= 4 input channels, whose taps begin `apart` and `next` elements from each other. A group of four lanes holds
// one output channel, and each of its lanes an input channel. Each plane gets four components of each pair of channels; there `size` output channels follow each other.
template <class T, bool turned>
SPD_NOINLINE void transform_taps_planes(T* packed, std::size_t plane, int size, const T* k, std::size_t apart, std::size_t next, int n, int m) {
  vec<T> taps[9], rows[3][6];
  SPD_UNROLL
  for (int first = 0; first <= 8; first += 4) {
    const int column = std::min(first, 5);  // nothing beyond the last tap is read
    vec<T> v[4];
    SPD_UNROLL
    for (int r = 0; r < 4; ++r) v[r] = of_groups<T>(k + std::min(r, m - 1) * next + column, apart, n);
    transpose4<T>(v);
    SPD_UNROLL
    for (int r = first - column; r < 4; ++r) taps[turned ? 8 - column - r : column + r] = v[r];
  }
  SPD_UNROLL
  for (int kh = 0; kh < 3; ++kh) transform_taps<T>(rows[kh], taps[3 * kh], taps[3 * kh + 1], taps[3 * kh + 2]);
  const auto put = [&](T* to, vec<T>(&v)[4]) {
    transpose4<T>(v);
    SPD_UNROLL
    for (int r = 0; r < 4; ++r, to += 4 * size) {
      if (r >= m) continue;
      if (n == lanes<T> / 4)
        store<T>(to, v[r]);
      else
        store_groups<T>(to, 4, v[r], n);
    }
  };
  SPD_UNROLL
  for (int q = 0; q < 6; ++q, packed += 2 * plane) {
    vec<T> t[6];
    transform_taps<T>(t, rows[0][q], rows[1][q], rows[2][q]);
    vec<T> even[4] = {t[0], t[1], t[2], t[3]}, odd[4] = {t[4], t[5], t[4], t[5]};
    put(packed, even);
    put(packed + plane, odd);
  }
}
// Packs k as [channel block][plane][c_in][channel of the block][4], as the input channels first..first + c_in - 1 of `all`. `turned` packs the weights of dgrad.
template <class T, bool turned>
void winograd2d_pack_of(T* packed, const T* k, int c_in, int c_out, int first, int all) {
  constexpr int together = lanes<T> / 4;
  const std::size_t apart = (turned ? 1 : c_in) * std::size_t{9}, next = (turned ? c_out : 1) * std::size_t{9};  // between output and between input channels
  const int parts = parts_of(c_out, kChannels2d);
  for (int p = 0; p < parts; ++p) {
    const int begin = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - begin;
    const std::size_t plane = static_cast<std::size_t>(all) * size * 4;
    for (int i = 0; i < c_in; i += 4)
      for (int c = 0; c < size; c += together)
        transform_taps_planes<T, turned>(packed + ((first + i) * size + c) * 4, plane, size, k + (begin + c) * apart + i * next, apart, next,
                                         std::min(together, size - c), std::min(4, c_in - i));
    packed += kPlanes * plane;
  }
}
template <class T>
void winograd2d_pack(T* packed, const T* k, int c_in, int c_out, bool turned, int first, int all) {
  turned ? winograd2d_pack_of<T, true>(packed, k, c_in, c_out, first, all) : winograd2d_pack_of<T, false>(packed, k, c_in, c_out, first, all);
}

// m[channel][vector] = sum over c_in of packed * x, in one plane, for C channels and V vectors.
template <class T, int C, int V>
SPD_INLINE void winograd2d_tile(T* m, std::size_t m_channel, const T* x, std::size_t x_channel, int c_in, const T* packed) {
  vec<T> acc[C][V]{};
  for (int i = 0; i < c_in; ++i, x += x_channel, packed += 4 * C) {
    vec<T> in[V];
    SPD_UNROLL
    for (int v = 0; v < V; ++v) in[v] = in_register<T>(load<T>(x + v * lanes<T>));
    SPD_UNROLL
    for (int c = 0; c < C; ++c) {
      const vec<T> taps = fours<T>(packed + 4 * c);
      SPD_UNROLL
      for (int v = 0; v < V; ++v) acc[c][v] += in[v] * taps;
    }
  }
  SPD_UNROLL
  for (int c = 0; c < C; ++c) SPD_UNROLL
  for (int v = 0; v < V; ++v) store<T>(m + c * m_channel + v * lanes<T>, acc[c][v]);
}
template <class T, int C>
SPD_NOINLINE void winograd2d_multiply(T* m, std::size_t m_channel, const T* x, std::size_t x_channel, int vectors, int c_in, const T* packed) {
  const int runs = parts_of(vectors, kVectors2d);
  for (int run = 0; run < runs; ++run) {
    const int v = part_begin(vectors, runs, run);
    with_constant<kVectors2d>(part_begin(vectors, runs, run + 1) - v,
                              [&]<int V>() { winograd2d_tile<T, C, V>(m + v * lanes<T>, m_channel, x + v * lanes<T>, x_channel, c_in, packed); });
  }
}

// Returns the elements of scratch that the forward takes.
template <class T>
std::size_t winograd2d_scratch(const Grid& grid, int c_in, bool is_made) {
  return TilePlanes<T>(nullptr, c_in + kChannels2d, kForwardRows, grid.columns).size() + (is_made ? made_size(grid, kForwardRows) : 0);
}

// Some tile rows of the blocks begin..end - 1 that are transformed together: where they are in the input, and in y.
template <class T, int S>
struct RowsTogether {
  int rows, pairs;
  TileRows from[kForwardRows / 2], to[kForwardRows / 2];
  TileBlocks blocks;

  RowsTogether(int first, int all, int begin, int end, std::size_t y_block, const Grid& grid)
      : rows(std::min(kForwardRows, all - first)), pairs((rows + 1) / 2), blocks(first, first + rows, begin, grid) {
    for (int pair = 0; pair < pairs; ++pair)
      from[pair] = {first + 2 * pair, begin, end, grid.plane(), grid}, to[pair] = {first + 2 * pair, begin, end, y_block, grid};
  }
  // Transforms the c_in channels of x to the channels of xt from `at` on.
  SPD_INLINE void transform(const TilePlanes<T>& xt, int at, const Input<T>& x, int c_in, T* room, bool large, const TileNeighbours<T, S>& neighbours,
                            const Grid& grid) const {
    x.each_channel(c_in, blocks.begin, blocks.end, room, [&](int i, const auto& channel, const auto& next) {
      for (int pair = 0; pair < pairs; ++pair) {
        if (large) fetch_rows<T>(next, from[pair], grid);
        transform_input_planes<T, S>(xt, at + i, pair, channel, from[pair], grid, neighbours);
      }
    });
  }
  // Multiplies c_in channels of xt with packed weights, which are k_plane elements apart from plane to plane, and writes `size` channels of y.
  SPD_INLINE void multiply(int size, T* y, std::size_t y_channel, const TilePlanes<T>& m, const TilePlanes<T>& xt, int c_in, const T* k, std::size_t k_plane,
                           const Grid& grid, bool accumulate) const {
    with_constant<kChannels2d>(size, [&]<int C>() {
      for (int plane = 0; plane < kPlanes; ++plane, k += k_plane)
        winograd2d_multiply<T, C>(m.at(plane, 0), m.channel(plane), xt.at(plane, 0), xt.channel(plane), static_cast<int>(xt.vectors[plane % 2]), c_in, k);
    });
    for (int c = 0; c < size; ++c)
      for (int pair = 0; pair < pairs; ++pair) transform_output_channel<T, S>(y + c * y_channel, m, c, pair, to[pair], grid, accumulate);
  }
};

// The forward for the blocks begin..end - 1 of the batch. It is dgrad where `packed` is turned and the channel counts are exchanged.
template <class T, int S>
void winograd2d_forward(View<T> y, const Input<T>& x, const T* packed, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out, bool accumulate) {
  const TileNeighbours<T, S> neighbours(grid);
  const bool large = is_large<T>(grid, x.channel(), c_in);
  const int all = tile_rows(grid, end - begin), parts = parts_of(c_out, kChannels2d);
  for (int first = 0; first < all; first += kForwardRows) {
    const RowsTogether<T, S> rows(first, all, begin, end, y.block, grid);
    const TilePlanes<T> xt(scratch, c_in, rows.rows, S), m(scratch + xt.size(), kChannels2d, rows.rows, S);
    rows.transform(xt, 0, x, c_in, scratch + xt.size() + m.size(), large, neighbours, grid);
    const T* k = packed;
    for (int p = 0; p < parts; ++p) {
      const int o = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - o;
      const std::size_t k_channel = 4 * size, k_plane = k_channel * c_in;
      if (c_in <= kFew) {
        with_constant<kFew>(c_in, [&]<int I>() {
          for (int c = 0; c < size; ++c)
            forward_of_few<T, S, I>(y.data + (o + c) * y.channel, xt, k + 4 * c, k_channel, k_plane, rows.pairs, rows.to, grid, accumulate);
        });
      } else {
        rows.multiply(size, y.data + o * y.channel, y.channel, m, xt, c_in, k, k_plane, grid, accumulate);
      }
      k += kPlanes * k_plane;
    }
  }
}

// The forward of more than kFew channels and its tangent: y = k * x where y is not null, and y_t = k_t * x + k * x_t. x and x_t are transformed once, and the
// two products of y_t are summed before they are transformed back. Packed are k_t and k, as the first and the second c_in of 2 c_in input channels.
template <class T, int S>
void winograd2d_tangent(const View<T>* y, View<T> y_t, View<const T> x, View<const T> x_t, const T* packed, T* scratch, const Grid& grid, int begin, int end,
                        int c_in, int c_out) {
  const TileNeighbours<T, S> neighbours(grid);
  const bool large = is_large<T>(grid, x.channel, c_in);
  const int all = tile_rows(grid, end - begin), parts = parts_of(c_out, kChannels2d);
  for (int first = 0; first < all; first += kForwardRows) {
    const RowsTogether<T, S> rows(first, all, begin, end, y_t.block, grid);
    const TilePlanes<T> xt(scratch, 2 * c_in, rows.rows, S), m(scratch + xt.size(), kChannels2d, rows.rows, S);
    rows.transform(xt, 0, x, c_in, nullptr, large, neighbours, grid);
    rows.transform(xt, c_in, x_t, c_in, nullptr, large, neighbours, grid);
    const T* k = packed;
    for (int p = 0; p < parts; ++p) {
      const int o = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - o;
      const std::size_t half = static_cast<std::size_t>(4) * size * c_in, k_plane = 2 * half;
      rows.multiply(size, y_t.data + o * y_t.channel, y_t.channel, m, xt, 2 * c_in, k, k_plane, grid, false);
      if (y) rows.multiply(size, y->data + o * y->channel, y->channel, m, xt, c_in, k + half, k_plane, grid, false);
      k += kPlanes * k_plane;
    }
  }
}

}  // namespace spd::SPD_ISA
