// Runs single kernels on (n, c, h, w) arrays for tests and benches: packs the arrays into the layout and unpacks the results.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "../kernels/batch_norm.hpp"
#include "../kernels/conv.hpp"
#include "../kernels/head.hpp"
#include "../kernels/pool.hpp"
#include "../kernels/relu.hpp"
#include "../kernels/sigmoid.hpp"
#include "../span.hpp"
#include "jobs.hpp"

namespace spd::SPD_ISA {

template <class T>
class Scratch {  // zeroed memory with a readable vector on either side
 public:
  explicit Scratch(std::size_t n) {
    const std::size_t bytes = ((n + 4 * lanes<T>)*sizeof(T) + 63) / 64 * 64;
    memory_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (memory_) std::memset(memory_, 0, bytes);
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(memory_); }
  T* data() { return memory_ + lanes<T>; }

 private:
  T* memory_;
};

template <class T>
class Packed {  // a tensor in the row-vector layout
 public:
  Packed(const Grid& grid, int n, int channels)
      : grid_(grid),
        n_(n),
        channels_(channels),
        strides_(grid.strides(grid.blocks(n), channels, sizeof(T))),
        data_(grid.slices(grid.blocks(n)) * strides_.channel * channels) {}
  void pack(const T* x) {
    each_row([&](T* row, std::size_t at) { std::memcpy(row, x + at, grid_.width * sizeof(T)); });
  }
  void unpack(T* x) {
    each_row([&](T* row, std::size_t at) { std::memcpy(x + at, row, grid_.width * sizeof(T)); });
  }
  View<T> view() { return {data_.data(), strides_.block, strides_.channel, strides_.half, strides_.gap}; }
  View<const T> constant() { return view(); }

 private:
  template <class F>
  void each_row(F&& f) {
    for (int i = 0; i < n_; ++i)
      for (int c = 0; c < channels_; ++c)
        for (int h = 0; h < grid_.height; ++h)
          f(view().at(i / grid_.images, c) + h * grid_.pitch() + i % grid_.images * grid_.slot,
            ((static_cast<std::size_t>(i) * channels_ + c) * grid_.height + h) * grid_.width);
  }
  Grid grid_;
  int n_, channels_;
  Strides strides_;
  Scratch<T> data_;
};

template <class F>
double shortest(int repeats, F&& f) {
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    const double start = seconds_now();
    f();
    const double seconds = seconds_now() - start;
    if (i == 0 || seconds < best) best = seconds;
  }
  return best;
}

// The other threads of a team. All of them are there until this object's scope ends.
class Members {
 public:
  explicit Members(Team& team) : team_(team) {
    for (int i = 1; i < team.most(); ++i) threads_.emplace_back([&] { team_.serve(); });
    while (team.size() < team.most()) std::this_thread::yield();
  }
  ~Members() {
    team_.close();
    for (std::thread& t : threads_) t.join();
  }

 private:
  Team& team_;
  std::vector<std::thread> threads_;
};

template <class T>
void conv_check(ConvCheck<T>& q) {
  const Grid grid = Grid(q.height, q.width, lanes<T>).of_batch(q.n);
  const int blocks = grid.blocks(q.n);
  Packed<T> x(grid, q.n, q.c_in), y(grid, q.n, q.c_out), dx(grid, q.n, q.c_in), dy(grid, q.n, q.c_out);
  const Algorithm how = q.size == 3 && fits(q.algorithm, grid) ? q.algorithm : Algorithm::direct;
  Scratch<T> packed(conv_packed(how, q.size, q.c_in, q.c_out));
  Team team(q.threads);
  const Members members(team);
  Scratch<T> scratch(std::max({conv_scratch<T>(how, grid, q.size, q.c_in, q.c_out, false), conv_scratch<T>(how, grid, q.size, q.c_out, q.c_in, false),
                               conv_wgrad_scratch<T>(how, grid, blocks, q.size, q.c_in, q.c_out, team.most())}));
  x.pack(q.x);
  const auto forward = [&](View<T> to, View<const T> from, int c_in, int c_out, bool turned) {
    conv_pack<T>(how, packed.data(), q.k, q.size, c_in, c_out, turned);
    grid.each_slice(0, blocks,
                    [&](int begin, int end) { conv_run<T>(how, to, from, packed.data(), scratch.data(), grid, begin, end, q.size, c_in, c_out, false); });
  };
  const int repeats = q.repeats > 0 ? q.repeats : 1;
  if (q.y) {
    q.seconds[0] = shortest(repeats, [&] { forward(y.view(), x.constant(), q.c_in, q.c_out, false); });
    y.unpack(q.y);
  }
  if (!q.dy) return;
  dy.pack(q.dy);
  if (q.dx) {
    q.seconds[1] = shortest(repeats, [&] { forward(dx.view(), dy.constant(), q.c_out, q.c_in, true); });
    dx.unpack(q.dx);
  }
  if (q.dk)
    q.seconds[2] =
        shortest(repeats, [&] { conv_wgrad<T>(how, q.dk, dy.constant(), x.constant(), scratch.data(), grid, blocks, q.size, q.c_in, q.c_out, team); });
}

