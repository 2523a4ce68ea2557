// Runs a plan: its ops over an arena, forward and backward. Nothing is allocated here.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "../engine.hpp"
#include "../kernels/batch_norm.hpp"
#include "../kernels/conv.hpp"
#include "../kernels/head.hpp"
#include "../kernels/pool.hpp"
#include "../kernels/relu.hpp"
#include "../kernels/sigmoid.hpp"
#include "../plan/plan.hpp"
#include "../span.hpp"

namespace spd::SPD_ISA {

// A plan with its memory (arena, batch-norm statistics, scratch) and the team of threads that works on it.
template <class T>
class Network {
 public:
  // products: how many products a convolution takes together, two for its tangent.
  Network(const Plan& plan, T* memory, Team& team, int products = 1) : plan_(plan), team_(team) {
    take(arena_, plan.arena, memory);
    scratch_of_convs(memory, products);
    take(mean_, plan.batch_norms, memory);
    take(var_, plan.batch_norms, memory);
    take(istd_, plan.batch_norms, memory);
    take(scale_, plan.batch_norms, memory);
    take(shift_, plan.batch_norms, memory);
    const std::size_t n = plan.batch, channels = plan.head.channels, classes = plan.head.classes;
    take(feature_, n * channels, memory);
    take(dfeature_, n * channels, memory);
    take(turned_, turned_size(plan.head.channels, plan.head.classes, lanes<T>), memory);
    take(logit_, n * classes, memory);
    take(dlogit_, n * classes, memory);
    take(label_, n * classes, memory);
    take(softmax_, classes, memory);
  }
  static std::size_t memory(const Plan& plan, Team& team) {
    T* counted = nullptr;
    Network network(plan, counted, team);
    return network.used_;
  }

  const Plan& plan() const { return plan_; }
  const T* logits() const { return logit_; }
  const T* mean() const { return mean_; }
  const T* var() const { return var_; }
  // What the team shares from now on: nothing; tensors that are large or in slices; or most tensors, which are all but those so small that one thread is done
  // with them before the others have begun.
  enum class Share { nothing, large, most };
  void share(Share what) { shared_ = what; }
  void time(StepTimes* times) { times_ = times; }  // measures from now on, on one thread; null ends that

  // Makes the images and labels index[0..n - 1] of the set the batch. Where index is null, they are first, first + 1, ...
  void load(const DataSet<T>& data, const std::int64_t* index, int first, int n) {
    const Grid& grid = plan_.grids[0];
    const std::size_t classes = plan_.head.classes, pixels = grid.pixels();
    const auto at = [&](int i) -> std::size_t { return index ? index[i] : first + i; };
    for (int i = 0; i < n; ++i) std::memcpy(label_ + i * classes, data.labels + at(i) * classes, classes * sizeof(T));
    if (pixels == 1) return load_features(data, at, n);
    const int width = grid.width, slot = grid.slot;
    const auto copy_rows = [&](auto&& copy) {
      for (int i = 0; i < n; ++i)
        each_image_row(i, [&, from = data.images + at(i) * plan_.image_channels * pixels](T* row, int, int) mutable {
          copy(row, from);
          from += width;
        });
    };
    if (width == slot && width == 8)
      copy_rows([](T* row, const T* from) { std::memcpy(row, from, 8 * sizeof(T)); });
    else if (width == slot && width == 16)
      copy_rows([](T* row, const T* from) { std::memcpy(row, from, 16 * sizeof(T)); });
    else
      copy_rows([=](T* row, const T* from) {
        int x = 0;
        for (; x + 4 <= width; x += 4) std::memcpy(row + x, from + x, 4 * sizeof(T));
        for (; x < width; ++x) row[x] = from[x];
        for (; x < slot; ++x) row[x] = 0;  // a gradient may have left something there
      });
    for (int i = n; i % grid.images != 0; ++i) each_image_row(i, [&](T* row, int, int) { std::memset(row, 0, slot * sizeof(T)); });
  }
  void image_gradient(T* d_images, int n) {
    const Grid& grid = plan_.grids[0];
    for (int i = 0; i < n; ++i)
      each_image_row(i, [&](T* row, int c, int h) {
        std::memcpy(d_images + (static_cast<std::size_t>(i) * plan_.image_channels + c) * grid.pixels() + h * grid.width, row, grid.width * sizeof(T));
      });
  }

