#include "../nasbench/table.hpp"
#include "../threads/batch.hpp"
#include "bind.hpp"

namespace spd {
namespace {

using namespace nasbench;

// Jobs in the engine's parallel region. Without the GIL; Ctrl-C is answered when they are done, within a second or so.
ForEach parallel(int threads) {
  return [threads](const std::vector<double>& costs, const std::function<void(int)>& job) {
    if (costs.empty()) return;
    Control control;
    run_jobs(costs, threads > 0 ? threads : default_threads(), control, [&](int i, Worker&) { job(i); }, [](double) { return true; });
  };
}

template <class T>
Array<T> array_of(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

Array<std::uint8_t> array_of(const std::vector<Digest>& hashes) {
  return Array<std::uint8_t>({static_cast<py::ssize_t>(hashes.size()), py::ssize_t{16}}, reinterpret_cast<const std::uint8_t*>(hashes.data()));
}

py::tuple enumerated(int threads) {
  Space s;
  {
    const py::gil_scoped_release release;
    s = enumerate_space(parallel(threads));
  }
  return py::make_tuple(array_of(s.vertices), array_of(s.edge_bits), array_of(s.op_codes), array_of(s.module_hash), array_of(s.trainable_parameters));
}

template <class T>
std::vector<T> vector_of(const Array<T>& values) {
  return {values.data(), values.data() + values.size()};
}

Array<std::uint8_t> hashes_of(const Array<std::uint8_t>& vertices, const Array<std::uint32_t>& edge_bits, const Array<std::uint16_t>& op_codes, int threads) {
  const std::size_t n = static_cast<std::size_t>(vertices.size());
  if (vertices.ndim() != 1 || edge_bits.ndim() != 1 || op_codes.ndim() != 1 || edge_bits.size() != vertices.size() || op_codes.size() != vertices.size())
    fail("vertices, edge_bits and op_codes must be columns of one length");
  // Copies: while the GIL is released, others may write to the caller's arrays.
  const std::vector<std::uint8_t> sizes = vector_of(vertices);
  const std::vector<std::uint32_t> edges = vector_of(edge_bits);
  const std::vector<std::uint16_t> ops = vector_of(op_codes);
  for (std::size_t i = 0; i < n; ++i)
    if (sizes[i] < 2 || sizes[i] > max_vertices) fail("row " + std::to_string(i) + " does not have 2 to 7 vertices");
  std::vector<Digest> digests(n);
  {
    const py::gil_scoped_release release;
    hash_cells(digests.data(), sizes.data(), edges.data(), ops.data(), n, parallel(threads));
  }
  return array_of(digests);
}

std::vector<py::bytes> md5_of(const std::vector<std::string>& messages) {
  std::vector<py::bytes> found;
  for (const std::string& m : messages)
    if (m.size() != messages[0].size()) fail("messages must have one length");
  for (std::size_t i = 0; i < messages.size(); i += md5_lanes) {
    const std::uint8_t* lanes[md5_lanes];
    Digest digests[md5_lanes];
    const std::size_t here = std::min<std::size_t>(md5_lanes, messages.size() - i);
    for (std::size_t lane = 0; lane < md5_lanes; ++lane) lanes[lane] = reinterpret_cast<const std::uint8_t*>(messages[i + std::min(lane, here - 1)].data());
    md5(digests, lanes, messages[0].size());
    for (std::size_t lane = 0; lane < here; ++lane) found.emplace_back(reinterpret_cast<const char*>(digests[lane].data()), 16);
  }
  return found;
}

Digest digest_of(const std::string& hex) {
  static const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  Digest d;
  bool whole = hex.size() == 32;
  for (int i = 0; whole && i < 16; ++i) {
    whole = digit(hex[2 * i]) >= 0 && digit(hex[2 * i + 1]) >= 0;
    d[i] = static_cast<std::uint8_t>(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
  }
  if (!whole) fail("module_hash is '" + hex + "', expected 32 hexadecimal digits in lower case");
  return d;
}

class HashIndex {  // keeps the array, which may be mapped memory
 public:
  explicit HashIndex(Array<std::uint8_t> sorted) : sorted_(std::move(sorted)), data_(reinterpret_cast<const Digest*>(sorted_.data())) {
    if (sorted_.ndim() != 2 || sorted_.shape(1) != 16) fail("module_hash must have shape (n, 16)");
    n_ = static_cast<std::size_t>(sorted_.shape(0));
  }
  std::ptrdiff_t find(const std::string& hex) const { return find_hash(data_, n_, digest_of(hex)); }

 private:
  Array<std::uint8_t> sorted_;
  const Digest* data_;
  std::size_t n_;
};

template <class T, class F>
Array<T> column_of(const TableBuilder& b, F value) {
  Array<T> a(static_cast<py::ssize_t>(b.cells()));
  for (std::size_t i = 0; i < b.cells(); ++i) a.mutable_data()[i] = static_cast<T>(value(b.row(i)));
  return a;
}

py::tuple cell_columns(const TableBuilder& b) {
  Array<std::uint8_t> hashes({static_cast<py::ssize_t>(b.cells()), py::ssize_t{16}});
  for (std::size_t i = 0; i < b.cells(); ++i) std::copy(b.row(i).module_hash.begin(), b.row(i).module_hash.end(), hashes.mutable_data() + 16 * i);
  using Row = TableBuilder::CellRow;
  return py::make_tuple(column_of<std::uint8_t>(b, [](const Row& r) { return r.graph.vertices; }),
                        column_of<std::uint32_t>(b, [](const Row& r) { return r.graph.edge_bits; }),
                        column_of<std::uint16_t>(b, [](const Row& r) { return r.op_codes; }), hashes,
                        column_of<std::int32_t>(b, [](const Row& r) { return r.trainable_parameters; }));
}

}  // namespace

void bind_nasbench(py::module_& m) {
  py::register_exception<Malformed>(m, "Malformed", PyExc_ValueError);
  m.def("enumerate_space", enumerated, py::arg("threads") = 0);
  m.def("hash_cells", hashes_of, py::arg("vertices"), py::arg("edge_bits"), py::arg("op_codes"), py::arg("threads") = 0);
  m.def("md5", md5_of, py::arg("messages"));
  m.def("crc32c_has_instruction", crc32c_has_instruction);
  m.def(
      "crc32c",
      [](const py::bytes& data, bool instruction) {
        const std::string_view view = data;
        return crc32c(reinterpret_cast<const std::uint8_t*>(view.data()), view.size(), instruction && crc32c_has_instruction());
      },
      py::arg("data"), py::arg("instruction") = true);
  py::class_<HashIndex>(m, "HashIndex").def(py::init<Array<std::uint8_t>>(), py::arg("module_hash")).def("find", &HashIndex::find, py::arg("hex"));
  py::class_<TableBuilder>(m, "TableBuilder")
      .def(py::init<bool>(), py::arg("strict"))
      .def(
          "add",
          [](TableBuilder& b, const py::buffer& buffer, int threads) {
            const py::buffer_info info = buffer.request();
            if (info.itemsize != 1 || info.ndim != 1) fail("expected bytes");
            const py::gil_scoped_release release;
            b.add(static_cast<const std::uint8_t*>(info.ptr), static_cast<std::size_t>(info.size), parallel(threads));
          },
          py::arg("data"), py::arg("threads") = 0)
      .def(
          "finish",
          [](TableBuilder& b, int threads) {
            const py::gil_scoped_release release;
            b.finish(parallel(threads));
          },
          py::arg("threads") = 0)
      .def("cells", cell_columns)
      .def("budgets", &TableBuilder::budgets)
      .def("runs", &TableBuilder::runs)
      .def(
          "column",
          [](const TableBuilder& b, int metric, int budget, int run) {
            if (metric < 0 || metric >= n_metrics || budget < 0 || budget >= static_cast<int>(b.budgets().size()) || run < 0) fail("no such column");
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
