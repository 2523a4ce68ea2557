// The direct 3x3 convolution, with stride 1 and zero padding 1.
//
//   forward   y[n, o, h, w]     = sum_{i, kh, kw} k[o, i, kh, kw] * x[n, i, h + kh - 1, w + kw - 1]
//   dgrad     dx                = the forward of dy with the taps turned round and the channel axes exchanged
//   wgrad     dk[o, i, kh, kw]  = sum_{n, h, w} dy[n, o, h, w] * x[n, i, h + kh - 1, w + kw - 1]
//   tangents  all three are bilinear, so y_t = forward(x_t, k) + forward(x, k_t), and so on; for these `accumulate` adds to y instead of overwriting it
//
// x and y are views in the row-vector layout (grid.hpp); k: (c_out, c_in, 3, 3). y and dk are overwritten, and no arrays overlap.
// Preconditions: lanes without a pixel are zero in x and dy; one vector before and behind x is readable.
// Precision: all is in the element type; each output is one chain of c_in * 9 fused multiply-adds in a fixed order.
#pragma once

#include "../plan/grid.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

// ---- the specification, in plain loops over (n, c, h, w) arrays

template <class T>
void conv_forward_ref(T* y, const T* x, const T* k, int n, int c_in, int c_out, int height, int width, int size) {
  const int r = size / 2;
  for (int b = 0; b < n; ++b)
    for (int o = 0; o < c_out; ++o)
      for (int h = 0; h < height; ++h)
        for (int w = 0; w < width; ++w) {
          T s = 0;
          for (int i = 0; i < c_in; ++i)
            for (int kh = 0; kh < size; ++kh)
              for (int kw = 0; kw < size; ++kw) {
                const int p = h + kh - r, q = w + kw - r;
                if (p < 0 || p >= height || q < 0 || q >= width) continue;
                s += k[((o * c_in + i) * size + kh) * size + kw] * x[((b * c_in + i) * height + p) * width + q];
              }
          y[((b * c_out + o) * height + h) * width + w] = s;
        }
}
template <class T>
void conv_backward_ref(T* dx, T* dk, const T* dy, const T* x, const T* k, int n, int c_in, int c_out, int height, int width, int size) {
  const int r = size / 2;
  for (int j = 0; j < n * c_in * height * width; ++j) dx[j] = 0;
  for (int j = 0; j < c_out * c_in * size * size; ++j) dk[j] = 0;
  for (int b = 0; b < n; ++b)
    for (int o = 0; o < c_out; ++o)
      for (int h = 0; h < height; ++h)
        for (int w = 0; w < width; ++w) {
          const T d = dy[((b * c_out + o) * height + h) * width + w];
          for (int i = 0; i < c_in; ++i)
            for (int kh = 0; kh < size; ++kh)
              for (int kw = 0; kw < size; ++kw) {
                const int p = h + kh - r, q = w + kw - r;
                if (p < 0 || p >= height || q < 0 || q >= width) continue;
                const int at_k = ((o * c_in + i) * size + kh) * size + kw, at_x = ((b * c_in + i) * height + p) * width + q;
                dx[at_x] += k[at_k] * d;
                dk[at_k] += x[at_x] * d;
              }
        }
}

// ---- blocking: kRows rows of kBlock output channels are kept in registers; AVX-512 has 32 of them, other sets have 16

inline constexpr bool kManyRegisters = SPD_VECTOR_BYTES == 64;
inline constexpr int kRows = kManyRegisters ? 4 : 3, kBlock = kManyRegisters ? 6 : 4;  // takes 24 sums and 6 + 1 other registers, or 12 and 5 + 1

// n channels are split into parts that are as equal as possible (10 = 5 + 5, not 6 + 4).
inline int parts_of(int n, int most) { return (n + most - 1) / most; }
inline int part_begin(int n, int parts, int i) { return n * i / parts; }

