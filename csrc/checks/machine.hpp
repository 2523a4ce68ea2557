// Measures what one core of this machine can do at most: multiply-adds, bytes read from and written to a working set, cycles.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../simd.hpp"
#include "../span.hpp"

namespace spd::SPD_ISA {

// Returns FLOP/s of independent multiply-adds in registers. 24 chains hide the latency of two multiply-adds a cycle.
template <class T>
double fma_peak(double seconds) {
  constexpr int chains = SPD_VECTOR_BYTES == 64 ? 24 : 12;
  constexpr long rounds = 20000;
  double best = 0, spent = 0;
  while (spent < seconds) {
    vec<T> acc[chains], x = broadcast<T>(T(0.999)), y = broadcast<T>(T(1e-3));
    asm volatile("" : "+m"(x), "+m"(y));
    for (int i = 0; i < chains; ++i) acc[i] = broadcast<T>(T(i));
    const double start = seconds_now();
    for (long r = 0; r < rounds; ++r) {
      SPD_UNROLL
      for (int i = 0; i < chains; ++i) acc[i] = acc[i] * x + y;
    }
    const double took = seconds_now() - start;
    vec<T> total = acc[0];
    for (int i = 1; i < chains; ++i) total += acc[i];
    asm volatile("" : : "m"(total));
    spent += took;
    best = std::max(best, 2.0 * lanes<T> * chains * rounds / took);
  }
  return best;
}

// Sums n elements from first to last, again and again, and returns the bytes/s of the best pass. n is a multiple of eight vectors.
template <class T>
double read_rate(const T* data, std::size_t n, double seconds) {
  constexpr int chains = 8;  // a core loads two vectors a cycle, and an addition takes four cycles
  const long passes = std::max<long>(1, (4L << 20) / static_cast<long>(n * sizeof(T)));
  double best = 0, spent = 0;
  while (spent < seconds) {
    vec<T> acc[chains]{};
    const double start = seconds_now();
    for (long p = 0; p < passes; ++p) {
      for (std::size_t at = 0; at < n; at += chains * lanes<T>) {
        SPD_UNROLL
        for (int i = 0; i < chains; ++i) acc[i] += load<T>(data + at + i * lanes<T>);
      }
      asm volatile("" : : : "memory");  // without this the compiler would do with one pass
    }
    const double took = seconds_now() - start;
    vec<T> total = acc[0];
    for (int i = 1; i < chains; ++i) total += acc[i];
    asm volatile("" : : "m"(total));
    spent += took;
    best = std::max(best, static_cast<double>(passes) * n * sizeof(T) / took);
  }
  return best;
}

// Does the same with writing.
template <class T>
double write_rate(T* data, std::size_t n, double seconds) {
  const long passes = std::max<long>(1, (4L << 20) / static_cast<long>(n * sizeof(T)));
  double best = 0, spent = 0;
  while (spent < seconds) {
    const vec<T> v = broadcast<T>(T(1));
    const double start = seconds_now();
    for (long p = 0; p < passes; ++p) {
      for (std::size_t at = 0; at < n; at += 8 * lanes<T>) SPD_UNROLL
      for (int i = 0; i < 8; ++i) store<T>(data + at + i * lanes<T>, v);
      asm volatile("" : : : "memory");
    }
    const double took = seconds_now() - start;
    spent += took;
    best = std::max(best, static_cast<double>(passes) * n * sizeof(T) / took);
  }
  return best;
}

// Returns cycles/s, measured by a chain of additions that take one cycle each.
inline double clock_rate(double seconds) {
  constexpr int chain = 64;
  constexpr long rounds = 20000;
  double best = 0, spent = 0;
  std::uint64_t x = 1;
  while (spent < seconds) {
    const double start = seconds_now();
    for (long r = 0; r < rounds; ++r) {
      SPD_UNROLL
      for (int i = 0; i < chain; ++i) {
        x += x;
        asm volatile("" : "+r"(x));
      }
    }
    const double took = seconds_now() - start;
    spent += took;
    best = std::max(best, static_cast<double>(chain) * rounds / took);
  }
  return best;
}

}  // namespace spd::SPD_ISA
