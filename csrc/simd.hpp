// `vec<T>` is a vector of elements of type T, as wide as the instruction set for which this file is compiled. Arithmetic is that of the compiler's vector
// extensions (GCC, Clang), so `a * b + c` is a fused multiply-add wherever the hardware has one.
// Masks and shuffles are in this file alone. Loads and stores may be unaligned; on current hardware that costs nothing unless a cache line is crossed.
//
// A `mask<T>` says for each lane whether it counts. AVX-512 has registers for masks; elsewhere a mask is a vector of 0 and ~0.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#define SPD_VECTOR_BYTES 64
#elif defined(__AVX2__)
#include <immintrin.h>
#define SPD_VECTOR_BYTES 32
#else
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#define SPD_VECTOR_BYTES 16
#endif

#define SPD_INLINE inline __attribute__((always_inline))
#define SPD_NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define SPD_UNROLL _Pragma("unroll")
#else
#define SPD_UNROLL _Pragma("GCC unroll 64")
#endif

namespace spd::SPD_ISA {

template <class T>
struct simd {
  typedef T vector __attribute__((vector_size(SPD_VECTOR_BYTES)));
  using integer = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  typedef integer integers __attribute__((vector_size(SPD_VECTOR_BYTES)));
  static constexpr int lanes = SPD_VECTOR_BYTES / sizeof(T);
#if defined(__AVX512F__)
  static_assert(sizeof(T) == 4, "double is compiled for AVX2 and the baseline alone (isa/functions.hpp)");
  using mask = __mmask16;
#else
  using mask = integers;
#endif
};
template <class T> using vec = typename simd<T>::vector;
template <class T> using ivec = typename simd<T>::integers;
template <class T> using mask = typename simd<T>::mask;
template <class T> inline constexpr int lanes = simd<T>::lanes;

template <class T>
SPD_INLINE vec<T> load(const T* p) {
  vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
SPD_INLINE void store(T* p, vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
template <class T>
SPD_INLINE vec<T> broadcast(T x) {
  return [&]<std::size_t... i>(std::index_sequence<i...>) { return vec<T>{((void)i, x)...}; }(std::make_index_sequence<lanes<T>>{});
}
// Keeps a loaded vector in a register. Without this GCC loads it anew for every multiply-add, and then loads take longer than the multiplications.
template <class T>
SPD_INLINE vec<T> in_register(vec<T> v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}
// Prefetches the cache line of p, which will be read soon. p may point anywhere.
template <class T>
SPD_INLINE void fetch(const T* p) {
  __builtin_prefetch(p);
}
// Returns p. It makes the compiler compute the next addresses from p when they are needed, instead of keeping all of them in registers.
template <class T>
SPD_INLINE T* from_here(T* p) {
  asm("" : "+r"(p));
  return p;
}
template <class T>
SPD_INLINE vec<T> zeros() {
  return vec<T>{};
}

// ---- masks

// Returns a mask. Bit i of `bits` says whether lane i counts.
template <class T>
SPD_INLINE mask<T> mask_of_bits(std::uint64_t bits) {
#if defined(__AVX512F__)
  return static_cast<mask<T>>(bits);
#else
  return [&]<std::size_t... i>(std::index_sequence<i...>) {
    using integer = typename simd<T>::integer;
    const ivec<T> lane = {integer{1} << i...}, all = {((void)i, static_cast<integer>(bits))...};
    return (mask<T>)((all & lane) == lane);
  }(std::make_index_sequence<lanes<T>>{});
#endif
}

template <class T>
SPD_INLINE std::uint64_t bits_of_mask(mask<T> m) {
#if defined(__AVX512F__)
  return m;
#elif defined(__AVX2__)
  return static_cast<unsigned>(sizeof(T) == 4 ? _mm256_movemask_ps((__m256)m) : _mm256_movemask_pd((__m256d)m));
#elif defined(__SSE2__)
  return static_cast<unsigned>(sizeof(T) == 4 ? _mm_movemask_ps((__m128)m) : _mm_movemask_pd((__m128d)m));
#else
  std::uint64_t bits = 0;
  for (int i = 0; i < lanes<T>; ++i) bits |= static_cast<std::uint64_t>(m[i] != 0) << i;
  return bits;
#endif
}

// A mask takes two bytes in memory.
template <class T>
SPD_INLINE mask<T> load_mask(const std::uint16_t* p) {
#if defined(__AVX512F__)
  return _load_mask16(const_cast<__mmask16*>(reinterpret_cast<const __mmask16*>(p)));
#else
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {  // the bits are broadcast from memory, twice to each lane
    const ivec<T> lane = {1, 2, 4, 8, 16, 32, 64, 128};
    return (mask<T>)(((ivec<T>)_mm256_set1_epi16(static_cast<short>(*p)) & lane) == lane);
  } else
#endif
    return mask_of_bits<T>(*p);
#endif
}
template <class T>
SPD_INLINE void store_mask(std::uint16_t* p, mask<T> m) {
#if defined(__AVX512F__)
  _store_mask16(reinterpret_cast<__mmask16*>(p), m);
#else
  *p = static_cast<std::uint16_t>(bits_of_mask<T>(m));
#endif
}
template <class T>
SPD_INLINE mask<T> neither(mask<T> a, mask<T> b) {
#if defined(__AVX512F__)
  return _knot_mask16(_kor_mask16(a, b));
#else
  return ~(a | b);
#endif
}

// Returns `v` where the mask holds, and `otherwise` elsewhere.
template <class T>
SPD_INLINE vec<T> select(mask<T> m, vec<T> v, vec<T> otherwise) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_mask_blend_ps(m, (__m512)otherwise, (__m512)v);
#else
  return m ? v : otherwise;
#endif
}
// Returns `v` where the mask holds, and zero elsewhere. all_lanes is the mask of a block whose lanes all count; with it nothing has to be done.
struct all_lanes {};
template <class T>
SPD_INLINE vec<T> keep(mask<T> m, vec<T> v) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_maskz_mov_ps(m, (__m512)v);
#else
  return (vec<T>)((ivec<T>)v & m);
#endif
}
template <class T>
SPD_INLINE vec<T> keep(all_lanes, vec<T> v) {
  return v;
}
template <class T>
SPD_INLINE vec<T> keep_not(mask<T> m, vec<T> v) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_mask_mov_ps((__m512)v, m, _mm512_setzero_ps());
#else
  return (vec<T>)((ivec<T>)v & ~m);
#endif
}

