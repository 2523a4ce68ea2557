// A team is the threads that work on one motif: its owner, and threads that have no motif of their own. The owner divides the work and every thread takes
// shares of it (fork and join). Shares write to different places and nothing is summed across them, so the
// bits do not depend on the number of threads or on when they join.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace spd {

// Vanishing gradients would become denormal numbers, with which processors calculate slowly. While an object
// of this class exists, the thread that made it takes them as 0.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
  FlushDenormals() {}
#endif
};

class Team {
 public:
  static constexpr int kMost = 16;  // threads of a team; a batch of 20 images has no more than ten shares that are worth a thread

  explicit Team(int most = 1) : most_(std::min(most, kMost)) {}
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int most() const { return most_; }  // how many threads may ever belong to the team
  int size() const { return joined_.load(std::memory_order_relaxed); }
  bool open() const { return !closed_.load(std::memory_order_relaxed) && size() < most_; }

  // Calls f(begin, end, rank) for contiguous shares of 0 .. n - 1, as many as there are threads, and returns when all are done. `f` must not throw. Each thread
  // takes its own share. The owner also takes the shares of threads that do not come, because the machine has other work for them. Two calls with one rank
  // never run at the same time.
  template <class F>
  void split(int n, F&& f) {
    const int shares = std::min(size(), n);
    if (shares <= 1) {
      f(0, n, 0);
      return;
    }
    share_ = [](void* of, int begin, int end, int rank) { (*static_cast<std::remove_reference_t<F>*>(of))(begin, end, rank); };
    work_ = &f;
    n_ = n;
    working_.store(shares - 1, std::memory_order_relaxed);
    const std::uint64_t round = ++rounds_ << kShareBits | static_cast<unsigned>(shares);
    for (int r = 1; r < shares; ++r) free_[r].store(round, std::memory_order_relaxed);
    round_.store(round, std::memory_order_release);
    run(0, 0, shares);
    for (int r = 1; r < shares; ++r)
      if (claim(r, round)) finish(r, 0, shares);
    wait([&] { return working_.load(std::memory_order_acquire) == 0; });
  }

  // Calls f(slice, begin, end, rank) for shares of 0 .. n - 1 of every slice. The shares of one slice follow those of the slice before.
  template <class F>
  void split(int slices, int n, F&& f) {
    split(slices * n, [&](int begin, int end, int rank) {
      for (int slice = n > 0 ? begin / n : 0; begin < end; ++slice, begin = slice * n) f(slice, begin - slice * n, std::min(end - slice * n, n), rank);
    });
  }

  // A thread without a motif of its own calls this to work in the team, from the owner's next split on. It returns when the owner closes the team, and at once
  // where the team is closed or full.
  void serve() {
    int rank;
    {
      const std::lock_guard<std::mutex> lock(door_);
      if (!open()) return;
      rank = joined_.fetch_add(1, std::memory_order_relaxed);
    }
    const FlushDenormals flush;
    for (std::uint64_t seen = 0;;) {
      wait([&] { return round_.load(std::memory_order_acquire) != seen; });
      seen = round_.load(std::memory_order_acquire);
      if (seen == kOver) return;
      const int shares = seen & ((1 << kShareBits) - 1);
      if (rank < shares && claim(rank, seen)) finish(rank, rank, shares);
    }
  }
  void close() {
    const std::lock_guard<std::mutex> lock(door_);
    closed_ = true;
    round_.store(kOver, std::memory_order_release);
  }

 private:
  static constexpr int kShareBits = 8;
  static constexpr std::uint64_t kOver = ~std::uint64_t{0};

  // A thread that claims share r of a round does that share. After the round no share of it can be claimed.
  bool claim(int r, std::uint64_t round) { return free_[r].compare_exchange_strong(round, 0, std::memory_order_relaxed); }
  void run(int share, int rank, int shares) {
    const auto at = [&](int r) { return static_cast<int>(static_cast<long>(n_) * r / shares); };
    share_(work_, at(share), at(share + 1), rank);
  }
  void finish(int share, int rank, int shares) {
    run(share, rank, shares);
    working_.fetch_sub(1, std::memory_order_release);
  }
  // Shares last microseconds, so a waiting thread first spins. Then it gives way, in case there are more threads than processors. In the end it sleeps, longer
  // and longer, as the owner has nothing to share.
  template <class F>
  static void wait(F&& done) {
    constexpr int spins = 4000, yields = 100;
    constexpr std::chrono::microseconds first{50}, last{200};
    for (int i = 0; i < spins && !done(); ++i) {
#if defined(__SSE2__)
      _mm_pause();
#endif
    }
    for (int i = 0; i < yields && !done(); ++i) std::this_thread::yield();
    for (auto nap = first; !done(); nap = std::min(2 * nap, last)) std::this_thread::sleep_for(nap);
  }

  const int most_;
  void (*share_)(void*, int begin, int end, int rank) = nullptr;
  void* work_ = nullptr;
  int n_ = 0;
  std::uint64_t rounds_ = 0;
  std::mutex door_;
  std::atomic<bool> closed_{false};
  alignas(64) std::atomic<int> joined_{1};
  alignas(64) std::atomic<std::uint64_t> round_{0};  // its number, and in the last bits how many shares it has
  alignas(64) std::atomic<int> working_{0};
  alignas(64) std::atomic<std::uint64_t> free_[kMost]{};  // entry r: the round whose share r nobody has claimed yet
};

}  // namespace spd
