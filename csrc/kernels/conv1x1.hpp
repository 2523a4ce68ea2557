// conv1x1: a matrix product over channels at every pixel.
//
//   forward   y[n, o, p]  = sum_i k[o, i] * x[n, i, p]
//   dgrad     dx[n, i, p] = sum_o k[o, i] * dy[n, o, p]      (the forward with the matrix transposed)
//   wgrad     dk[o, i]    = sum_{n, p} dy[n, o, p] * x[n, i, p]
//
// x and y are in the row-vector layout; x may be a sum that is computed here (input.hpp). k: (c_out, c_in). y and dk are overwritten, and no arrays overlap.
// `accumulate` adds to y instead (for tangents, as in conv3x3.hpp). Precondition: lanes without a pixel are zero in dy. Precision: all is in the element type,
// and each output is one chain of fused multiply-adds. The specification is conv_forward_ref and conv_backward_ref with size 1 (conv3x3.hpp).
#pragma once

#include <type_traits>

#include "../threads/team.hpp"
#include "conv3x3.hpp"
#include "input.hpp"

namespace spd::SPD_ISA {

// Registers hold kPixels vectors of kBlock1x1 output channels. With 16 registers eight sums are better than twelve: on Zen 3 a tile of twelve takes 20 to 28
// cycles more than its multiply-adds do, one of eight 1 to 3.
inline constexpr int kPixels = kManyRegisters ? 4 : 2, kBlock1x1 = 4;
inline constexpr int kUnroll1x1 = kManyRegisters ? 8 : 2;  // input channels in one turn of the loop

// Packs k as [channel block][c_in][channel of the block]. `turned` packs the weights of dgrad.
template <class T>
void conv1x1_pack(T* packed, const T* k, int c_in, int c_out, bool turned) {
  const int parts = parts_of(c_out, kBlock1x1);
  const std::size_t input = turned ? c_out : 1, output = turned ? 1 : c_in;  // the elements of k from channel to channel
  for (int p = 0; p < parts; ++p) {
    const int begin = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - begin;
    with_constant<kBlock1x1>(size, [&]<int C>() {
      const T* from = k + begin * output;
      for (int i = 0; i < c_in; ++i, from += input, packed += C) SPD_UNROLL
      for (int o = 0; o < C; ++o) packed[o] = from[o * output];
    });
  }
}

template <class T, int C, int R, class Source>
SPD_INLINE void conv1x1_tile(T* y, std::size_t y_channel, Source x, int c_in, const T* k, bool accumulate) {
  vec<T> acc[C][R]{};
  if (accumulate) SPD_UNROLL
  for (int c = 0; c < C; ++c) SPD_UNROLL
  for (int r = 0; r < R; ++r) acc[c][r] = load<T>(y + c * y_channel + r * lanes<T>);
#pragma GCC unroll kUnroll1x1
  for (int i = 0; i < c_in; ++i, x.move(1, 0), k += C) {
    const auto channel = x[0];
    vec<T> in[R];
    SPD_UNROLL
    for (int r = 0; r < R; ++r) in[r] = channel(r);
    SPD_UNROLL
    for (int c = 0; c < C; ++c) {
      const vec<T> tap = broadcast<T>(k[c]);
      SPD_UNROLL
      for (int r = 0; r < R; ++r) acc[c][r] += in[r] * tap;
    }
  }
  SPD_UNROLL
  for (int c = 0; c < C; ++c, y = from_here(y + y_channel)) SPD_UNROLL
  for (int r = 0; r < R; ++r) store(y + r * lanes<T>, acc[c][r]);
}
template <class T, int C, class Source>
SPD_NOINLINE void conv1x1_plane(T* y, std::size_t y_channel, Source x, int vectors, int c_in, const T* k, bool accumulate) {
  for (; vectors >= kPixels; vectors -= kPixels, y += kPixels * lanes<T>, x.move(0, kPixels)) conv1x1_tile<T, C, kPixels>(y, y_channel, x, c_in, k, accumulate);
  with_constant<kPixels - 1>(vectors, [&]<int R>() { conv1x1_tile<T, C, R>(y, y_channel, x, c_in, k, accumulate); });
}
// Returns how many vectors of a channel are multiplied with all weights before the next ones. With few registers x is read so often that these should be in L1.
// With many, what is computed here should be in L2, and of a tensor it is a block.
template <class T>
int vectors1x1(const Grid& grid, int c_in, bool is_made) {
  constexpr int of_all = (kManyRegisters ? 65536 : 16384) / sizeof(vec<T>);
  return kManyRegisters && !is_made ? grid.vectors() : std::max(1, of_all / c_in / kPixels) * kPixels;
}
// Returns the elements of scratch that the forward takes.
template <class T>
std::size_t conv1x1_scratch(const Grid& grid, int c_in, bool is_made) {
  return is_made ? static_cast<std::size_t>(vectors1x1<T>(grid, c_in, true)) * c_in * lanes<T> : 0;
}
template <class T>
void conv1x1_forward(View<T> y, const Input<T>& x, const T* packed, T* scratch, const Grid& grid, int begin, int end, int c_in, int c_out, bool accumulate) {
  const int parts = parts_of(c_out, kBlock1x1), together = vectors1x1<T>(grid, c_in, x.is_made());
  for (int v = begin * grid.vectors(), until; v < end * grid.vectors(); v = until) {
    until = std::min(v + together, end * grid.vectors());
    x.read_by(0, parts, 0, c_in, v, until, scratch, [&](int p, auto source) {
      const int first = part_begin(c_out, parts, p), size = part_begin(c_out, parts, p + 1) - first;
      with_constant<kBlock1x1>(size, [&]<int C>() {
        const T* k = packed + static_cast<std::size_t>(first) * c_in;
        conv1x1_plane<T, C>(y.data + v * lanes<T> + first * y.channel, y.channel, source, until - v, c_in, k, accumulate);
      });
    });
  }
}

// ---- wgrad: kWgradOut x kWgradIn entries of dk stay in registers over a round of some blocks

inline constexpr int kWgradOut = kManyRegisters ? 6 : 4, kWgradIn = kManyRegisters ? 4 : 3;

// Returns the blocks of a round. A slice of 20 images is one round, because every round has to sum over lanes in the end.
inline int wgrad_blocks(const Grid& grid) { return std::max(1, 160 / grid.vectors()); }

// What follows a wgrad: a function of the blocks begin..end - 1 and of the number of the thread that calls it. The function must live as long as the hook. All
// hooks are of one type, so that kernels are compiled once and not for each function.
class Hook {
 public:
  Hook() = default;  // nothing follows
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, Hook>)
  Hook(F&& f) : of_(&f), call_([](void* of, int begin, int end, int rank) { (*static_cast<std::remove_reference_t<F>*>(of))(begin, end, rank); }) {}
  explicit operator bool() const { return call_ != nullptr; }
  void operator()(int begin, int end, int rank) const {
    if (call_) call_(of_, begin, end, rank);
  }