// Returns the lanes that are in both masks.
template <class T>
SPD_INLINE mask<T> both(mask<T> a, mask<T> b) {
  return a & b;
}
template <class T>
SPD_INLINE mask<T> both(mask<T> a, all_lanes) {
  return a;
}
// Return sum + v, or sum + a * b, where the mask holds, and `sum` elsewhere.
template <class T>
SPD_INLINE vec<T> add_where(mask<T> m, vec<T> sum, vec<T> v) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_mask_add_ps((__m512)sum, m, (__m512)sum, (__m512)v);
#else
  return sum + keep<T>(m, v);
#endif
}
template <class T>
SPD_INLINE vec<T> add_product_where(mask<T> m, vec<T> sum, vec<T> a, vec<T> b) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_mask3_fmadd_ps((__m512)a, (__m512)b, (__m512)sum, m);
#else
  return keep<T>(m, a) * b + sum;
#endif
}

// Returns the lanes where a > b. If `is` is false, it returns all others, those with a NaN among them.
template <class T, bool is = true>
SPD_INLINE mask<T> greater(vec<T> a, vec<T> b) {
#if defined(__AVX512F__)
  constexpr int how = is ? _CMP_GT_OQ : _CMP_NGT_UQ;
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, how);
#else
  if constexpr (is)
    return a > b;
  else
    return ~(a > b);
#endif
}
template <class T>
SPD_INLINE mask<T> not_greater(vec<T> a, vec<T> b) {
  return greater<T, false>(a, b);
}
// Loads the lanes in the mask. The others become zero, or `fill`. With AVX-512 they are not read; elsewhere they are, so one vector before and behind every
// buffer must be readable.
template <class T>
SPD_INLINE vec<T> load_masked(const T* p, mask<T> m) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_maskz_loadu_ps(m, p);
#else
  return keep<T>(m, load(p));
#endif
}
template <class T>
SPD_INLINE vec<T> load_masked(const T* p, mask<T> m, vec<T> fill) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_mask_loadu_ps((__m512)fill, m, p);
#else
  return select<T>(m, load(p), fill);
#endif
}

// Returns max(low, x), and NaN where x is NaN, so that a diverged network shows.
template <class T>
SPD_INLINE vec<T> at_least(vec<T> low, vec<T> x) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_maskz_max_ps(0xFFFF, (__m512)low, (__m512)x);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (vec<T>)_mm256_max_ps((__m256)low, (__m256)x);
  else
    return (vec<T>)_mm256_max_pd((__m256d)low, (__m256d)x);
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4)
    return (vec<T>)_mm_max_ps((__m128)low, (__m128)x);
  else
    return (vec<T>)_mm_max_pd((__m128d)low, (__m128d)x);