// Packs k as [channel block][c_in][kw][kh][channel of the block]. `turned` packs the weights of dgrad.
template <class T>
void conv3x3_pack(T* packed, const T* k, int c_in, int c_out, bool turned) {
  const int parts = parts_of(c_out, kBlock);
  for (int p = 0; p < parts; ++p) {
    const int begin = part_begin(c_out, parts, p), end = part_begin(c_out, parts, p + 1);
    for (int i = 0; i < c_in; ++i)
      for (int kw = 0; kw < 3; ++kw)
        for (int kh = 0; kh < 3; ++kh)
          for (int o = begin; o < end; ++o)
            *packed++ = turned ? k[(static_cast<std::size_t>(i) * c_out + o) * 9 + (2 - kh) * 3 + 2 - kw]
                               : k[(static_cast<std::size_t>(o) * c_in + i) * 9 + kh * 3 + kw];
  }
}

// Shifts an image row, so that column w + kw - 1 is in lane w. Beyond the border it is zero.
template <class T>
SPD_INLINE vec<T> load_shifted(const T* p, int kw, mask<T> left, mask<T> right) {
  return kw == 0 ? load_masked<T>(p - 1, left) : kw == 1 ? load<T>(p) : load_masked<T>(p + 1, right);
}

// Computes C channels x R rows of y. kTop and kBottom say that the tile's first or last row is that of the image.
template <class T, int C, int R, bool kTop, bool kBottom>
SPD_INLINE void conv3x3_tile(T* y, std::size_t y_channel, const T* x, std::size_t x_channel, std::size_t pitch, int c_in, const T* k, mask<T> left,
                             mask<T> right, bool accumulate) {
  vec<T> acc[C][R]{};
  if (accumulate) SPD_UNROLL
  for (int c = 0; c < C; ++c) SPD_UNROLL
  for (int r = 0; r < R; ++r) acc[c][r] = load<T>(y + c * y_channel + r * pitch);
  for (int i = 0; i < c_in; ++i, x += x_channel, k += 9 * C) {
    SPD_UNROLL
    for (int kw = 0; kw < 3; ++kw) {
      vec<T> in[R + 2];
      SPD_UNROLL
      for (int r = 0; r < R + 2; ++r)
        if (!(kTop && r == 0) && !(kBottom && r == R + 1)) in[r] = load_shifted<T>(x + (r - 1) * static_cast<std::ptrdiff_t>(pitch), kw, left, right);
      SPD_UNROLL
      for (int kh = 0; kh < 3; ++kh) SPD_UNROLL
      for (int c = 0; c < C; ++c) {
        const vec<T> tap = broadcast<T>(k[(kw * 3 + kh) * C + c]);
        SPD_UNROLL
        for (int r = 0; r < R; ++r)
          if (!(kTop && r + kh == 0) && !(kBottom && r + kh == R + 1)) acc[c][r] += in[r + kh] * tap;
      }
    }
  }
  SPD_UNROLL
  for (int c = 0; c < C; ++c) SPD_UNROLL
  for (int r = 0; r < R; ++r) store(y + c * y_channel + r * pitch, acc[c][r]);
}

// Computes C channels of one block: one column of vectors, in all rows.
template <class T, int C>
SPD_NOINLINE void conv3x3_column(T* y, std::size_t y_channel, const T* x, std::size_t x_channel, std::size_t pitch, int height, int c_in, const T* k,
                                 mask<T> left, mask<T> right, bool accumulate) {
  int h = 0;
  const auto tile = [&]<int R, bool kTop, bool kBottom>() {
    conv3x3_tile<T, C, R, kTop, kBottom>(y + h * pitch, y_channel, x + h * pitch, x_channel, pitch, c_in, k, left, right, accumulate);
    h += R;
  };
  if (height > kRows)
    tile.template operator()<kRows, true, false>();
  else if (height == kRows)
    tile.template operator()<kRows, true, true>();
  while (h + kRows < height) tile.template operator()<kRows, false, false>();
  if (h > 0 && h + kRows == height) tile.template operator()<kRows, false, true>();
  with_constant<kRows - 1>(height - h, [&]<int R>() {
    if (h == 0)
      tile.template operator()<R, true, true>();
    else
      tile.template operator()<R, false, true>();
  });
}

