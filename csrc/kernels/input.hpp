// What a convolution reads: a stored tensor, or a sum of terms (batch_norm.hpp) that is not stored. Some channels and pixels of such a sum are computed at a
// time, right where they are first multiplied. They are still in a near cache when they are read again, and the terms are read only once.
#pragma once

#include "../plan/plan.hpp"
#include "batch_norm.hpp"

namespace spd::SPD_ISA {

// The channels begin..end - 1 of a sum, and the n terms that meet there. Channel 0 of a term is channel `begin` of the sum.
template <class T>
struct Meeting {
  int begin, end, n;
  Term<T> terms[kMostTerms];
};

// One channel of a term: max(low, scale * data + shift).
template <class T>
struct Normalised {
  const T* data;
  std::size_t gap;  // that of the term
  T scale, shift, low;
};
inline constexpr int kMostFused = 2;     // so many terms are summed in registers; more are summed in memory first
inline constexpr int kAhead = 4;         // a vector is prefetched so many vectors before it is read
inline constexpr int kChannelsMade = 2;  // channels that are computed together where each is read once

// A sum, as the meetings of all its channels.
template <class T>
struct Meetings {
  int n = 0, fused = 0;  // fused: the terms that `channels` lists for each channel, or 0 where it lists none
  Meeting<T> of[kMostSegments];
  LaneMasks<T> masks;
  const Normalised<T>* channels = nullptr;

  Meetings(const Grid& grid, int images) : masks(grid, images) {}

  // Computes the channels first..until - 1, and of each the vectors begin..end - 1, counted over the blocks of the batch. They are all in one slice, the second
  // one if `second`. z is where the first of these vectors goes.
  void add_up(T* z, std::size_t channel, int first, int until, std::size_t begin, std::size_t end, bool second) const {
    for (int i = 0; i < n; ++i) {
      const Meeting<T>& m = of[i];
      const int from = std::max(first, m.begin), to = std::min(until, m.end);
      if (from >= to) continue;
      with_constant<kMostTerms>(
          m.n, [&]<int K>() { add_terms<T, K>(z + (from - first) * channel, channel, m.terms, from - m.begin, to - m.begin, masks, begin, end, second); });
    }
  }
  // Lists the terms channel by channel, if they are few. The list takes at most channels times kMostFused entries.
  void list_channels(Normalised<T>* to) {
    int most = 0;
    for (int i = 0; i < n; ++i) most = std::max(most, of[i].n);
    if (most > kMostFused) return;
    channels = to, fused = most;
    for (int i = 0; i < n; ++i)
      for (int c = 0; c < of[i].end - of[i].begin; ++c)
        for (int s = 0; s < most; ++s) {
          const bool there = s < of[i].n;  // otherwise the entry adds zero
          const Term<T>& t = of[i].terms[there ? s : 0];
          const T scale = !there ? T(0) : t.scale ? t.scale[c] : T(1), shift = there && t.shift ? t.shift[c] : T(0);
          *to++ = {t.data + c * t.channel, t.gap, scale, shift, there && !t.relu ? -std::numeric_limits<T>::infinity() : T(0)};
        }
  }
};

// One channel of a tensor, or of a sum of K terms. Called with an offset in elements, it returns the vector there.
template <class T>
struct StoredChannel {
  const T* x;
  SPD_INLINE vec<T> operator()(std::size_t at) const { return load<T>(x + at); }
  SPD_INLINE void fetch_line(std::size_t at) const { fetch(x + at); }
};
template <class T, int K>
struct SummedChannel {
  const T* data[K];
  vec<T> scale[K], shift[K], low[K];
  SPD_INLINE SummedChannel(const Normalised<T>* terms, bool second) {  // second: in the second slice
    SPD_UNROLL
    for (int s = 0; s < K; ++s) {
      const Normalised<T>& t = terms[s];
      data[s] = second ? t.data + t.gap : t.data, scale[s] = broadcast<T>(t.scale), shift[s] = broadcast<T>(t.shift), low[s] = broadcast<T>(t.low);
    }
  }
  SPD_INLINE vec<T> operator()(std::size_t at) const {
    const auto term = [&](int s) { return at_least<T>(low[s], load<T>(data[s] + at) * scale[s] + shift[s]); };
    vec<T> z = term(0);
    SPD_UNROLL
    for (int s = 1; s < K; ++s) z += term(s);
    return z;
  }
  SPD_INLINE void fetch_line(std::size_t at) const {
    SPD_UNROLL
    for (int s = 0; s < K; ++s) fetch(data[s] + at);
  }
};

// Vectors of some channels. Stored reads them from a tensor. Made computes them from terms, and also stores them for those who read them next.
template <class T>
struct Stored {
  const T* x;
  std::size_t channel;  // the elements from channel to channel
  struct Channel {
    const T* x;
    SPD_INLINE vec<T> operator()(int v) const { return load<T>(x + v * lanes<T>); }
  };
  SPD_INLINE Channel operator[](int c) const { return {x + c * channel}; }
  SPD_INLINE void move(int c, int v) { x += c * channel + v * lanes<T>; }
};
template <class T, int K>
struct Made {
  const Normalised<T>* terms;  // K for each channel
  std::size_t at;              // the offset in elements from the batch's first vector
  T* room;
  std::size_t channel;
  bool second;  // in the second slice
  struct Channel {
    SummedChannel<T, K> sum;
    std::size_t at;
    T* room;
    SPD_INLINE vec<T> operator()(int v) const {
      sum.fetch_line(at + (v + kAhead) * lanes<T>);
      const vec<T> z = sum(at + v * lanes<T>);
      store<T>(room + v * lanes<T>, z);
      return z;
    }
  };
  SPD_INLINE Channel operator[](int c) const { return {SummedChannel<T, K>(terms + c * K, second), at, room + c * channel}; }
  SPD_INLINE void move(int c, int v) { terms += c * K, at += v * lanes<T>, room += c * channel + v * lanes<T>; }
};

template <class T>
class Input {
 public:
  Input(View<const T> x) : x_(x) {}
  Input(const Meetings<T>& sum) : x_{}, sum_(&sum) {}

