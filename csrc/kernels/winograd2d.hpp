// conv3x3 by Winograd's F(4 x 4, 3 x 3): winograd.hpp's transforms along columns and along rows, so 36 multiply-adds a tile of 4 x 4 pixels
// where direct takes 144.
//
//   forward  Y  = A^T [ (G k G^T) . (B^T X B) ] A        X: 6 x 6 pixels, k: 3 x 3 taps, Y: 4 x 4 pixels           (Lavin and Gray 2016, arXiv:1509.09308)
//   wgrad    dk = G^T [ sum over tiles (A dY A^T) . (B^T X B) ] G
//
// Along columns the transforms work on whole rows and leave six vectors of a tile row. Those of two tile rows are transposed by fours: four of the first row,
// four of the second, the two that are left of both. So in a vector lane 4 c + j holds component j of the tile in column c, the transforms along rows work on
// whole vectors again, and what they leave lies in twelve planes, q = 0..5, of vectors of
//
//   plane 2 q        components (0, q), (1, q), (2, q), (3, q)                   of a tile row
//   plane 2 q + 1    components (4, q), (5, q) of a tile row, (4, q), (5, q) of the next
//
// A lane holds one component all the way, so wgrad has little to sum over lanes at the end; and tile rows fill vectors two by two, however few there are.
//
// Of a tensor that L2 does not hold, the same rows of the next channel are fetched before each transform: they are kilobytes away and would come too late.
//
// Arrays and preconditions are those of winograd.hpp; besides, an image row takes at least four lanes (`Grid::fits_winograd2d`). Precision: element type.
// The transforms round 2 to 15 times as much as direct (root mean square): largest error, relative to the largest value, 1.1e-6 to 9.3e-6 in float.
#pragma once

#include "conv1x1.hpp"
#include "winograd.hpp"

namespace spd::SPD_ISA {

inline constexpr int kPlanes = 12;

// Where two tile rows begin, from the tensor's beginning; the second is absent behind the last of a batch.
struct TileRow {
  std::size_t offset;
  bool there, top, bottom;
};
struct TileRows {
  TileRow row[2];

  TileRows() = default;
  // From tile row `first` on, of the blocks begin..end - 1 of a tensor.
  TileRows(int first, int begin, int end, std::size_t block, const Grid& grid) {
    const int per_block = grid.height / 4;
    for (int r = 0; r < 2; ++r) {
      const int b = begin + (first + r) / per_block, h = (first + r) % per_block * 4;
      row[r] = {b * block + h * grid.pitch(), b < end, h == 0, h + 4 == grid.height};
    }
  }
};
// Has two tile rows fetched.
template <class T, class Channel>
void fetch_rows(const Channel& x, const TileRows& rows, const Grid& grid) {
  for (const TileRow& row : rows.row)
    for (std::size_t at = 0; at < 4 * grid.pitch(); at += 64 / sizeof(T)) x.fetch_line(row.offset + at);
}
template <class T>
bool is_large(const Grid& grid, std::size_t channel, int channels) {
  return grid.slices() * channels * channel * sizeof(T) > kHalfL2;
}
inline int tile_rows(const Grid& grid, int blocks) { return blocks * (grid.height / 4); }

// The planes of some channels and tile rows: from channel to channel an odd number of vectors (as of Grid::strides).
template <class T>
struct TilePlanes {
  T* data;
  int channels;
  std::size_t vectors[2];  // of a channel of an even, an odd plane

  TilePlanes(T* data, int channels, int rows, int columns)
      : data(data), channels(channels), vectors{static_cast<std::size_t>(rows * columns), static_cast<std::size_t>((rows + 1) / 2 * columns)} {}
  std::size_t channel(int plane) const { return (vectors[plane % 2] | 1) * lanes<T>; }
  std::size_t both() const { return channels * (channel(0) + channel(1)); }  // elements of two planes
  T* at(int plane, int c) const { return data + plane / 2 * both() + plane % 2 * channels * channel(0) + c * channel(plane); }
  std::size_t size() const { return kPlanes / 2 * both(); }
};

// For every vector of a row: tiles that have one to their left, to their right.
template <class T, int S>
struct TileNeighbours {
  mask<T> left[S], right[S];