  // Writes the gradient, in the labels, of the mean metric over the batch. The probability depends on labels only by their argmax, so its gradient is 0.
  void label_gradient(T* d_labels, Metric metric, int n) {
    std::memset(d_labels, 0, static_cast<std::size_t>(n) * plan_.head.classes * sizeof(T));
    if (metric == Metric::loss) add_loss_by_labels(d_labels, T(1), n);
  }

  // Computes the logits. If it is asked to stop, it ends half-way, and the logits are worthless. running is null, or statistics (2, batch_norms) that are used
  // instead of the batch's.
  void forward(const T* w, int n, T eps, const Control& control, const T* running = nullptr) {
    if (running) {
      std::memcpy(mean_, running, plan_.batch_norms * sizeof(T));
      std::memcpy(var_, running + plan_.batch_norms, plan_.batch_norms * sizeof(T));
    }
    for (std::size_t i = 0, first = 0; i < plan_.runs.size() && !control.stop.load(std::memory_order_relaxed); first = plan_.runs[i++])
      forward_run(first, plan_.runs[i], w, n, eps, running != nullptr);
  }
  // Returns the metrics, summed over the batch. The gradient of the mean metric is stored for `backward`.
  HeadResult evaluate(int n, HeadGradient gradient) {
    const Head& h = plan_.head;
    return h.loss == Loss::softmax ? softmax_cross_entropy<T>(dlogit_, logit_, label_, n, h.classes, gradient, n, softmax_)
                                   : binary_cross_entropy<T>(dlogit_, logit_, label_, n, h.classes, gradient, n);
  }
  // Overwrites g (n_parameters) with the gradient of the weights. If `images`, the gradient of the images is afterwards in the place of the batch.
  void backward(T* g, const T* w, int n, bool images, const Control& control) {
    for (std::size_t i = plan_.ops.size(); i-- > 0 && !control.stop.load(std::memory_order_relaxed);) {
      const Op& op = begun(plan_.ops[i]);
      switch (op.kind) {
        case Op::Kind::conv: conv_backward(plan_.convs[op.index], g, w, n, images); break;
        case Op::Kind::sum: sum_backward(plan_.sums[op.index], n); break;
        case Op::Kind::pool: pool_backward(plan_.pools[op.index], n); break;
        case Op::Kind::dense: layer_backward(plan_.dense[op.index], g, w, n, images); break;
        case Op::Kind::head: head_backward(g, w, n);
      }
    }
  }

