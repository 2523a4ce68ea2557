// The 3x3 convolution of images of 2 x 2 pixels, with stride 1 and zero padding 1: what conv3x3.hpp computes, with channels in the lanes.
//
// Every pixel meets every other pixel under exactly one tap, so an image has 16 products for each pair of channels, and padding none. Where pixels run along
// vectors, a third of the lanes multiply padding, and a weight gradient ends with nine sums over lanes for each pair of channels, which take longer than the
// products. Here output channels run along a vector: a tap is a vector, a pixel of x is broadcast, and a weight gradient is there without sums over lanes.
//
// x and y are views in the row-vector layout (grid.hpp). A block is turned to or from channels in groups of four.
// In the last block of a batch, lanes of images that are not there get what scratch held, which is finite: readers mask them.
// Preconditions: lanes without a pixel are zero in dy; four lanes or more; y and dk are overwritten (or y added to), and no arrays overlap.
// Precision: all is in the element type; each output is one chain of fused multiply-adds over channels (forward) or pixels (wgrad), in a fixed order.
#pragma once

#include "../plan/grid.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

inline constexpr int kPlanePixels = 4;  // of an image, row by row

// The tap under which pixel q of the input meets pixel p of the output.
constexpr int tap_between(int p, int q) { return (q / 2 - p / 2 + 1) * 3 + q % 2 - p % 2 + 1; }

template <class T>
constexpr int whole_vectors(int channels) {
  return (channels + lanes<T> - 1) / lanes<T>;
}
// The elements of the packed weights, whichever channels are the output's and in whichever element type.
inline std::size_t conv3x3_channels_packed(int c_in, int c_out) {
  const auto padded = [](int channels) { return static_cast<std::size_t>(channels + 15) / 16 * 16; };
  return 9 * std::max(padded(c_in) * c_out, padded(c_out) * c_in);
}

// Packs k as [vector of output channels][c_in][tap][lane], with zeros beyond the last channel. `turned` packs the weights of dgrad. The taps of a vector's
// channels are rows, whose columns are transposed four at a time; the last four overlap those before.
template <class T>
SPD_NOINLINE void conv3x3_channels_pack(T* packed, const T* k, int c_in, int c_out, bool turned) {
  const std::size_t next = turned ? 9 : static_cast<std::size_t>(c_in) * 9;  // from one output channel's taps to the next one's
  const int columns = turned ? 9 : 9 * c_in, runs = turned ? c_in : 1;
  T padded[9 * lanes<T>];
  const auto transpose = [&](T* to, const T* rows, std::size_t row, int columns) {
    for (int j = 0; j < columns; j += 4) {
      const int column = std::min(j, columns - 4);
      vec<T> v[4];
      SPD_UNROLL
      for (int r = 0; r < 4; ++r) v[r] = of_groups<T>(rows + column + r * row, 4 * row);
      transpose4<T>(v);
      SPD_UNROLL
      for (int r = 0; r < 4; ++r) store(to + (turned ? 8 - column - r : column + r) * lanes<T>, v[r]);
    }
  };
  for (int o = 0; o < c_out; o += lanes<T>)
    for (int run = 0; run < runs; ++run, packed += columns * lanes<T>) {
      const T* rows = k + static_cast<std::size_t>(run) * c_out * 9 + o * next;
      if (o + lanes<T> <= c_out) {
        transpose(packed, rows, next, columns);
        continue;
      }
      std::memset(padded, 0, sizeof padded);
      for (int column = 0; column < columns; column += 9) {
        for (int row = 0; row < c_out - o; ++row) std::memcpy(padded + row * 9, rows + row * next + column, 9 * sizeof(T));
        transpose(packed + column * lanes<T>, padded, 9, 9);
      }
    }
}

