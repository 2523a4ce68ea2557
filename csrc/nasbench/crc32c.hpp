// CRC-32C (Castagnoli, polynomial 0x1EDC6F41; RFC 3720, appendix B.4), and the masked form of it that TFRecord uses. It is computed by the processor's
// instruction where there is one, otherwise by eight tables of 256 entries (Kounavis and Berry 2005, slicing-by-8).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace spd::nasbench {

namespace crc32c_detail {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr Tables tables = [] {
  Tables t{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0u);  // the polynomial with its bits reversed
    t[0][i] = c;
  }
  for (int j = 1; j < 8; ++j)
    for (int i = 0; i < 256; ++i) t[j][i] = t[j - 1][i] >> 8 ^ t[0][t[j - 1][i] & 255];
  return t;
}();

inline std::uint32_t by_tables(std::uint32_t c, const std::uint8_t* p, std::size_t n) {
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t w;
    std::memcpy(&w, p, 8);
    w ^= c;
    c = 0;
    for (int j = 0; j < 8; ++j) c ^= tables[7 - j][w >> 8 * j & 255];
  }
  for (; n; ++p, --n) c = c >> 8 ^ tables[0][(c ^ *p) & 255];
  return c;
}

#if defined(__x86_64__)
inline bool has_instruction() { return __builtin_cpu_supports("sse4.2"); }
__attribute__((target("sse4.2"))) inline std::uint32_t by_instruction(std::uint32_t c, const std::uint8_t* p, std::size_t n) {
  std::uint64_t wide = c;
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t w;
    std::memcpy(&w, p, 8);
    wide = __builtin_ia32_crc32di(wide, w);
  }
  c = static_cast<std::uint32_t>(wide);
  for (; n; ++p, --n) c = __builtin_ia32_crc32qi(c, *p);
  return c;
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
inline bool has_instruction() { return true; }
inline std::uint32_t by_instruction(std::uint32_t c, const std::uint8_t* p, std::size_t n) {
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t w;
    std::memcpy(&w, p, 8);
    c = __crc32cd(c, w);
  }
  for (; n; ++p, --n) c = __crc32cb(c, *p);
  return c;
}
#else
inline bool has_instruction() { return false; }
inline std::uint32_t by_instruction(std::uint32_t c, const std::uint8_t* p, std::size_t n) { return by_tables(c, p, n); }
#endif

}  // namespace crc32c_detail

inline bool crc32c_has_instruction() {
  static const bool found = crc32c_detail::has_instruction();
  return found;
}

// `instruction` asks for the processor's instruction, which is used if there is one.
inline std::uint32_t crc32c(const std::uint8_t* data, std::size_t n, bool instruction = true) {
  return ~(instruction && crc32c_has_instruction() ? crc32c_detail::by_instruction(~0u, data, n) : crc32c_detail::by_tables(~0u, data, n));
}

// Returns the CRC as TFRecord stores it, rotated and with a constant added, because a CRC of data that holds CRCs would be weak.
inline std::uint32_t masked_crc32c(const std::uint8_t* data, std::size_t n) { return std::rotr(crc32c(data, n), 15) + 0xa282ead8u; }

}  // namespace spd::nasbench