  explicit TileNeighbours(const Grid& grid) {
    for (int s = 0; s < S; ++s) {
      const std::uint64_t l = grid.has_left(s), r = grid.has_right(s);
      std::uint64_t has_left = 0, has_right = 0;
      for (int lane = 0; lane < lanes<T>; ++lane) {
        has_left |= (l >> lane / 4 * 4 & 1) << lane;
        has_right |= (r >> (lane / 4 * 4 + 3) & 1) << lane;
      }
      left[s] = mask_of_bits<T>(has_left), right[s] = mask_of_bits<T>(has_right);
    }
  }
};

// Two tile rows of channel c: along_columns(six vectors, row, s), along_rows(part, f) with f(s, six vectors).
template <class T, int S, class Columns, class Rows>
SPD_INLINE void transform_two_rows(const TilePlanes<T>& planes, int c, int pair, const TileRows& rows, Columns&& along_columns, Rows&& along_rows) {
  vec<T> part[3][S][4];
  SPD_UNROLL
  for (int s = 0; s < S; ++s) {
    vec<T> first[6], second[6]{};
    along_columns(first, rows.row[0], s);
    if (rows.row[1].there) along_columns(second, rows.row[1], s);
    SPD_UNROLL
    for (int k = 0; k < 4; ++k) part[0][s][k] = first[k], part[1][s][k] = second[k];
    part[2][s][0] = first[4], part[2][s][1] = first[5], part[2][s][2] = second[4], part[2][s][3] = second[5];
  }
  const std::size_t both = planes.both();
  const auto put = [&](int group, T* to) {
    SPD_UNROLL
    for (int s = 0; s < S; ++s) transpose4<T>(part[group][s]);  // to the four columns of the tiles
    along_rows(part[group], [&](int s, const vec<T>(&o)[6]) {
      SPD_UNROLL
      for (int q = 0; q < 6; ++q) store<T>(to + q * both + s * lanes<T>, o[q]);
    });
  };
  put(0, planes.at(0, c) + 2 * pair * S * lanes<T>);
  if (rows.row[1].there) put(1, planes.at(0, c) + (2 * pair + 1) * S * lanes<T>);
  put(2, planes.at(1, c) + pair * S * lanes<T>);
}
// B^T X B.
template <class T, int S, class Channel>
SPD_NOINLINE void transform_input_planes(const TilePlanes<T>& planes, int c, int pair, const Channel& x, const TileRows& rows, const Grid& grid,
                                         const TileNeighbours<T, S>& neighbours) {
  const std::size_t pitch = grid.pitch();
  transform_two_rows<T, S>(
      planes, c, pair, rows,
      [&](vec<T>(&o)[6], const TileRow& row, int s) {
        const std::size_t p = row.offset + s * lanes<T>;
        const vec<T> above = row.top ? zeros<T>() : x(p - pitch), below = row.bottom ? zeros<T>() : x(p + 4 * pitch);
        transform_input<T>(o, above, x(p), x(p + pitch), x(p + 2 * pitch), x(p + 3 * pitch), below);
      },
      [&](vec<T>(&part)[S][4], auto&& f) {
        SPD_UNROLL
        for (int s = 0; s < S; ++s) {
          const vec<T>(&p)[4] = part[s];
          const vec<T> left = keep<T>(neighbours.left[s], from_left<T, 4>(p[3], s > 0 ? part[s > 0 ? s - 1 : 0][3] : zeros<T>()));
          const vec<T> right = keep<T>(neighbours.right[s], from_right<T, 4>(p[0], s + 1 < S ? part[s + 1 < S ? s + 1 : s][0] : zeros<T>()));
          vec<T> o[6];
          transform_input<T>(o, left, p[0], p[1], p[2], p[3], right);
          f(s, o);
        }
      });
}
// A dY A^T.
template <class T, int S>
SPD_NOINLINE void transform_dy_planes(const TilePlanes<T>& planes, int c, int pair, const T* dy, const TileRows& rows, const Grid& grid) {
  const std::size_t pitch = grid.pitch();
  transform_two_rows<T, S>(
      planes, c, pair, rows,
      [&](vec<T>(&o)[6], const TileRow& row, int s) {
        const T* p = dy + row.offset + s * lanes<T>;
        transform_dy<T>(o, load<T>(p), load<T>(p + pitch), load<T>(p + 2 * pitch), load<T>(p + 3 * pitch));
      },
      [&](vec<T>(&part)[S][4], auto&& f) {
        SPD_UNROLL
        for (int s = 0; s < S; ++s) {
          vec<T> o[6];
          transform_dy<T>(o, part[s][0], part[s][1], part[s][2], part[s][3]);
          f(s, o);
        }
      });
}
// A^T of the six components along a row, turned to the rows of the tiles.
template <class T>
SPD_INLINE void transform_output_row(vec<T> (&o)[4], const vec<T> (&in)[6]) {
  transform_output<T>(o, in);
  transpose4<T>(o);
}
// A^T M A, to the two tile rows of a channel of y. along_rows(o, odd, v): transform_output_row of vector v of M's even, its odd planes.
template <class T, int S, class Rows>
SPD_INLINE void transform_output_planes(T* y, int pair, const TileRows& rows, const Grid& grid, bool accumulate, Rows&& along_rows) {
  const std::size_t pitch = grid.pitch();
  for (int s = 0; s < S; ++s) {
    vec<T> last[4];
    along_rows(last, 1, pair * S + s);
    SPD_UNROLL
    for (int r = 0; r < 2; ++r) {
      if (!rows.row[r].there) continue;
      vec<T> first[4], out[4];
      along_rows(first, 0, (2 * pair + r) * S + s);
      const vec<T> column[6] = {first[0], first[1], first[2], first[3], last[2 * r], last[2 * r + 1]};
      transform_output<T>(out, column);
      T* at = y + rows.row[r].offset + s * lanes<T>;
      SPD_UNROLL
      for (int h = 0; h < 4; ++h, at += pitch) store<T>(at, accumulate ? load<T>(at) + out[h] : out[h]);
    }
  }
}
template <class T, int S>
SPD_NOINLINE void transform_output_channel(T* y, const TilePlanes<T>& m, int c, int pair, const TileRows& rows, const Grid& grid, bool accumulate) {
  const T* from[2] = {m.at(0, c), m.at(1, c)};
  const std::size_t both = m.both();
  transform_output_planes<T, S>(y, pair, rows, grid, accumulate, [&](vec<T>(&o)[4], int odd, int v) {
    vec<T> in[6];
    SPD_UNROLL
    for (int q = 0; q < 6; ++q) in[q] = load<T>(from[odd] + q * both + v * lanes<T>);
    transform_output_row<T>(o, in);
  });
}

// ---- few input channels, as a stem has: what is done for one output channel at a time costs more than the products, so nothing transformed but x goes through
// memory

inline constexpr int kFew = 3, kFewWgrad = kManyRegisters ? 3 : 1;
inline constexpr int kForwardRows = 8;  // tile rows that are transformed together; even

// Forward of one output channel. k: its taps in the first plane; from input channel to input channel, from plane to plane so many elements.
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
// u[plane][..][component] (+)= sum over tiles of dy * x, of one output channel; from plane to plane u_plane elements.
template <class T, int S, int I>
SPD_NOINLINE void wgrad_of_few(T* u, std::size_t u_plane, const T* dy, const TilePlanes<T>& x, int pairs, const TileRows* rows, const Grid& grid, bool add) {
  const T* from[2] = {x.at(0, 0), x.at(1, 0)};
  const std::size_t both = x.both(), channel[2] = {x.channel(0), x.channel(1)}, pitch = grid.pitch();
  const auto along_columns = [&](vec<T>(&o)[6], const TileRow& row, int s) {
    const T* p = dy + row.offset + s * lanes<T>;
    transform_dy<T>(o, load<T>(p), load<T>(p + pitch), load<T>(p + 2 * pitch), load<T>(p + 3 * pitch));
  };
  const auto add_products = [&](vec<T>(&acc)[6][I], vec<T>(&part)[4], int odd, int v) {
    transpose4<T>(part);
    vec<T> o[6];
    transform_dy<T>(o, part[0], part[1], part[2], part[3]);
    const T* p = from[odd] + v * lanes<T>;
    SPD_UNROLL
    for (int q = 0; q < 6; ++q, p = from_here(p + both)) SPD_UNROLL
    for (int i = 0; i < I; ++i) acc[q][i] += load<T>(p + i * channel[odd]) * o[q];
  };
  const auto put = [&](vec<T>(&acc)[6][I], int odd) {
    SPD_UNROLL
    for (int q = 0; q < 6; ++q) sum_fours<T, I>(u + (2 * q + odd) * u_plane, acc[q], add);
  };
  vec<T> first[6][I]{}, last[6][I]{};
  for (int pair = 0; pair < pairs; ++pair)
    for (int r = 0; r < 2 && rows[pair].row[r].there; ++r)
      for (int s = 0; s < S; ++s) {
        vec<T> o[6];
        along_columns(o, rows[pair].row[r], s);
        vec<T> part[4] = {o[0], o[1], o[2], o[3]};
        add_products(first, part, 0, (2 * pair + r) * S + s);
      }
  put(first, 0);
  for (int pair = 0; pair < pairs; ++pair)
    for (int s = 0; s < S; ++s) {
      vec<T> upper[6], lower[6]{};
      along_columns(upper, rows[pair].row[0], s);
      if (rows[pair].row[1].there) along_columns(lower, rows[pair].row[1], s);
      vec<T> part[4] = {upper[4], upper[5], lower[4], lower[5]};
      add_products(last, part, 1, pair * S + s);
    }
  put(last, 1);
}

// ---- forward: output channels x vectors of a plane stay in registers

inline constexpr int kChannels2d = 4, kVectors2d = kManyRegisters ? 6 : 3;

// G k G^T of n channels, n <= lanes / 4, whose taps begin `apart` from each other; of a plane the four components of each.
template <class T, int n, bool turned>
SPD_INLINE void transform_taps_planes(T* packed, std::size_t plane, const T* k, std::size_t apart) {
  alignas(64) static constexpr T u = T(1) / 4, v = T(1) / 6, w = T(1) / 12, z = T(1) / 24,
                                 g[2][3][4] = {{{u, -v, -v, z}, {0, -v, v, w}, {0, -v, -v, v}}, {{z, 0, z, 0}, {-w, 0, -w, 0}, {v, 1, v, 1}}};
  vec<T> columns[2][3];
  SPD_UNROLL
  for (int kw = 0; kw < 3; ++kw) {
    vec<T> taps[3];
    SPD_UNROLL
    for (int kh = 0; kh < 3; ++kh) {
      typename few<T>::vector of{};
      SPD_UNROLL
      for (int c = 0; c < n; ++c) of[c] = k[c * apart + (turned ? 8 - (kh * 3 + kw) : kh * 3 + kw)];
      taps[kh] = four_each<T>(of);
    }
    SPD_UNROLL
    for (int odd = 0; odd < 2; ++odd) columns[odd][kw] = taps[0] * fours<T>(g[odd][0]) + taps[1] * fours<T>(g[odd][1]) + taps[2] * fours<T>(g[odd][2]);
  }
  SPD_UNROLL
  for (int odd = 0; odd < 2; ++odd) {
    vec<T> t[6];
    transform_taps<T>(t, columns[odd][0], columns[odd][1], columns[odd][2]);
    SPD_UNROLL
    for (int q = 0; q < 6; ++q) std::memcpy(packed + (2 * q + odd) * plane, &t[q], n * 4 * sizeof(T));
  }
}
// -> [channel block][plane][c_in][channel of the block][4]; `turned` packs the weights of dgrad.
template <class T, bool turned>
void winograd2d_pack_of(T* packed, const T* k, int c_in, int c_out) {
  constexpr int together = lanes<T> / 4;
  const std::size_t apart = (turned ? 1 : c_in) * std::size_t{9}, next = (turned ? c_out : 1) * std::size_t{9};  // from output, from input channel to channel
  const int parts = parts_of(c_out, kChannels2d);
  for (int p = 0; p < parts; ++p) {
    const int begin = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - begin;
    with_constant<kChannels2d>(size, [&]<int C>() {
      const std::size_t plane = static_cast<std::size_t>(c_in) * C * 4;
      const T* from = k + begin * apart;
      for (int i = 0; i < c_in; ++i, from += next, packed += 4 * C)
        [&]<int... j>(std::integer_sequence<int, j...>) {
          (transform_taps_planes<T, std::min(together, C - j * together), turned>(packed + 4 * j * together, plane, from + j * together * apart, apart), ...);
        }(std::make_integer_sequence<int, (C + together - 1) / together>{});
      packed += (kPlanes - 1) * plane;
    });
  }
}
template <class T>
void winograd2d_pack(T* packed, const T* k, int c_in, int c_out, bool turned) {
  turned ? winograd2d_pack_of<T, true>(packed, k, c_in, c_out) : winograd2d_pack_of<T, false>(packed, k, c_in, c_out);
}

// m[channel][vector] = sum over c_in of packed * x, in one plane; C channels, V vectors.
template <class T, int C, int V>
SPD_NOINLINE void winograd2d_multiply(T* m, std::size_t m_channel, const T* x, std::size_t x_channel, int c_in, const T* packed) {
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

struct TileBlocks {  // that hold the tile rows first..until - 1 of a tensor's blocks from `begin` on; vectors of a channel, counted over the batch
  std::size_t begin, end;
  TileBlocks(int first, int until, int begin, const Grid& grid) {
    const int per_block = grid.height / 4;
    this->begin = static_cast<std::size_t>(begin + first / per_block) * grid.vectors();
    end = static_cast<std::size_t>(begin + (until + per_block - 1) / per_block) * grid.vectors();
  }
};
// Elements of an input's room for so many tile rows, wherever in a block they begin.
inline std::size_t made_size(const Grid& grid, int rows) { return kChannelsMade * ((rows - 1) / (grid.height / 4) + 2) * grid.plane(); }

// Elements of scratch that the forward takes.
template <class T>
std::size_t winograd2d_scratch(const Grid& grid, int c_in, bool is_made) {
  return TilePlanes<T>(nullptr, c_in + kChannels2d, kForwardRows, grid.columns).size() + (is_made ? made_size(grid, kForwardRows) : 0);
}

// Forward; dgrad with `packed` turned and the channel counts exchanged. Blocks begin..end - 1 of the batch.
template <class T, int S>
void winograd2d_forward(View<T> y, const Input<T>& x, const T* packed, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out, bool accumulate) {
  const TileNeighbours<T, S> neighbours(grid);
  const bool large = is_large<T>(grid, x.channel(), c_in);
  const int all = tile_rows(grid, end - begin), parts = parts_of(c_out, kChannels2d);
  for (int first = 0; first < all; first += kForwardRows) {
    const int rows = std::min(kForwardRows, all - first), pairs = (rows + 1) / 2;
    const TilePlanes<T> xt(scratch, c_in, rows, S), m(scratch + xt.size(), kChannels2d, rows, S);
    TileRows from[kForwardRows / 2], to[kForwardRows / 2];
    for (int pair = 0; pair < pairs; ++pair)
      from[pair] = {first + 2 * pair, begin, end, grid.plane(), grid}, to[pair] = {first + 2 * pair, begin, end, y.block, grid};
    const TileBlocks all_of(first, first + rows, begin, grid);
    x.each_channel(c_in, all_of.begin, all_of.end, scratch + xt.size() + m.size(), [&](int i, const auto& channel, const auto& next) {
      for (int pair = 0; pair < pairs; ++pair) {
        if (large) fetch_rows<T>(next, from[pair], grid);
        transform_input_planes<T, S>(xt, i, pair, channel, from[pair], grid, neighbours);
      }
    });
    const T* k = packed;
    for (int p = 0; p < parts; ++p) {
      const int o = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - o;
      if (c_in <= kFew) {
        const std::size_t k_channel = 4 * size, k_plane = k_channel * c_in;
        with_constant<kFew>(c_in, [&]<int I>() {
          for (int c = 0; c < size; ++c) forward_of_few<T, S, I>(y.data + (o + c) * y.channel, xt, k + 4 * c, k_channel, k_plane, pairs, to, grid, accumulate);
        });
        k += kPlanes * k_plane;
        continue;
      }
      with_constant<kChannels2d>(size, [&]<int C>() {
        for (int plane = 0; plane < kPlanes; ++plane, k += static_cast<std::size_t>(4 * C) * c_in) {
          const int vectors = static_cast<int>(xt.vectors[plane % 2]), runs = parts_of(vectors, kVectors2d);
          for (int run = 0; run < runs; ++run) {
            const int v = part_begin(vectors, runs, run);
            with_constant<kVectors2d>(part_begin(vectors, runs, run + 1) - v, [&]<int V>() {
              winograd2d_multiply<T, C, V>(m.at(plane, 0) + v * lanes<T>, m.channel(plane), xt.at(plane, 0) + v * lanes<T>, xt.channel(plane), c_in, k);
            });
          }
        }
      });
      for (int c = 0; c < size; ++c)
        for (int pair = 0; pair < pairs; ++pair) transform_output_channel<T, S>(y.data + (o + c) * y.channel, m, c, pair, to[pair], grid, accumulate);
    }
  }
}

// ---- wgrad: of every plane a sum over tiles, for all pairs of channels; four components of some tiles in each vector, so little is left to sum over lanes

inline constexpr int kWgradRows = 20;  // tile rows that are transformed and multiplied together, so that their planes stay in the cache; even

// u[o][i][component] (+)= sum over tiles of dy * x in one plane; A x B channels.
template <class T, int A, int B>
SPD_NOINLINE void winograd2d_wgrad_block(T* u, int c_in, const T* dy, std::size_t dy_channel, const T* x, std::size_t x_channel, int vectors, bool add) {
  vec<T> acc[A * B]{};
  add_outer_products<T, A, B>(acc, dy, dy_channel, Stored<T>{x, x_channel}, vectors);
  SPD_UNROLL
  for (int i = 0; i < A; ++i) sum_fours<T, B>(u + static_cast<std::size_t>(i) * c_in * 4, acc + i * B, add);
}

// dk = G^T u G, u the sum over slices, of the runs begin..end - 1 of as many pairs of channels as there are lanes. u: [slice][plane][pair][4], readable four
// vectors beyond its end.
template <class T>
SPD_NOINLINE void gather_planes(T* dk, const T* u, int slices, std::size_t pairs, int begin, int end) {
  constexpr int together = lanes<T> / 4;  // pairs of a vector of u
  for (std::size_t j = static_cast<std::size_t>(begin) * lanes<T>; j < pairs && j < static_cast<std::size_t>(end) * lanes<T>; j += lanes<T>) {
    vec<T> part[2][3][4];
    for (int g = 0; g < 4; ++g) SPD_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
      vec<T> t[6], taps[3];
      SPD_UNROLL
      for (int q = 0; q < 6; ++q) {
        const T* from = u + ((2 * q + odd) * pairs + j) * 4 + g * lanes<T>;
        t[q] = load<T>(from);
        for (int slice = 1; slice < slices; ++slice) t[q] += load<T>(from + slice * 4 * kPlanes * pairs);
      }
      gather_taps<T>(taps, t);
      SPD_UNROLL
      for (int kw = 0; kw < 3; ++kw) part[odd][kw][g] = taps[kw];
    }
    T of[9][lanes<T>];
    SPD_UNROLL
    for (int kw = 0; kw < 3; ++kw) {
      vec<T>(&four)[4] = part[0][kw], (&two)[4] = part[1][kw];
      transpose4<T>(four);
      transpose4<T>(two);
      const vec<T> t[6] = {four[0], four[1], four[2], four[3], two[0] + two[2], two[1] + two[3]};
      vec<T> taps[3];
      gather_taps<T>(taps, t);
      SPD_UNROLL
      for (int kh = 0; kh < 3; ++kh) store<T>(of[kh * 3 + kw], taps[kh]);
    }
    const int n = static_cast<int>(std::min<std::size_t>(lanes<T>, pairs - j));
    for (int i = 0; i < n; ++i) SPD_UNROLL
    for (int tap = 0; tap < 9; ++tap) dk[(j + i) * 9 + tap] = of[tap][i % together * 4 + i / together];
  }
}

// How wgrad goes through a batch: the tile rows of a slice round by round.
struct WgradRounds {
  int slices, all, rows;  // tile rows of the longest slice; of a round: even, but for the only one, as two are in a vector
  WgradRounds(const Grid& grid, int blocks) : slices(grid.slices(blocks)), all(0) {
    for (int s = 0; s < slices; ++s) all = std::max(all, tile_rows(grid, grid.slice_end(blocks, s) - grid.slice_begin(s)));
    const int even = grid.height / 4 % 2 == 0 ? grid.height / 4 : grid.height / 2;  // of whole blocks, if they fit: so that no block is in two rounds
    rows = std::min(even < kWgradRows ? kWgradRows / even * even : kWgradRows, all);
  }
};

// Enough for fewer blocks, too.
template <class T>
std::size_t winograd2d_wgrad_scratch(const Grid& grid, int blocks, int c_in, int c_out, int threads) {
  const int slices = grid.slices(blocks), rows = std::min(kWgradRows, tile_rows(grid, blocks));
  const std::size_t planes = TilePlanes<T>(nullptr, c_in + c_out, rows, grid.columns).size();
  return planes * std::min(threads, slices) + static_cast<std::size_t>(4 * kPlanes) * c_in * c_out * slices + 4 * lanes<T> + threads * made_size(grid, rows);
}

template <class T, int S>
class Winograd2dWgrad {
 public:
  Winograd2dWgrad(View<const T> dy, const Input<T>& x, T* scratch, const Grid& grid, int blocks, int c_in, int c_out, int threads)
      : dy_(dy),
        x_(x),
        grid_(grid),
        blocks_(blocks),
        c_in_(c_in),
        c_out_(c_out),
        rounds_(grid, blocks),
        pairs_(static_cast<std::size_t>(c_out) * c_in),
        planes_size_(TilePlanes<T>(nullptr, c_in + c_out, rounds_.rows, S).size()),
        planes_(scratch),
        u_(planes_ + planes_size_ * std::min(threads, rounds_.slices)),
        rooms_(u_ + 4 * kPlanes * pairs_ * rounds_.slices + 4 * lanes<T>) {}

