// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
// A number depends on its key and its counter alone, never on how many were drawn before it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace spd {

inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter[0], b = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

// Returns 64 random bits for entry (i, j, k) under a 64-bit key.
inline std::uint64_t random_bits(std::uint64_t key, std::uint32_t i, std::uint32_t j, std::uint32_t k) {
  const auto r = philox({i, j, k, 0}, {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)});
  return std::uint64_t{r[0]} << 32 | r[1];
}
// Returns a uniform number in (0, 1), which is the middle of one of 2^52 equal intervals.
inline double uniform(std::uint64_t key, std::uint32_t i, std::uint32_t j, std::uint32_t k) {
  return (static_cast<double>(random_bits(key, i, j, k) >> 12) + 0.5) * 0x1p-52;
}
// A tensor (rows, columns, taps) of uniform numbers in (0, 1). Entry (i, j, k) is keyed by (key, i, j, first_tap + k).
struct Drawn {
  std::uint64_t key;
  std::uint32_t rows, columns, first_tap, taps;
  std::size_t size() const { return std::size_t{rows} * columns * taps; }
  double* fill(double* out) const {
    for (std::uint32_t i = 0; i < rows; ++i)
      for (std::uint32_t j = 0; j < columns; ++j)
        for (std::uint32_t k = 0; k < taps; ++k) *out++ = uniform(key, i, j, first_tap + k);
    return out;
  }
};

}  // namespace spd
