// Pooling. For a maximum, the pixel that won is stored. Where several are equal, the first in row-major order wins, as in PyTorch.
//
//   maxpool3x3, stride 1, same     y[h, w] = max_{kh, kw} x[h + kh - 1, w + kw - 1]
//   maxpool2x2, stride 2, valid    y[h, w] = max_{kh, kw} x[2h + kh, 2w + kw];  an odd last row or column is dropped
//   avgpool3x3, stride 1, same     y[h, w] = mean_{kh, kw} x[h + kh - 1, w + kw - 1] over the pixels that are there (count_include_pad=False)
//
// The maximum of 3x3 is taken along rows and then along columns; bits say what won (`Winners`). 2x2 has two bits for each output (`QuadWinners`).
// Given the winners, pooling and its backward are linear. So the tangent takes y_t from those pixels of x_t that won, and the tangent of the backward is the
// backward itself. The average is linear anyway: its tangent is its forward, and the tangent of its backward is its backward.
// x and y are views in the row-vector layout. Outputs are overwritten. dy of 3x3 must be zero in lanes without a pixel.
#pragma once

#include <limits>

#include "../plan/grid.hpp"
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

// What won, for two vectors in a pair of rows, one above the other; a bit for each lane. Along each row: beats_left, the pixel beats its left neighbour; right,
// the right neighbour beats both. Then between rows: upper, the lower row of the pair does not beat the upper one; above, the pair does not beat the row above
// it, which decides the upper output; inside, the row below the pair does not beat the pair, which decides the lower output.
struct Winners {
  std::uint16_t beats_left[2], right[2], upper, above, inside;
};
static_assert(sizeof(Winners) == kWinnerBytes);
// Winners are stored as (blocks, channels, pairs of rows, columns).
inline View<Winners> view_of(Winners* winners, const Grid& grid, int channels) {
  const std::size_t plane = grid.row_pairs() * grid.columns;
  return {winners, channels * plane, plane};
}

// Returns the maxima of a vector of pixels and their two neighbours in the row, which is row r of its pair. A row has S vectors; S = 0 stands for any number.
template <class T, int S>
SPD_INLINE vec<T> row_maximum(const T* p, mask<T> has_left, mask<T> has_right, Winners& won, int r) {
  const vec<T> low = broadcast<T>(-std::numeric_limits<T>::infinity()), b = in_register<T>(load(p));
  vec<T> a, c;
  if constexpr (S == 1)
    a = select<T>(has_left, from_left<T>(b, b), low), c = select<T>(has_right, from_right<T>(b, b), low);
  else
    a = load_masked<T>(p - 1, has_left, low), c = load_masked<T>(p + 1, has_right, low);
  const vec<T> ab = b > a ? b : a;
  store_mask<T>(&won.beats_left[r], greater<T>(b, a));
  store_mask<T>(&won.right[r], greater<T>(c, ab));
  return c > ab ? c : ab;
}
template <class T, int S>
void maxpool3x3_forward_of(View<T> y, View<Winners> winners, View<const T> x, const Grid& grid, int begin, int end, int channels) {
  const std::size_t pitch = grid.pitch();
  const int height = grid.height, columns = grid.columns;
  const vec<T> low = broadcast<T>(-std::numeric_limits<T>::infinity());
  for (int column = 0; column < columns; ++column) {
    const mask<T> left = mask_of_bits<T>(grid.has_left(column)), right = mask_of_bits<T>(grid.has_right(column));
    for (int b = begin; b < end; ++b)
      for (int c = 0; c < channels; ++c) {
        const T* p = x.at(b, c) + column * lanes<T>;
        T* out = y.at(b, c) + column * lanes<T>;
        Winners* won = winners.at(b, c) + column;
        vec<T> above = low, upper = row_maximum<T, S>(p, left, right, *won, 0);
        for (int h = 0; h < height; h += 2, p += 2 * pitch, out += 2 * pitch, won += columns) {
          const vec<T> lower = h + 1 < height ? row_maximum<T, S>(p + pitch, left, right, *won, 1) : low;
          const vec<T> below = h + 2 < height ? row_maximum<T, S>(p + 2 * pitch, left, right, won[columns], 0) : low;
          const vec<T> pair = lower > upper ? lower : upper;
          store_mask<T>(&won->upper, not_greater<T>(lower, upper));
          store_mask<T>(&won->above, not_greater<T>(pair, above));
          store_mask<T>(&won->inside, not_greater<T>(below, pair));
          store<T>(out, pair > above ? pair : above);
          if (h + 1 < height) store<T>(out + pitch, below > pair ? below : pair);
          above = lower;
          upper = below;
        }
      }
  }
}
// Pools the blocks begin..end - 1 of the batch. winners: as view_of says.
template <class T>
void maxpool3x3_forward(View<T> y, View<Winners> winners, View<const T> x, const Grid& grid, int begin, int end, int channels) {
  grid.columns == 1 ? maxpool3x3_forward_of<T, 1>(y, winners, x, grid, begin, end, channels)
                    : maxpool3x3_forward_of<T, 0>(y, winners, x, grid, begin, end, channels);
}