  // done: as of conv_wgrad.
  template <class Done>
  void run(T* dk, Team& team, Done&& done) const {
    team.size() <= rounds_.slices ? slice_by_slice(team, done) : slices_together(team, done);
    team.split(parts_of(c_out_ * c_in_, lanes<T>), [&](int begin, int end, int) { gather_planes<T>(dk, u_, rounds_.slices, pairs_, begin, end); });
  }

 private:
  struct Round {  // of one slice
    int slice, begin, end, first, rows;
    TilePlanes<T> x, dy;
    int row_pairs() const { return (rows + 1) / 2; }
  };

  // Each slice is one thread's, which waits for no other.
  template <class Done>
  void slice_by_slice(Team& team, Done&& done) const {
    team.split(rounds_.slices, [&](int slice, int until, int rank) {
      for (; slice < until; ++slice)
        for (int first = 0; first < rounds_.all; first += rounds_.rows) {
          const Round r = round_of(slice, rank, first);
          transform(r, 0, r.row_pairs(), rank);
          multiply(r, 0, shares());
          const auto whole = [&](int rows) { return std::min(r.end, r.begin + rows / (grid_.height / 4)); };
          if (whole(first) < whole(first + rounds_.rows)) done(whole(first), whole(first + rounds_.rows), rank);
        }
    });
  }
  template <class Done>
  void slices_together(Team& team, Done&& done) const {
    for (int first = 0; first < rounds_.all; first += rounds_.rows) {
      team.split(rounds_.slices, (rounds_.rows + 1) / 2, [&](int slice, int pair, int until, int rank) {
        const Round r = round_of(slice, slice, first);
        transform(r, pair, std::min(until, r.row_pairs()), rank);
      });
      team.split(rounds_.slices, shares(), [&](int slice, int share, int until, int) { multiply(round_of(slice, slice, first), share, until); });
    }
    done_with_all(team, grid_, blocks_, done);
  }

