// The row-vector layout. Activations are stored as `[slice][channel][block][row][lane]`. Pixels, not channels, run along a vector, because the channel counts
// of cells are uneven (5, 8, 10, 16, 21 ...) and the sides of images are not. A slice is a part of the batch. In it a channel's blocks are contiguous, for the
// passes that sum over them. A row of 16 lanes holds one image row of 16 pixels, or the rows of two images side by side that are 8 wide, or of four that are 4
// wide. Images that are wider than a vector take several vectors a row. So
//
//   image i, channel c, row h, column w  ->  block i / images, lane (i % images) * slot + w   (slot: the lanes that an image row takes)
//
// Some lanes hold no pixel, because the width is no power of two or the last block lacks images. They are zero in every tensor that a convolution reads, and
// may hold anything in a tensor that a convolution wrote.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>

namespace spd {

// The strides of a tensor in the layout: the elements from block to block and from channel to channel.
// From block `half` on, everything is `gap` elements further.
struct Strides {
  std::size_t block = 0, channel = 0;
  int half = INT_MAX;
  std::size_t gap = 0;
};

struct Grid {
  int height = 0, width = 0;
  int lanes = 0;    // lanes of a vector
  int slot = 0;     // lanes that one image row takes
  int images = 0;   // images side by side in a vector, or 1 where an image row takes a whole vector or more
  int columns = 0;  // vectors of a row

  // How many blocks the batch's first slice has, which are whole chunks. Where the batch is one slice, it is more than there are. Sums over the batch are taken
  // over each slice first, and slices are apart in memory. So the threads of a team keep to their slices from op to op, and seldom read or prefetch what
  // another thread writes.
  int half = INT_MAX;
  int batch = INT_MAX;  // the images of a whole batch

  Grid() = default;
  Grid(int height, int width, int lanes) : Grid(height, width, lanes, 1) {}

  // The grid after 2x2 pooling. Every slot is half as wide, so that two vectors become one.
  Grid halved() const { return Grid(height / 2, width / 2, lanes, slot / 2); }

  // The same grid for a batch of n images.
  Grid of_batch(int n) const {
    Grid out = *this;
    out.batch = n;
    out.half = blocks(n) >= 2 * chunk() ? chunks(n) / 2 * chunk() : INT_MAX;
    return out;
  }

  std::size_t pitch() const { return static_cast<std::size_t>(columns) * lanes; }
  std::size_t plane() const { return height * pitch(); }  // elements of one channel of one block
  Strides strides(int blocks, int channels, int element_bytes) const;
  int vectors() const { return height * columns; }  // vectors of one channel of one block
  int row_pairs() const { return (height + 1) / 2; }
  int blocks(int n) const { return (n + images - 1) / images; }
  int images_of(int block) const { return std::min(images, batch - block * images); }  // those of a whole batch that are in a block
  int pixels() const { return height * width; }
  bool padded() const { return width != slot; }

  // How many blocks a chunk has. The ops of a run go over a chunk one after the other while it is in
  // the cache. It has eight of Winograd's tile rows, or one block.
  int chunk() const { return std::max(1, 32 / height); }
  int chunks(int n) const { return (blocks(n) + chunk() - 1) / chunk(); }

  static constexpr int kMostSlices = 2;
  int slices() const { return half < INT_MAX ? kMostSlices : 1; }  // slices of a whole batch
  int slices(int blocks) const { return blocks > half ? kMostSlices : 1; }
  int slice_begin(int slice) const { return slice * half; }
  int slice_end(int blocks, int slice) const { return slice + 1 < slices(blocks) ? half : blocks; }
  // Calls f(begin, end) for the blocks begin..end - 1, slice by slice.
  template <class F>
  void each_slice(int begin, int end, F&& f) const {
    const int middle = std::clamp(half, begin, end);
    if (begin < middle) f(begin, middle);
    if (middle < end) f(middle, end);
  }