// y_t takes those pixels of x_t that won.
template <class T>
void maxpool3x3_tangent(View<T> y_t, View<Winners> winners, View<const T> x_t, const Grid& grid, int begin, int end, int channels) {
  const std::size_t pitch = grid.pitch();
  const int height = grid.height, columns = grid.columns;
  for (int b = begin; b < end; ++b)
    for (int c = 0; c < channels; ++c) {
      const T* x = x_t.at(b, c);
      T* out = y_t.at(b, c);
      const Winners* of_plane = winners.at(b, c);
      for (int h = 0; h < height; ++h)
        for (int column = 0; column < columns; ++column, out += lanes<T>) {
          const auto won_in = [&](int h) -> const Winners& { return of_plane[h / 2 * columns + column]; };
          const auto row = [&](int h) {  // what won along row h
            if (h < 0 || h >= height) return zeros<T>();
            const T* p = x + h * pitch + column * lanes<T>;
            const mask<T> beats_left = mask_of_bits<T>(won_in(h).beats_left[h % 2]), right = mask_of_bits<T>(won_in(h).right[h % 2]);
            return select<T>(right, load(p + 1), select<T>(beats_left, load(p), load(p - 1)));
          };
          const Winners& won = won_in(h);
          const vec<T> pair = select<T>(mask_of_bits<T>(won.upper), row(h / 2 * 2), row(h / 2 * 2 + 1));
          store<T>(out, h % 2 ? select<T>(mask_of_bits<T>(won.inside), pair, row(h + 1)) : select<T>(mask_of_bits<T>(won.above), row(h - 1), pair));
        }
    }
}