  // place: which of the planes in scratch.
  Round round_of(int slice, int place, int first) const {
    const int begin = grid_.slice_begin(slice), end = grid_.slice_end(blocks_, slice);
    const int rows = std::clamp(tile_rows(grid_, end - begin) - first, 0, rounds_.rows);
    const TilePlanes<T> of_x(planes_ + planes_size_ * place, c_in_, rows, S);
    return {slice, begin, end, first, rows, of_x, TilePlanes<T>(of_x.data + of_x.size(), c_out_, rows, S)};
  }
  void rows_of(TileRows* rows, const Round& r, int pair, int until, std::size_t block) const {
    for (; pair < until; ++pair) *rows++ = {r.first + 2 * pair, r.begin, r.end, block, grid_};
  }
  // Pairs of tile rows.
  void transform(const Round& r, int pair, int until, int rank) const {
    if (pair >= until) return;
    const TileNeighbours<T, S> neighbours(grid_);
    const bool large_x = is_large<T>(grid_, x_.channel(), c_in_), large_dy = is_large<T>(grid_, dy_.channel, c_out_);
    TileRows of_x[kWgradRows / 2], of_dy[kWgradRows / 2];
    rows_of(of_x, r, pair, until, grid_.plane());
    const TileBlocks all_of(r.first + 2 * pair, r.first + std::min(r.rows, 2 * until), r.begin, grid_);
    x_.around(r.begin, grid_)
        .each_channel(c_in_, all_of.begin, all_of.end, rooms_ + rank * made_size(grid_, rounds_.rows), [&](int i, const auto& channel, const auto& next) {
          for (int j = pair; j < until; ++j) {
            if (large_x) fetch_rows<T>(next, of_x[j - pair], grid_);
            transform_input_planes<T, S>(r.x, i, j, channel, of_x[j - pair], grid_, neighbours);
          }
        });
    if (is_few()) return;
    rows_of(of_dy, r, pair, until, dy_.block);
    const T* p = dy_.around(r.begin).data;
    for (int o = 0; o < c_out_; ++o, p += dy_.channel)
      for (int j = pair; j < until; ++j) {
        if (large_dy) fetch_rows<T>(StoredChannel<T>{p + dy_.channel}, of_dy[j - pair], grid_);
        transform_dy_planes<T, S>(r.dy, o, j, p, of_dy[j - pair], grid_);
      }
  }