 private:
  void* of_ = nullptr;
  void (*call_)(void* of, int begin, int end, int rank) = nullptr;
};
// Calls done(begin, end, rank) for all blocks of the batch, once a wgrad needs none of them any more. The team shares the blocks.
inline void done_with_all(Team& team, const Grid& grid, int blocks, const Hook& done) {
  if (!done) return;
  team.split((blocks + grid.chunk() - 1) / grid.chunk(), [&](int chunk, int until, int rank) {
    grid.each_slice(chunk * grid.chunk(), std::min(blocks, until * grid.chunk()), [&](int begin, int end) { done(begin, end, rank); });
  });
}

// Adds channel i of dy times channel j of x to acc[i * B + j], vector by vector.
template <class T, int A, int B, class Source>
SPD_INLINE void add_outer_products(vec<T> (&acc)[A * B], const T* dy, std::size_t dy_channel, Source x, int vectors) {
  for (int v = 0; v < vectors; ++v, x.move(0, 1), dy += lanes<T>) {
    vec<T> in[B];
    SPD_UNROLL
    for (int j = 0; j < B; ++j) in[j] = in_register<T>(x[j](0));
    SPD_UNROLL
    for (int i = 0; i < A; ++i) {
      const vec<T> d = in_register<T>(load<T>(dy + i * dy_channel));
      SPD_UNROLL
      for (int j = 0; j < B; ++j) acc[i * B + j] += in[j] * d;
    }
  }
}
// vectors: the number of vectors of one channel, whose blocks follow each other in memory.
template <class T, int A, int B, class Source>
SPD_NOINLINE void conv1x1_wgrad_block(T* dk, int c_in, const T* dy, std::size_t dy_channel, Source x, int vectors, bool add) {
  vec<T> acc[A * B]{};
  add_outer_products<T, A, B>(acc, dy, dy_channel, x, vectors);
  T sums[A * B];
  sum_lanes<T, A * B>(sums, acc);
  for (int i = 0; i < A; ++i)
    for (int j = 0; j < B; ++j) {
      T& to = dk[static_cast<std::size_t>(i) * c_in + j];
      to = add ? to + sums[i * B + j] : sums[i * B + j];
    }
}
template <class T>
std::size_t conv1x1_wgrad_room(const Grid& grid) {
  return static_cast<std::size_t>(kWgradIn) * wgrad_blocks(grid) * grid.plane();
}
// Returns the elements of scratch: for the input that each thread computes from x, and for dk of every slice but the first.
template <class T>
std::size_t conv1x1_wgrad_scratch(const Grid& grid, int blocks, int c_in, int c_out, int threads) {
  return threads * conv1x1_wgrad_room<T>(grid) + (grid.slices(blocks) - 1) * static_cast<std::size_t>(c_in) * c_out;
}
// done: as in conv_wgrad.
template <class T>
void conv1x1_wgrad(T* dk, View<const T> dy, const Input<T>& x, T* scratch, const Grid& grid, int blocks, int c_in, int c_out, Team& team, const Hook& done) {
  const int slices = grid.slices(blocks), parts_o = parts_of(c_out, kWgradOut), parts_i = parts_of(c_in, kWgradIn);
  const std::size_t pairs = static_cast<std::size_t>(c_out) * c_in;
  T* of_slices = scratch + team.most() * conv1x1_wgrad_room<T>(grid);
  // For the parts first..until - 1 of c_out.
  const auto run = [&](int slice, int first, int until, int rank, const Hook& then) {
    T *of_slice = slice > 0 ? of_slices + (slice - 1) * pairs : dk, *room = scratch + rank * conv1x1_wgrad_room<T>(grid);
    const int slice_begin = grid.slice_begin(slice), slice_end = grid.slice_end(blocks, slice);
    const View<const T> dy_here = dy.around(slice_begin);
    const Input<T> x_here = x.around(slice_begin, grid);
    for (int begin = slice_begin, end; begin < slice_end; begin = end) {
      end = std::min(slice_end, begin + wgrad_blocks(grid));
      const std::size_t v = static_cast<std::size_t>(begin) * grid.vectors(), v_end = static_cast<std::size_t>(end) * grid.vectors();
      for (int q = 0; q < parts_i; ++q) {
        const int i = part_begin(c_in, parts_i, q), n_i = part_begin(c_in, parts_i, q + 1) - i;
        x_here.read_by(first, until, i, n_i, v, v_end, room, [&](int p, auto source) {
          const int o = part_begin(c_out, parts_o, p), n_o = part_begin(c_out, parts_o, p + 1) - o;
          with_constant<kWgradOut>(n_o, [&]<int A>() {
            with_constant<kWgradIn>(n_i, [&]<int B>() {
              conv1x1_wgrad_block<T, A, B>(of_slice + static_cast<std::size_t>(o) * c_in + i, c_in, dy_here.data + v * lanes<T> + o * dy.channel, dy.channel,
                                           source, v_end - v, begin > slice_begin);
            });
          });
        });
      }
      then(begin, end, rank);
    }
  };
  if (team.size() <= slices) {  // each slice belongs to one thread
    team.split(slices, [&](int slice, int until, int rank) {
      for (; slice < until; ++slice) run(slice, 0, parts_o, rank, done);
    });
  } else {
    team.split(slices, parts_o, [&](int slice, int first, int until, int rank) { run(slice, first, until, rank, {}); });
    done_with_all(team, grid, blocks, done);
  }
  for (int slice = 1; slice < slices; ++slice)
    for (std::size_t j = 0; j < pairs; ++j) dk[j] += of_slices[(slice - 1) * pairs + j];
}

}  // namespace spd::SPD_ISA