// Computes one row of dx, row r of its pair, from what arrived at the maxima along the row.
template <class T>
SPD_INLINE void along_row(T* dx, const vec<T>* maxima, const Winners* won, int r, int columns) {
  vec<T> from_previous{};  // what the vector before passes to its right neighbour
  for (int i = 0; i < columns; ++i) {
    const auto not_right = [&](int j) { return keep_not<T>(load_mask<T>(&won[j].right[r]), maxima[j]); };
    const auto to_left = [&](int j) { return keep_not<T>(load_mask<T>(&won[j].beats_left[r]), not_right(j)); };
    const vec<T> to_right = keep<T>(load_mask<T>(&won[i].right[r]), maxima[i]), own = keep<T>(load_mask<T>(&won[i].beats_left[r]), not_right(i));
    store<T>(dx + i * lanes<T>, own + from_right<T>(to_left(i), i + 1 < columns ? to_left(i + 1) : zeros<T>()) + from_left<T>(to_right, from_previous));
    from_previous = to_right;
  }
}
// A row has S vectors; S = 0 stands for any number.
template <class T, int S>
void maxpool3x3_backward_of(View<T> dx, View<const T> dy, View<Winners> winners, const Grid& grid, int begin, int end, int channels) {
  constexpr int most = S > 0 ? S : kMostColumns;
  const int columns = S > 0 ? S : grid.columns, height = grid.height;
  const std::size_t pitch = columns * lanes<T>;
  for (int b = begin; b < end; ++b)
    for (int c = 0; c < channels; ++c) {
      const T* d = dy.at(b, c);
      T* out = dx.at(b, c);
      const Winners* won = winners.at(b, c);
      vec<T> above[most], upper[most], lower[most], below[most];  // what has arrived at the maxima of the pair's rows and of those around it
      for (int i = 0; i < columns; ++i) above[i] = upper[i] = zeros<T>();
      for (int h = 0; h < height; h += 2, d += 2 * pitch, won += columns) {
        for (int i = 0; i < columns; ++i) {
          const vec<T> first = in_register<T>(load(d + i * lanes<T>)), second = h + 1 < height ? in_register<T>(load(d + pitch + i * lanes<T>)) : zeros<T>();
          const mask<T> from_above = load_mask<T>(&won[i].above), inside = load_mask<T>(&won[i].inside), from_upper = load_mask<T>(&won[i].upper);
          above[i] = add_where<T>(from_above, above[i], first);
          below[i] = keep_not<T>(inside, second);
          const vec<T> pair = add_where<T>(inside, keep_not<T>(from_above, first), second);
          upper[i] = add_where<T>(from_upper, upper[i], pair);
          lower[i] = keep_not<T>(from_upper, pair);
        }
        if (h > 0) along_row<T>(out - pitch, above, won - columns, 1, columns);
        along_row<T>(out, upper, won, 0, columns);
        out += 2 * pitch;
        for (int i = 0; i < columns; ++i) above[i] = lower[i], upper[i] = below[i];
      }
      if (height % 2 == 0) along_row<T>(out - pitch, above, won - columns, 1, columns);
    }
}
template <class T>
void maxpool3x3_backward(View<T> dx, View<const T> dy, View<Winners> winners, const Grid& grid, int begin, int end, int channels) {
  if (grid.columns <= 4)
    with_constant<4>(grid.columns, [&]<int S>() { maxpool3x3_backward_of<T, S>(dx, dy, winners, grid, begin, end, channels); });
  else
    maxpool3x3_backward_of<T, 0>(dx, dy, winners, grid, begin, end, channels);
}

// ---- average of 3x3, stride 1

