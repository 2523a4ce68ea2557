#include "../nasbench/table.hpp"
#include "../threads/batch.hpp"
#include "bind.hpp"
#include "jobs.hpp"

namespace spd {
namespace {

using namespace nasbench;

struct Stopped {};

// Calls call(for_each) without the GIL; for_each runs jobs in the engine's parallel region. Meanwhile signals are answered on the calling thread, which also calls
// `look`. What either raises ends the call, which is never continued: it is left by an exception out of for_each.
template <class F>
void watched_jobs(int threads, py::object look, F&& call) {
  watched(threads, std::move(look), [&](const Run& run) {
    bool stopped = false;
    const auto poll = [&](double share) { return !(stopped = stopped || !run.poll(share)); };
    try {
      call([&](const std::vector<double>& costs, const std::function<void(int)>& job) {
        Control control;
        run_jobs(costs, run.threads, control, [&](int i, Worker&) { job(i); }, poll);
        if (stopped) throw Stopped{};
      });
    } catch (const Stopped&) {
    }
  });
}

template <class T>
Array<T> array_from(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

Array<std::uint8_t> array_from(const std::vector<Digest>& hashes) {
  return Array<std::uint8_t>({static_cast<py::ssize_t>(hashes.size()), py::ssize_t{16}}, reinterpret_cast<const std::uint8_t*>(hashes.data()));
}

struct ColumnRecord {
  Array<std::uint8_t> vertices;
  Array<std::uint32_t> edge_bits;
  Array<std::uint16_t> op_codes;
  Array<std::uint8_t> module_hash;  // (n, 16)
  Array<std::int32_t> trainable_parameters;
};

ColumnRecord column_record(const Columns& c) {
  return {array_from(c.vertices), array_from(c.edge_bits), array_from(c.op_codes), array_from(c.module_hash), array_from(c.trainable_parameters)};
}

ColumnRecord enumerated(int threads, py::object look) {
  Columns found;
  watched_jobs(threads, std::move(look), [&](const ForEach& for_each) { found = enumerate_space(for_each); });
  return column_record(found);
}

template <class T>
std::vector<T> vector_of(const Array<T>& values) {
  return {values.data(), values.data() + values.size()};
}

Array<std::uint8_t> hashes_of(const Array<std::uint8_t>& vertices, const Array<std::uint32_t>& edge_bits, const Array<std::uint16_t>& op_codes, int threads,
                              py::object look) {
  const std::size_t n = static_cast<std::size_t>(vertices.size());
  if (vertices.ndim() != 1 || edge_bits.ndim() != 1 || op_codes.ndim() != 1 || edge_bits.size() != vertices.size() || op_codes.size() != vertices.size())
    fail("vertices, edge_bits and op_codes must be columns of one length");
  // These are copies, because other threads may write to the caller's arrays while the GIL is released.
  const std::vector<std::uint8_t> sizes = vector_of(vertices);
  const std::vector<std::uint32_t> edges = vector_of(edge_bits);
  const std::vector<std::uint16_t> ops = vector_of(op_codes);
  std::vector<Digest> digests(n);
  watched_jobs(threads, std::move(look), [&](const ForEach& for_each) { hash_cells(digests.data(), sizes.data(), edges.data(), ops.data(), n, for_each); });
  return array_from(digests);
}

std::vector<py::bytes> md5_of(const std::vector<std::string>& messages) {
  std::vector<py::bytes> found;
  for (const Digest& digest : md5(messages)) found.emplace_back(reinterpret_cast<const char*>(digest.data()), digest.size());
  return found;
}

// Finds rows by their hash. It keeps the array of hashes, which may be mapped memory.
class HashIndex {
 public:
  explicit HashIndex(Array<std::uint8_t> sorted) : sorted_(std::move(sorted)), data_(reinterpret_cast<const Digest*>(sorted_.data())) {
    if (sorted_.ndim() != 2 || sorted_.shape(1) != 16) fail("module_hash must have shape (n, 16)");
    n_ = static_cast<std::size_t>(sorted_.shape(0));
  }
  std::ptrdiff_t find(const std::string& hex) const { return find_hash(data_, n_, hex); }

 private:
  Array<std::uint8_t> sorted_;
  const Digest* data_;
  std::size_t n_;
};

}  // namespace

void bind_nasbench(py::module_& m) {
  py::register_exception<Malformed>(m, "Malformed", PyExc_ValueError);
  m.def("enumerate_space", enumerated, py::arg("threads") = 0, py::arg("look") = py::none());
  m.def("hash_cells", hashes_of, py::arg("vertices"), py::arg("edge_bits"), py::arg("op_codes"), py::arg("threads") = 0, py::arg("look") = py::none());
  m.def("md5", md5_of, py::arg("messages"));
  m.def("crc32c_has_instruction", crc32c_has_instruction);
  m.def(
      "crc32c",
      [](const py::bytes& data, bool instruction) {
        const std::string_view view = data;
        return crc32c(reinterpret_cast<const std::uint8_t*>(view.data()), view.size(), instruction);
      },
      py::arg("data"), py::arg("instruction") = true);
  RecordClass<ColumnRecord>(m, "Columns")
      .field("vertices", &ColumnRecord::vertices)
      .field("edge_bits", &ColumnRecord::edge_bits)
      .field("op_codes", &ColumnRecord::op_codes)
      .field("module_hash", &ColumnRecord::module_hash)
      .field("trainable_parameters", &ColumnRecord::trainable_parameters);
  py::class_<HashIndex>(m, "HashIndex").def(py::init<Array<std::uint8_t>>(), py::arg("module_hash")).def("find", &HashIndex::find, py::arg("hex"));
  py::class_<TableBuilder>(m, "TableBuilder")
      .def(py::init<bool>(), py::arg("strict"))
      .def(
          "add",
          [](TableBuilder& b, const py::buffer& buffer, int threads, py::object look) {
            const py::buffer_info info = buffer.request();
            if (info.itemsize != 1 || info.ndim != 1) fail("expected bytes");
            watched_jobs(threads, std::move(look),
                         [&](const ForEach& for_each) { b.add(static_cast<const std::uint8_t*>(info.ptr), static_cast<std::size_t>(info.size), for_each); });
          },
          py::arg("data"), py::arg("threads") = 0, py::arg("look") = py::none())
      .def(
          "finish",
          [](TableBuilder& b, int threads, py::object look) { watched_jobs(threads, std::move(look), [&](const ForEach& for_each) { b.finish(for_each); }); },
          py::arg("threads") = 0, py::arg("look") = py::none())
      .def("columns", [](const TableBuilder& b) { return column_record(b.columns()); })
      .def("budgets", &TableBuilder::budgets)
      .def("runs", &TableBuilder::runs)
      .def(
          "column",
          [](const TableBuilder& b, int metric, int budget, int run) {
            Array<float> values(static_cast<py::ssize_t>(b.cells()));
            b.column(values.mutable_data(), metric, budget, run);
            return values;
          },
          py::arg("metric"), py::arg("budget"), py::arg("run"))
      .def_readonly("records", &TableBuilder::records)
      .def_readonly("faults", &TableBuilder::faults)
      .def_readonly("first_fault", &TableBuilder::first_fault)
      .def_readonly("extended", &TableBuilder::extended)
      .def_readonly("off_half", &TableBuilder::off_half);
}

}  // namespace spd
