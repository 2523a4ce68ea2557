#include "train.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "jobs.hpp"

namespace spd {
namespace {

struct MetricArrays {
  Array<double> probability, loss, accuracy;
  py::array logits;

  py::dict dict() const {
    py::dict d;
    d["probability"] = probability, d["loss"] = loss, d["accuracy"] = accuracy, d["logits"] = logits;
    return d;
  }
};

Metric metric_of(const std::string& name) {
  if (name != "loss" && name != "probability") fail("metric is '" + name + "', expected 'loss' or 'probability'");
  return name == "loss" ? Metric::loss : Metric::probability;
}
template <class T>
MetricArrays metric_arrays(py::ssize_t motifs, py::ssize_t n, py::ssize_t classes) {
  Array<T> logits(std::vector<py::ssize_t>{motifs, n, classes});
  std::fill(logits.mutable_data(), logits.mutable_data() + logits.size(), std::numeric_limits<T>::quiet_NaN());
  return {nan_array({motifs}), nan_array({motifs}), nan_array({motifs}), logits};
}

template <class T>
Metrics<T> nothing(T* logits) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  return {nan, nan, nan, logits};
}

// What training and its reverse have in common. The arrays stay the caller's.
template <class T>
TrainSettings<T> settings_of(const std::vector<MotifSpec>& specs, const Array<T>& images, const Array<T>& labels, const std::optional<Array<T>>& valid_images,
                             const std::optional<Array<T>>& valid_labels, const Array<std::int64_t>& order, int batch, bool drop_last,
                             const Optimizer& optimizer, const Array<double>& rates) {
  if (specs.empty()) fail("no motif given");
  TrainSettings<T> s{};
  s.train = data_set<T>(images, labels, specs[0]);
  if (valid_images) s.valid = data_set<T>(*valid_images, *valid_labels, specs[0]);
  if (batch < 1) fail("batch is " + std::to_string(batch) + ", expected at least 1");
  s.batch = std::min(batch, s.train.n);
  s.steps_per_epoch = drop_last ? s.train.n / s.batch : (s.train.n + s.batch - 1) / s.batch;
  if (order.ndim() != 2) fail("order must have shape (epochs, N)");
  s.epochs = static_cast<int>(order.shape(0));
  expect_shape(order, "order", {s.epochs, s.train.n});
  for (py::ssize_t i = 0; i < order.size(); ++i)
    if (order.data()[i] < 0 || order.data()[i] >= s.train.n) fail("order holds " + std::to_string(order.data()[i]) + ", expected 0 to N - 1");
  s.order = order.data();
  expect_shape(rates, "rates", {static_cast<py::ssize_t>(s.epochs) * s.steps_per_epoch});
  s.optimizer = optimizer, s.rates = rates.data();
  return s;
}

template <class T>
py::dict train(const std::vector<MotifSpec>& specs, Array<T> images, Array<T> labels, std::optional<Array<T>> valid_images,
               std::optional<Array<T>> valid_labels, Array<std::int64_t> order, int batch, bool drop_last, const Optimizer& optimizer, Array<double> rates,
               std::vector<Array<T>> parameters, std::vector<Array<T>> running, double batch_norm_momentum, double batch_norm_eps, bool batch_statistics,
               bool evaluate, bool record_steps, bool strict, int threads, py::object progress) {
  const py::ssize_t motifs = static_cast<py::ssize_t>(specs.size());
  TrainSettings<T> s = settings_of<T>(specs, images, labels, valid_images, valid_labels, order, batch, drop_last, optimizer, rates);
  s.batch_norm_momentum = batch_norm_momentum, s.batch_norm_eps = batch_norm_eps, s.batch_statistics = batch_statistics;
  const py::ssize_t steps = rates.size();

  const EngineFunctions<T>& f = engine().of<T>();
  std::vector<Plan> plans;
  std::vector<double> costs;
  for (py::ssize_t k = 0; k < motifs; ++k) {
    plans.push_back(make_plan(specs[k], s.batch, Passes::forward_backward, f.lanes, sizeof(T), strict));
    costs.push_back(3 * plans[k].flops * s.train.n * s.epochs + plans[k].flops);
    expect_shape(parameters.at(k), "parameters", {static_cast<py::ssize_t>(plans[k].n_parameters)});
    expect_shape(running.at(k), "running", {2, plans[k].batch_norms});
  }
  const py::ssize_t classes = specs[0].classes;
  Array<double> loss = nan_array({motifs, s.epochs}), accuracy = nan_array({motifs, s.epochs}), seconds = nan_array({motifs});
  Array<double> step_loss = nan_array({record_steps ? motifs : 0, steps}), step_accuracy = nan_array({record_steps ? motifs : 0, steps});
  Array<std::int64_t> diverged_step(std::vector<py::ssize_t>{motifs});
  MetricArrays on_train = metric_arrays<T>(motifs, evaluate ? s.train.n : 0, classes), on_valid = metric_arrays<T>(motifs, s.valid.n, classes);
  T* train_logits = static_cast<T*>(on_train.logits.mutable_data());
  T* valid_logits = static_cast<T*>(on_valid.logits.mutable_data());
  double *loss_p = loss.mutable_data(), *accuracy_p = accuracy.mutable_data(), *seconds_p = seconds.mutable_data();
  double *step_loss_p = step_loss.mutable_data(), *step_accuracy_p = step_accuracy.mutable_data();
  std::int64_t* diverged_p = diverged_step.mutable_data();
  std::vector<T*> parameter_p, running_p;
  for (auto& a : parameters) parameter_p.push_back(a.mutable_data());
  for (auto& a : running) running_p.push_back(a.mutable_data());
  std::vector<Metrics<T>> train_metrics(motifs), valid_metrics(motifs);
  for (py::ssize_t k = 0; k < motifs; ++k) {
    train_metrics[k] = nothing<T>(train_logits + k * s.train.n * classes);
    valid_metrics[k] = nothing<T>(valid_logits + k * s.valid.n * classes);
  }

  constexpr int running_batch = 100;  // images at once where the running statistics serve
  run_watched(costs, threads, progress, [&](int k, Worker& worker, Control& control) {
    const auto start = std::chrono::steady_clock::now();
    TrainJob<T> job{};
    job.plan = &plans[k];
    job.memory = static_cast<T*>(worker.network.zeroed(f.memory(plans[k], worker.team) * sizeof(T)));
    Plan plan_train, plan_valid;
    std::size_t most = 0;
    const auto metric_plan = [&](Plan& plan, const DataSet<T>& data) -> const Plan* {
      plan = make_plan(specs[k], batch_statistics ? data.n : std::min(data.n, running_batch), Passes::forward, f.lanes, sizeof(T), strict);
      most = std::max(most, f.memory(plan, worker.team));
      return &plan;
    };
    if (evaluate) job.plan_train = metric_plan(plan_train, s.train);
    if (s.valid.n > 0) job.plan_valid = metric_plan(plan_valid, s.valid);
    if (most > 0) job.memory_metrics = static_cast<T*>(worker.metrics.zeroed(most * sizeof(T)));
    job.parameters = parameter_p[k];
    job.running = running_p[k];
    job.loss = loss_p + k * s.epochs;
    job.accuracy = accuracy_p + k * s.epochs;
    if (record_steps) {
      job.step_loss = step_loss_p + k * steps;
      job.step_accuracy = step_accuracy_p + k * steps;
    }
    job.train = train_metrics[k];
    job.valid = valid_metrics[k];
    f.train(s, job, control, worker.team);
    train_metrics[k] = job.train;
    valid_metrics[k] = job.valid;
    diverged_p[k] = job.diverged_step;
    seconds_p[k] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });

  for (py::ssize_t k = 0; k < motifs; ++k) {
    const auto put = [&](MetricArrays& to, const Metrics<T>& m) {
      to.probability.mutable_data()[k] = m.probability, to.loss.mutable_data()[k] = m.loss, to.accuracy.mutable_data()[k] = m.accuracy;
    };
    put(on_train, train_metrics[k]);
    put(on_valid, valid_metrics[k]);
  }
  py::dict out;
  out["loss"] = loss, out["accuracy"] = accuracy, out["seconds"] = seconds, out["diverged_step"] = diverged_step;
  out["step_loss"] = step_loss, out["step_accuracy"] = step_accuracy;
  out["train"] = on_train.dict(), out["valid"] = on_valid.dict();
  return out;
}

template <class T>
py::dict gradient(const std::vector<MotifSpec>& specs, Array<T> images, Array<T> labels, std::vector<Array<T>> parameters, const std::string& metric,
                  double batch_norm_eps, bool want_parameters, bool want_images, bool strict, int threads, py::object progress) {
  const py::ssize_t motifs = static_cast<py::ssize_t>(specs.size());
  if (motifs == 0) fail("no motif given");
  const DataSet<T> data = data_set<T>(images, labels, specs[0]);
  const EngineFunctions<T>& f = engine().of<T>();
  const Passes passes = want_parameters || want_images ? Passes::forward_backward : Passes::forward;
  std::vector<Plan> plans;
  std::vector<double> costs;
  std::vector<Array<T>> d_parameters;
  for (py::ssize_t k = 0; k < motifs; ++k) {
    plans.push_back(make_plan(specs[k], data.n, passes, f.lanes, sizeof(T), strict));
    costs.push_back(4 * plans[k].flops * data.n);
    expect_shape(parameters.at(k), "parameters", {static_cast<py::ssize_t>(plans[k].n_parameters)});
    if (want_parameters) d_parameters.emplace_back(std::vector<py::ssize_t>{static_cast<py::ssize_t>(plans[k].n_parameters)});
  }
  const py::ssize_t image_elements = images.size();
  Array<T> d_images(std::vector<py::ssize_t>{want_images ? motifs : 0, data.n, images.shape(1), images.shape(2), images.shape(3)});
  Array<T> d_labels = zero_array<T>({want_images ? motifs : 0, data.n, specs[0].classes});
  MetricArrays values = metric_arrays<T>(motifs, 0, specs[0].classes);
  double *probability = values.probability.mutable_data(), *loss = values.loss.mutable_data(), *accuracy = values.accuracy.mutable_data();
  T *d_images_p = d_images.mutable_data(), *d_labels_p = d_labels.mutable_data();
  std::vector<T*> d_parameters_p;
  for (auto& a : d_parameters) d_parameters_p.push_back(a.mutable_data());

  run_watched(costs, threads, progress, [&](int k, Worker& worker, Control& control) {
    GradientJob<T> job{};
    job.plan = &plans[k];
    job.memory = static_cast<T*>(worker.network.zeroed(f.memory(plans[k], worker.team) * sizeof(T)));
    job.parameters = parameters[k].data();
    job.data = data;
    job.metric = metric_of(metric);
    job.batch_norm_eps = batch_norm_eps;
    if (want_parameters) job.d_parameters = d_parameters_p[k];
    if (want_images) {
      job.d_images = d_images_p + k * image_elements;
      job.d_labels = d_labels_p + k * data.n * specs[0].classes;
    }
    f.gradient(job, control, worker.team);
    probability[k] = job.values.probability, loss[k] = job.values.loss, accuracy[k] = job.values.accuracy;
  });
  py::dict out;
  out["probability"] = values.probability, out["loss"] = values.loss, out["accuracy"] = values.accuracy;
  out["d_parameters"] = d_parameters, out["d_images"] = d_images, out["d_labels"] = d_labels;
  return out;
}

template <class T>
py::dict hypergradient(const std::vector<MotifSpec>& specs, Array<T> images, Array<T> labels, std::optional<Array<T>> valid_images,
                       std::optional<Array<T>> valid_labels, Array<std::int64_t> order, int batch, bool drop_last, const Optimizer& optimizer,
                       Array<double> rates, std::vector<Array<T>> initial, long steps, long first_step, const std::string& metric, double metric_weight,
                       std::optional<Array<double>> step_weights, double batch_norm_eps, double memory, bool strict, int threads, py::object progress) {
  TrainSettings<T> s = settings_of<T>(specs, images, labels, valid_images, valid_labels, order, batch, drop_last, optimizer, rates);
  s.batch_norm_eps = batch_norm_eps;
  if (steps < 0 || steps > rates.size()) fail("steps is " + std::to_string(steps) + ", expected 0 to " + std::to_string(rates.size()));
  if (first_step < 0 || first_step > steps) fail("first_step is " + std::to_string(first_step) + ", expected 0 to steps");
  if (step_weights) expect_shape(*step_weights, "step_weights", {steps});
  const py::ssize_t motifs = static_cast<py::ssize_t>(specs.size()), classes = specs[0].classes;
  const EngineFunctions<T>& f = engine().of<T>();
  const DataSet<T>& read_on = s.valid.n > 0 ? s.valid : s.train;
  std::vector<Plan> plans;
  std::vector<double> costs;
  std::vector<long> kept;  // gradients
  std::vector<Array<T>> trained, d_initial;
  for (py::ssize_t k = 0; k < motifs; ++k) {
    plans.push_back(make_plan(specs[k], s.batch, Passes::kept, f.lanes, sizeof(T), strict));
    kept.push_back(static_cast<long>(std::min(static_cast<double>(steps - first_step), std::floor(memory / (sizeof(T) * plans[k].n_parameters)))));
    costs.push_back(plans[k].flops * (s.batch * (3.0 * steps + 11.0 * (steps - first_step) - 3.0 * kept.back()) + 4.0 * read_on.n));
    const py::ssize_t p = static_cast<py::ssize_t>(plans[k].n_parameters);
    expect_shape(initial.at(k), "initial", {p});
    trained.push_back(zero_array<T>({p}));
    d_initial.push_back(zero_array<T>({p}));
  }
  const py::ssize_t c = images.shape(1), h = images.shape(2), w = images.shape(3);
  Array<T> d_images = zero_array<T>({motifs, s.train.n, c, h, w}), d_labels = zero_array<T>({motifs, s.train.n, classes});
  Array<T> d_valid_images = zero_array<T>({motifs, s.valid.n, c, h, w}), d_valid_labels = zero_array<T>({motifs, s.valid.n, classes});
  Array<double> value = nan_array({motifs}), d_rates = zero_array<double>({motifs, steps}), d_momenta = zero_array<double>({motifs, steps});
  Array<double> step_loss = nan_array({motifs, steps}), loss = nan_array({motifs}), probability = nan_array({motifs}), accuracy = nan_array({motifs});
  Array<std::int64_t> diverged_step(std::vector<py::ssize_t>{motifs});
  std::vector<HypergradientJob<T>> jobs(motifs);
  for (py::ssize_t k = 0; k < motifs; ++k) {
    HypergradientJob<T>& job = jobs[k];
    job.settings = &s;
    job.plan = &plans[k];
    job.initial = initial[k].data();
    job.steps = steps, job.first_step = first_step, job.kept_gradients = kept[k];
    job.metric = metric_of(metric), job.metric_weight = metric_weight;
    job.step_weights = step_weights ? step_weights->data() : nullptr;
    job.step_loss = step_loss.mutable_data() + k * steps;
    job.trained = trained[k].mutable_data();
    job.d_images = d_images.mutable_data() + k * images.size();
    job.d_labels = d_labels.mutable_data() + k * labels.size();
    job.d_valid_images = d_valid_images.mutable_data() + k * s.valid.n * c * h * w;
    job.d_valid_labels = d_valid_labels.mutable_data() + k * s.valid.n * classes;
    job.d_rates = d_rates.mutable_data() + k * steps;
    job.d_momenta = d_momenta.mutable_data() + k * steps;
    job.d_initial = d_initial[k].mutable_data();
    job.metrics = nothing<T>(nullptr);
  }
  run_watched(costs, threads, progress, [&](int k, Worker& worker, Control& control) {
    HypergradientJob<T>& job = jobs[k];
    Plan plan_metric;
    if (metric_weight != 0) {
      plan_metric = make_plan(specs[k], read_on.n, Passes::forward_backward, f.lanes, sizeof(T), strict);
      job.memory_metric = static_cast<T*>(worker.metrics.zeroed(f.memory(plan_metric, worker.team) * sizeof(T)));
    }
    job.plan_metric = &plan_metric;
    job.memory = static_cast<T*>(worker.network.zeroed(f.hypergradient_memory(plans[k], steps, kept[k], worker.team) * sizeof(T)));
    f.hypergradient(job, control, worker.team);
  });
  for (py::ssize_t k = 0; k < motifs; ++k) {
    diverged_step.mutable_data()[k] = jobs[k].diverged_step;
    value.mutable_data()[k] = jobs[k].diverged_step < 0 ? jobs[k].value : std::numeric_limits<double>::quiet_NaN();
    loss.mutable_data()[k] = jobs[k].metrics.loss;
    probability.mutable_data()[k] = jobs[k].metrics.probability;
    accuracy.mutable_data()[k] = jobs[k].metrics.accuracy;
  }
  py::dict out;
  out["value"] = value, out["loss"] = loss, out["probability"] = probability, out["accuracy"] = accuracy;
  out["step_loss"] = step_loss, out["diverged_step"] = diverged_step, out["trained"] = trained;
  out["d_images"] = d_images, out["d_labels"] = d_labels, out["d_valid_images"] = d_valid_images, out["d_valid_labels"] = d_valid_labels;
  out["d_rates"] = d_rates, out["d_momenta"] = d_momenta, out["d_initial"] = d_initial;
  return out;
}

template <class T>
void bind_element(py::module_& m, const char* train_name, const char* gradient_name, const char* hypergradient_name) {
  m.def(train_name, train<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("labels").noconvert(), py::arg("valid_images").noconvert().none(true),
        py::arg("valid_labels").noconvert().none(true), py::arg("order").noconvert(), py::arg("batch"), py::arg("drop_last"), py::arg("optimizer"),
        py::arg("rates").noconvert(), py::arg("parameters"), py::arg("running"), py::arg("batch_norm_momentum"), py::arg("batch_norm_eps"),
        py::arg("batch_statistics"), py::arg("evaluate"), py::arg("record_steps"), py::arg("strict"), py::arg("threads"), py::arg("progress"));
  m.def(gradient_name, gradient<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("labels").noconvert(), py::arg("parameters"), py::arg("metric"),
        py::arg("batch_norm_eps"), py::arg("want_parameters"), py::arg("want_images"), py::arg("strict"), py::arg("threads"), py::arg("progress"));
  m.def(hypergradient_name, hypergradient<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("labels").noconvert(),
        py::arg("valid_images").noconvert().none(true), py::arg("valid_labels").noconvert().none(true), py::arg("order").noconvert(), py::arg("batch"),
        py::arg("drop_last"), py::arg("optimizer"), py::arg("rates").noconvert(), py::arg("initial"), py::arg("steps"), py::arg("first_step"),
        py::arg("metric"), py::arg("metric_weight"), py::arg("step_weights").noconvert().none(true), py::arg("batch_norm_eps"), py::arg("memory"),
        py::arg("strict"), py::arg("threads"), py::arg("progress"));
}

}  // namespace

void bind_train(py::module_& m) {
  bind_element<float>(m, "train_f32", "gradient_f32", "hypergradient_f32");
  bind_element<double>(m, "train_f64", "gradient_f64", "hypergradient_f64");
}

}  // namespace spd