  // Winograd's algorithms take four rows at a time, and four vectors of them. They work along columns and rows where a row has whole tiles, and along columns
  // alone elsewhere. There a row has fewer than four lanes, which are in one vector, or vectors have two lanes.
  bool fits_winograd2d() const { return height % 4 == 0 && 4 % columns == 0 && slot >= 4 && lanes >= 4; }
  // Images of 2 x 2 pixels, several in a vector, may have channels in the lanes instead.
  bool fits_channels() const { return height == 2 && width == 2 && slot == 2 && lanes >= 4; }
  bool fits_winograd() const { return height % 4 == 0 && 4 % columns == 0 && (columns == 1 || lanes < 4); }

  // These return a bit for each lane of vector `column`: of the first `n` images of a block, the lanes that hold a pixel, and of all images those that have a
  // pixel to their left, or to their right.
  std::uint64_t valid(int column, int n) const { return bits(column, 0, width) & low_bits(n * slot - column * lanes); }
  std::uint64_t has_left(int column) const { return bits(column, 1, slot); }
  std::uint64_t has_right(int column) const { return bits(column, 0, width - 1); }

 private:
  static std::uint64_t low_bits(int n) { return n <= 0 ? 0 : n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1; }
  // The lanes of vector `column` that have the columns first..until - 1 of an image.
  std::uint64_t bits(int column, int first, int until) const {
    const int begin = column * lanes;
    std::uint64_t out = low_bits(until - begin) & ~low_bits(first - begin);
    for (int each = slot; each < lanes; each *= 2) out |= out << each;
    return out & low_bits(lanes);
  }

  Grid(int height, int width, int lanes, int least_slot) : height(height), width(width), lanes(lanes), slot(least_slot) {
    while (slot < width && slot < lanes) slot *= 2;
    if (std::max(slot, width) > lanes) slot = (std::max(slot, width) + lanes - 1) / lanes * lanes;
    images = slot < lanes ? lanes / slot : 1;
    columns = slot < lanes ? 1 : slot / lanes;
  }
};

// A tensor is stored slice by slice, and a slice channel by channel. Channels are an odd number of pairs of cache lines apart, so that the same rows of
// consecutive channels, which a convolution reads together, do not fall into the same cache sets. Where there is one slice, whose chunks are split among
// threads, a channel takes an odd number of planes, which leaves room for what is prefetched beyond its last block.
inline Strides Grid::strides(int blocks, int channels, int element_bytes) const {
  const bool is_sliced = blocks > half;
  const std::size_t pair = 128 / element_bytes, taken = plane() * (is_sliced ? std::max(half, blocks - half) : blocks | 1);
  const std::size_t channel = ((taken + pair - 1) / pair | 1) * pair;
  return {plane(), channel, half, is_sliced ? channel * channels - half * plane() : 0};
}

// Half of a common L2 cache, in bytes. A larger tensor is not in the cache as a whole when it is read again.
inline constexpr std::size_t kHalfL2 = std::size_t{512} << 10;

// The bytes that 3x3 max pooling stores for two vectors, one above the other (pool.hpp).
inline constexpr int kWinnerBytes = 14;

// A tensor in the layout.
template <class T>
struct View {
  T* data;
  std::size_t block, channel;  // these four as in Strides
  int half = INT_MAX;
  std::size_t gap = 0;

  T* at(int b, int c = 0) const { return data + b * block + c * channel + (b >= half ? gap : 0); }
  View from_channel(int c) const { return {data + c * channel, block, channel, half, gap}; }
  View moved(std::ptrdiff_t by) const { return {data + by, block, channel, half, gap}; }
  // A view of the slice of block b alone, in which blocks are `block` apart.
  View around(int b) const { return {b >= half ? data + gap : data, block, channel}; }
  operator View<const T>() const { return {data, block, channel, half, gap}; }
};

}  // namespace spd
