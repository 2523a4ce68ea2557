// Max-pooling. A byte per output pixel remembers which input pixel won (the first in row-major order where several tie, as in PyTorch).
//
//   maxpool3x3, stride 1, same     y[h, w] = max_{kh, kw} x[h + kh - 1, w + kw - 1]       taken = 3 kh + kw
//   maxpool2x2, stride 2, valid    y[h, w] = max_{kh, kw} x[2h + kh, 2w + kw]             taken = 2 kh + kw;  an odd last row or column is dropped
//
// x, y: views in the row-vector layout, `taken` laid out as a dense y. Outputs are overwritten. dy must be zero in lanes without a pixel for 3x3.
#pragma once

#include <limits>

#include "../grid.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

// ---- the specification: (planes, height, width) arrays

template <class T>
void maxpool_ref(T* y, T* dx, const T* x, const T* dy, int planes, int height, int width, int size, int stride) {
  const int out_h = stride == 1 ? height : height / 2, out_w = stride == 1 ? width : width / 2, r = stride == 1 ? 1 : 0;
  for (int i = 0; i < planes * height * width; ++i) dx[i] = 0;
  for (int p = 0; p < planes; ++p)
    for (int h = 0; h < out_h; ++h)
      for (int w = 0; w < out_w; ++w) {
        int best = -1;
        for (int kh = 0; kh < size; ++kh)
          for (int kw = 0; kw < size; ++kw) {
            const int a = h * stride + kh - r, b = w * stride + kw - r;
            if (a < 0 || a >= height || b < 0 || b >= width) continue;
            const int at = (p * height + a) * width + b;
            if (best < 0 || x[at] > x[best]) best = at;
          }
        const int out = (p * out_h + h) * out_w + w;
        y[out] = x[best];
        dx[best] += dy[out];
      }
}

// ---- 3x3, stride 1

// The larger of each pixel and its neighbours in the row, and which (0 left, 1 itself, 2 right): the first that is largest.
template <class T>
SPD_INLINE void row_maximum(vec<T>& value, ivec<T>& which, const T* p, mask<T> left, mask<T> right) {
  const vec<T> low = broadcast<T>(-std::numeric_limits<T>::infinity());
  const vec<T> a = load_masked<T>(p - 1, left, low), b = load(p), c = load_masked<T>(p + 1, right, low);
  const mask<T> later = greater<T>(b, a);
  value = select<T>(later, b, a);
  which = select_int<T>(later, ivec<T>{} + 1, ivec<T>{});
  const mask<T> last = greater<T>(c, value);
  value = select<T>(last, c, value);
  which = select_int<T>(last, ivec<T>{} + 2, which);
}

template <class T>
void maxpool3x3_forward(View<T> y, std::uint8_t* taken, View<const T> x, const Grid& grid, int blocks, int channels) {
  const std::size_t pitch = grid.pitch();
  const vec<T> low = broadcast<T>(-std::numeric_limits<T>::infinity());
  for (int b = 0; b < blocks; ++b)
    for (int c = 0; c < channels; ++c)
      for (int column = 0; column < grid.columns; ++column) {
        const mask<T> left = mask_of_bits<T>(grid.has_left(column)), right = mask_of_bits<T>(grid.has_right(column));
        const T* p = x.data + b * x.block + c * x.channel + column * lanes<T>;
        T* out = y.data + b * y.block + c * y.channel + column * lanes<T>;
        std::uint8_t* won = taken + (static_cast<std::size_t>(b) * channels + c) * grid.plane() + column * lanes<T>;
        vec<T> value[3];
        ivec<T> which[3];
        value[0] = low, which[0] = ivec<T>{};
        row_maximum<T>(value[1], which[1], p, left, right);
        for (int h = 0; h < grid.height; ++h, p += pitch, out += pitch, won += pitch) {
          value[2] = low, which[2] = ivec<T>{};
          if (h + 1 < grid.height) row_maximum<T>(value[2], which[2], p + pitch, left, right);
          const mask<T> middle = greater<T>(value[1], value[0]);
          vec<T> v = select<T>(middle, value[1], value[0]);
          ivec<T> i = select_int<T>(middle, which[1] + 3, which[0]);
          const mask<T> lower = greater<T>(value[2], v);
          store<T>(out, select<T>(lower, value[2], v));
          store_bytes<T>(won, select_int<T>(lower, which[2] + 6, i));
          value[0] = value[1], which[0] = which[1];
          value[1] = value[2], which[1] = which[2];
        }
      }
}

