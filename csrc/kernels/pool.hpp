// Max-pooling. What won is remembered: the first in row-major order where several tie, as in PyTorch.
//
//   maxpool3x3, stride 1, same     y[h, w] = max_{kh, kw} x[h + kh - 1, w + kw - 1]
//   maxpool2x2, stride 2, valid    y[h, w] = max_{kh, kw} x[2h + kh, 2w + kw];  an odd last row or column is dropped
//
// 3x3 is a maximum along rows and then along columns; of both, which of the three won is two bits a pixel (`Winners`). 2x2 keeps a byte.
// Given the winners, pooling and its backward are linear: the tangent takes y_t from the winners of x_t, the backward's tangent is the backward.
// x, y: views in the row-vector layout. Outputs are overwritten. dy of 3x3 must be zero in lanes without a pixel.
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

// Of one vector: lanes whose own pixel, whose right neighbour won along the row; for the output: lanes whose own row, whose lower row won.
struct Winners {
  std::uint16_t self, right, middle, lower;
};

template <class T>
struct RowMaximum {
  vec<T> value;
  mask<T> self, right;  // else the left neighbour
};
template <class T>
SPD_INLINE RowMaximum<T> row_maximum(const T* p, mask<T> has_left, mask<T> has_right) {
  const vec<T> low = broadcast<T>(-std::numeric_limits<T>::infinity());
  const vec<T> a = load_masked<T>(p - 1, has_left, low), b = load(p), c = load_masked<T>(p + 1, has_right, low);
  const mask<T> self = greater<T>(b, a);
  const vec<T> ab = select<T>(self, b, a);
  const mask<T> right = greater<T>(c, ab);
  return {select<T>(right, c, ab), self & ~right, right};
}

// winners: (blocks, channels, vectors of a plane).
template <class T>
void maxpool3x3_forward(View<T> y, Winners* winners, View<const T> x, const Grid& grid, int blocks, int channels) {
  const std::size_t pitch = grid.pitch();
  const RowMaximum<T> nothing{broadcast<T>(-std::numeric_limits<T>::infinity()), {}, {}};
  for (int b = 0; b < blocks; ++b)
    for (int c = 0; c < channels; ++c, winners += grid.vectors())
      for (int column = 0; column < grid.columns; ++column) {
        const mask<T> left = mask_of_bits<T>(grid.has_left(column)), right = mask_of_bits<T>(grid.has_right(column));
        const T* p = x.data + b * x.block + c * x.channel + column * lanes<T>;
        T* out = y.data + b * y.block + c * y.channel + column * lanes<T>;
        Winners* won = winners + column;
        RowMaximum<T> above = nothing, here = row_maximum<T>(p, left, right);
        for (int h = 0; h < grid.height; ++h, p += pitch, out += pitch, won += grid.columns) {
          const RowMaximum<T> below = h + 1 < grid.height ? row_maximum<T>(p + pitch, left, right) : nothing;
          const mask<T> middle = greater<T>(here.value, above.value);
          const vec<T> v = select<T>(middle, here.value, above.value);
          const mask<T> lower = greater<T>(below.value, v);
          store<T>(out, select<T>(lower, below.value, v));
          *won = {static_cast<std::uint16_t>(bits_of_mask<T>(here.self)), static_cast<std::uint16_t>(bits_of_mask<T>(here.right)),
                  static_cast<std::uint16_t>(bits_of_mask<T>(middle & ~lower)), static_cast<std::uint16_t>(bits_of_mask<T>(lower))};
          above = here;
          here = below;
        }
      }
}