#else
  return low > x ? low : x;
#endif
}

// Shift a row of pixels by d lanes. Lane i takes lane i + d (from_right) or i - d (from_left). The last
// or first d lanes come from the next or the previous vector.
template <class T, int d = 1>
SPD_INLINE vec<T> from_right(vec<T> v, vec<T> next) {
  return [&]<int... i>(std::integer_sequence<int, i...>) { return __builtin_shufflevector(v, next, (i + d)...); }(std::make_integer_sequence<int, lanes<T>>{});
}
template <class T, int d = 1>
SPD_INLINE vec<T> from_left(vec<T> v, vec<T> previous) {
  return [&]<int... i>(std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(previous, v, (i + lanes<T> - d)...);
  }(std::make_integer_sequence<int, lanes<T>>{});
}

// In every group of four lanes, lane r of v[c] becomes lane c of v[r].
template <class T>
SPD_INLINE void transpose4(vec<T> (&v)[4]) {
  [&]<int... i>(std::integer_sequence<int, i...>) {
    constexpr int n = lanes<T>;
    const auto low = [](vec<T> a, vec<T> b) { return __builtin_shufflevector(a, b, (i / 4 * 4 + i % 4 / 2 + i % 2 * n)...); };
    const auto high = [](vec<T> a, vec<T> b) { return __builtin_shufflevector(a, b, (i / 4 * 4 + 2 + i % 4 / 2 + i % 2 * n)...); };
    const auto first = [](vec<T> a, vec<T> b) { return __builtin_shufflevector(a, b, (i / 4 * 4 + i % 2 + i % 4 / 2 * n)...); };
    const auto second = [](vec<T> a, vec<T> b) { return __builtin_shufflevector(a, b, (i / 4 * 4 + 2 + i % 2 + i % 4 / 2 * n)...); };
    const vec<T> l01 = low(v[0], v[1]), h01 = high(v[0], v[1]), l23 = low(v[2], v[3]), h23 = high(v[2], v[3]);
    v[0] = first(l01, l23), v[1] = second(l01, l23), v[2] = first(h01, h23), v[3] = second(h01, h23);
  }(std::make_integer_sequence<int, lanes<T>>{});
}

// Four elements, which groups of four lanes are taken from memory as, and put there. group_of returns lanes 4 g .. 4 g + 3 of v. of_groups does the opposite:
// it returns the vector whose groups of four lanes are at p, p + apart, p + 2 apart, ... From group n on they are the last of the first n.
template <class T>
struct four {
  typedef T vector __attribute__((vector_size(4 * sizeof(T))));
};
template <class T, int g>
SPD_INLINE typename four<T>::vector group_of(vec<T> v) {
  if constexpr (lanes<T> == 4)
    return v;
  else
    return __builtin_shufflevector(v, v, 4 * g, 4 * g + 1, 4 * g + 2, 4 * g + 3);
}
template <class T>
SPD_INLINE vec<T> of_groups(const T* p, std::size_t apart, int n = lanes<T> / 4) {
  const auto part = [&](int g) {
    typename four<T>::vector v;
    std::memcpy(&v, p + std::min(g, n - 1) * apart, sizeof v);
    return v;
  };
  const auto pair = [&](int g) { return __builtin_shufflevector(part(g), part(g + 1), 0, 1, 2, 3, 4, 5, 6, 7); };
  if constexpr (lanes<T> == 4)
    return part(0);
  else if constexpr (lanes<T> == 8)
    return pair(0);
  else
    return __builtin_shufflevector(pair(0), pair(2), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
// Stores the groups of four lanes of v at p, p + apart, p + 2 apart, ...: the first n of them.
template <class T>
SPD_INLINE void store_groups(T* p, std::size_t apart, vec<T> v, int n = lanes<T> / 4) {
  [&]<int... g>(std::integer_sequence<int, g...>) {
    const auto put = [&](int at, typename four<T>::vector part) {
      if (at < n) std::memcpy(p + at * apart, &part, sizeof part);
    };
    (put(g, group_of<T, g>(v)), ...);
  }(std::make_integer_sequence<int, lanes<T> / 4>{});
}

// even_lanes and odd_lanes return those lanes of a, then those of b. interleave does the opposite: it returns half of a[0], b[0], a[1], b[1], ...
template <class T>
SPD_INLINE vec<T> even_lanes(vec<T> a, vec<T> b) {
  return [&]<int... i>(std::integer_sequence<int, i...>) { return __builtin_shufflevector(a, b, (2 * i)...); }(std::make_integer_sequence<int, lanes<T>>{});
}
template <class T>
SPD_INLINE vec<T> odd_lanes(vec<T> a, vec<T> b) {
  return [&]<int... i>(std::integer_sequence<int, i...>) { return __builtin_shufflevector(a, b, (2 * i + 1)...); }(std::make_integer_sequence<int, lanes<T>>{});
}
template <class T, int half>
SPD_INLINE vec<T> interleave(vec<T> a, vec<T> b) {
  return [&]<int... i>(std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, (half * lanes<T> / 2 + i / 2 + i % 2 * lanes<T>)...);
  }(std::make_integer_sequence<int, lanes<T>>{});
}

// Lane 4 c + j of the result is p[j]. The masks of ones only keep GCC from warning that some lanes are left out.
template <class T>
SPD_INLINE vec<T> fours(const T* p) {
#if defined(__AVX512F__)
  return (vec<T>)_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(p));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return (vec<T>)_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
#endif
  if constexpr (lanes<T> == 4) return load<T>(p);
}

