// Tiles of 4 x 4 pixels for Winograd's F(4 x 4, 3 x 3) (winograd2d.hpp): where they are in a tensor and in planes of their own, and how they are transformed.
//
// Along columns the transforms work on whole rows. A tile row becomes six vectors. Those of two tile rows are transposed in groups of four: four of the first
// row, four of the second, and the remaining two of both. Then lane 4 c + j of a vector holds component j of the tile in column c, and the transforms along
// rows work on whole vectors, too. The results are stored in twelve planes, with q = 0..5, of vectors of
//
//   plane 2 q        components (0, q), (1, q), (2, q), (3, q)                   of a tile row
//   plane 2 q + 1    components (4, q), (5, q) of a tile row, (4, q), (5, q) of the next
//
// A lane holds the same component everywhere, so wgrad has little to sum over lanes at the end. Two tile rows fill whole vectors, however few tiles a row has.
//
// If a tensor does not fit in L2, the same rows of its next channel are prefetched before each transform.
// They are kilobytes away and would come too late otherwise.
#pragma once

#include "input.hpp"
#include "winograd.hpp"

namespace spd::SPD_ISA {

inline constexpr int kPlanes = 12;

// Where two tile rows begin, counted from the tensor's beginning. At the end of a batch the second one may not be there.
struct TileRow {
  std::size_t offset;
  bool there, top, bottom;
};
struct TileRows {
  TileRow row[2];

  TileRows() = default;
  // The tile rows `first` and `first` + 1 of the blocks begin..end - 1 of a tensor.
  TileRows(int first, int begin, int end, std::size_t block, const Grid& grid) {
    const int per_block = grid.height / 4;
    for (int r = 0; r < 2; ++r) {
      const int b = begin + (first + r) / per_block, h = (first + r) % per_block * 4;
      row[r] = {b * block + h * grid.pitch(), b < end, h == 0, h + 4 == grid.height};
    }
  }
};
// Prefetches two tile rows.
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

// The planes of some channels and tile rows. Channels are an odd number of vectors apart, for the reason that Grid::strides gives.
template <class T>
struct TilePlanes {
  T* data;
  int channels;
  std::size_t vectors[2];  // of one channel, in an even and in an odd plane

  TilePlanes(T* data, int channels, int rows, int columns)
      : data(data), channels(channels), vectors{static_cast<std::size_t>(rows * columns), static_cast<std::size_t>((rows + 1) / 2 * columns)} {}
  std::size_t channel(int plane) const { return (vectors[plane % 2] | 1) * lanes<T>; }
  std::size_t both() const { return channels * (channel(0) + channel(1)); }  // elements of two planes
  T* at(int plane, int c) const { return data + plane / 2 * both() + plane % 2 * channels * channel(0) + c * channel(plane); }
  std::size_t size() const { return kPlanes / 2 * both(); }
};

// For every vector of a row, masks of the tiles that have a tile to their left, and to their right.
template <class T, int S>
struct TileNeighbours {
  mask<T> left[S], right[S];

  explicit TileNeighbours(const Grid& grid) {
    constexpr std::uint64_t first = 0x1111111111111111;  // lane of each tile
    for (int s = 0; s < S; ++s) {
      left[s] = mask_of_bits<T>((grid.has_left(s) & first) * 15);
      right[s] = mask_of_bits<T>((grid.has_right(s) >> 3 & first) * 15);
    }
  }
};

// Transforms two tile rows of channel c. along_columns(o, row, s) writes the six vectors of column s to o. along_rows(part, f) transforms four vectors of each
// column and calls f(s, six vectors).
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
    for (int s = 0; s < S; ++s) transpose4<T>(part[group][s]);  // from here on part[group][s][k] is column k of the tiles
    along_rows(part[group], [&](int s, const vec<T>(&o)[6]) {
      SPD_UNROLL
      for (int q = 0; q < 6; ++q) store<T>(to + q * both + s * lanes<T>, o[q]);
    });
  };
  put(0, planes.at(0, c) + 2 * pair * S * lanes<T>);
  if (rows.row[1].there) put(1, planes.at(0, c) + (2 * pair + 1) * S * lanes<T>);
  put(2, planes.at(1, c) + pair * S * lanes<T>);
}
// Computes B^T X B.
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
// Computes A dY A^T.
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
// Applies A^T to the six components along a row, and transposes the result to rows of the tiles.
template <class T>
SPD_INLINE void transform_output_row(vec<T> (&o)[4], const vec<T> (&in)[6]) {
  transform_output<T>(o, in);
  transpose4<T>(o);
}
// Writes A^T M A to the two tile rows of a channel of y. along_rows(o, odd, v) writes transform_output_row of vector v of M's even or odd planes to o.
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

// The blocks that hold the tile rows first..until - 1, counted from block `begin` on: their first vector
// in a channel and their last + 1, counted over the batch.
struct TileBlocks {
  std::size_t begin, end;
  TileBlocks(int first, int until, int begin, const Grid& grid) {
    const int per_block = grid.height / 4;
    this->begin = static_cast<std::size_t>(begin + first / per_block) * grid.vectors();
    end = static_cast<std::size_t>(begin + (until + per_block - 1) / per_block) * grid.vectors();
  }
};
// Returns the elements that some tile rows of an input need, wherever in a block they begin.
inline std::size_t made_size(const Grid& grid, int rows) { return kChannelsMade * ((rows - 1) / (grid.height / 4) + 2) * grid.plane(); }

// With no more input channels than these, as in a stem, the transforms of output channels would cost more than the products. Then one output channel is
// computed at a time, and of all that is transformed only x is stored in memory.
inline constexpr int kFew = 3, kFewWgrad = kManyRegisters ? 3 : 1;

}  // namespace spd::SPD_ISA