  // What the products of a round are shared by: channels of dy, or parts of them in every plane.
  bool is_few() const { return c_in_ <= kFewWgrad; }
  int parts_o() const { return parts_of(c_out_, kWgradOut); }
  int shares() const { return is_few() ? c_out_ : kPlanes * parts_o(); }
  void multiply(const Round& r, int share, int until) const {
    if (r.rows == 0) return;
    if (is_few()) return multiply_few(r, share, until);
    for (; share < until; ++share) multiply_plane(r, share / parts_o(), share % parts_o());
  }
  void multiply_plane(const Round& r, int plane, int p) const {
    const int vectors = static_cast<int>(r.x.vectors[plane % 2]), o = part_begin(c_out_, parts_o(), p), n_o = part_begin(c_out_, parts_o(), p + 1) - o;
    const int parts_i = parts_of(c_in_, kWgradIn);
    for (int q = 0; q < parts_i; ++q) {
      const int i = part_begin(c_in_, parts_i, q), n_i = part_begin(c_in_, parts_i, q + 1) - i;
      with_constant<kWgradOut>(n_o, [&]<int A>() {
        with_constant<kWgradIn>(n_i, [&]<int B>() {
          winograd2d_wgrad_block<T, A, B>(of_slice(r) + (plane * pairs_ + static_cast<std::size_t>(o) * c_in_ + i) * 4, c_in_, r.dy.at(plane, o),
                                          r.dy.channel(plane), r.x.at(plane, i), r.x.channel(plane), vectors, r.first > 0);
        });
      });
    }
  }
  void multiply_few(const Round& r, int o, int until) const {
    TileRows rows[kWgradRows / 2];
    rows_of(rows, r, 0, r.row_pairs(), dy_.block);
    const T* dy = dy_.around(r.begin).data;
    with_constant<kFewWgrad>(c_in_, [&]<int I>() {
      for (; o < until; ++o) {
        T* u = of_slice(r) + static_cast<std::size_t>(o) * c_in_ * 4;
        wgrad_of_few<T, S, I>(u, 4 * pairs_, dy + o * dy_.channel, r.x, r.row_pairs(), rows, grid_, r.first > 0);
      }
    });
  }
  T* of_slice(const Round& r) const { return u_ + r.slice * 4 * kPlanes * pairs_; }

  const View<const T> dy_;
  const Input<T>& x_;
  const Grid& grid_;
  const int blocks_, c_in_, c_out_;
  const WgradRounds rounds_;
  const std::size_t pairs_, planes_size_;
  T* const planes_;  // of x and of dy: one of a thread, or of a slice
  T* const u_;       // [slice][plane][c_out][c_in][4]
  T* const rooms_;   // for what is made of x, one of a thread
};

}  // namespace spd::SPD_ISA