 protected:
  const Op& begun(const Op& op) {
    if (times_) times_->op = &op - plan_.ops.data();
    return op;
  }
  void take(T*& part, std::size_t n, T* memory) {
    part = memory + used_;
    used_ += (n + 2 * lanes<T> - 1) / lanes<T> * lanes<T>;  // one vector more, because whole vectors may be written at the end
  }
  // Takes packed weights and scratch for every thread, and statistics of chunks, each as large as the most demanding convolution needs.
  void scratch_of_convs(T* memory, int products) {
    std::size_t chunks = 0, wgrad_scratch = 0, made = 0;
    int shares = 1;  // the most shares that a batch's chunks are split into, each by a thread with packed weights and scratch of its own
    const auto fit = [&](const Conv& c) {
      const Grid& grid = plan_.grids[c.grid];
      run_packed_ = std::max(run_packed_, conv_packed(c.forward, c.size, c.c_in, c.c_out));
      run_scratch_ = std::max(run_scratch_, conv_scratch<T>(c.forward, grid, c.size, products * c.c_in, c.c_out, c.sum >= 0));
      if (plan_.passes != Passes::forward) {
        run_packed_ = std::max(run_packed_, conv_packed(c.dgrad, c.size, c.c_out, c.c_in));
        run_scratch_ = std::max(run_scratch_, conv_scratch<T>(c.dgrad, grid, c.size, products * c.c_out, c.c_in, false));
        wgrad_scratch = std::max(wgrad_scratch, conv_wgrad_scratch<T>(c.wgrad, grid, grid.blocks(plan_.batch), c.size, c.c_in, c.c_out, team_.most()));
      }
      if (c.sum >= 0) made = std::max(made, c.c_in * kMostFused * sizeof(Normalised<T>) / sizeof(T));
      chunks = std::max(chunks, static_cast<std::size_t>(grid.chunks(plan_.batch)) * 2 * c.c_out);
    };
    for (const Grid& grid : plan_.grids) shares = std::max(shares, std::min(team_.most(), grid.chunks(plan_.batch)));
    for (const Conv& c : plan_.convs) fit(c);
    const Head& h = plan_.head;
    if (h.sum >= 0) run_scratch_ = std::max(run_scratch_, passing_size(plan_.grids[h.grid], h.channels));
    for (const Pool& p : plan_.pools)
      if (p.sum >= 0) run_scratch_ = std::max(run_scratch_, passing_size(plan_.grids[p.from], p.channels));
    for (const Dense& d : plan_.dense) fit(d.product);
    run_packed_ *= products;
    for (std::size_t* size : {&run_scratch_, &run_packed_}) *size = (*size + 2 * lanes<T> - 1) / lanes<T> * lanes<T>;
    take(packed_, run_packed_ * shares, memory);
    take(scratch_, run_scratch_ * shares, memory);
    take(wgrad_scratch_, wgrad_scratch, memory);
    take(made_, made, memory);
    take(chunk_statistics_, chunks, memory);
  }
  template <class U>
  View<U> view(const Place& p, int channel = 0) const {
    return {arena_ + p.offset + channel * p.channel, p.block, p.channel, p.half, p.gap};
  }
  // Loads images of one pixel a channel. A vector then holds one feature of all images of a block.
  template <class F>
  void load_features(const DataSet<T>& data, F&& at, int n) {
    const View<T> x = view<T>(plan_.images);
    for (int b = 0; b * lanes<T> < n; ++b) {
      const T* from[lanes<T>];
      const int images = std::min(lanes<T>, n - b * lanes<T>);
      for (int i = 0; i < images; ++i) from[i] = data.images + at(b * lanes<T> + i) * plan_.image_channels;
      for (int c = 0; c < plan_.image_channels; ++c) {
        T v[lanes<T>]{};
        for (int i = 0; i < images; ++i) v[i] = from[i][c];
        std::memcpy(x.at(b, c), v, sizeof v);
      }
    }
  }
  template <class F>
  void each_image_row(int i, F&& f) {
    const Grid& grid = plan_.grids[0];
    const int height = grid.height;
    const std::size_t pitch = grid.pitch();
    T* channel = view<T>(plan_.images).at(i / grid.images) + i % grid.images * grid.slot;
    for (int c = 0; c < plan_.image_channels; ++c, channel += plan_.images.channel)
      for (int h = 0; h < height; ++h) f(channel + h * pitch, c, h);
  }