// The forward for the blocks begin..end - 1 of the batch. It is dgrad where `packed` is turned and the channel counts are exchanged.
template <class T>
void conv3x3_forward(View<T> y, View<const T> x, const T* packed, const Grid& grid, int begin, int end, int c_in, int c_out, bool accumulate = false) {
  const int parts = parts_of(c_out, kBlock);
  for (int b = begin; b < end; ++b) {
    const T* k = packed;
    for (int p = 0; p < parts; ++p) {
      const int first = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - first;
      for (int column = 0; column < grid.columns; ++column) {
        const mask<T> left = mask_of_bits<T>(grid.has_left(column)), right = mask_of_bits<T>(grid.has_right(column));
        with_constant<kBlock>(size, [&]<int C>() {
          conv3x3_column<T, C>(y.data + b * y.block + first * y.channel + column * lanes<T>, y.channel, x.data + b * x.block + column * lanes<T>, x.channel,
                               grid.pitch(), grid.height, c_in, k, left, right, accumulate);
        });
      }
      k += static_cast<std::size_t>(size) * c_in * 9;
    }
  }
}

// ---- wgrad: kOut output channels x 1 input channel x 9 taps stay in registers over the whole batch

inline constexpr int kOut = kManyRegisters ? 3 : 1;

// One row of x, shifted in three ways, is multiplied with the rows h + 1, h and h - 1 of dy: tap kh belongs to row h + 1 - kh.
template <class T, int C, bool kTop, bool kBottom>
SPD_INLINE void conv3x3_wgrad_row(vec<T> (&acc)[C * 9], const T* x, const T* dy, std::size_t dy_channel, std::size_t pitch, mask<T> left, mask<T> right) {
  vec<T> in[3];
  SPD_UNROLL
  for (int kw = 0; kw < 3; ++kw) in[kw] = load_shifted<T>(x, kw, left, right);
  SPD_UNROLL
  for (int kh = 0; kh < 3; ++kh)
    if (!(kTop && kh == 2) && !(kBottom && kh == 0)) {
      SPD_UNROLL
      for (int c = 0; c < C; ++c) {
        const vec<T> d = in_register<T>(load<T>(dy + c * dy_channel + (1 - kh) * static_cast<std::ptrdiff_t>(pitch)));
        SPD_UNROLL
        for (int kw = 0; kw < 3; ++kw) acc[c * 9 + kh * 3 + kw] += in[kw] * d;
      }
    }
}
template <class T, int C>
SPD_NOINLINE void conv3x3_wgrad_block(T* dk, std::size_t dk_channel, View<const T> dy, View<const T> x, const Grid& grid, int begin, int end) {
  vec<T> acc[C * 9]{};
  const std::size_t pitch = grid.pitch();
  for (int column = 0; column < grid.columns; ++column) {
    const mask<T> left = mask_of_bits<T>(grid.has_left(column)), right = mask_of_bits<T>(grid.has_right(column));
    for (int b = begin; b < end; ++b) {
      const T* xb = x.at(b) + column * lanes<T>;
      const T* db = dy.at(b) + column * lanes<T>;
      const int last = grid.height - 1;
      if (last == 0) {
        conv3x3_wgrad_row<T, C, true, true>(acc, xb, db, dy.channel, pitch, left, right);
        continue;
      }
      conv3x3_wgrad_row<T, C, true, false>(acc, xb, db, dy.channel, pitch, left, right);
      for (int h = 1; h < last; ++h) conv3x3_wgrad_row<T, C, false, false>(acc, xb + h * pitch, db + h * pitch, dy.channel, pitch, left, right);
      conv3x3_wgrad_row<T, C, false, true>(acc, xb + last * pitch, db + last * pitch, dy.channel, pitch, left, right);
    }
  }
  T sums[C * 9];
  sum_lanes<T, C * 9>(sums, acc);
  for (int c = 0; c < C; ++c)
    for (int tap = 0; tap < 9; ++tap) dk[c * dk_channel + tap] = sums[c * 9 + tap];
}
// The weight gradient for the input channels i..i_end - 1.
template <class T>
void conv3x3_wgrad(T* dk, View<const T> dy, View<const T> x, const Grid& grid, int begin, int end, int i, int i_end, int c_in, int c_out) {
  const int parts = parts_of(c_out, kOut);
  for (; i < i_end; ++i)
    for (int p = 0; p < parts; ++p) {
      const int first = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - first;
      with_constant<kOut>(size, [&]<int C>() {
        conv3x3_wgrad_block<T, C>(dk + (static_cast<std::size_t>(first) * c_in + i) * 9, static_cast<std::size_t>(c_in) * 9, dy.from_channel(first),
                                  x.from_channel(i), grid, begin, end);
      });
    }
}

}  // namespace spd::SPD_ISA
