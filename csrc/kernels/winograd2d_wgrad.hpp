// The weight gradient of conv3x3 by Winograd's F(4 x 4, 3 x 3) (winograd2d.hpp):
//
//   dk = G^T [ sum over tiles (A dY A^T) . (B^T X B) ] G
//
// For every plane of the tiles and every pair of channels, products are summed over tiles. A vector holds four components of some tiles, so in the end there is
// little left to sum over lanes.
#pragma once

#include "conv1x1.hpp"
#include "winograd2d_tiles.hpp"

namespace spd::SPD_ISA {

inline constexpr int kWgradRows = 24;  // tile rows (an even number) that are transformed and multiplied together, so that their planes stay in the cache

// For one output channel, sets u[plane][input channel][component] to the sum over tiles of dy * x, or adds it. Planes of u are u_plane elements apart.
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

// In one plane, sets u[o][i][component] to the sum over tiles of dy * x, or adds it, for A x B channels.
template <class T, int A, int B>
SPD_NOINLINE void winograd2d_wgrad_block(T* u, int c_in, const T* dy, std::size_t dy_channel, const T* x, std::size_t x_channel, int vectors, bool add) {
  vec<T> acc[A * B]{};
  add_outer_products<T, A, B>(acc, dy, dy_channel, Stored<T>{x, x_channel}, vectors);
  SPD_UNROLL
  for (int i = 0; i < A; ++i) sum_fours<T, B>(u + static_cast<std::size_t>(i) * c_in * 4, acc + i * B, add);
}

// Adds the products of one plane to u, which is that of a slice, or sets it: for all c_in channels of x and the n_o channels of dy from o on.
template <class T>
SPD_NOINLINE void winograd2d_wgrad_plane(T* u, const TilePlanes<T>& dy, const TilePlanes<T>& x, int plane, int o, int n_o, int c_in, int c_out, bool add) {
  const int vectors = static_cast<int>(x.vectors[plane % 2]), parts = parts_of(c_in, kWgradIn);
  for (int q = 0; q < parts; ++q) {
    const int i = part_begin(c_in, parts, q), n_i = part_begin(c_in, parts, q + 1) - i;
    T* block = u + ((static_cast<std::size_t>(plane) * c_out + o) * c_in + i) * 4;
    with_constant<kWgradOut>(n_o, [&]<int A>() {
      with_constant<kWgradIn>(n_i, [&]<int B>() {
        winograd2d_wgrad_block<T, A, B>(block, c_in, dy.at(plane, o), dy.channel(plane), x.at(plane, i), x.channel(plane), vectors, add);
      });
    });
  }
}

// dk = G^T u G, with u summed over slices. Pairs of channels are taken in runs of as many as there are lanes; this does the runs begin..end - 1.
// u: [slice][plane][pair][4], of which four vectors beyond the end must be readable.
template <class T>
SPD_NOINLINE void gather_planes(T* dk, const T* u, int slices, std::size_t pairs, int begin, int end) {
  constexpr int together = lanes<T> / 4;  // pairs of channels in a vector of u
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
    vec<T> of[9];  // lane 4 g + r holds the tap of pair r * together + g
    SPD_UNROLL
    for (int kw = 0; kw < 3; ++kw) {
      vec<T>(&four)[4] = part[0][kw], (&two)[4] = part[1][kw];
      transpose4<T>(four);
      transpose4<T>(two);
      const vec<T> t[6] = {four[0], four[1], four[2], four[3], two[0] + two[2], two[1] + two[3]};
      vec<T> taps[3];
      gather_taps<T>(taps, t);
      SPD_UNROLL
      for (int kh = 0; kh < 3; ++kh) of[kh * 3 + kw] = taps[kh];
    }
    const int n = static_cast<int>(std::min<std::size_t>(lanes<T>, pairs - j));
    SPD_UNROLL
    for (const int tap : {0, 4, 5}) {
      vec<T> v[4] = {of[tap], of[tap + 1], of[tap + 2], of[tap + 3]};
      transpose4<T>(v);
      SPD_UNROLL
      for (int r = 0; r < 4; ++r) store_groups<T>(dk + (j + r * together) * 9 + tap, 9, v[r], n - r * together);
    }
  }
}

