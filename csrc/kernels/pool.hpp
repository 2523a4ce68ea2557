// Pooling. Of a maximum, what won is remembered: the first in row-major order where several tie, as in PyTorch.
//
//   maxpool3x3, stride 1, same     y[h, w] = max_{kh, kw} x[h + kh - 1, w + kw - 1]
//   maxpool2x2, stride 2, valid    y[h, w] = max_{kh, kw} x[2h + kh, 2w + kw];  an odd last row or column is dropped
//   avgpool3x3, stride 1, same     y[h, w] = mean_{kh, kw} x[h + kh - 1, w + kw - 1] over the pixels that are there (count_include_pad=False)
//
// The maximum of 3x3 is taken along rows and then along columns; of both, which of the three won is two bits a pixel (`Winners`). 2x2 keeps one.
// Given the winners, pooling and its backward are linear: the tangent takes y_t from the winners of x_t, the backward's tangent is the backward.
// The average is linear as it is: its tangent is its forward, its backward's is its backward.
// x, y: views in the row-vector layout. Outputs are overwritten. dy of 3x3 must be zero in lanes without a pixel.
#pragma once

#include <limits>

#include "../grid.hpp"
#include "../simd.hpp"
#include "batch_norm.hpp"

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

template <class T>
void avgpool_ref(T* y, T* dx, const T* x, const T* dy, int planes, int height, int width) {
  for (int i = 0; i < planes * height * width; ++i) dx[i] = 0;
  for (int p = 0; p < planes; ++p)
    for (int h = 0; h < height; ++h)
      for (int w = 0; w < width; ++w) {
        const int top = std::max(h - 1, 0), bottom = std::min(h + 2, height), left = std::max(w - 1, 0), right = std::min(w + 2, width);
        const int out = (p * height + h) * width + w, pixels = (bottom - top) * (right - left);
        T sum = 0;
        for (int a = top; a < bottom; ++a)
          for (int b = left; b < right; ++b) {
            sum += x[(p * height + a) * width + b];
            dx[(p * height + a) * width + b] += dy[out] / pixels;
          }
        y[out] = sum / pixels;
      }
}

// ---- maximum of 3x3, stride 1

// Of one vector: lanes whose own pixel, whose right neighbour won along the row; for the output: lanes whose own row, whose lower row won.
struct Winners {
  std::uint16_t self, right, middle, lower;
};

// The maxima of a vector of pixels and their neighbours in the row, of S vectors (0: of any number).
template <class T, int S>
SPD_INLINE vec<T> row_maximum(const T* p, mask<T> has_left, mask<T> has_right, Winners* won) {
  const vec<T> low = broadcast<T>(-std::numeric_limits<T>::infinity()), b = in_register<T>(load(p));
  vec<T> a, c;
  if constexpr (S == 1)
    a = select<T>(has_left, from_left<T>(b, b), low), c = select<T>(has_right, from_right<T>(b, b), low);
  else
    a = load_masked<T>(p - 1, has_left, low), c = load_masked<T>(p + 1, has_right, low);
  const vec<T> ab = b > a ? b : a;
  const mask<T> right = greater<T>(c, ab);
  store_mask<T>(&won->self, but_not<T>(greater<T>(b, a), right));
  store_mask<T>(&won->right, right);
  return c > ab ? c : ab;
}
template <class T, int S>
void maxpool3x3_forward_of(View<T> y, Winners* winners, View<const T> x, const Grid& grid, int begin, int end, int channels) {
  const std::size_t pitch = grid.pitch();
  const int height = grid.height, columns = grid.columns, vectors = grid.vectors();
  const vec<T> low = broadcast<T>(-std::numeric_limits<T>::infinity());
  winners += static_cast<std::size_t>(begin) * channels * vectors;
  for (int column = 0; column < columns; ++column) {
    const mask<T> left = mask_of_bits<T>(grid.has_left(column)), right = mask_of_bits<T>(grid.has_right(column));
    for (int b = begin; b < end; ++b)
      for (int c = 0; c < channels; ++c) {
        const T* p = x.data + b * x.block + c * x.channel + column * lanes<T>;
        T* out = y.data + b * y.block + c * y.channel + column * lanes<T>;
        Winners* won = winners + (static_cast<std::size_t>(b - begin) * channels + c) * vectors + column;
        vec<T> above = low, here = row_maximum<T, S>(p, left, right, won);
        for (int h = 0; h < height; ++h, out += pitch, won += columns) {
          p += pitch;
          const vec<T> below = h + 1 < height ? row_maximum<T, S>(p, left, right, won + columns) : low;
          const vec<T> upper = here > above ? here : above;
          const mask<T> lower = greater<T>(below, upper);
          store_mask<T>(&won->middle, but_not<T>(greater<T>(here, above), lower));
          store_mask<T>(&won->lower, lower);
          store<T>(out, below > upper ? below : upper);
          above = here;
          here = below;
        }
      }
  }
}
// winners: (blocks, channels, vectors of a plane). Blocks begin..end - 1 of the batch.
template <class T>
void maxpool3x3_forward(View<T> y, Winners* winners, View<const T> x, const Grid& grid, int begin, int end, int channels) {
  grid.columns == 1 ? maxpool3x3_forward_of<T, 1>(y, winners, x, grid, begin, end, channels)
                    : maxpool3x3_forward_of<T, 0>(y, winners, x, grid, begin, end, channels);
}