  // Runs the ops first..last - 1, which are a run, chunk by chunk of the batch, so that what one op writes is still in the cache when the next op reads it.
  void forward_run(int first, int last, const T* w, int n, T eps, bool given_statistics) {
    const Op& at_end = begun(plan_.ops[last - 1]);
    const Conv* conv = at_end.kind == Op::Kind::conv ? &plan_.convs[at_end.index] : nullptr;
    if (at_end.kind == Op::Kind::head) return head_forward(w, n);
    if (at_end.kind == Op::Kind::dense) return layer_forward(plan_.dense[at_end.index], w, n);
    if (at_end.kind == Op::Kind::pool && is_downsampling(plan_.pools[at_end.index])) {
      const Pool& p = plan_.pools[at_end.index];
      return pool_forward(p, view<T>(p.x), n, 0, 0);
    }
    const Grid& grid = plan_.grids[grid_of(at_end)];
    const int channels = conv ? conv->c_out : at_end.kind == Op::Kind::sum ? plan_.sums[at_end.index].channels : plan_.pools[at_end.index].channels;
    const auto pack = [&](T* packed) {
      if (!conv) return;
      const Span span(times_, Part::forward);
      conv_pack<T>(conv->forward, packed, w + conv->weight, conv->size, conv->c_in, conv->c_out, false);
    };
    const std::optional<Meetings<T>> made = conv ? sum_of(*conv, n) : std::nullopt;
    each_chunk(grid, n, channels, pack, [&](int chunk, int begin, int end, const T* packed, T* scratch) {
      for (int i = first; i < last; ++i) {
        const Op& op = begun(plan_.ops[i]);
        if (op.kind == Op::Kind::sum) {
          const Sum& sum = plan_.sums[op.index];
          const bool is_made_later = sum.passes && (i + 1 == last || plan_.ops[i + 1].kind != Op::Kind::pool);
          if (!is_made_later) sum_forward(sum, sum.passes ? passing_chunk(grid, scratch, begin) : view<T>(sum.z), n, begin, end);
        } else if (op.kind == Op::Kind::pool) {
          const Pool& p = plan_.pools[op.index];
          pool_forward(p, p.sum >= 0 ? passing_chunk(grid, scratch, begin) : view<T>(p.x), n, begin, end);
        } else {
          Span span(times_, Part::forward);
          conv_run<T>(conv->forward, view<T>(conv->y), input(*conv, made), packed, scratch, grid, begin, end, conv->size, conv->c_in, conv->c_out, false);
          span.next(Part::statistics);
          T* statistics = chunk_statistics_ + static_cast<std::size_t>(chunk) * 2 * conv->c_out;
          if (!given_statistics) chunk_statistics<T>(statistics, statistics + conv->c_out, view<const T>(conv->y), grid, n, begin, end, conv->c_out);
        }
      }
    });
    if (conv) normalisation(*conv, w, n, eps, given_statistics);
  }
  // Where one chunk of a sum that is not stored is kept, until the pooling or the head has read it.
  static std::size_t passing_size(const Grid& grid, int channels) { return channels * grid.strides(grid.chunk(), channels, sizeof(T)).channel; }
  static View<T> passing_chunk(const Grid& grid, T* scratch, int begin) {
    return {scratch - begin * grid.plane(), grid.plane(), grid.strides(grid.chunk(), 1, sizeof(T)).channel};
  }
  // Returns the sum that a convolution computes instead of reading x, if it does. `input` returns what it reads then.
  std::optional<Meetings<T>> sum_of(const Conv& c, int n) const {
    std::optional<Meetings<T>> out;
    if (c.sum < 0) return out;
    const Sum& sum = plan_.sums[c.sum];
    out.emplace(plan_.grids[sum.grid], n);  // in place, because it is kilobytes long
    list_meetings(*out, sum);
    out->list_channels(reinterpret_cast<Normalised<T>*>(made_));
    return out;
  }
  Input<T> input(const Conv& c, const std::optional<Meetings<T>>& made) const { return made ? Input<T>(*made) : Input<T>(view<const T>(c.x)); }
  int grid_of(const Op& op) const {
    return op.kind == Op::Kind::conv ? plan_.convs[op.index].grid : op.kind == Op::Kind::sum ? plan_.sums[op.index].grid : plan_.pools[op.index].from;
  }
  static bool is_downsampling(const Pool& p) { return p.from != p.to; }
  Team& threads(const Grid& grid, int n, int channels) {
    if (shared_ == Share::nothing) return alone_;
    const int blocks = grid.blocks(n);
    const std::size_t least = shared_ == Share::large ? kHalfL2 : kHalfL2 / 8;
    return grid.slices(blocks) > 1 || channels * blocks * grid.plane() * sizeof(T) > least ? team_ : alone_;
  }
  // Calls f(chunk, its first block, its last block + 1, the thread's packed weights, the thread's scratch) for every chunk of a batch of n images. Before its
  // first chunk every thread calls pack(its packed weights): each needs all of them, and one thread would take as long to pack them for all.
  template <class P, class F>
  void each_chunk(const Grid& grid, int n, int channels, P&& pack, F&& f) {
    const int blocks = grid.blocks(n);
    bool is_packed[Team::kMost]{};  // a thread may do several shares, and packs once
    threads(grid, n, channels).split(grid.chunks(n), [&](int chunk, int until, int rank) {
      T *packed = packed_ + rank * run_packed_, *scratch = scratch_ + rank * run_scratch_;
      if (!is_packed[rank]) pack(packed);
      is_packed[rank] = true;
      for (; chunk < until; ++chunk) f(chunk, chunk * grid.chunk(), std::min(blocks, (chunk + 1) * grid.chunk()), packed, scratch);
    });
  }
  void normalisation(const Conv& c, const T* w, int n, T eps, bool given_statistics) {
    const Span span(times_, Part::statistics);
    T *mean = mean_ + c.batch_norm, *var = var_ + c.batch_norm;
    if (!given_statistics) batch_statistics<T>(mean, var, chunk_statistics_, chunk_statistics_ + c.c_out, 2 * c.c_out, plan_.grids[c.grid], n, c.c_out);
    for (int o = 0; o < c.c_out; ++o) {
      const T istd = 1 / std::sqrt(var[o] + eps);
      istd_[c.batch_norm + o] = istd;
      scale_[c.batch_norm + o] = w[c.gamma + o] * istd;
      shift_[c.batch_norm + o] = w[c.beta + o] - mean[o] * w[c.gamma + o] * istd;
    }
  }
  void conv_backward(const Conv& c, T* g, const T* w, int n, bool images) {
    norm_backward(c, g, n);
    product_backward(c, g, w, n, images);
  }
  void norm_backward(const Conv& c, T* g, int n) {
    const Span span(times_, Part::norm_backward);
    const Grid& grid = plan_.grids[c.grid];
    const int slices = grid.slices(grid.blocks(n));
    // For the channels begin..end - 1.
    const auto run = [&](int begin, int end, int first_slice, int last_slice, bool add_up, bool apply) {
      for (const Segment& s : c.flows) {
        const int first = std::max(begin, s.begin), last = std::min(end, s.end), bn = c.batch_norm + first;
        if (first >= last) continue;
        Flow<T> flows[kMostSources];
        flows_of(s, first - s.begin, flows);
        with_constant<kMostSources>(s.n, [&]<int K>() {
          const BatchNormBackward<T, K> backward(view<T>(c.y, first), flows, mean_ + bn, istd_ + bn, scale_ + bn, shift_ + bn, c.relu, grid, n,
                                                 chunk_statistics_ + 2 * first, 2 * c.c_out);
          backward.run(last - first, first_slice, last_slice, add_up, apply, g + c.gamma + first, g + c.beta + first);
        });
      }
    };
    Team& team = threads(grid, n, c.c_out);
    if (team.size() == 1) return run(0, c.c_out, 0, slices, true, true);  // a channel is still in the cache when it is read again
    team.split(slices, c.c_out, [&](int slice, int begin, int end, int) { run(begin, end, slice, slice + 1, true, false); });
    team.split(slices, c.c_out, [&](int slice, int begin, int end, int) { run(begin, end, slice, slice + 1, false, true); });
  }
  // The backward of the convolution without its batch norm; y holds dy. Where each slice of the batch belongs to one thread, the thread goes through it in
  // rounds. In each round it computes the gradient of x right after it has added to the weight gradient, while dy is still in L2.
  void product_backward(const Conv& c, T* g, const T* w, int n, bool images) {
    const Grid& grid = plan_.grids[c.grid];
    const View<const T> dy = view<const T>(c.y);
    const std::optional<Meetings<T>> made = sum_of(c, n);
    Span span(times_, Part::wgrad);
    if (c.reads_images && !images) return run_wgrad(c, g + c.weight, dy, input(c, made), n);
    bool is_packed[Team::kMost]{};
    run_wgrad(c, g + c.weight, dy, input(c, made), n, [&](int begin, int end, int rank) {
      span.next(Part::dgrad);  // times are only measured on one thread
      T *packed = packed_ + rank * run_packed_, *scratch = scratch_ + rank * run_scratch_;
      if (!is_packed[rank]) conv_pack<T>(c.dgrad, packed, w + c.weight, c.size, c.c_out, c.c_in, true);
      is_packed[rank] = true;
      conv_run<T>(c.dgrad, view<T>(c.x), dy, packed, scratch, grid, begin, end, c.size, c.c_out, c.c_in, false);
      span.next(Part::wgrad);
    });
  }
  void run_wgrad(const Conv& c, T* dk, View<const T> dy, std::type_identity_t<Input<T>> x, int n, const Hook& done = {}) {
    const Grid& grid = plan_.grids[c.grid];
    conv_wgrad<T>(c.wgrad, dk, dy, x, wgrad_scratch_, grid, grid.blocks(n), c.size, c.c_in, c.c_out, threads(grid, n, c.c_out), done);
  }
  // Lists the flows to a segment, from the segment's channel `first` on.
  void flows_of(const Segment& s, int first, Flow<T>* flows) const {
    for (int i = 0; i < s.n; ++i) flows[i] = {view<const T>(s.source[i].place, first), s.source[i].step};
  }