// ---- sums over lanes, in a fixed order

// Lane i of the result is a[i] + a[i ^ d] where bit d of i is clear, and b[i] + b[i ^ d] where it is set.
template <class T, int d>
SPD_INLINE vec<T> fold(vec<T> a, vec<T> b) {
  return [&]<int... i>(std::integer_sequence<int, i...>) {
    constexpr int n = lanes<T>;
    return __builtin_shufflevector(a, b, ((i & d) ? n + i : i)...) + __builtin_shufflevector(a, b, ((i & d) ? n + (i ^ d) : (i ^ d))...);
  }(std::make_integer_sequence<int, lanes<T>>{});
}
// Lane i of the result is the sum of the lanes of v[i % n]. n, the number of vectors, is a power of two. v is overwritten. With d and end, lane i is a sum over
// fewer lanes of v[i / d % n], namely those whose numbers differ from i in no bits but those from d up to end.
template <class T, int n = lanes<T>, int d = 1, int end = lanes<T>>
SPD_INLINE vec<T> sum_each(vec<T>* v) {
  if constexpr (d == end) {
    return v[0];
  } else {
    constexpr int left = n > 1 ? n / 2 : 1;
    SPD_UNROLL
    for (int i = 0; i < left; ++i) v[i] = fold<T, d>(v[n > 1 ? 2 * i : i], v[n > 1 ? 2 * i + 1 : i]);
    return sum_each<T, left, 2 * d, end>(v);
  }
}
// Sets out[i] to the sum of the lanes of v[i], for i < n.
template <class T, int n>
SPD_INLINE void sum_lanes(T* out, const vec<T>* v) {
  constexpr int many = std::min(n, lanes<T>), together = static_cast<int>(std::bit_ceil(static_cast<unsigned>(many)));
  vec<T> part[together];
  SPD_UNROLL
  for (int j = 0; j < together; ++j) part[j] = j < many ? v[j < many ? j : 0] : zeros<T>();
  const vec<T> sums = sum_each<T, together>(part);
  if constexpr (many == lanes<T>)
    store(out, sums);
  else
    for (int j = 0; j < many; ++j) out[j] = sums[j];
  if constexpr (n > many) sum_lanes<T, n - many>(out + many, v + many);
}
// Sets out[4 i + j] to the sum over c of lane 4 c + j of v[i], for i < n, or adds it.
template <class T, int n>
SPD_INLINE void sum_fours(T* out, const vec<T>* v, bool add) {
  constexpr int together = lanes<T> / 4, many = std::min(n, together);
  vec<T> part[together];
  SPD_UNROLL
  for (int j = 0; j < together; ++j) part[j] = j < many ? v[j < many ? j : 0] : zeros<T>();
  vec<T> sums = sum_each<T, together, 4>(part);
  if (add) {
    vec<T> before{};
    std::memcpy(&before, out, 4 * many * sizeof(T));
    sums += before;
  }
  std::memcpy(out, &sums, 4 * many * sizeof(T));
  if constexpr (n > many) sum_fours<T, n - many>(out + 4 * many, v + many, add);
}
template <class T>
SPD_INLINE T sum(vec<T> v) {
  return sum_each<T, 1>(&v)[0];
}

// Calls f.operator()<n>() for a run-time n in 1..kMax. In this way a block size becomes a template parameter.
template <int kMax, class F>
SPD_INLINE void with_constant(int n, F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) {
    ((n == i + 1 ? (f.template operator()<i + 1>(), void()) : void()), ...);
  }(std::make_integer_sequence<int, kMax>{});
}

}  // namespace spd::SPD_ISA