// Copies between rows of pixels and `turned`, which has all channels of lane 0 of the first row, those of lane 1, and so on: `pitch` elements a lane.
// from_channels writes y, or adds to it.
template <class T>
SPD_INLINE void to_channels(T* turned, std::size_t pitch, const T* y, std::size_t y_channel, std::size_t row, int channels) {
  for (int o = 0; o < channels; o += 4)
    for (int h = 0; h < 2; ++h) {
      vec<T> v[4];
      SPD_UNROLL
      for (int c = 0; c < 4; ++c) v[c] = o + c < channels ? load<T>(y + (o + c) * y_channel + h * row) : zeros<T>();
      transpose4<T>(v);
      SPD_UNROLL
      for (int r = 0; r < 4; ++r) store_groups<T>(turned + (h * lanes<T> + r) * pitch + o, 4 * pitch, v[r]);
    }
}
template <class T>
SPD_INLINE void from_channels(T* y, std::size_t y_channel, std::size_t row, const T* turned, std::size_t pitch, int channels, bool accumulate) {
  for (int o = 0; o < channels; o += 4)
    for (int h = 0; h < 2; ++h) {
      vec<T> v[4];
      SPD_UNROLL
      for (int r = 0; r < 4; ++r) v[r] = of_groups<T>(turned + (h * lanes<T> + r) * pitch + o, 4 * pitch);
      transpose4<T>(v);
      SPD_UNROLL
      for (int c = 0; c < 4; ++c)
        if (o + c < channels) {
          T* to = y + (o + c) * y_channel + h * row;
          store(to, accumulate ? load<T>(to) + v[c] : v[c]);
        }
    }
}

// ---- forward: kImagesTogether images x 4 pixels of one vector of output channels are kept in registers

inline constexpr int kImagesTogether = SPD_VECTOR_BYTES == 64 ? 4 : 2;

template <class T>
std::size_t conv3x3_channels_scratch(const Grid& grid, int c_out) {
  return grid.plane() * whole_vectors<T>(c_out) * lanes<T>;
}

// The forward for the blocks begin..end - 1 of the batch, in one slice. It is dgrad where `packed` is turned and the channel counts are exchanged.
// A pixel is broadcast once for all pixels that it meets, and a tap is loaded once: with many registers for all of them, with few for kImagesTogether. Otherwise
// loads, of which a core has two a cycle, would take longer than the products.
template <class T>
SPD_NOINLINE void conv3x3_channels_forward(View<T> y, View<const T> x, const T* packed, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out,
                                           bool accumulate) {
  const std::size_t row = grid.pitch(), pitch = static_cast<std::size_t>(whole_vectors<T>(c_out)) * lanes<T>;
  for (int b = begin; b < end; ++b) {
    const T* k = packed;
    const int images = grid.images_of(b);
    for (int v = 0; v < whole_vectors<T>(c_out); ++v, k += static_cast<std::size_t>(c_in) * 9 * lanes<T>)
      for (int image = 0; image < images; image += kImagesTogether) {
        vec<T> acc[kImagesTogether][kPlanePixels]{};
        const T* xi = x.data + b * x.block + image * 2;
        const T* ki = k;
        for (int i = 0; i < c_in; ++i, xi += x.channel, ki += 9 * lanes<T>) {
          vec<T> kept[9];
          if constexpr (kManyRegisters) SPD_UNROLL
          for (int tap = 0; tap < 9; ++tap) kept[tap] = in_register<T>(load<T>(ki + tap * lanes<T>));
          SPD_UNROLL
          for (int q = 0; q < kPlanePixels; ++q) {
            vec<T> pixel[kImagesTogether];
            SPD_UNROLL
            for (int m = 0; m < kImagesTogether; ++m) pixel[m] = in_register<T>(broadcast<T>(xi[q / 2 * row + m * 2 + q % 2]));
            SPD_UNROLL
            for (int p = 0; p < kPlanePixels; ++p) {
              const vec<T> tap = kManyRegisters ? kept[tap_between(p, q)] : in_register<T>(load<T>(ki + tap_between(p, q) * lanes<T>));
              SPD_UNROLL
              for (int m = 0; m < kImagesTogether; ++m) acc[m][p] += pixel[m] * tap;
            }
          }
        }
        SPD_UNROLL
        for (int m = 0; m < kImagesTogether; ++m) SPD_UNROLL
        for (int p = 0; p < kPlanePixels; ++p) store(scratch + (p / 2 * lanes<T> + (image + m) * 2 + p % 2) * pitch + v * lanes<T>, acc[m][p]);
      }
    from_channels<T>(y.data + b * y.block, y.channel, row, scratch, pitch, c_out, accumulate);
  }
}

// ---- wgrad