  void terms_of(const Segment& s, Term<T>* terms) const {
    for (int i = 0; i < s.n; ++i) {
      const Place& p = s.source[i].place;
      const int bn = s.source[i].batch_norm;
      terms[i] = {arena_ + p.offset, p.channel, p.gap, bn >= 0 ? scale_ + bn : nullptr, bn >= 0 ? shift_ + bn : nullptr, s.source[i].relu};
    }
  }
  void list_meetings(Meetings<T>& out, const Sum& sum) const {
    for (const Segment& s : sum.terms) {
      Meeting<T>& meeting = out.of[out.n++];
      meeting.begin = s.begin, meeting.end = s.end, meeting.n = s.n;
      terms_of(s, meeting.terms);
    }
  }
  void sum_forward(const Sum& sum, View<T> z, int n, int begin, int end) {
    const Span span(times_, Part::forward);
    add_up(sum, z, n, begin, end);
    if (sum.relu) relu_forward<T>(z, taken<Open>(sum.open), plan_.grids[sum.grid], begin, end, sum.channels);
  }
  void add_up(const Sum& sum, View<T> z, int n, int begin, int end) const {
    const Grid& grid = plan_.grids[sum.grid];
    Meetings<T> meetings(grid, n);
    list_meetings(meetings, sum);
    meetings.add_up(z.at(begin), z.channel, 0, sum.channels, begin * grid.vectors(), end * grid.vectors(), begin >= grid.half);
  }
  // apart: as in pool_backward.
  void sum_backward(const Sum& sum, int n, std::ptrdiff_t apart = 0) {
    if (sum.flows.empty() && !sum.relu) return;  // its gradient lies where its reader wrote it
    const Span span(times_, Part::backward);
    const Grid& grid = plan_.grids[sum.grid];
    flows_to(sum.z, sum.flows, grid, n, apart);
    if (!sum.relu) return;
    const View<T> d = view<T>(sum.z).moved(apart);
    each_chunk(
        grid, n, sum.channels, [](T*) {},
        [&](int, int begin, int end, const T*, T*) { relu_backward<T>(d, taken<Open>(sum.open), grid, begin, end, sum.channels); });
  }
  void layer_forward(const Dense& d, const T* w, int n) {
    const Span span(times_, Part::forward);
    const Conv& c = d.product;
    const Grid& grid = plan_.grids[c.grid];
    const auto pack = [&](T* packed) { conv_pack<T>(c.forward, packed, w + c.weight, c.size, c.c_in, c.c_out, false); };
    each_chunk(grid, n, c.c_out, pack, [&](int, int begin, int end, const T* packed, T* scratch) {
      conv_run<T>(c.forward, view<T>(c.y), view<const T>(c.x), packed, scratch, grid, begin, end, c.size, c.c_in, c.c_out, false);
      sigmoid_forward<T>(view<T>(c.y), view<T>(d.a), w + d.bias, static_cast<T>(d.slope), grid, begin, end, c.c_out);
    });
  }
  void layer_backward(const Dense& d, T* g, const T* w, int n, bool images) {
    const Conv& c = d.product;
    const Grid& grid = plan_.grids[c.grid];
    {
      const Span span(times_, Part::backward);
      threads(grid, n, c.c_out).split(c.c_out, [&](int begin, int end, int) {
        sigmoid_backward<T>(view<T>(c.y, begin), g + d.bias + begin, view<const T>(d.da, begin), static_cast<T>(d.slope), grid, grid.blocks(n), end - begin);
      });
    }
    product_backward(c, g, w, n, images);
  }
  void head_forward(const T* w, int n) {
    const Span span(times_, Part::forward);
    const Head& h = plan_.head;
    const Grid& grid = plan_.grids[h.grid];
    each_chunk(
        grid, n, h.channels, [](T*) {},
        [&](int, int begin, int end, const T*, T* scratch) {
          const View<T> x = h.sum >= 0 ? passing_chunk(grid, scratch, begin) : view<T>(h.x);
          if (h.sum >= 0) add_up(plan_.sums[h.sum], x, n, begin, end);
          average_pool_forward<T>(feature_, x, grid, n, begin, end, h.channels);
        });
    dense_forward<T>(logit_, feature_, w + h.weight, w + h.bias, turned_, n, h.channels, h.classes);
  }