// y_t: the winners of x_t.
template <class T>
void maxpool3x3_tangent(View<T> y_t, const Winners* winners, View<const T> x_t, const Grid& grid, int begin, int end, int channels) {
  const std::ptrdiff_t pitch = static_cast<std::ptrdiff_t>(grid.pitch());
  const auto along_row = [](const T* p, const Winners& won) {  // what won in the row
    const mask<T> self = mask_of_bits<T>(won.self), right = mask_of_bits<T>(won.right);
    return select<T>(self, load(p), select<T>(right, load(p + 1), load(p - 1)));
  };
  winners += static_cast<std::size_t>(begin) * channels * grid.vectors();
  for (int b = begin; b < end; ++b)
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

// One row of dx from what arrived at its row maxima.
template <class T>
SPD_INLINE void along_row(T* dx, const vec<T>* maxima, const Winners* won, int columns) {
  vec<T> from_previous{};  // what the vector before leaves to its right neighbour
  for (int i = 0; i < columns; ++i) {
    const auto to_left = [&](int j) { return keep<T>(neither<T>(load_mask<T>(&won[j].self), load_mask<T>(&won[j].right)), maxima[j]); };
    const vec<T> to_right = keep<T>(load_mask<T>(&won[i].right), maxima[i]), own = keep<T>(load_mask<T>(&won[i].self), maxima[i]);
    store<T>(dx + i * lanes<T>, own + from_right<T>(to_left(i), i + 1 < columns ? to_left(i + 1) : zeros<T>()) + from_left<T>(to_right, from_previous));
    from_previous = to_right;
  }
}
// S vectors a row; 0: any number.
template <class T, int S>
void maxpool3x3_backward_of(View<T> dx, View<const T> dy, const Winners* won, const Grid& grid, int begin, int end, int channels) {
  constexpr int most = S > 0 ? S : kMostColumns;
  const int columns = S > 0 ? S : grid.columns, height = grid.height;
  won += static_cast<std::size_t>(begin) * channels * grid.vectors();
  for (int b = begin; b < end; ++b)
    for (int c = 0; c < channels; ++c) {
      const T* d = dy.data + b * dy.block + c * dy.channel;
      T* out = dx.data + b * dx.block + c * dx.channel;
      vec<T> above[most], here[most], below[most];  // what has arrived at the maxima of three rows
      for (int i = 0; i < columns; ++i) above[i] = here[i] = zeros<T>();
      for (int h = 0; h < height; ++h, d += columns * lanes<T>, won += columns) {
        for (int i = 0; i < columns; ++i) {
          const vec<T> v = in_register<T>(load(d + i * lanes<T>));
          const mask<T> middle = load_mask<T>(&won[i].middle), lower = load_mask<T>(&won[i].lower);
          above[i] = add_where<T>(neither<T>(middle, lower), above[i], v);
          here[i] = add_where<T>(middle, here[i], v);
          below[i] = keep<T>(lower, v);
        }
        if (h > 0) {
          along_row<T>(out, above, won - columns, columns);
          out += columns * lanes<T>;
        }
        for (int i = 0; i < columns; ++i) above[i] = here[i], here[i] = below[i];
      }
      along_row<T>(out, above, won - columns, columns);
    }
}
template <class T>
void maxpool3x3_backward(View<T> dx, View<const T> dy, const Winners* winners, const Grid& grid, int begin, int end, int channels) {
  if (grid.columns <= 4)
    with_constant<4>(grid.columns, [&]<int S>() { maxpool3x3_backward_of<T, S>(dx, dy, winners, grid, begin, end, channels); });
  else
    maxpool3x3_backward_of<T, 0>(dx, dy, winners, grid, begin, end, channels);
}

// ---- average of 3x3, stride 1

// Forward; `turned`: backward (x is dy, y is dx). The pixels under a window are rows times columns: every row is weighted along itself first.
template <class T>
void avgpool3x3(View<T> y, View<const T> x, const Grid& grid, int begin, int end, int channels, bool turned) {
  const std::size_t pitch = grid.pitch();
  const auto share = [](int at, int of) { return T(1) / (1 + (at > 0) + (at + 1 < of)); };  // of a window around `at`, along one axis
  for (int column = 0; column < grid.columns; ++column) {
    const mask<T> has_left = mask_of_bits<T>(grid.has_left(column)), has_right = mask_of_bits<T>(grid.has_right(column));
    T weights[3][lanes<T>]{};
    for (int lane = 0; lane < lanes<T>; ++lane) {
      const int w = (column * lanes<T> + lane) % grid.slot;
      for (int k = 0; k < 3 && w < grid.width; ++k) weights[k][lane] = share(turned ? w + k - 1 : w, grid.width);
    }
    const vec<T> left = load(weights[0]), self = load(weights[1]), right = load(weights[2]);
    for (int b = begin; b < end; ++b)
      for (int c = 0; c < channels; ++c) {
        const T* p = x.data + b * x.block + c * x.channel + column * lanes<T>;
        T* out = y.data + b * y.block + c * y.channel + column * lanes<T>;
        const auto row = [&](int h) {
          if (h < 0 || h >= grid.height) return zeros<T>();
          const T* q = p + h * pitch;
          const vec<T> along = load_masked<T>(q - 1, has_left) * left + load(q) * self + load_masked<T>(q + 1, has_right) * right;
          return turned ? along * broadcast<T>(share(h, grid.height)) : along;
        };
        vec<T> above = zeros<T>(), here = row(0);
        for (int h = 0; h < grid.height; ++h, out += pitch) {
          const vec<T> below = row(h + 1), all = above + here + below;
          store<T>(out, turned ? all : all * broadcast<T>(share(h, grid.height)));
          above = here;
          here = below;
        }
      }
  }
}

// ---- maximum of 2x2, stride 2: two vectors of the input become the halves of one of the output (Grid::halved)

// Of one vector of the output: lanes whose winner is in the right column, in the lower row.
struct QuadWinners {
  std::uint16_t right, lower;
};

// Of the channels begin..end - 1, column by column: f(channel, block, where the output vector begins, of it: lanes that count, its two inputs (the second null: none), its winners).
template <class T, class U, class F>
SPD_INLINE void each_quad_vector(View<U> x, QuadWinners* winners, const Grid& from, const Grid& to, int n, int begin, int end, F&& f) {
  const LaneMasks<T> masks(to, n);
  const int blocks = to.blocks(n), blocks_in = from.blocks(n);
  const bool side_by_side = from.columns > 1;  // the inputs are neighbours in the row; else they come from two blocks
  winners += static_cast<std::size_t>(begin) * blocks * to.vectors();
  for (int c = begin; c < end; ++c)
    for (int b = 0; b < blocks; ++b)
      for (int column = 0; column < to.columns; ++column) {
        U* in[2];
        for (int half = 0; half < 2; ++half) {
          const int block = side_by_side ? b : 2 * b + half, column_in = side_by_side ? 2 * column + half : 0;
          in[half] = block < blocks_in && column_in < from.columns ? x.data + block * x.block + c * x.channel + column_in * lanes<T> : nullptr;
        }
        const mask<T> valid = b == blocks - 1 ? masks.last[column] : masks.whole[column];
        for (int h = 0; h < to.height; ++h) {
          f(c, b, h * to.pitch() + column * lanes<T>, valid, in, winners++);
          for (U*& each : in)
            if (each) each += 2 * from.pitch();
        }
      }
}

// The left and the right column of the pairs in a row that begins in two vectors (null: zero).
template <class T>
SPD_INLINE void split_columns(vec<T> (&of)[2], const T* first, const T* second) {
  const vec<T> a = load(first), b = second ? load(second) : zeros<T>();
  of[0] = even_lanes<T>(a, b), of[1] = odd_lanes<T>(a, b);
}

template <class T>
void maxpool2x2_forward(View<T> y, QuadWinners* winners, View<const T> x, const Grid& from, const Grid& to, int n, int begin, int end) {
  const std::size_t pitch = from.pitch();
  each_quad_vector<T>(x, winners, from, to, n, begin, end, [&](int c, int b, std::size_t at, mask<T> valid, const T* const(&in)[2], QuadWinners* won) {
    vec<T> upper[2], lower[2];
    split_columns<T>(upper, in[0], in[1]);
    split_columns<T>(lower, in[0] + pitch, in[1] ? in[1] + pitch : nullptr);
    const mask<T> upper_right = greater<T>(upper[1], upper[0]), lower_right = greater<T>(lower[1], lower[0]);
    const vec<T> above = select<T>(upper_right, upper[1], upper[0]), below = select<T>(lower_right, lower[1], lower[0]);
    const mask<T> is_lower = greater<T>(below, above);
    const std::uint16_t down = bits_of_mask<T>(is_lower), ur = bits_of_mask<T>(upper_right), lr = bits_of_mask<T>(lower_right);
    *won = {static_cast<std::uint16_t>((ur & ~down) | (lr & down)), down};
    store<T>(y.data + b * y.block + c * y.channel + at, keep<T>(valid, select<T>(is_lower, below, above)));
  });
}

template <class T>
void maxpool2x2_backward(View<T> dx, View<const T> dy, QuadWinners* winners, const Grid& from, const Grid& to, int n, int begin, int end) {
  const std::size_t pitch = from.pitch();
  each_quad_vector<T>(dx, winners, from, to, n, begin, end, [&](int c, int b, std::size_t at, mask<T> valid, T* const(&in)[2], QuadWinners* won) {
    const vec<T> d = keep<T>(valid, load(dy.data + b * dy.block + c * dy.channel + at));
    const mask<T> right = load_mask<T>(&won->right), lower = load_mask<T>(&won->lower);
    const vec<T> upper[2] = {keep<T>(neither<T>(right, lower), d), keep<T>(static_cast<mask<T>>(right & ~lower), d)};
    const vec<T> below[2] = {keep<T>(static_cast<mask<T>>(lower & ~right), d), keep<T>(static_cast<mask<T>>(right & lower), d)};
    store<T>(in[0], interleave<T, 0>(upper[0], upper[1]));
    store<T>(in[0] + pitch, interleave<T, 0>(below[0], below[1]));
    if (!in[1]) return;
    store<T>(in[1], interleave<T, 1>(upper[0], upper[1]));
    store<T>(in[1] + pitch, interleave<T, 1>(below[0], below[1]));
  });
  if (from.height % 2)  // the dropped row
    for (int c = begin; c < end; ++c)
      for (int b = 0; b < from.blocks(n); ++b) std::memset(dx.data + b * dx.block + c * dx.channel + (from.height - 1) * pitch, 0, pitch * sizeof(T));
}

template <class T>
void maxpool2x2_tangent(View<T> y_t, QuadWinners* winners, View<const T> x_t, const Grid& from, const Grid& to, int n, int begin, int end) {
  const std::size_t pitch = from.pitch();
  each_quad_vector<T>(x_t, winners, from, to, n, begin, end, [&](int c, int b, std::size_t at, mask<T> valid, const T* const(&in)[2], QuadWinners* won) {
    vec<T> upper[2], below[2];
    split_columns<T>(upper, in[0], in[1]);
    split_columns<T>(below, in[0] + pitch, in[1] ? in[1] + pitch : nullptr);
    const mask<T> right = load_mask<T>(&won->right), lower = load_mask<T>(&won->lower);
    const vec<T> taken = select<T>(lower, select<T>(right, below[1], below[0]), select<T>(right, upper[1], upper[0]));
    store<T>(y_t.data + b * y_t.block + c * y_t.channel + at, keep<T>(valid, taken));
  });
}

}  // namespace spd::SPD_ISA
