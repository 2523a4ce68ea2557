// MD5 (Rivest 1992, RFC 1321) of eight messages of one length at a time, one in each lane of a vector.
//
// Every step of MD5 waits for the step before, so one message alone would leave the processor idle most of the time; eight keep it busy. The messages that are
// hashed for cells with the same matrix have the same lengths, so all lanes take the same steps. The vectors are the compiler's. Each takes two registers with
// SSE2 or NEON, and one with AVX2.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace spd::nasbench {

static_assert(std::endian::native == std::endian::little, "MD5 and TFRecord are little-endian, and read here as they lie");

inline constexpr int md5_lanes = 8;
using Digest = std::array<std::uint8_t, 16>;

namespace md5_detail {

typedef std::uint32_t Words __attribute__((vector_size(4 * md5_lanes)));

// K[i] = floor(2^32 |sin(i + 1)|), RFC 1321, section 3.4.
inline const std::array<std::uint32_t, 64>& sines() {
  static const std::array<std::uint32_t, 64> table = [] {
    std::array<std::uint32_t, 64> k{};
    for (int i = 0; i < 64; ++i) k[i] = static_cast<std::uint32_t>(std::floor(4294967296.0 * std::fabs(std::sin(i + 1.0))));
    return k;
  }();
  return table;
}

template <int round>
inline void sixteen_steps(Words& a, Words& b, Words& c, Words& d, const Words* x, const std::uint32_t* k) {
  constexpr int shifts[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    Words f;
    int word;
    if constexpr (round == 0)
      f = d ^ (b & (c ^ d)), word = i;
    else if constexpr (round == 1)
      f = c ^ (d & (b ^ c)), word = (5 * i + 1) % 16;
    else if constexpr (round == 2)
      f = b ^ c ^ d, word = (3 * i + 5) % 16;
    else
      f = c ^ (b | ~d), word = 7 * i % 16;
    const int shift = shifts[round][i % 4];
    f += a + x[word] + k[16 * round + i];
    a = d, d = c, c = b;
    b += (f << shift) | (f >> (32 - shift));
  }
}

}  // namespace md5_detail

// Sets digest[lane] to the MD5 of the `length` bytes at message[lane], for every lane.
inline void md5(Digest* digest, const std::uint8_t* const* message, std::size_t length) {
  using md5_detail::Words;
  const std::uint32_t* k = md5_detail::sines().data();
  const std::size_t whole = length / 64, rest = length % 64, blocks = whole + (rest < 56 ? 1 : 2);
  Words state[4];
  constexpr std::uint32_t start[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  for (int i = 0; i < 4; ++i) state[i] = Words{} + start[i];
  for (std::size_t block = 0; block < blocks; ++block) {
    alignas(32) std::uint32_t x[16][md5_lanes];
    for (int lane = 0; lane < md5_lanes; ++lane) {
      std::uint32_t words[16];
      if (block < whole) {
        std::memcpy(words, message[lane] + 64 * block, 64);
      } else {  // the message ends with what is left of it, a one bit, zeros, and its length in bits
        std::memset(words, 0, 64);
        std::uint8_t* bytes = reinterpret_cast<std::uint8_t*>(words);
        if (block == whole) {
          if (rest) std::memcpy(bytes, message[lane] + 64 * whole, rest);
          bytes[rest] = 0x80;
        }
        if (block + 1 == blocks) {
          const std::uint64_t bits = 8 * static_cast<std::uint64_t>(length);
          std::memcpy(bytes + 56, &bits, 8);
        }
      }
      for (int i = 0; i < 16; ++i) x[i][lane] = words[i];
    }
    Words words[16];
    std::memcpy(words, x, sizeof words);
    Words a = state[0], b = state[1], c = state[2], d = state[3];
    md5_detail::sixteen_steps<0>(a, b, c, d, words, k);
    md5_detail::sixteen_steps<1>(a, b, c, d, words, k);
    md5_detail::sixteen_steps<2>(a, b, c, d, words, k);
    md5_detail::sixteen_steps<3>(a, b, c, d, words, k);
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
  }
  for (int lane = 0; lane < md5_lanes; ++lane)
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t word = state[i][lane];
      std::memcpy(digest[lane].data() + 4 * i, &word, 4);
    }
}

// Returns the MD5 of each of any number of messages. Throws std::invalid_argument unless all have the same length.
inline std::vector<Digest> md5(const std::vector<std::string>& messages) {
  for (const std::string& m : messages)
    if (m.size() != messages[0].size()) throw std::invalid_argument("messages must have one length");
  std::vector<Digest> found(messages.size());
  for (std::size_t i = 0; i < messages.size(); i += md5_lanes) {
    const std::size_t here = std::min<std::size_t>(md5_lanes, messages.size() - i);
    const std::uint8_t* lanes[md5_lanes];
    Digest digests[md5_lanes];
    for (std::size_t lane = 0; lane < md5_lanes; ++lane) lanes[lane] = reinterpret_cast<const std::uint8_t*>(messages[i + std::min(lane, here - 1)].data());
    md5(digests, lanes, messages[0].size());
    std::copy(digests, digests + here, found.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return found;
}

}  // namespace spd::nasbench