// dx[h, w] = sum over the nine outputs that may have taken this pixel, of those that did.
template <class T>
void maxpool3x3_backward(View<T> dx, View<const T> dy, const std::uint8_t* taken, const Grid& grid, int blocks, int channels) {
  const std::size_t pitch = grid.pitch();
  for (int b = 0; b < blocks; ++b)
    for (int c = 0; c < channels; ++c)
      for (int column = 0; column < grid.columns; ++column) {
        const mask<T> left = mask_of_bits<T>(grid.has_left(column)), right = mask_of_bits<T>(grid.has_right(column));
        const T* d = dy.data + b * dy.block + c * dy.channel + column * lanes<T>;
        const std::uint8_t* won = taken + (static_cast<std::size_t>(b) * channels + c) * grid.plane() + column * lanes<T>;
        T* out = dx.data + b * dx.block + c * dx.channel + column * lanes<T>;
        for (int h = 0; h < grid.height; ++h) {
          vec<T> sum{};
          SPD_UNROLL
          for (int kh = 0; kh < 3; ++kh) {
            const int row = h + 1 - kh;  // the output row for which this is input row kh
            if (row < 0 || row >= grid.height) continue;
            SPD_UNROLL
            for (int kw = 0; kw < 3; ++kw) {
              const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row * pitch) + 1 - kw;
              const vec<T> v = kw == 0 ? load_masked<T>(d + at, right) : kw == 1 ? load<T>(d + at) : load_masked<T>(d + at, left);
              sum += keep<T>(equal_int<T>(load_bytes<T>(won + at), ivec<T>{} + (kh * 3 + kw)), v);
            }
          }
          store<T>(out + h * pitch, sum);
        }
      }
}

// ---- 2x2, stride 2: the images change places in the vectors, so pixel by pixel

template <class T, class F>
SPD_INLINE void each_quad(const Grid& from, const Grid& to, int n, int channels, F&& f) {
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < channels; ++c)
      for (int h = 0; h < to.height; ++h)
        f(i / from.images, i / to.images, c, 2 * h * from.pitch() + i % from.images * from.slot, h * to.pitch() + i % to.images * to.slot);
}

template <class T>
void maxpool2x2_forward(View<T> y, std::uint8_t* taken, View<const T> x, const Grid& from, const Grid& to, int n, int channels) {
  if (to.padded() || n % to.images != 0)  // lanes without a pixel are read by convolutions
    for (int b = 0; b < to.blocks(n); ++b)
      for (int c = 0; c < channels; ++c) std::memset(y.data + b * y.block + c * y.channel, 0, to.plane() * sizeof(T));
  each_quad<T>(from, to, n, channels, [&](int block_in, int block_out, int c, std::size_t at_in, std::size_t at_out) {
    const T* p = x.data + block_in * x.block + c * x.channel + at_in;
    const T* q = p + from.pitch();
    T* out = y.data + block_out * y.block + c * y.channel + at_out;
    std::uint8_t* won = taken + (static_cast<std::size_t>(block_out) * channels + c) * to.plane() + at_out;
    for (int w = 0; w < to.width; ++w) {
      const T a = p[2 * w], b = p[2 * w + 1], e = q[2 * w], g = q[2 * w + 1];
      const T upper = b > a ? b : a, lower = g > e ? g : e;
      const bool below = lower > upper;
      out[w] = below ? lower : upper;
      won[w] = static_cast<std::uint8_t>(below ? (g > e ? 3 : 2) : (b > a ? 1 : 0));
    }
  });
}

template <class T>
void maxpool2x2_backward(View<T> dx, View<const T> dy, const std::uint8_t* taken, const Grid& from, const Grid& to, int n, int channels) {
  for (int b = 0; b < from.blocks(n); ++b)
    for (int c = 0; c < channels; ++c) std::memset(dx.data + b * dx.block + c * dx.channel, 0, from.plane() * sizeof(T));
  each_quad<T>(from, to, n, channels, [&](int block_in, int block_out, int c, std::size_t at_in, std::size_t at_out) {
    T* p = dx.data + block_in * dx.block + c * dx.channel + at_in;
    const T* d = dy.data + block_out * dy.block + c * dy.channel + at_out;
    const std::uint8_t* won = taken + (static_cast<std::size_t>(block_out) * channels + c) * to.plane() + at_out;
    for (int w = 0; w < to.width; ++w) p[(won[w] >> 1) * from.pitch() + 2 * w + (won[w] & 1)] = d[w];
  });
}

}  // namespace spd::SPD_ISA
