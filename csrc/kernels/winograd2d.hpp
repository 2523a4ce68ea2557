// conv3x3 by Winograd's F(4 x 4, 3 x 3): winograd.hpp's transforms along columns and along rows, so 36 multiply-adds a tile of 4 x 4 pixels
// where direct takes 144.
//
//   forward  Y  = A^T [ (G k G^T) . (B^T X B) ] A        X: 6 x 6 pixels, k: 3 x 3 taps, Y: 4 x 4 pixels           (Lavin and Gray 2016, arXiv:1509.09308)
//   wgrad    dk = G^T [ sum over tiles (A dY A^T) . (B^T X B) ] G
//
// Along columns the transforms work on whole rows. Four tile rows (four image rows of a block each) make a group; transposed by fours, lane 4 c + r of its
// vectors is the tile in column c of tile row r, and the transforms along rows, and the sums over channels, work on whole vectors again.
//
// Arrays and preconditions are those of winograd.hpp; besides, an image row takes at least four lanes (`Grid::fits_winograd2d`). Precision: element type.
// The transforms round about five times as much as direct (root mean square): largest error, relative to the largest value, 1.2e-6 to 8.3e-6 in float.
#pragma once

#include "conv1x1.hpp"
#include "winograd.hpp"

namespace spd::SPD_ISA {

inline constexpr int kComponents = 36;

// Where the tile rows of a group begin, from the tensor's beginning; absent ones (a last group) are all zero.
struct TileRow {
  std::size_t offset;
  bool there, top, bottom;
};
struct TileGroup {
  TileRow row[4];

