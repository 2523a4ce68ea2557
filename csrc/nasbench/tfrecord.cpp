#include "tfrecord.hpp"

#include <cmath>
#include <string_view>

namespace spd::nasbench {
namespace {

constexpr std::size_t header = 12, footer = 4;  // bytes of the length and its CRC, and of the payload's CRC

template <class T>
T load(const std::uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

bool length_is_whole(const std::uint8_t* p) { return masked_crc32c(p, 8) == load<std::uint32_t>(p + 8); }

[[noreturn]] void fail(const std::string& what) { throw Malformed(what); }

// ---- JSON

// Reads the five values of a row. It knows no more of JSON than these can hold.
class Json {
 public:
  Json(const std::uint8_t* data, std::size_t size) : p_(data), end_(data + size) {}

  void expect(char c, const char* where) {
    space();
    if (p_ == end_ || *p_ != static_cast<std::uint8_t>(c)) fail(std::string("payload is not the JSON list of a row: expected '") + c + "' at " + where);
    ++p_;
  }
  void expect_end() {
    space();
    if (p_ != end_) fail("payload goes on after the JSON list of a row");
  }
  std::int32_t positive(const char* name) {
    space();
    std::int64_t value = 0;
    const std::uint8_t* from = p_;
    for (; p_ != end_ && *p_ >= '0' && *p_ <= '9' && value <= INT32_MAX; ++p_) value = 10 * value + (*p_ - '0');
    if (p_ == from || value < 1 || value > INT32_MAX) fail(std::string(name) + " is not a whole number of 1 to 2147483647");
    return static_cast<std::int32_t>(value);
  }
  void string(std::string& text, const char* name) {
    expect('"', name);
    text.clear();
    for (;;) {
      const std::uint8_t* from = p_;
      while (p_ != end_ && *p_ != '"' && *p_ != '\\' && *p_ >= 0x20) ++p_;
      text.append(reinterpret_cast<const char*>(from), static_cast<std::size_t>(p_ - from));
      if (p_ == end_ || *p_ < 0x20) fail(std::string(name) + " is not a whole JSON string");
      if (*p_++ == '"') return;
      text.push_back(escaped(name));
    }
  }

 private:
  void space() {
    while (p_ != end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
  }
  char escaped(const char* name) {
    static constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    if (p_ != end_) {
      const char c = static_cast<char>(*p_++);
      const std::size_t which = letters.find(c);
      if (which != std::string_view::npos) return meant[which];
      if (c == 'u' && end_ - p_ >= 4) {
        int code = 0;
        for (int i = 0; i < 4; ++i, ++p_) {
          const int digit = hex_digit(*p_);
          if (digit < 0) fail(std::string(name) + " is not a whole JSON string");
          code = 16 * code + digit;
        }
        if (code < 128) return static_cast<char>(code);
        fail(std::string(name) + " holds a character that is not ASCII");
      }
    }
    fail(std::string(name) + " is not a whole JSON string");
  }

 public:
  static int hex_digit(std::uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    const int lower = c | 32;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  }

 private:
  const std::uint8_t *p_, *end_;
};

// ---- base64 (RFC 4648, section 4), with line breaks and spaces anywhere

constexpr std::array<std::int8_t, 256> base64_values = [] {
  std::array<std::int8_t, 256> t{};
  for (auto& v : t) v = -1;
  for (int i = 0; i < 64; ++i)
    t[static_cast<std::uint8_t>("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[i])] = static_cast<std::int8_t>(i);
  for (char c : {' ', '\n', '\r', '\t'}) t[static_cast<std::uint8_t>(c)] = -2;
  t['='] = -3;
  return t;
}();

void decode_base64(std::vector<std::uint8_t>& bytes, const std::string& text) {
  bytes.clear();
  std::uint32_t word = 0;
  int digits = 0, padding = 0;
  for (const char c : text) {
    const int value = base64_values[static_cast<std::uint8_t>(c)];
    if (value == -2) continue;
    if (value == -1 || (value == -3 ? digits + ++padding > 4 || digits < 2 : padding > 0)) fail("metrics are not base64");
    if (value == -3) continue;
    word = word << 6 | static_cast<std::uint32_t>(value);
    if (++digits == 4) {
      bytes.insert(bytes.end(), {static_cast<std::uint8_t>(word >> 16), static_cast<std::uint8_t>(word >> 8), static_cast<std::uint8_t>(word)});
      digits = 0;
    }
  }
  if (digits == 0 && padding == 0) return;
  if (digits + padding != 4) fail("metrics are base64 that was cut short");
  if (digits >= 2) bytes.push_back(static_cast<std::uint8_t>(word >> (6 * digits - 8)));
  if (digits == 3) bytes.push_back(static_cast<std::uint8_t>(word >> 2));
}

// ---- Protocol Buffers' wire format

enum WireType { varint_type = 0, fixed64_type = 1, bytes_type = 2, group_start = 3, group_end = 4, fixed32_type = 5 };

class Wire {
 public:
  Wire(const std::uint8_t* data, std::size_t size) : p_(data), end_(data + size) {}

  bool done() const { return p_ == end_; }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (p_ == end_) cut_short();
      const std::uint8_t byte = *p_++;
      value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128 && (shift < 63 || byte <= 1)) return value;
    }
    fail("metrics hold a number of more than 64 bits: not a protobuf message");
  }
  double fixed64() {
    need(8);
    const double value = load<double>(p_);
    p_ += 8;
    return value;
  }
  Wire bytes() {
    const std::uint64_t size = varint();
    need(size);
    const Wire part(p_, static_cast<std::size_t>(size));
    p_ += size;
    return part;
  }
  // Returns a field's number and wire type.
  std::pair<std::uint32_t, WireType> tag() {
    const std::uint64_t value = varint();
    const std::uint64_t type = value & 7;
    if (value >> 32 || value >> 3 == 0 || type > fixed32_type) fail("metrics hold an impossible field: not a protobuf message");
    return {static_cast<std::uint32_t>(value >> 3), static_cast<WireType>(type)};
  }
  void skip(std::uint32_t field, WireType type, int depth = 0) {
    switch (type) {
      case varint_type: varint(); return;
      case fixed64_type: fixed64(); return;
      case bytes_type: bytes(); return;
      case fixed32_type: need(4), p_ += 4; return;
      case group_start:
        if (depth == 32) fail("metrics hold groups that are nested too deeply: not a protobuf message of this benchmark");
        for (;;) {
          const auto [inner, inner_type] = tag();
          if (inner_type == group_end) {
            if (inner != field) break;
            return;
          }
          skip(inner, inner_type, depth + 1);
        }
        [[fallthrough]];
      case group_end: fail("metrics hold the end of a group that did not begin: not a protobuf message");
    }
  }
  const std::uint8_t* data() const { return p_; }
  std::size_t size() const { return static_cast<std::size_t>(end_ - p_); }

 private:
  [[noreturn]] static void cut_short() { fail("metrics end inside a field: not a whole protobuf message"); }
  void need(std::uint64_t n) const {
    if (n > size()) cut_short();
  }
  const std::uint8_t *p_, *end_;
};

constexpr const char* evaluation_fields[] = {"current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy"};

struct Evaluation {
  double value[5];
  unsigned present = 0;
};

Evaluation parse_evaluation(Wire wire, bool& extended) {
  Evaluation e;
  while (!wire.done()) {
    const auto [field, type] = wire.tag();
    if (field <= 5 && type == fixed64_type) {
      e.value[field - 1] = wire.fixed64();
      e.present |= 1u << (field - 1);
    } else {
      if (field != 6 || type != bytes_type) extended = true;
      wire.skip(field, type);
    }
  }
  return e;
}

// ---- a row

void parse_graph(Record& r, const std::string& adjacency, const std::string& ops) {
  int n = 2;
  while (n <= max_vertices && static_cast<std::size_t>(n * n) != adjacency.size()) ++n;
  if (n > max_vertices) fail("adjacency has " + std::to_string(adjacency.size()) + " characters, expected the square of 2 to 7");
  r.graph = {n, 0};
  for (int x = 0; x < n; ++x)
    for (int y = 0; y < n; ++y) {
      const char c = adjacency[x * n + y];
      if (c != '0' && (c != '1' || x >= y)) fail("adjacency is not an upper triangle of 0 and 1");
      if (c == '1') r.graph.edge_bits |= std::uint32_t{1} << (x + y * (y - 1) / 2);
    }
  static constexpr std::string_view names[] = {"conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"};
  std::uint32_t codes = 0;
  std::string_view rest = ops;
  for (int v = 0; v < n; ++v) {
    const std::size_t comma = v < n - 1 ? rest.find(',') : rest.size();
    const std::string_view name = rest.substr(0, comma);
    std::uint32_t code = 0;
    if (v == 0 || v == n - 1) {
      if (name != (v == 0 ? "input" : "output")) fail("operations are not input, one per interior vertex, output");
    } else {
      while (code < 3 && names[code] != name) ++code;
      if (comma == std::string_view::npos || code == 3) fail("operations are not input, one per interior vertex, output");
      codes |= code << 2 * (v - 1);
    }
    rest.remove_prefix(std::min(rest.size(), comma == std::string_view::npos ? rest.size() : comma + 1));
  }
  for (int i = n - 2; i < max_vertices - 2; ++i) codes |= 3u << 2 * i;
  r.op_codes = static_cast<std::uint16_t>(codes);
}

}  // namespace

void parse_metrics(Record& r, const std::uint8_t* data, std::size_t size) {
  Evaluation evaluations[3];
  int count = 0;
  bool has_parameters = false;
  r.extended = false;
  Wire wire(data, size);
  while (!wire.done()) {
    const auto [field, type] = wire.tag();
    if (field == 1 && type == bytes_type) {
      const Wire part = wire.bytes();
      if (count < 3) evaluations[count] = parse_evaluation(part, r.extended);
      ++count;
    } else if (field == 2 && type == varint_type) {
      r.trainable_parameters = static_cast<std::int32_t>(wire.varint());
      has_parameters = true;
    } else {
      if (field != 3 || type != fixed64_type) r.extended = true;
      wire.skip(field, type);
    }
  }
  if (count != 3) fail("metrics hold " + std::to_string(count) + " evaluations, expected 3: at the start, halfway and at the end");
  if (!has_parameters || r.trainable_parameters < 1) fail("metrics have no trainable_parameters of at least 1");
  for (int half = 0; half < 2; ++half) {
    const Evaluation& e = evaluations[half + 1];
    for (int i = 0; i < 5; ++i) {
      if (!(e.present >> i & 1)) fail("evaluation " + std::to_string(half + 2) + " of 3 has no " + evaluation_fields[i]);
      const double most = i < 2 ? 3.4e38 : 1.0;
      if (!(e.value[i] >= 0 && e.value[i] <= most))
        fail(std::string(evaluation_fields[i]) + " of evaluation " + std::to_string(half + 2) + " of 3 is " + std::to_string(e.value[i]) +
             (i < 2 ? ", expected a number of at least 0" : ", expected 0 to 1"));
      if (i > 0) r.metrics[4 * half + i - 1] = static_cast<float>(e.value[i]);  // the doubles hold values of float32
    }
  }
  if (evaluations[2].value[0] != r.epochs)
    fail("the last evaluation is after " + std::to_string(evaluations[2].value[0]) + " epochs, expected the row's " + std::to_string(r.epochs));
  r.off_half = 2 * evaluations[1].value[0] != r.epochs;
}

Record parse_payload(const std::uint8_t* data, std::size_t size) {
  Record r{};
  Json json(data, size);
  thread_local std::string text, ops;
  thread_local std::vector<std::uint8_t> bytes;
  json.expect('[', "its start");
  json.string(text, "hash");
  if (text.size() != 32) fail("hash has " + std::to_string(text.size()) + " characters, expected 32 hexadecimal digits");
  for (int i = 0; i < 32; ++i) {
    const int digit = Json::hex_digit(static_cast<std::uint8_t>(text[i]));
    if (digit < 0) fail("hash is not of 32 hexadecimal digits");
    r.module_hash[i / 2] = static_cast<std::uint8_t>(r.module_hash[i / 2] << 4 | digit);
  }
  json.expect(',', "the end of hash");
  r.epochs = json.positive("epochs");
  json.expect(',', "the end of epochs");
  json.string(text, "adjacency");
  json.expect(',', "the end of adjacency");
  json.string(ops, "operations");
  parse_graph(r, text, ops);
  json.expect(',', "the end of operations");
  json.string(text, "metrics");
  json.expect(']', "the end of metrics");
  json.expect_end();
  decode_base64(bytes, text);
  parse_metrics(r, bytes.data(), bytes.size());
  return r;
}

void check_payload(const Frame& frame) {
  if (masked_crc32c(frame.payload, frame.size) != load<std::uint32_t>(frame.payload + frame.size))
    fail("payload of " + std::to_string(frame.size) + " bytes fails its checksum (CRC-32C): the file is damaged");
}

void Framer::add(const std::uint8_t* data, std::size_t size) {
  bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(at_));
  dropped_ += at_;
  at_ = 0;
  bytes_.insert(bytes_.end(), data, data + size);
}

Framer::Found Framer::next(Frame& frame, bool last) {
  if (lost_) {
    for (; bytes_.size() - at_ >= header && lost_; at_ += lost_)
      lost_ = !length_is_whole(bytes_.data() + at_) || load<std::uint64_t>(bytes_.data() + at_) > max_payload;
    if (lost_) return last ? Found::end : Found::more;
  }
  const std::size_t left = bytes_.size() - at_;
  if (left == 0) return last ? Found::end : Found::more;
  const std::uint8_t* p = bytes_.data() + at_;
  if (left >= header) {
    const bool whole = length_is_whole(p);
    const std::uint64_t size = load<std::uint64_t>(p);
    if (!whole || size > max_payload) {
      lost_ = true, ++at_;
      fail(!whole ? "length fails its checksum (CRC-32C): the file is damaged here, or is not a TFRecord file"
                  : "length is " + std::to_string(size) + " bytes, expected at most " + std::to_string(max_payload) + ": not a file of NAS-Bench-101");
    }
    if (left >= header + size + footer) {
      frame = {p + header, static_cast<std::size_t>(size), dropped_ + at_};
      at_ += header + static_cast<std::size_t>(size) + footer;
      return Found::frame;
    }
  }
  if (!last) return Found::more;
  lost_ = true, ++at_;
  fail("the file ends " + std::to_string(left) + " bytes into a record: it was cut short");
}

}  // namespace spd::nasbench