// y_t: the winners of x_t.
template <class T>
void maxpool3x3_tangent(View<T> y_t, const Winners* winners, View<const T> x_t, const Grid& grid, int blocks, int channels) {
  const std::ptrdiff_t pitch = static_cast<std::ptrdiff_t>(grid.pitch());
  const auto along_row = [](const T* p, const Winners& won) {  // what won in the row
    const mask<T> self = mask_of_bits<T>(won.self), right = mask_of_bits<T>(won.right);
    return select<T>(self, load(p), select<T>(right, load(p + 1), load(p - 1)));
  };
  for (int b = 0; b < blocks; ++b)
    for (int c = 0; c < channels; ++c) {
      const T* p = x_t.data + b * x_t.block + c * x_t.channel;
      T* out = y_t.data + b * y_t.block + c * y_t.channel;
      for (int h = 0; h < grid.height; ++h)
        for (int column = 0; column < grid.columns; ++column, p += lanes<T>, out += lanes<T>, ++winners) {
          const vec<T> upper = h > 0 ? along_row(p - pitch, winners[-grid.columns]) : zeros<T>();
          const vec<T> lower = h + 1 < grid.height ? along_row(p + pitch, winners[grid.columns]) : zeros<T>();
          const mask<T> is_middle = mask_of_bits<T>(winners->middle), is_lower = mask_of_bits<T>(winners->lower);
          store<T>(out, select<T>(is_middle, along_row(p, *winners), select<T>(is_lower, lower, upper)));
        }
    }
}

// What arrives at the row maxima of vector `won` (row h), from the outputs of rows h - 1, h, h + 1.
template <class T>
SPD_INLINE vec<T> to_row_maximum(const T* d, const Winners* won, int h, const Grid& grid) {
  const std::size_t pitch = grid.pitch();
  vec<T> r = load_masked<T>(d, mask_of_bits<T>(won->middle));
  if (h > 0) r += load_masked<T>(d - pitch, mask_of_bits<T>(won[-grid.columns].lower));
  if (h + 1 < grid.height) {
    const Winners& next = won[grid.columns];
    r += load_masked<T>(d + pitch, mask_of_bits<T>(static_cast<std::uint16_t>(~(next.middle | next.lower))));
  }
  return r;
}
template <class T>
void maxpool3x3_backward(View<T> dx, View<const T> dy, const Winners* winners, const Grid& grid, int blocks, int channels) {
  for (int b = 0; b < blocks; ++b)
    for (int c = 0; c < channels; ++c) {
      const T* d = dy.data + b * dy.block + c * dy.channel;
      T* out = dx.data + b * dx.block + c * dx.channel;
      for (int h = 0; h < grid.height; ++h) {
        vec<T> from_previous{}, here = to_row_maximum<T>(d, winners, h, grid);  // from_previous: what the vector before left to its right neighbour
        for (int column = 0; column < grid.columns; ++column, d += lanes<T>, out += lanes<T>, ++winners) {
          const mask<T> self = mask_of_bits<T>(winners->self), right = mask_of_bits<T>(winners->right);
          vec<T> next{}, next_to_left{};
          if (column + 1 < grid.columns) {
            next = to_row_maximum<T>(d + lanes<T>, winners + 1, h, grid);
            next_to_left = keep<T>(mask_of_bits<T>(static_cast<std::uint16_t>(~(winners[1].self | winners[1].right))), next);
          }
          const vec<T> to_left = keep<T>(mask_of_bits<T>(static_cast<std::uint16_t>(~(winners->self | winners->right))), here);
          const vec<T> to_right = keep<T>(right, here);
          store<T>(out, keep<T>(self, here) + from_right<T>(to_left, next_to_left) + from_left<T>(to_right, from_previous));
          from_previous = to_right;
          here = next;
        }
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

template <class T>
void maxpool2x2_tangent(View<T> y_t, const std::uint8_t* taken, View<const T> x_t, const Grid& from, const Grid& to, int n, int channels) {
  if (to.padded() || n % to.images != 0)
    for (int b = 0; b < to.blocks(n); ++b)
      for (int c = 0; c < channels; ++c) std::memset(y_t.data + b * y_t.block + c * y_t.channel, 0, to.plane() * sizeof(T));
  each_quad<T>(from, to, n, channels, [&](int block_in, int block_out, int c, std::size_t at_in, std::size_t at_out) {
    const T* p = x_t.data + block_in * x_t.block + c * x_t.channel + at_in;
    T* out = y_t.data + block_out * y_t.block + c * y_t.channel + at_out;
    const std::uint8_t* won = taken + (static_cast<std::size_t>(block_out) * channels + c) * to.plane() + at_out;
    for (int w = 0; w < to.width; ++w) out[w] = p[(won[w] >> 1) * from.pitch() + 2 * w + (won[w] & 1)];
  });
}

}  // namespace spd::SPD_ISA