template <class T>
void batch_norm_check(BatchNormCheck<T>& q) {
  const Grid grid = Grid(q.height, q.width, lanes<T>).of_batch(q.n);
  Packed<T> y(grid, q.n, q.channels), z(grid, q.n, q.channels), dz(grid, q.n, q.channels);
  y.pack(q.y);
  const int blocks = grid.blocks(q.n);
  Scratch<T> chunks(static_cast<std::size_t>(grid.chunks(q.n)) * 2 * q.channels);
  for (int k = 0; k < grid.chunks(q.n); ++k) {
    T* part = chunks.data() + static_cast<std::size_t>(k) * 2 * q.channels;
    chunk_statistics<T>(part, part + q.channels, y.constant(), grid, q.n, k * grid.chunk(), std::min(blocks, (k + 1) * grid.chunk()), q.channels);
  }
  batch_statistics<T>(q.mean, q.var, chunks.data(), chunks.data() + q.channels, 2 * q.channels, grid, q.n, q.channels);
  Scratch<T> istd(q.channels), scale(q.channels), shift(q.channels);
  for (int c = 0; c < q.channels; ++c) {
    istd.data()[c] = 1 / std::sqrt(q.var[c] + static_cast<T>(q.eps));
    scale.data()[c] = q.gamma[c] * istd.data()[c];
    shift.data()[c] = q.beta[c] - q.mean[c] * scale.data()[c];
  }
  const View<T> from = y.view(), to = z.view();
  const Term<T> term{from.data, from.channel, from.gap, scale.data(), shift.data(), true};
  grid.each_slice(0, blocks, [&](int begin, int end) {
    add_terms<T, 1>(to.at(begin), to.channel, &term, 0, q.channels, LaneMasks<T>(grid, q.n), begin * grid.vectors(), end * grid.vectors(), begin >= grid.half);
  });
  z.unpack(q.z);
  dz.pack(q.dz);
  const Flow<T> flow{dz.constant(), 1};
  const BatchNormBackward<T, 1> backward(y.view(), &flow, q.mean, istd.data(), scale.data(), shift.data(), true, grid, q.n, chunks.data(), 2 * q.channels);
  backward.run(q.channels, 0, grid.slices(blocks), true, true, q.dgamma, q.dbeta);
  y.unpack(q.dy);
}

template <class T>
void pool_check(PoolCheck<T>& q) {
  const Grid from = Grid(q.height, q.width, lanes<T>).of_batch(q.n), to = q.size == 3 ? from : from.halved().of_batch(q.n);
  Packed<T> x(from, q.n, q.channels), y(to, q.n, q.channels), dx(from, q.n, q.channels), dy(to, q.n, q.channels);
  Scratch<T> taken(to.blocks(q.n) * to.plane() * q.channels * 2);  // this is more than the winners take
  x.pack(q.x);
  dy.pack(q.dy);
  if (q.average) {
    avgpool3x3<T>(y.view(), x.constant(), from, 0, from.blocks(q.n), q.channels, false);
    avgpool3x3<T>(dx.view(), dy.constant(), from, 0, from.blocks(q.n), q.channels, true);
  } else if (q.size == 3) {
    const View<Winners> won = view_of(reinterpret_cast<Winners*>(taken.data()), from, q.channels);
    maxpool3x3_forward<T>(y.view(), won, x.constant(), from, 0, from.blocks(q.n), q.channels);
    maxpool3x3_backward<T>(dx.view(), dy.constant(), won, from, 0, from.blocks(q.n), q.channels);
  } else {
    QuadWinners* won = reinterpret_cast<QuadWinners*>(taken.data());
    maxpool2x2_forward<T>(y.view(), won, x.constant(), from, to, q.n, 0, q.channels);
    maxpool2x2_backward<T>(dx.view(), dy.constant(), won, from, to, q.n, 0, q.channels);
  }
  y.unpack(q.y);
  dx.unpack(q.dx);
}

