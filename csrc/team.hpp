// The threads that work on one motif: its owner and, where there are fewer motifs than threads, members. Fork and join: the owner says what is to be
// split, every thread takes its share. Shares write apart and sum nothing across them, so the bits do not depend on how many threads there are.
#pragma once

#include <atomic>
#include <thread>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace spd {

// Gradients that fade to nothing would be slow denormals; while this lives they are zero, on the thread that made it.
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
  explicit Team(int size = 1) : size_(size) {}
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  // f(begin, end, rank) for contiguous shares of 0 .. n - 1, one a thread; returns when all are done. `f` must not throw.
  template <class F>
  void split(int n, F&& f) {
    if (size_ == 1 || n < 2) {
      f(0, n, 0);
      return;
    }
    share_ = [](void* of, int begin, int end, int rank) { (*static_cast<std::remove_reference_t<F>*>(of))(begin, end, rank); };
    work_ = &f;
    n_ = n;
    working_.store(size_ - 1, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    run(0);
    wait([&] { return working_.load(std::memory_order_acquire) == 0; });
  }

  // What the members do (ranks 1 .. size - 1), until the owner dismisses them.
  void serve(int rank) {
    const FlushDenormals flush;
    for (unsigned seen = 0;; ++seen) {
      wait([&] { return round_.load(std::memory_order_acquire) != seen; });
      if (!share_) return;
      run(rank);
      working_.fetch_sub(1, std::memory_order_release);
    }
  }
  void dismiss() {
    share_ = nullptr;
    round_.fetch_add(1, std::memory_order_release);
  }

 private:
  void run(int rank) {
    const auto at = [&](int r) { return static_cast<int>(static_cast<long>(n_) * r / size_); };
    share_(work_, at(rank), at(rank + 1), rank);
  }
  // Shares last microseconds: spin, and give way where threads are more than processors.
  template <class F>
  static void wait(F&& done) {
    for (int spins = 0; !done(); ++spins) {
      if (spins >= 4000) std::this_thread::yield();
#if defined(__SSE2__)
      else
        _mm_pause();
#endif
    }
  }

  const int size_;
  void (*share_)(void*, int begin, int end, int rank) = nullptr;
  void* work_ = nullptr;
  int n_ = 0;
  alignas(64) std::atomic<unsigned> round_{0};
  alignas(64) std::atomic<int> working_{0};
};

}  // namespace spd
