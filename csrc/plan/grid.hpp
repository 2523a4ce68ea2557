// The row-vector layout. Activations are `[slice][channel][block][row][lane]`: pixels, not channels, run along the vector, because a cell's channel
// counts are odd (5, 8, 10, 16, 21 ...) and its image sides are not. A channel's blocks of a slice of the batch are contiguous, for the passes that sum over them. A row of 16 lanes
// holds one image row of 16 pixels, or the rows of two images 8 wide side by side, or of four images 4 wide; images wider than a vector take several vectors a row. So
//
//   image i, channel c, row h, column w  ->  block i / images, lane (i % images) * slot + w   (slot: lanes an image row takes)
//
// Lanes that hold no pixel (a width that is no power of two, the missing images of a last block) are zero in every tensor that a
// convolution reads, and may hold anything in what a convolution wrote.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>

namespace spd {

// How a tensor of the layout lies: elements from block to block, from channel to channel; from block `half` on all lies `gap` elements further.
struct Strides {
  std::size_t block = 0, channel = 0;
  int half = INT_MAX;
  std::size_t gap = 0;
};

struct Grid {
  int height = 0, width = 0;
  int lanes = 0;    // of a vector
  int slot = 0;     // lanes that one image row takes
  int images = 0;   // images side by side in a vector (1 where an image row takes a whole vector or more)
  int columns = 0;  // vectors a row

  // Blocks of the batch's first slice, whole chunks; more than there are where the batch is one slice. What sums over the batch sums over every
  // slice first, and slices lie apart in memory: a team's threads keep to slices from op to op, and seldom read, or have fetched, what another writes.
  int half = INT_MAX;

  Grid() = default;
  Grid(int height, int width, int lanes) : Grid(height, width, lanes, 1) {}

  // After 2x2 pooling: every slot half as wide, so that two vectors become one.
  Grid halved() const { return Grid(height / 2, width / 2, lanes, slot / 2); }

  // For a batch of this number of images.
  Grid of_batch(int n) const {
    Grid out = *this;
    out.half = blocks(n) >= 4 * chunk() ? chunks(n) / 2 * chunk() : INT_MAX;
    return out;
  }

  std::size_t pitch() const { return static_cast<std::size_t>(columns) * lanes; }
  std::size_t plane() const { return height * pitch(); }  // elements of one channel of one block
  Strides strides(int blocks, int channels, int element_bytes) const;
  int vectors() const { return height * columns; }  // vectors of one channel of one block
  int row_pairs() const { return (height + 1) / 2; }
  int blocks(int n) const { return (n + images - 1) / images; }
  int pixels() const { return height * width; }
  bool padded() const { return width != slot; }

  // Blocks that one op after the other runs over while they are in the cache: eight tile rows of Winograd's, or one block.
  int chunk() const { return std::max(1, 32 / height); }
  int chunks(int n) const { return (blocks(n) + chunk() - 1) / chunk(); }

  static constexpr int kMostSlices = 2;
  int slices() const { return half < INT_MAX ? kMostSlices : 1; }  // of a whole batch
  int slices(int blocks) const { return blocks > half ? kMostSlices : 1; }
  int slice_begin(int slice) const { return slice * half; }
  int slice_end(int blocks, int slice) const { return slice + 1 < slices(blocks) ? half : blocks; }
  // f(begin, end) for the blocks begin..end - 1, slice by slice.
  template <class F>
  void each_slice(int begin, int end, F&& f) const {
    const int middle = std::clamp(half, begin, end);
    if (begin < middle) f(begin, middle);
    if (middle < end) f(middle, end);
  }

  // Winograd's algorithms take four rows at a time, and four vectors of them: along columns and rows where a row has whole tiles, along columns alone
  // elsewhere. There a row has less than four lanes, which are in one vector, or vectors have two.
  bool fits_winograd2d() const { return height % 4 == 0 && 4 % columns == 0 && slot >= 4 && lanes >= 4; }
  bool fits_winograd() const { return height % 4 == 0 && 4 % columns == 0 && (columns == 1 || lanes < 4); }

  // Bits of the lanes of vector `column` in which `keep(w)` holds, for the first `n` images of a block.
  template <class F>
  std::uint64_t bits(int column, int n, F keep) const {
    std::uint64_t out = 0;
    for (int lane = 0; lane < lanes; ++lane) {
      const int x = column * lanes + lane;
      const int w = x % slot;
      if (x / slot < n && keep(w)) out |= std::uint64_t{1} << lane;
    }
    return out;
  }
  std::uint64_t valid(int column, int n) const {
    return bits(column, n, [&](int w) { return w < width; });
  }
  std::uint64_t has_left(int column) const {  // lanes with a pixel to their left
    return bits(column, images, [](int w) { return w > 0; });
  }
  std::uint64_t has_right(int column) const {
    return bits(column, images, [&](int w) { return w + 1 < width; });
  }

 private:
  Grid(int height, int width, int lanes, int least_slot) : height(height), width(width), lanes(lanes), slot(least_slot) {
    while (slot < width && slot < lanes) slot *= 2;
    if (std::max(slot, width) > lanes) slot = (std::max(slot, width) + lanes - 1) / lanes * lanes;
    images = slot < lanes ? lanes / slot : 1;
    columns = slot < lanes ? 1 : slot / lanes;
  }
};

// Slice by slice, channel by channel. Channels are an odd number of pairs of cache lines apart, so that the same rows of consecutive channels,
// which a convolution reads together, do not meet in the same cache sets. In one slice, whose chunks are split among threads, an odd number of planes
// leaves room for what is fetched beyond a channel's last block.
inline Strides Grid::strides(int blocks, int channels, int element_bytes) const {
  const bool is_sliced = blocks > half;
  const std::size_t pair = 128 / element_bytes, taken = plane() * (is_sliced ? std::max(half, blocks - half) : blocks | 1);
  const std::size_t channel = ((taken + pair - 1) / pair | 1) * pair;
  return {plane(), channel, half, is_sliced ? channel * channels - half * plane() : 0};
}

// Bytes, of a common L2 cache: a larger tensor is not there whole when it is read again.
inline constexpr std::size_t kHalfL2 = std::size_t{512} << 10;

// What 3x3 max pooling keeps of a vector in each of two rows (pool.hpp).
inline constexpr int kWinnerBytes = 14;

// A tensor in the layout.
template <class T>
struct View {
  T* data;
  std::size_t block, channel;  // as of Strides
  int half = INT_MAX;
  std::size_t gap = 0;

  T* at(int b, int c = 0) const { return data + b * block + c * channel + (b >= half ? gap : 0); }
  View from_channel(int c) const { return {data + c * channel, block, channel, half, gap}; }
  View moved(std::ptrdiff_t by) const { return {data + by, block, channel, half, gap}; }
  // For the slice of block b alone: there blocks are `block` apart.
  View around(int b) const { return {b >= half ? data + gap : data, block, channel}; }
  operator View<const T>() const { return {data, block, channel, half, gap}; }
};

}  // namespace spd
