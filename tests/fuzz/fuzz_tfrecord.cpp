// Hostile bytes for the reader of NAS-Bench-101 files, under sanitizers. The first byte of an input says where the rest goes:
//
//   divisible by 16  a file, given in pieces: must read the same in one piece, strict or not must not crash; the slowest by far
//   odd              a payload, framed with valid checksums, which bytes alone would hardly ever find
//   other            metrics: the protobuf message within a payload
//
// With Clang's libFuzzer (make fuzz): built with -DLIBFUZZER. Without, this file has a main of its own, which mutates seeds by
// chance alone; that is what the tests run, as any compiler can build it:
//
//   fuzz_tfrecord INPUTS SEED FILE...
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "../../csrc/nasbench/table.hpp"

using namespace spd::nasbench;

namespace {

using Bytes = std::vector<std::uint8_t>;

void one_by_one(const std::vector<double>& costs, const std::function<void(int)>& job) {
  for (std::size_t i = 0; i < costs.size(); ++i) job(static_cast<int>(i));
}

struct Outcome {
  std::uint64_t records, faults;
  std::string first_fault, failure;
  Bytes columns;
  bool operator==(const Outcome&) const = default;
};

Outcome read_all(const std::uint8_t* data, std::size_t size, std::size_t piece, bool strict) {
  TableBuilder builder(strict);
  Outcome outcome{};
  try {
    for (std::size_t at = 0; at < size; at += piece) builder.add(data + at, std::min(piece, size - at), one_by_one);
    builder.finish(one_by_one);
    std::vector<float> column(builder.cells());
    for (std::size_t b = 0; b < builder.budgets().size(); ++b)
      for (int run = 0; run < builder.runs(); ++run)
        for (int metric = 0; metric < n_metrics; ++metric) {
          builder.column(column.data(), metric, static_cast<int>(b), run);
          const auto* bytes = reinterpret_cast<const std::uint8_t*>(column.data());
          outcome.columns.insert(outcome.columns.end(), bytes, bytes + column.size() * sizeof(float));
        }
  } catch (const Malformed& e) {
    outcome.failure = e.what();
  }
  outcome.records = builder.records, outcome.faults = builder.faults, outcome.first_fault = builder.first_fault;
  return outcome;
}

Bytes framed(const std::uint8_t* payload, std::size_t size) {
  Bytes file(8);
  const std::uint64_t length = size;
  std::memcpy(file.data(), &length, 8);
  const auto put = [&](std::uint32_t word) { file.insert(file.end(), reinterpret_cast<std::uint8_t*>(&word), reinterpret_cast<std::uint8_t*>(&word) + 4); };
  put(masked_crc32c(file.data(), 8));
  file.insert(file.end(), payload, payload + size);
  put(masked_crc32c(payload, size));
  return file;
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::uint8_t kind = data[0], piece = data[1];
  data += 2, size -= 2;
  if (kind % 16 == 0) {
    const Outcome whole = read_all(data, size, std::max<std::size_t>(size, 1), false);
    require(whole == read_all(data, size, 8 * piece + std::size_t{1}, false), "a file reads the same in pieces");
    const Outcome strict = read_all(data, size, std::max<std::size_t>(size, 1), true);
    require(strict.failure.empty() == (whole.faults == 0 && whole.records > 0), "strict reading fails where there is a fault, and there alone");
  } else if (kind % 2 == 1) {
    const Bytes file = framed(data, size);
    Framer framer;
    framer.add(file.data(), file.size());
    Frame frame;
    require(framer.next(frame, true) == Framer::Found::frame && frame.size == size && framer.offset() == file.size(), "a frame is the payload again");
    try {
      check_payload(frame);
      parse_payload(frame.payload, frame.size);
    } catch (const Malformed&) {
    }
  } else {
    Record record{};
    record.epochs = 4;
    try {
      parse_metrics(record, data, size);
      for (const float value : record.metrics) require(value >= 0, "metrics are numbers of at least 0");
    } catch (const Malformed&) {
    }
  }
  return 0;
}

#ifndef LIBFUZZER
namespace {

std::mt19937_64 rng;
std::size_t below(std::size_t n) { return n ? rng() % n : 0; }

void mutate(Bytes& bytes, const Bytes& other) {
  static constexpr std::uint64_t telling[] = {0, 1, 127, 128, 255, 1u << 20, 0x7fffffff, 0x80000000, ~0ull >> 1, 1ull << 63, ~0ull};
  switch (below(7)) {
    case 0:
      if (!bytes.empty()) bytes[below(bytes.size())] ^= static_cast<std::uint8_t>(1u << below(8));
      break;
    case 1:
      if (!bytes.empty()) bytes[below(bytes.size())] = static_cast<std::uint8_t>(rng());
      break;
    case 2: bytes.resize(below(bytes.size() + 1)); break;
    case 3: bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() + 1)), below(9), static_cast<std::uint8_t>(rng())); break;
    case 4: {
      const std::size_t from = below(bytes.size()), n = below(bytes.size() - from + 1);
      bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(from), bytes.begin() + static_cast<std::ptrdiff_t>(from + n));
      break;
    }
    case 5: {  // a piece of another seed
      const std::size_t from = below(other.size()), n = below(std::min<std::size_t>(64, other.size() - from + 1));
      const Bytes part(other.begin() + static_cast<std::ptrdiff_t>(from), other.begin() + static_cast<std::ptrdiff_t>(from + n));
      bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() + 1)), part.begin(), part.end());
      break;
    }
    default: {
      const std::uint64_t word = telling[below(std::size(telling))];
      const std::size_t n = std::size_t{1} << below(4);
      if (bytes.size() >= n) std::memcpy(bytes.data() + below(bytes.size() - n + 1), &word, n);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return std::fprintf(stderr, "usage: fuzz_tfrecord INPUTS SEED FILE...\n"), 2;
  rng.seed(std::strtoull(argv[2], nullptr, 10));
  std::vector<Bytes> seeds;
  for (int i = 3; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  const long inputs = std::strtol(argv[1], nullptr, 10);
  for (long i = 0; i < inputs; ++i) {
    Bytes bytes = seeds[below(seeds.size())];
    const Bytes& other = seeds[below(seeds.size())];
    for (std::size_t n = below(5); n > 0; --n) mutate(bytes, other);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%ld inputs\n", inputs);
}
#endif