  void head_backward(T* g, const T* w, int n) {
    const Span span(times_, Part::backward);
    const Head& h = plan_.head;
    dense_backward<T>(dfeature_, g + h.weight, g + h.bias, dlogit_, feature_, w + h.weight, n, h.channels, h.classes);
    average_pool_backward<T>(arena_ + h.dx, dfeature_, plan_.grids[h.grid], n, h.channels);
  }

  // Adds factor * d loss / d labels to d_labels.
  void add_loss_by_labels(T* d_labels, T factor, int n) {
    plan_.head.loss == Loss::softmax ? add_label_gradient<T>(d_labels, factor, logit_, n, plan_.head.classes)
                                     : add_bit_gradient<T>(d_labels, factor, logit_, n, plan_.head.classes);
  }

  template <class W>
  W* taken(std::size_t place) {
    return reinterpret_cast<W*>(arena_ + place);
  }
  View<Winners> winners(const Pool& p) { return view_of(taken<Winners>(p.taken), plan_.grids[p.from], p.channels); }
  // Pools the blocks begin..end - 1, or, where it downsamples, the whole batch.
  void pool_forward(const Pool& p, View<const T> x, int n, int begin, int end) {
    const Span span(times_, Part::forward);
    const Grid &from = plan_.grids[p.from], &to = plan_.grids[p.to];
    if (is_downsampling(p))
      threads(from, n, p.channels).split(p.channels, [&](int begin, int end, int) {
        maxpool2x2_forward<T>(view<T>(p.y), taken<QuadWinners>(p.taken), x, from, to, n, begin, end);
      });
    else if (p.average)
      avgpool3x3<T>(view<T>(p.y), x, from, begin, end, p.channels, false);
    else
      maxpool3x3_forward<T>(view<T>(p.y), winners(p), x, from, begin, end, p.channels);
  }
  // Overwrites y with the sum of the flows to it.
  void flows_to(const Place& y, const std::vector<Segment>& segments, const Grid& grid, int n, std::ptrdiff_t apart = 0) {
    const int blocks = grid.blocks(n);
    for (const Segment& s : segments) {
      if (s.n == 0) continue;
      threads(grid, n, s.end - s.begin).split(grid.slices(blocks), s.end - s.begin, [&](int slice, int begin, int end, int) {
        Flow<T> flows[kMostSources];
        flows_of(s, begin, flows);
        for (int i = 0; i < s.n; ++i) flows[i].data += apart;
        const View<T> to = view<T>(y, s.begin + begin).moved(apart);
        with_constant<kMostSources>(s.n,
                                    [&]<int K>() { add_flows<T, K>(to, flows, grid, n, grid.slice_begin(slice), grid.slice_end(blocks, slice), end - begin); });
      });
    }
  }
  // apart: 0, or the elements from a tensor to its tangent. Then this is the backward of the tangent.
  void pool_backward(const Pool& p, int n, std::ptrdiff_t apart = 0) {
    const Span span(times_, Part::backward);
    const Grid &from = plan_.grids[p.from], &to = plan_.grids[p.to];
    if (is_downsampling(p)) {
      flows_to(p.y, p.flows, to, n, apart);
      return threads(from, n, p.channels).split(p.channels, [&](int begin, int end, int) {
        maxpool2x2_backward<T>(view<T>(p.x).moved(apart), view<const T>(p.y).moved(apart), taken<QuadWinners>(p.taken), from, to, n, begin, end);
      });
    }
    each_chunk(
        from, n, p.channels, [](T*) {},
        [&](int, int begin, int end, const T*, T*) {
          for (const Segment& s : p.flows) {
            const View<T> dx = view<T>(p.x, s.begin).moved(apart);
            const View<const T> dy = arrived(s, p.y, from, n, begin, end, apart);
            const int channels = s.end - s.begin;
            const View<Winners> won = p.average ? View<Winners>{} : winners(p).from_channel(s.begin);
            p.average ? avgpool3x3<T>(dx, dy, from, begin, end, channels, true) : maxpool3x3_backward<T>(dx, dy, won, from, begin, end, channels);
          }
        });
  }
  // Returns the sum of the flows to a segment, for the blocks begin..end - 1. It is computed in y, or read where it is if there is only one flow.
  View<const T> arrived(const Segment& s, const Place& y, const Grid& grid, int n, int begin, int end, std::ptrdiff_t apart) const {
    const View<T> to = view<T>(y, s.begin).moved(apart);
    if (s.n == 0) return to;  // the one reader of y wrote the gradient there
    Flow<T> flows[kMostSources];
    flows_of(s, 0, flows);
    for (int i = 0; i < s.n; ++i) flows[i].data += apart;
    if (is_read_in_place(s, grid, n)) return flows[0];
    with_constant<kMostSources>(s.n, [&]<int K>() { add_flows<T, K>(to, flows, grid, n, begin, end, s.end - s.begin); });
    return to;
  }

  const Plan& plan_;
  Team &team_, alone_;
  Share shared_ = Share::most;
  StepTimes* times_ = nullptr;
  std::size_t used_ = 0, run_packed_ = 0, run_scratch_ = 0;  // run_packed_, run_scratch_: elements for one thread
  T *arena_, *packed_, *scratch_, *wgrad_scratch_, *made_, *chunk_statistics_, *mean_, *var_, *istd_, *scale_, *shift_, *feature_, *dfeature_, *turned_,
      *logit_, *dlogit_, *label_, *softmax_;
};

}  // namespace spd::SPD_ISA