  bool is_made() const { return sum_; }
  // Returns the elements from channel to channel, of the tensor or of a term.
  std::size_t channel() const { return sum_ ? sum_->of[0].terms[0].channel : x_.channel; }
  // Returns the tensor, where x is one.
  View<const T> view() const { return x_; }
  // Returns the input for the slice of block b alone, as View::around does.
  Input around(int b, const Grid& grid) const {
    Input out = *this;
    out.x_ = x_.around(b), out.second_ = b >= grid.half;
    return out;
  }

  // The next two read one slice, that of `around`.

  // Calls f(part, source) for part = from..until - 1. Each call reads the vectors begin..end - 1, counted over the blocks of the batch, of the channels
  // first..first + n - 1. The source's vector 0 is `begin`. room has elements for all of these.
  template <class F>
  SPD_INLINE void read_by(int from, int until, int first, int n, std::size_t begin, std::size_t end, T* room, F&& f) const {
    if (from >= until) return;
    const std::size_t channel = (end - begin) * lanes<T>;
    if (is_listed(end)) {
      with_constant<kMostFused>(sum_->fused, [&]<int K>() { f(from++, Made<T, K>{sum_->channels + first * K, begin * lanes<T>, room, channel, second_}); });
    } else if (sum_) {
      sum_->add_up(room, channel, first, first + n, begin, end, second_);
    }
    const Stored<T> stored = sum_ ? Stored<T>{room, channel} : Stored<T>{x_.data + first * x_.channel + begin * lanes<T>, x_.channel};
    for (; from < until; ++from) f(from, stored);
  }
  // Calls f(c, channel c, the next channel) for c = 0..channels - 1. Of each channel the vectors begin..end - 1 are read once. room has elements for those of
  // kChannelsMade channels.
  template <class F>
  SPD_INLINE void each_channel(int channels, std::size_t begin, std::size_t end, T* room, F&& f) const {
    if (is_listed(end)) {
      with_constant<kMostFused>(sum_->fused, [&]<int K>() {
        const auto channel = [&](int c) { return SummedChannel<T, K>(sum_->channels + std::min(c, channels - 1) * K, second_); };
        for (int c = 0; c < channels; ++c) f(c, channel(c), channel(c + 1));
      });
      return;
    }
    const std::size_t made = (end - begin) * lanes<T>;
    for (int first = 0; first < channels; first += kChannelsMade) {
      const int n = std::min(kChannelsMade, channels - first);
      if (sum_) sum_->add_up(room, made, first, first + n, begin, end, second_);
      const T* x = sum_ ? room - begin * lanes<T> : x_.data + first * x_.channel;
      const std::size_t apart = sum_ ? made : x_.channel;
      for (int c = 0; c < n; ++c) f(first + c, StoredChannel<T>{x + c * apart}, StoredChannel<T>{x + (c + 1) * apart});
    }
  }

 private:
  bool is_listed(std::size_t end) const { return sum_ && sum_->channels && end <= sum_->masks.whole_vectors; }

  View<const T> x_;
  const Meetings<T>* sum_ = nullptr;
  bool second_ = false;  // it is for the second slice
};

}  // namespace spd::SPD_ISA