// wgrad goes through the tile rows of a slice in rounds.
struct WgradRounds {
  // all: the tile rows of the longest slice. rows: those of a round, an even number, because a vector
  // holds two; a slice that is one round may have an odd number.
  int slices, all, rows;
  WgradRounds(const Grid& grid, int blocks) : slices(grid.slices(blocks)), all(0) {
    for (int s = 0; s < slices; ++s) all = std::max(all, tile_rows(grid, grid.slice_end(blocks, s) - grid.slice_begin(s)));
    // The smallest even number of tile rows that are whole blocks. A round has a multiple of it, if that fits, so that no block is in two rounds.
    // Rounds are as equal as possible, because each has to sum over lanes in the end.
    const int even = grid.height / 4 % 2 == 0 ? grid.height / 4 : grid.height / 2;
    const int most = even < kWgradRows ? kWgradRows / even * even : kWgradRows;
    rows = all <= most ? all : even < kWgradRows ? parts_of(parts_of(all, parts_of(all, most)), even) * even : most;
  }
};

// Returns the elements of scratch, which are enough for fewer blocks, too.
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

  // done: as in conv_wgrad.
  void run(T* dk, Team& team, const Hook& done) const {
    team.size() <= rounds_.slices ? slice_by_slice(team, done) : slices_together(team, done);
    team.split(parts_of(c_out_ * c_in_, lanes<T>), [&](int begin, int end, int) { gather_planes<T>(dk, u_, rounds_.slices, pairs_, begin, end); });
  }

 private:
  struct Round {  // of one slice
    int slice, begin, end, first, rows;
    TilePlanes<T> x, dy;
    int row_pairs() const { return (rows + 1) / 2; }
  };

  // Each slice belongs to one thread, which waits for no other.
  void slice_by_slice(Team& team, const Hook& done) const {
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
  void slices_together(Team& team, const Hook& done) const {
    for (int first = 0; first < rounds_.all; first += rounds_.rows) {
      team.split(rounds_.slices, (rounds_.rows + 1) / 2, [&](int slice, int pair, int until, int rank) {
        const Round r = round_of(slice, slice, first);
        transform(r, pair, std::min(until, r.row_pairs()), rank);
      });
      team.split(rounds_.slices, shares(), [&](int slice, int share, int until, int) { multiply(round_of(slice, slice, first), share, until); });
    }
    done_with_all(team, grid_, blocks_, done);
  }

  // place: the number of the planes in scratch that the round uses.
  Round round_of(int slice, int place, int first) const {
    const int begin = grid_.slice_begin(slice), end = grid_.slice_end(blocks_, slice);
    const int rows = std::clamp(tile_rows(grid_, end - begin) - first, 0, rounds_.rows);
    const TilePlanes<T> of_x(planes_ + planes_size_ * place, c_in_, rows, S);
    return {slice, begin, end, first, rows, of_x, TilePlanes<T>(of_x.data + of_x.size(), c_out_, rows, S)};
  }
  void rows_of(TileRows* rows, const Round& r, int pair, int until, std::size_t block) const {
    for (; pair < until; ++pair) *rows++ = {r.first + 2 * pair, r.begin, r.end, block, grid_};
  }
  // Transforms the pairs pair..until - 1 of tile rows.
  SPD_NOINLINE void transform(const Round& r, int pair, int until, int rank) const {
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

  // The products of a round are shared out by channels of dy if x has few channels, otherwise by planes and parts of the channels of dy.
  bool is_few() const { return c_in_ <= kFewWgrad; }
  int parts_o() const { return parts_of(c_out_, kWgradOut); }
  int shares() const { return is_few() ? c_out_ : kPlanes * parts_o(); }
  SPD_NOINLINE void multiply(const Round& r, int share, int until) const {
    if (r.rows == 0) return;
    if (is_few()) return multiply_few(r, share, until);
    for (; share < until; ++share) {
      const int part = share % parts_o(), o = part_begin(c_out_, parts_o(), part), n_o = part_begin(c_out_, parts_o(), part + 1) - o;
      winograd2d_wgrad_plane<T>(of_slice(r), r.dy, r.x, share / parts_o(), o, n_o, c_in_, c_out_, r.first > 0);
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
  T* const planes_;  // of x and of dy, for each thread or for each slice
  T* const u_;       // [slice][plane][c_out][c_in][4]
  T* const rooms_;   // for what each thread computes of x
};

}  // namespace spd::SPD_ISA