// The forward, or the backward if `turned`, with dy as x and dx as y. The number of pixels under a window is that of its rows times that of its columns. So
// every row is weighted by columns first.
template <class T>
void avgpool3x3(View<T> y, View<const T> x, const Grid& grid, int begin, int end, int channels, bool turned) {
  const std::size_t pitch = grid.pitch();
  const auto share = [](int at, int of) { return T(1) / (1 + (at > 0) + (at + 1 < of)); };  // of one pixel in a window around `at`, along one axis
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
        const T* p = x.at(b, c) + column * lanes<T>;
        T* out = y.at(b, c) + column * lanes<T>;
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

// What won, for one vector of the output: bits for the lanes whose winner is in the right column, and in the lower row.
struct QuadWinners {
  std::uint16_t right, lower;
};

// For the channels begin..end - 1, column by column, calls f(output vector, its lanes that count, the two input vectors that it comes from (the second may be
// null), its winners).
template <class T, class O, class U, class F>
SPD_INLINE void each_quad_vector(View<O> y, View<U> x, QuadWinners* winners, const Grid& from, const Grid& to, int n, int begin, int end, F&& f) {
  const LaneMasks<T> masks(to, n);
  const int blocks = to.blocks(n), blocks_in = from.blocks(n), height = to.height, columns = to.columns;
  const bool side_by_side = from.columns > 1;  // the two inputs are neighbours in a row, otherwise they come from two blocks
  const std::size_t pitch = to.pitch(), pitch_in = 2 * from.pitch();
  winners += static_cast<std::size_t>(begin) * blocks * to.vectors();
  for (int c = begin; c < end; ++c)
    for (int b = 0; b < blocks; ++b)
      for (int column = 0; column < columns; ++column) {
        O* out = y.at(b, c) + column * lanes<T>;
        U* first = side_by_side ? x.at(b, c) + 2 * column * lanes<T> : x.at(2 * b, c);
        U* second = side_by_side ? (2 * column + 1 < from.columns ? first + lanes<T> : nullptr) : 2 * b + 1 < blocks_in ? x.at(2 * b + 1, c) : nullptr;
        const mask<T> valid = b == blocks - 1 ? masks.last[column] : masks.whole[column];
        for (int h = 0; h < height; ++h, out += pitch, first += pitch_in, second = second ? second + pitch_in : nullptr)
          f(out, valid, first, second, winners++);
      }
}

// Splits two vectors of a row, of which the second may be null, into the left and the right pixels of its pairs.
template <class T>
SPD_INLINE void split_columns(vec<T> (&of)[2], const T* first, const T* second) {
  const vec<T> a = load(first), b = second ? load(second) : zeros<T>();
  of[0] = even_lanes<T>(a, b), of[1] = odd_lanes<T>(a, b);
}

template <class T>
void maxpool2x2_forward(View<T> y, QuadWinners* winners, View<const T> x, const Grid& from, const Grid& to, int n, int begin, int end) {
  const std::size_t pitch = from.pitch();
  each_quad_vector<T>(y, x, winners, from, to, n, begin, end, [=](T* out, mask<T> valid, const T* first, const T* second, QuadWinners* won) {
    vec<T> upper[2], lower[2];
    split_columns<T>(upper, first, second);
    split_columns<T>(lower, first + pitch, second ? second + pitch : nullptr);
    const mask<T> upper_right = greater<T>(upper[1], upper[0]), lower_right = greater<T>(lower[1], lower[0]);
    const vec<T> above = select<T>(upper_right, upper[1], upper[0]), below = select<T>(lower_right, lower[1], lower[0]);
    const mask<T> is_lower = greater<T>(below, above);
    const std::uint16_t down = bits_of_mask<T>(is_lower), ur = bits_of_mask<T>(upper_right), lr = bits_of_mask<T>(lower_right);
    *won = {static_cast<std::uint16_t>((ur & ~down) | (lr & down)), down};
    store<T>(out, keep<T>(valid, select<T>(is_lower, below, above)));
  });
}

template <class T>
void maxpool2x2_backward(View<T> dx, View<const T> dy, QuadWinners* winners, const Grid& from, const Grid& to, int n, int begin, int end) {
  const std::size_t pitch = from.pitch();
  each_quad_vector<T>(dy, dx, winners, from, to, n, begin, end, [=](const T* in, mask<T> valid, T* first, T* second, QuadWinners* won) {
    const vec<T> d = keep<T>(valid, load(in));
    const mask<T> right = load_mask<T>(&won->right), lower = load_mask<T>(&won->lower);
    const vec<T> upper[2] = {keep<T>(neither<T>(right, lower), d), keep<T>(static_cast<mask<T>>(right & ~lower), d)};
    const vec<T> below[2] = {keep<T>(static_cast<mask<T>>(lower & ~right), d), keep<T>(static_cast<mask<T>>(right & lower), d)};
    store<T>(first, interleave<T, 0>(upper[0], upper[1]));
    store<T>(first + pitch, interleave<T, 0>(below[0], below[1]));
    if (!second) return;
    store<T>(second, interleave<T, 1>(upper[0], upper[1]));
    store<T>(second + pitch, interleave<T, 1>(below[0], below[1]));
  });
  if (from.height % 2)  // the dropped row
    for (int c = begin; c < end; ++c)
      for (int b = 0; b < from.blocks(n); ++b) std::memset(dx.at(b, c) + (from.height - 1) * pitch, 0, pitch * sizeof(T));
}

template <class T>
void maxpool2x2_tangent(View<T> y_t, QuadWinners* winners, View<const T> x_t, const Grid& from, const Grid& to, int n, int begin, int end) {
  const std::size_t pitch = from.pitch();
  each_quad_vector<T>(y_t, x_t, winners, from, to, n, begin, end, [=](T* out, mask<T> valid, const T* first, const T* second, QuadWinners* won) {
    vec<T> upper[2], below[2];
    split_columns<T>(upper, first, second);
    split_columns<T>(below, first + pitch, second ? second + pitch : nullptr);
    const mask<T> right = load_mask<T>(&won->right), lower = load_mask<T>(&won->lower);
    const vec<T> taken = select<T>(lower, select<T>(right, below[1], below[0]), select<T>(right, upper[1], upper[0]));
    store<T>(out, keep<T>(valid, taken));
  });
}

}  // namespace spd::SPD_ISA