template <class T>
void relu_check(ReluCheck<T>& q) {
  const Grid grid = Grid(q.height, q.width, lanes<T>).of_batch(q.n);
  Packed<T> z(grid, q.n, q.channels), dx(grid, q.n, q.channels);
  const int blocks = grid.blocks(q.n);
  Scratch<T> open(static_cast<std::size_t>(blocks) * q.channels * grid.plane());
  z.pack(q.x);
  relu_forward<T>(z.view(), reinterpret_cast<Open*>(open.data()), grid, 0, blocks, q.channels);
  z.unpack(q.z);
  dx.pack(q.dz);
  relu_backward<T>(dx.view(), reinterpret_cast<Open*>(open.data()), grid, 0, blocks, q.channels);
  dx.unpack(q.dx);
}

template <class T>
void head_check(HeadCheck<T>& q) {
  const Grid grid = Grid(q.height, q.width, lanes<T>).of_batch(q.n);
  const std::size_t features = static_cast<std::size_t>(q.n) * q.channels, scores = static_cast<std::size_t>(q.n) * q.classes;
  Packed<T> x(grid, q.n, q.channels), dx(grid, q.n, q.channels);
  Scratch<T> feature(features), dfeature(features), dlogit(scores), turned(turned_size(q.channels, q.classes, lanes<T>)), softmax(q.classes);
  Scratch<T> flow(static_cast<std::size_t>(grid.blocks(q.n)) * q.channels * lanes<T>);
  x.pack(q.x);
  average_pool_forward<T>(feature.data(), x.constant(), grid, q.n, 0, grid.blocks(q.n), q.channels);
  dense_forward<T>(q.logit, feature.data(), q.weight, q.bias, turned.data(), q.n, q.channels, q.classes);
  const HeadResult result = q.kind == Loss::softmax
                                ? softmax_cross_entropy<T>(dlogit.data(), q.logit, q.label, q.n, q.classes, HeadGradient::loss, q.n, softmax.data())
                                : binary_cross_entropy<T>(dlogit.data(), q.logit, q.label, q.n, q.classes, HeadGradient::loss, q.n);
  q.loss = result.loss / q.n;
  dense_backward<T>(dfeature.data(), q.dweight, q.dbias, dlogit.data(), feature.data(), q.weight, q.n, q.channels, q.classes);
  average_pool_backward<T>(flow.data(), dfeature.data(), grid, q.n, q.channels);
  const Flow<T> spread{{flow.data(), static_cast<std::size_t>(q.channels) * lanes<T>, static_cast<std::size_t>(lanes<T>)}, 0};
  add_flows<T, 1>(dx.view(), &spread, grid, q.n, 0, grid.blocks(q.n), q.channels);
  dx.unpack(q.dx);
}

template <class T>
void dense_check(DenseCheck<T>& q) {
  const Grid grid = Grid(1, 1, lanes<T>).of_batch(q.n);
  const int blocks = grid.blocks(q.n);
  const T slope = static_cast<T>(q.slope);
  Packed<T> x(grid, q.n, q.features), z(grid, q.n, q.units), a(grid, q.n, q.units), da(grid, q.n, q.units), dx(grid, q.n, q.features);
  Scratch<T> packed(conv_packed(Algorithm::direct, 1, q.features, q.units));
  x.pack(q.x);
  da.pack(q.da);
  conv1x1_pack<T>(packed.data(), q.weight, q.features, q.units, false);
  Scratch<T> scratch(conv_wgrad_scratch<T>(Algorithm::direct, grid, blocks, 1, q.features, q.units, 1));
  grid.each_slice(0, blocks, [&](int begin, int end) {
    conv_run<T>(Algorithm::direct, z.view(), x.constant(), packed.data(), scratch.data(), grid, begin, end, 1, q.features, q.units, false);
  });
  sigmoid_forward<T>(z.view(), a.view(), q.bias, slope, grid, 0, blocks, q.units);
  a.unpack(q.a);
  sigmoid_backward<T>(z.view(), q.dbias, da.constant(), slope, grid, blocks, q.units);
  Team team;
  conv_wgrad<T>(Algorithm::direct, q.dweight, z.constant(), x.constant(), scratch.data(), grid, blocks, 1, q.features, q.units, team);
  conv1x1_pack<T>(packed.data(), q.weight, q.units, q.features, true);
  grid.each_slice(0, blocks, [&](int begin, int end) {
    conv_run<T>(Algorithm::direct, dx.view(), z.constant(), packed.data(), scratch.data(), grid, begin, end, 1, q.units, q.features, false);
  });
  dx.unpack(q.dx);
}

}  // namespace spd::SPD_ISA