  // Group g of the blocks begin..end - 1 of a tensor.
  TileGroup(int g, int begin, int end, std::size_t block, const Grid& grid) {
    const int per_block = grid.height / 4;
    for (int r = 0; r < 4; ++r) {
      const int b = begin + (4 * g + r) / per_block, h = (4 * g + r) % per_block * 4;
      row[r] = {b * block + h * grid.pitch(), b < end, h == 0, h + 4 == grid.height};
    }
  }
};
inline int tile_groups(const Grid& grid, int blocks) { return parts_of(blocks * (grid.height / 4), 4); }

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

// B^T X B of a group's tiles: components 6 * first .. 6 * (first + count) - 1, each `component` elements behind the one before, S vectors each.
template <class T, int S, int first = 0, int count = 6>
SPD_NOINLINE void transform_input_group(T* out, std::size_t component, const T* x, const TileGroup& group, const Grid& grid,
                                        const TileNeighbours<T, S>& neighbours) {
  const std::size_t pitch = grid.pitch();
  vec<T> part[count][S][4];
  SPD_UNROLL
  for (int s = 0; s < S; ++s)
    for (int r = 0; r < 4; ++r) {
      const TileRow& row = group.row[r];
      vec<T> o[6]{};
      if (row.there) {
        const T* p = x + row.offset + s * lanes<T>;
        const vec<T> above = row.top ? zeros<T>() : load<T>(p - pitch), below = row.bottom ? zeros<T>() : load<T>(p + 4 * pitch);
        transform_input<T>(o, above, load<T>(p), load<T>(p + pitch), load<T>(p + 2 * pitch), load<T>(p + 3 * pitch), below);
      }
      SPD_UNROLL
      for (int k = 0; k < count; ++k) part[k][s][r] = o[first + k];
    }
  SPD_UNROLL
  for (int k = 0; k < count; ++k) {
    SPD_UNROLL
    for (int s = 0; s < S; ++s) transpose4<T>(part[k][s]);  // to the four columns of the tiles
    SPD_UNROLL
    for (int s = 0; s < S; ++s) {
      const vec<T>(&p)[4] = part[k][s];
      const vec<T> left = keep<T>(neighbours.left[s], from_left<T, 4>(p[3], s > 0 ? part[k][s > 0 ? s - 1 : 0][3] : zeros<T>()));
      const vec<T> right = keep<T>(neighbours.right[s], from_right<T, 4>(p[0], s + 1 < S ? part[k][s + 1 < S ? s + 1 : s][0] : zeros<T>()));
      vec<T> o[6];
      transform_input<T>(o, left, p[0], p[1], p[2], p[3], right);
      SPD_UNROLL
      for (int q = 0; q < 6; ++q) store<T>(out + (k * 6 + q) * component + s * lanes<T>, o[q]);
    }
  }
}

// A^T M A of one vector of tiles: image row h of tile row r.
template <class T>
SPD_INLINE void transform_output_tiles(vec<T> (&y)[4][4], const T* m, std::size_t component) {
  vec<T> rows[6][4];
  SPD_UNROLL
  for (int k = 0; k < 6; ++k) {
    vec<T> o[6];
    SPD_UNROLL
    for (int q = 0; q < 6; ++q) o[q] = load<T>(m + (k * 6 + q) * component);
    transform_output<T>(rows[k], o);
    transpose4<T>(rows[k]);
  }
  SPD_UNROLL
  for (int r = 0; r < 4; ++r) {
    const vec<T> column[6] = {rows[0][r], rows[1][r], rows[2][r], rows[3][r], rows[4][r], rows[5][r]};
    transform_output<T>(y[r], column);
  }
}

// ---- forward: output channels x vectors of a group stay in registers

template <int S>
inline constexpr int kChannels2d = 12 / S;

// G k G^T -> [channel block][component][c_in][channel of the block]; `turned` packs the weights of dgrad.
template <class T, int S>
void winograd2d_pack(T* packed, const T* k, int c_in, int c_out, bool turned) {
  const int parts = parts_of(c_out, kChannels2d<S>);
  for (int p = 0; p < parts; ++p) {
    const int begin = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - begin;
    with_constant<kChannels2d<S>>(size, [&]<int C>() {
      const std::size_t component = static_cast<std::size_t>(c_in) * C;
      for (int i = 0; i < c_in; ++i, packed += C) {
        T taps[3][3][C], columns[6][3][C];
        for (int c = 0; c < C; ++c) {
          const T* from = k + (turned ? static_cast<std::size_t>(i) * c_out + begin + c : static_cast<std::size_t>(begin + c) * c_in + i) * 9;
          SPD_UNROLL
          for (int tap = 0; tap < 9; ++tap) taps[tap / 3][tap % 3][c] = from[turned ? 8 - tap : tap];
        }
        SPD_UNROLL
        for (int kw = 0; kw < 3; ++kw)
          for (int c = 0; c < C; ++c) {
            T u[6];
            transform_taps<T>(u, taps[0][kw][c], taps[1][kw][c], taps[2][kw][c]);
            SPD_UNROLL
            for (int q = 0; q < 6; ++q) columns[q][kw][c] = u[q];
          }
        SPD_UNROLL
        for (int row = 0; row < 6; ++row)
          for (int c = 0; c < C; ++c) {
            T u[6];
            transform_taps<T>(u, columns[row][0][c], columns[row][1][c], columns[row][2][c]);
            SPD_UNROLL
            for (int q = 0; q < 6; ++q) packed[(row * 6 + q) * component + c] = u[q];
          }
      }
      packed += (kComponents - 1) * component;
    });
  }
}

// m[component][channel][vector] = sum over c_in of packed * x; C channels, V vectors.
template <class T, int C, int V>
SPD_NOINLINE void winograd2d_multiply(T* m, const T* x, std::size_t component, int c_in, const T* packed) {
  for (int k = 0; k < kComponents; ++k, m += C * V * lanes<T>, x += component) {
    vec<T> acc[C][V]{};
    const T* from = x;
    for (int i = 0; i < c_in; ++i, from += V * lanes<T>, packed += C) {
      vec<T> in[V];
      SPD_UNROLL
      for (int v = 0; v < V; ++v) in[v] = in_register<T>(load<T>(from + v * lanes<T>));
      SPD_UNROLL
      for (int c = 0; c < C; ++c) {
        const vec<T> tap = broadcast<T>(packed[c]);
        SPD_UNROLL
        for (int v = 0; v < V; ++v) acc[c][v] += in[v] * tap;
      }
    }
    SPD_UNROLL
    for (int c = 0; c < C; ++c) SPD_UNROLL
    for (int v = 0; v < V; ++v) store<T>(m + (c * V + v) * lanes<T>, acc[c][v]);
  }
}

// Elements of scratch that the forward takes.
template <class T>
std::size_t winograd2d_scratch(const Grid& grid, int c_in) {
  return kComponents * (winograd_component<T>(grid.pitch(), c_in) + 12 * lanes<T>);
}

// Forward; dgrad with `packed` turned and the channel counts exchanged. Blocks begin..end - 1 of the batch.
template <class T, int S>
void winograd2d_forward(View<T> y, View<const T> x, const T* packed, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out, bool accumulate) {
  const TileNeighbours<T, S> neighbours(grid);
  const std::size_t component = winograd_component<T>(grid.pitch(), c_in);
  T* m = scratch + kComponents * component;
  const int groups = tile_groups(grid, end - begin), parts = parts_of(c_out, kChannels2d<S>);
  for (int g = 0; g < groups; ++g) {
    const TileGroup from(g, begin, end, x.block, grid), to(g, begin, end, y.block, grid);
    for (int i = 0; i < c_in; ++i) transform_input_group<T, S>(scratch + i * S * lanes<T>, component, x.data + i * x.channel, from, grid, neighbours);
    const T* k = packed;
    for (int p = 0; p < parts; ++p) {
      const int first = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - first;
      with_constant<kChannels2d<S>>(size, [&]<int C>() { winograd2d_multiply<T, C, S>(m, scratch, component, c_in, k); });
      k += static_cast<std::size_t>(kComponents) * size * c_in;
      for (int c = 0; c < size; ++c)
        for (int s = 0; s < S; ++s) {
          vec<T> rows[4][4];
          transform_output_tiles<T>(rows, m + (c * S + s) * lanes<T>, static_cast<std::size_t>(size) * S * lanes<T>);
          T* out = y.data + (first + c) * y.channel + s * lanes<T>;
          SPD_UNROLL
          for (int r = 0; r < 4; ++r) {
            if (!to.row[r].there) continue;
            T* row = out + to.row[r].offset;
            SPD_UNROLL
            for (int h = 0; h < 4; ++h, row += grid.pitch()) store<T>(row, accumulate ? load<T>(row) + rows[r][h] : rows[r][h]);
          }
        }
    }
  }
}

// ---- wgrad: of every component a matrix product over tiles, conv1x1.hpp's

// A dY A^T of a group's tiles, laid out as by transform_input_group.
template <class T, int S, int first, int count>
SPD_NOINLINE void transform_dy_group(T* out, std::size_t component, const T* dy, const TileGroup& group, const Grid& grid) {
  const std::size_t pitch = grid.pitch();
  SPD_UNROLL
  for (int s = 0; s < S; ++s) {
    vec<T> part[count][4];
    for (int r = 0; r < 4; ++r) {
      vec<T> o[6]{};
      if (group.row[r].there) {
        const T* p = dy + group.row[r].offset + s * lanes<T>;
        transform_dy<T>(o, load<T>(p), load<T>(p + pitch), load<T>(p + 2 * pitch), load<T>(p + 3 * pitch));
      }
      SPD_UNROLL
      for (int k = 0; k < count; ++k) part[k][r] = o[first + k];
    }
    SPD_UNROLL
    for (int k = 0; k < count; ++k) {
      vec<T> o[6];
      transpose4<T>(part[k]);
      transform_dy<T>(o, part[k][0], part[k][1], part[k][2], part[k][3]);
      SPD_UNROLL
      for (int q = 0; q < 6; ++q) store<T>(out + (k * 6 + q) * component + s * lanes<T>, o[q]);
    }
  }
}

// Rows of components that are transformed and multiplied together: half of them, so that the transformed planes stay in the cache.
inline constexpr int kTogether2d = 3;

// Elements that the transformed tiles of `blocks` blocks take, a channel and component; and the scratch of wgrad.
template <class T>
std::size_t winograd2d_plane(const Grid& grid, int blocks) {
  return static_cast<std::size_t>(tile_groups(grid, blocks) * grid.columns + 1) * lanes<T>;
}
template <class T>
std::size_t winograd2d_wgrad_scratch(const Grid& grid, int blocks, int c_in, int c_out) {
  const std::size_t plane = winograd2d_plane<T>(grid, blocks);
  return 6 * kTogether2d * (winograd_component<T>(plane, c_in) + winograd_component<T>(plane, c_out)) + static_cast<std::size_t>(kComponents) * c_in * c_out +
         lanes<T>;
}

template <class T, int S>
void winograd2d_wgrad(T* dk, View<const T> dy, View<const T> x, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out, Team& team) {
  constexpr int together = 6 * kTogether2d;
  const TileNeighbours<T, S> neighbours(grid);
  const std::size_t plane = winograd2d_plane<T>(grid, end - begin);
  const std::size_t x_component = winograd_component<T>(plane, c_in), y_component = winograd_component<T>(plane, c_out);
  const std::size_t pairs = static_cast<std::size_t>(c_out) * c_in;
  const int groups = tile_groups(grid, end - begin);
  T *xt = scratch, *yt = xt + together * x_component, *u = yt + together * y_component;  // u: [component][c_out][c_in]
  const Grid tiles(groups * S, lanes<T>, lanes<T>);                                      // as many vectors as each plane has
  const auto pass = [&]<int first>() {
    team.split(groups, [&](int g, int until, int) {
      for (; g < until; ++g) {
        const TileGroup of_x(g, begin, end, x.block, grid), of_dy(g, begin, end, dy.block, grid);
        const std::size_t at = static_cast<std::size_t>(g) * S * lanes<T>;
        for (int i = 0; i < c_in; ++i)
          transform_input_group<T, S, first, kTogether2d>(xt + i * plane + at, x_component, x.data + i * x.channel, of_x, grid, neighbours);
        for (int o = 0; o < c_out; ++o) transform_dy_group<T, S, first, kTogether2d>(yt + o * plane + at, y_component, dy.data + o * dy.channel, of_dy, grid);
      }
    });
    team.split(together, [&](int k, int until, int) {
      for (; k < until; ++k)
        conv1x1_wgrad<T>(u + (first * 6 + k) * pairs, {yt + k * y_component, 0, plane}, {xt + k * x_component, 0, plane}, tiles, 0, 1, 0,
                         parts_of(c_out, kWgradOut), c_in, c_out);
    });
  };
  pass.template operator()<0>();
  pass.template operator()<kTogether2d>();
  for (std::size_t j = 0; j < pairs; j += lanes<T>) {  // G^T u G, of a vector of pairs; u is readable a vector beyond its end
    vec<T> columns[3][6];
    SPD_UNROLL
    for (int q = 0; q < 6; ++q) {
      vec<T> taps[3], t[6];
      SPD_UNROLL
      for (int row = 0; row < 6; ++row) t[row] = load<T>(u + (row * 6 + q) * pairs + j);
      gather_taps<T>(taps, t);
      SPD_UNROLL
      for (int kh = 0; kh < 3; ++kh) columns[kh][q] = taps[kh];
    }
    const int n = static_cast<int>(std::min<std::size_t>(lanes<T>, pairs - j));
    SPD_UNROLL
    for (int kh = 0; kh < 3; ++kh) {
      vec<T> taps[3];
      gather_taps<T>(taps, columns[kh]);
      SPD_UNROLL
      for (int kw = 0; kw < 3; ++kw) {
        T of[lanes<T>];
        store<T>(of, taps[kw]);
        for (int i = 0; i < n; ++i) dk[(j + i) * 9 + kh * 3 + kw] = of[i];
      }
    }
  }
}

}  // namespace spd::SPD_ISA
