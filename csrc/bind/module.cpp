// The names of the extension. Files of bind/ check shapes and dtypes, make the arrays of results and release the GIL; they compute and decide nothing.
#include <map>
#include <memory>
#include <tuple>

#include "../random.hpp"
#include "../threads/batch.hpp"
#include "jobs.hpp"

namespace spd {
namespace {

struct TablesRecord {  // tuples of (name, offset, shape)
  py::tuple parameters;
  std::size_t n_parameters;
  py::tuple running;
  int batch_norms;
};

// A motif has a hundred slices, and few shapes among them. Plain tuples are made fastest, and Python's garbage collector soon leaves them alone.
py::tuple slice_records(const std::vector<NamedSlice>& slices) {
  std::map<std::vector<int>, py::tuple> shapes;
  py::tuple out(slices.size());
  for (std::size_t i = 0; i < slices.size(); ++i) {
    const auto [shape, is_new] = shapes.try_emplace(slices[i].shape);
    if (is_new) shape->second = py::tuple(py::cast(slices[i].shape));
    out[i] = py::make_tuple(slices[i].name, slices[i].offset, shape->second);
  }
  return out;
}

// Every MotifSpec that Python holds is one of these: it keeps its tables, which are made when they are first asked for.
struct HeldSpec : MotifSpec {
  std::optional<TablesRecord> tables;
};
std::shared_ptr<MotifSpec> held(MotifSpec spec) { return std::make_shared<HeldSpec>(HeldSpec{checked(std::move(spec)), {}}); }

const TablesRecord& tables_of(MotifSpec& spec) {
  std::optional<TablesRecord>& tables = static_cast<HeldSpec&>(spec).tables;
  if (!tables) {
    const Plan plan = plan_of_one(spec);
    tables = TablesRecord{slice_records(plan.parameters), plan.n_parameters, slice_records(plan.running), plan.batch_norms};
  }
  return *tables;
}

// tensors: (key, rows, columns, first_tap, taps) of each. Their numbers follow each other.
Array<double> uniform_array(const std::vector<std::tuple<std::uint64_t, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>>& tensors) {
  std::size_t size = 0;
  const auto drawn = [](const auto& tensor) { return std::make_from_tuple<Drawn>(tensor); };
  for (const auto& tensor : tensors) size += drawn(tensor).size();
  Array<double> out(static_cast<py::ssize_t>(size));
  double* to = out.mutable_data();
  for (const auto& tensor : tensors) to = drawn(tensor).fill(to);
  return out;
}

}  // namespace
}  // namespace spd

PYBIND11_MODULE(_core, m) {
  using namespace spd;
  m.doc() = "The compiled engine of spd_fast; see csrc/.";
  m.attr("version") = SPD_FAST_VERSION;
  m.attr("compiler") = SPD_FAST_COMPILER;
  m.attr("flags") = SPD_FAST_FLAGS;  // each instruction set has flags of its own besides
  m.attr("isa") = engine().isa;      // the import fails here where SPD_FAST_ISA names a set that cannot run
  m.def("default_threads", default_threads);
  m.def("uniforms", uniform_array, py::arg("tensors"));

  RecordClass<TablesRecord>(m, "Tables")
      .field("parameters", &TablesRecord::parameters)
      .field("n_parameters", &TablesRecord::n_parameters)
      .field("running", &TablesRecord::running)
      .field("batch_norms", &TablesRecord::batch_norms);
  py::class_<MotifSpec, std::shared_ptr<MotifSpec>>(m, "MotifSpec")
      .def(py::init([](int vertices, bool ops_on_edges, std::vector<std::uint8_t> matrix, std::vector<int> ops, std::vector<std::vector<int>> channels,
                       int stem_channels, int stacks, int cells_per_stack, int classes, int image_channels, int height, int width) {
             MotifSpec spec;
             spec.kind = ops_on_edges ? MotifSpec::Kind::edge_cell : MotifSpec::Kind::vertex_cell;
             spec.vertices = vertices, spec.matrix = std::move(matrix), spec.ops = std::move(ops), spec.channels = std::move(channels);
             spec.stem_channels = stem_channels, spec.stacks = stacks, spec.cells_per_stack = cells_per_stack, spec.classes = classes;
             spec.image_channels = image_channels, spec.height = height, spec.width = width;
             return held(std::move(spec));
           }),
           py::kw_only(), py::arg("vertices"), py::arg("ops_on_edges"), py::arg("matrix"), py::arg("ops"), py::arg("channels"), py::arg("stem_channels"),
           py::arg("stacks"), py::arg("cells_per_stack"), py::arg("classes"), py::arg("image_channels"), py::arg("height"), py::arg("width"))
      .def_static(
          "perceptron",
          [](std::vector<int> hidden, double slope, const std::string& loss, int classes, int image_channels, int height, int width) {
            MotifSpec spec;
            spec.kind = MotifSpec::Kind::perceptron;
            spec.hidden = std::move(hidden), spec.slope = slope, spec.loss = named<Loss>("loss", loss, kLossNames);
            spec.classes = classes, spec.image_channels = image_channels, spec.height = height, spec.width = width;
            return held(std::move(spec));
          },
          py::kw_only(), py::arg("hidden"), py::arg("slope"), py::arg("loss"), py::arg("classes"), py::arg("image_channels"), py::arg("height"),
          py::arg("width"))
      .def_property_readonly("tables", tables_of)
      .def("flops", [](const MotifSpec& spec) { return plan_of_one(spec).flops; })
      .def("memory", memory_of, py::arg("batch"), py::kw_only(), py::arg("backward"));
  py::class_<Optimizer>(m, "Optimizer")
      .def(py::init([](const std::string& kind, double momentum, double decay, double eps, double weight_decay, bool nesterov) {
             return Optimizer{named<Optimizer::Kind>("kind", kind, kOptimizerNames), momentum, decay, eps, weight_decay, nesterov};
           }),
           py::arg("kind"), py::kw_only(), py::arg("momentum") = 0.0, py::arg("decay") = 0.0, py::arg("eps") = 0.0, py::arg("weight_decay") = 0.0,
           py::arg("nesterov") = false);
  bind_train(m);
  bind_supernet(m);
  py::module_ kernels = m.def_submodule("kernels", "Single kernels and their scalar references, on (n, c, h, w) arrays.");
  bind_kernels(kernels);
  bind_measure(m);
  bind_proxies(m);
  py::module_ nasbench = m.def_submodule("nasbench", "NAS-Bench-101: the space, and the reader of its files. For spd_fast.nasbench101 alone.");
  bind_nasbench(nasbench);
}