// The elements of dy with channels in the lanes, and behind them of one input channel's gradient for each thread.
template <class T>
std::size_t conv3x3_channels_wgrad_scratch(const Grid& grid, int blocks, int c_out) {
  return blocks * conv3x3_channels_scratch<T>(grid, c_out);
}
template <class T>
void conv3x3_channels_turn(T* scratch, View<const T> dy, const Grid& grid, int begin, int end, int c_out) {
  const std::size_t pitch = static_cast<std::size_t>(whole_vectors<T>(c_out)) * lanes<T>;
  for (int b = begin; b < end; ++b) to_channels<T>(scratch + b * grid.plane() * pitch, pitch, dy.at(b), dy.channel, grid.pitch(), c_out);
}
// The weight gradient for I input channels and one vector of output channels, of which the first n are there. `turned` is dy as conv3x3_channels_turn makes
// it. The tap in the middle, which four pairs of pixels meet under, has two sums, so that no product waits for the one before it.
template <class T, int I>
SPD_INLINE void conv3x3_channels_wgrad_part(T* dk, std::size_t dk_channel, int n, const T* turned, std::size_t pitch, View<const T> x, const Grid& grid,
                                            int blocks) {
  vec<T> acc[I][10]{};
  const std::size_t row = grid.pitch();
  for (int b = 0; b < blocks; ++b) {
    const T* xb = x.at(b);
    const T* db = turned + b * grid.plane() * pitch;
    for (int image = 0, images = grid.images_of(b); image < images; ++image, xb += 2, db += 2 * pitch) {
      vec<T> pixel[I][kPlanePixels];
      SPD_UNROLL
      for (int i = 0; i < I; ++i) SPD_UNROLL
      for (int q = 0; q < kPlanePixels; ++q) pixel[i][q] = in_register<T>(broadcast<T>(xb[i * x.channel + q / 2 * row + q % 2]));
      SPD_UNROLL
      for (int p = 0; p < kPlanePixels; ++p) {
        const vec<T> d = in_register<T>(load<T>(db + (p / 2 * lanes<T> + p % 2) * pitch));
        SPD_UNROLL
        for (int q = 0; q < kPlanePixels; ++q) {
          const int tap = tap_between(p, q), at = tap == 4 && p % 2 ? 9 : tap;
          SPD_UNROLL
          for (int i = 0; i < I; ++i) acc[i][at] += pixel[i][q] * d;
        }
      }
    }
  }
  SPD_UNROLL
  for (int i = 0; i < I; ++i) {
    acc[i][4] += acc[i][9];
    SPD_UNROLL
    for (int tap = 0; tap < 8; tap += 4) {
      vec<T> v[4] = {acc[i][tap], acc[i][tap + 1], acc[i][tap + 2], acc[i][tap + 3]};
      transpose4<T>(v);
      SPD_UNROLL
      for (int r = 0; r < 4; ++r) store_groups<T>(dk + r * dk_channel + i * 9 + tap, 4 * dk_channel, v[r], (n - r + 3) / 4);
    }
    T last[lanes<T>];
    store(last, acc[i][8]);
    for (int o = 0; o < n; ++o) dk[o * dk_channel + i * 9 + 8] = last[o];
  }
}
// The weight gradient for the input channels i..i_end - 1.
template <class T>
SPD_NOINLINE void conv3x3_channels_wgrad(T* dk, const T* turned, View<const T> x, const Grid& grid, int blocks, int i, int i_end, int c_in, int c_out) {
  constexpr int kMost = SPD_VECTOR_BYTES == 64 ? 2 : 1;
  const std::size_t pitch = static_cast<std::size_t>(whole_vectors<T>(c_out)) * lanes<T>, dk_channel = static_cast<std::size_t>(c_in) * 9;
  const auto part = [&]<int I>(int first) {
    for (int o = 0; o < c_out; o += lanes<T>)
      conv3x3_channels_wgrad_part<T, I>(dk + o * dk_channel + first * 9, dk_channel, std::min(c_out - o, lanes<T>), turned + o, pitch, x.from_channel(first),
                                        grid, blocks);
  };
  for (; i + kMost <= i_end; i += kMost) part.template operator()<kMost>(i);
  if (i < i_end) part.template operator()<1>(i);
}

}  // namespace spd::SPD_ISA
