#include "jobs.hpp"

namespace spd {
namespace {

struct LogitGradientRecord {  // the gradient of the sum of all logits; one entry for each motif
  std::vector<py::array> d_parameters, d_images;
};

template <class T>
LogitGradientRecord logit_gradient(const std::vector<MotifSpec>& specs, Array<T> images, std::vector<Array<T>> parameters, bool batch_norm,
                                   double batch_norm_eps, bool direct_convolutions, int threads, py::object progress) {
  if (specs.empty()) fail("no motif given");
  const Array<T> labels = zero_array<T>({images.shape(0), specs[0].classes});
  const DataSet<T> data = data_set<T>(images, labels, specs);
  const Motifs<T> motifs = motifs_to_read(specs, data, true, direct_convolutions);
  expect_parameters(parameters, motifs);
  LogitGradientRecord out;
  std::vector<LogitGradientJob<T>> jobs;
  for (const Array<T>& weights : parameters) {
    Array<T> d_parameters(std::vector<py::ssize_t>{weights.size()}), d_images(std::vector<py::ssize_t>(images.shape(), images.shape() + 4));
    jobs.push_back({nullptr, nullptr, weights.data(), data, batch_norm, batch_norm_eps, d_parameters.mutable_data(), d_images.mutable_data()});
    out.d_parameters.push_back(d_parameters), out.d_images.push_back(d_images);
  }
  watched(threads, progress, [&](const Run& run) { logit_gradients(motifs, jobs, run); });
  return out;
}

// Returns for each motif an array (n, n): how many ReLUs agree on each pair of images.
template <class T>
std::vector<Array<std::int64_t>> activations(const std::vector<MotifSpec>& specs, Array<T> images, std::vector<Array<T>> parameters, double batch_norm_eps,
                                             bool direct_convolutions, int threads, py::object progress) {
  if (specs.empty()) fail("no motif given");
  const Array<T> labels = zero_array<T>({images.shape(0), specs[0].classes});
  const DataSet<T> data = data_set<T>(images, labels, specs);
  const Motifs<T> motifs = motifs_to_read(specs, data, true, direct_convolutions);
  expect_parameters(parameters, motifs);
  std::vector<Array<std::int64_t>> out;
  std::vector<ActivationJob<T>> jobs;
  for (const Array<T>& weights : parameters) {
    out.push_back(zero_array<std::int64_t>({data.n, data.n}));
    jobs.push_back({nullptr, nullptr, weights.data(), data, batch_norm_eps, out.back().mutable_data()});
  }
  watched(threads, progress, [&](const Run& run) { agreements(motifs, jobs, run); });
  return out;
}

template <class T>
void bind_proxies_of(py::module_& m) {
  m.def("logit_gradient", logit_gradient<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("parameters").noconvert(), py::arg("batch_norm"),
        py::arg("batch_norm_eps"), py::arg("direct_convolutions"), py::arg("threads"), py::arg("progress"));
  m.def("activations", activations<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("parameters").noconvert(), py::arg("batch_norm_eps"),
        py::arg("direct_convolutions"), py::arg("threads"), py::arg("progress"));
}

}  // namespace

void bind_proxies(py::module_& m) {
  RecordClass<LogitGradientRecord>(m, "LogitGradient")
      .field("d_parameters", &LogitGradientRecord::d_parameters)
      .field("d_images", &LogitGradientRecord::d_images);
  bind_proxies_of<float>(m);
  bind_proxies_of<double>(m);
}

}  // namespace spd
