#include "proxies.hpp"

#include "jobs.hpp"

namespace spd {
namespace {

template <class T>
struct Motifs {  // a plan for the whole set, a cost and a look at the weights of each
  std::vector<Plan> plans;
  std::vector<double> costs;

  Motifs(const std::vector<MotifSpec>& specs, const std::vector<Array<T>>& parameters, int n, double passes, bool strict) {
    for (std::size_t k = 0; k < specs.size(); ++k) {
      plans.push_back(make_plan(specs[k], n, Passes::forward_backward, engine().of<T>().lanes, sizeof(T), strict));
      costs.push_back(passes * plans[k].flops * n);
      expect_shape(parameters.at(k), "parameters", {static_cast<py::ssize_t>(plans[k].n_parameters)});
    }
  }
};

// (d_parameters, d_images) of the sum of all logits, one entry a motif.
template <class T>
py::tuple logit_gradient(const std::vector<MotifSpec>& specs, Array<T> images, std::vector<Array<T>> parameters, bool batch_norm, double batch_norm_eps,
                         bool strict, int threads, py::object progress) {
  if (specs.empty()) fail("no motif given");
  const Array<T> labels = zero_array<T>({images.shape(0), specs[0].classes});
  const DataSet<T> data = data_set<T>(images, labels, specs[0]);
  const Motifs<T> motifs(specs, parameters, data.n, 4, strict);
  const EngineFunctions<T>& f = engine().of<T>();
  std::vector<Array<T>> d_parameters, d_images;
  std::vector<LogitGradientJob<T>> jobs(specs.size());
  for (std::size_t k = 0; k < specs.size(); ++k) {
    d_parameters.emplace_back(std::vector<py::ssize_t>{parameters[k].size()});
    d_images.emplace_back(std::vector<py::ssize_t>(images.shape(), images.shape() + 4));
    jobs[k] = {&motifs.plans[k], nullptr, parameters[k].data(), data, batch_norm, batch_norm_eps, d_parameters[k].mutable_data(), d_images[k].mutable_data()};
  }
  run_watched(motifs.costs, threads, progress, [&](int k, Worker& worker, Control& control) {
    jobs[k].memory = static_cast<T*>(worker.network.zeroed(f.memory(motifs.plans[k], worker.team) * sizeof(T)));
    f.logit_gradient(jobs[k], control, worker.team);
  });
  return py::make_tuple(d_parameters, d_images);
}

// (n, n) agreements of the ReLUs on each pair of images, one entry a motif.
template <class T>
std::vector<Array<std::int64_t>> activations(const std::vector<MotifSpec>& specs, Array<T> images, std::vector<Array<T>> parameters, double batch_norm_eps,
                                             bool strict, int threads, py::object progress) {
  if (specs.empty()) fail("no motif given");
  const Array<T> labels = zero_array<T>({images.shape(0), specs[0].classes});
  const DataSet<T> data = data_set<T>(images, labels, specs[0]);
  const Motifs<T> motifs(specs, parameters, data.n, 1, strict);
  const EngineFunctions<T>& f = engine().of<T>();
  std::vector<Array<std::int64_t>> agreements;
  std::vector<ActivationJob<T>> jobs(specs.size());
  for (std::size_t k = 0; k < specs.size(); ++k) {
    agreements.push_back(zero_array<std::int64_t>({data.n, data.n}));
    jobs[k] = {&motifs.plans[k], nullptr, parameters[k].data(), data, batch_norm_eps, agreements[k].mutable_data()};
  }
  run_watched(motifs.costs, threads, progress, [&](int k, Worker& worker, Control& control) {
    jobs[k].memory = static_cast<T*>(worker.network.zeroed(f.memory(motifs.plans[k], worker.team) * sizeof(T)));
    f.activations(jobs[k], control, worker.team);
  });
  return agreements;
}

template <class T>
void bind(py::module_& m, const char* logit_gradient_name, const char* activations_name) {
  m.def(logit_gradient_name, logit_gradient<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("parameters"), py::arg("batch_norm"),
        py::arg("batch_norm_eps"), py::arg("strict"), py::arg("threads"), py::arg("progress"));
  m.def(activations_name, activations<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("parameters"), py::arg("batch_norm_eps"), py::arg("strict"),
        py::arg("threads"), py::arg("progress"));
}

}  // namespace

void bind_proxies(py::module_& m) {
  bind<float>(m, "logit_gradient_f32", "activations_f32");
  bind<double>(m, "logit_gradient_f64", "activations_f64");
}

}  // namespace spd
