// Reads the records of a NAS-Bench-101 file. Bytes are not trusted. Nothing is read beyond what is there, and a length allocates nothing before it is known
// that so many bytes are there or that it is small.
//
//   record   length u64 | masked CRC-32C of the length | payload | masked CRC-32C of the payload
//   payload  JSON ["hash", epochs, "0/1 adjacency, row major", "op,op,...", "base64 with newlines"]
//   base64   ModelMetrics    {1 EvaluationData, repeated; 2 trainable_parameters int32; 3 total_time double}
//            EvaluationData  {1 current_epoch, 2 training_time, 3 train, 4 validation, 5 test accuracy: double; 6 checkpoint_path string}
//
// There are three evaluations: at the start (unused), halfway, and at the end. Sources: TensorFlow's documentation of TFRecord; model_metrics.proto and
// api.py of google-research/nasbench; Protocol Buffers' documentation of the wire format.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "crc32c.hpp"
#include "space.hpp"

namespace spd::nasbench {

inline constexpr std::size_t max_payload = std::size_t{1} << 20;  // official ones have 400 to 900 bytes

struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr int n_metrics = 8;  // training time in seconds, train, validation and test accuracy; first halfway, then at the end

struct Record {
  Digest module_hash;
  Graph graph;
  std::uint16_t op_codes;
  std::int32_t epochs, trainable_parameters;
  float metrics[n_metrics];
  bool extended;  // there are fields beyond the official schema, or of another type
  bool off_half;  // the middle evaluation is not at half of the epochs
};

// Both throw Malformed.
Record parse_payload(const std::uint8_t* data, std::size_t size);
void parse_metrics(Record& record, const std::uint8_t* data, std::size_t size);

struct Frame {
  const std::uint8_t* payload;
  std::size_t size;
  std::uint64_t offset;  // of the record in the stream
};

// Checks the payload's CRC. Throws Malformed.
void check_payload(const Frame& frame);

// Cuts a stream into frames. The stream is given piece by piece, and a frame is valid until the next piece is added.
class Framer {
 public:
  enum class Found { frame, more, end };

  void add(const std::uint8_t* data, std::size_t size);

  // Finds the next frame, or returns `more` when its end has not been added yet. `last` says that the stream has ended: then it returns `end`, or throws
  // Malformed inside a record. It also throws Malformed at a length that fails its CRC or is beyond max_payload. The next call then looks for the next place
  // where a length passes.
  Found next(Frame& frame, bool last);

  std::uint64_t offset() const { return dropped_ + at_; }

 private:
  std::vector<std::uint8_t> bytes_;
  std::size_t at_ = 0;
  std::uint64_t dropped_ = 0;
  bool lost_ = false;
};

}  // namespace spd::nasbench
