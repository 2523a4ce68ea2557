#include "jobs.hpp"

namespace spd {
namespace {

// ---- what comes back: arrays with one row for each motif of the call

struct MetricRecord {
  Array<double> probability, loss, accuracy;
  py::array logits;
};
struct TrainRecord {
  Array<double> loss, accuracy, seconds;
  Array<std::int64_t> diverged_step;
  Array<double> step_loss, step_accuracy;
  MetricRecord train, valid;
};
struct GradientRecord {
  Array<double> probability, loss, accuracy;
  std::vector<py::array> d_parameters;
  py::array d_images, d_labels;
};
struct HypergradientRecord {
  Array<double> value, loss, probability, accuracy, step_loss;
  Array<std::int64_t> diverged_step;
  std::vector<py::array> trained;
  py::array d_images, d_labels, d_valid_images, d_valid_labels;
  Array<double> d_rates, d_momenta;
  std::vector<py::array> d_initial;
};

// metrics(k) returns the metrics of motif k.
template <class F>
MetricRecord metric_record(py::ssize_t motifs, py::array logits, F&& metrics) {
  return {array_of<double>(motifs, [&](py::ssize_t k) { return metrics(k).probability; }),
          array_of<double>(motifs, [&](py::ssize_t k) { return metrics(k).loss; }),
          array_of<double>(motifs, [&](py::ssize_t k) { return metrics(k).accuracy; }), logits};
}

// Returns the settings that training and its reverse have in common. They point to the caller's arrays.
template <class T>
TrainSettings<T> settings_of(const std::vector<MotifSpec>& specs, const Array<T>& images, const Array<T>& labels, const std::optional<Array<T>>& valid_images,
                             const std::optional<Array<T>>& valid_labels, const Array<std::int64_t>& order, int batch, bool drop_last,
                             const Optimizer& optimizer, const Array<double>& rates) {
  TrainSettings<T> s{};
  s.train = data_set<T>(images, labels, specs);
  if (valid_images) s.valid = data_set<T>(*valid_images, *valid_labels, specs);
  set_batches(s, batch, drop_last);
  if (order.ndim() != 2) fail("order must have shape (epochs, N)");
  s.epochs = static_cast<int>(order.shape(0));
  expect_shape(order, "order", {s.epochs, s.train.n});
  s.order = order.data();
  expect_shape(rates, "rates", {static_cast<py::ssize_t>(s.epochs) * s.steps_per_epoch});
  s.optimizer = optimizer, s.rates = rates.data();
  return s;
}

template <class T>
TrainRecord train_all(const std::vector<MotifSpec>& specs, Array<T> images, Array<T> labels, std::optional<Array<T>> valid_images,
                      std::optional<Array<T>> valid_labels, Array<std::int64_t> order, int batch, bool drop_last, const Optimizer& optimizer,
                      Array<double> rates, std::vector<Array<T>> parameters, std::vector<Array<T>> running, double batch_norm_momentum, double batch_norm_eps,
                      bool batch_statistics, bool evaluate, bool record_steps, bool direct_convolutions, int threads, py::object progress) {
  TrainSettings<T> s = settings_of<T>(specs, images, labels, valid_images, valid_labels, order, batch, drop_last, optimizer, rates);
  s.batch_norm_momentum = batch_norm_momentum, s.batch_norm_eps = batch_norm_eps, s.batch_statistics = batch_statistics, s.evaluate = evaluate;
  const Motifs<T> motifs = motifs_to_train(specs, s, direct_convolutions);
  expect_parameters(parameters, motifs);
  const py::ssize_t n = static_cast<py::ssize_t>(specs.size()), steps = rates.size(), classes = specs[0].classes;
  for (py::ssize_t k = 0; k < n; ++k) expect_shape(running.at(k), "running", {2, motifs.plans[k].batch_norms});

  Array<double> loss = nan_array<double>({n, s.epochs}), accuracy = nan_array<double>({n, s.epochs});
  Array<double> step_loss = nan_array<double>({record_steps ? n : 0, steps}), step_accuracy = nan_array<double>({record_steps ? n : 0, steps});
  Array<T> train_logits = nan_array<T>({n, evaluate ? s.train.n : 0, classes}), valid_logits = nan_array<T>({n, s.valid.n, classes});
  std::vector<TrainJob<T>> jobs(n);
  for (py::ssize_t k = 0; k < n; ++k) {
    TrainJob<T>& job = jobs[k];
    job.parameters = parameters[k].mutable_data();
    job.running = running[k].mutable_data();
    job.loss = loss.mutable_data() + k * s.epochs;
    job.accuracy = accuracy.mutable_data() + k * s.epochs;
    if (record_steps) job.step_loss = step_loss.mutable_data() + k * steps, job.step_accuracy = step_accuracy.mutable_data() + k * steps;
    if (evaluate) job.train.logits = train_logits.mutable_data() + k * s.train.n * classes;
    job.valid.logits = valid_logits.mutable_data() + k * s.valid.n * classes;
  }
  watched(threads, progress, [&](const Run& run) { train(motifs, s, jobs, run); });
  return {loss,
          accuracy,
          array_of<double>(n, [&](py::ssize_t k) { return jobs[k].seconds; }),
          array_of<std::int64_t>(n, [&](py::ssize_t k) { return jobs[k].diverged_step; }),
          step_loss,
          step_accuracy,
          metric_record(n, train_logits, [&](py::ssize_t k) { return jobs[k].train; }),
          metric_record(n, valid_logits, [&](py::ssize_t k) { return jobs[k].valid; })};
}

template <class T>
GradientRecord gradient(const std::vector<MotifSpec>& specs, Array<T> images, Array<T> labels, std::vector<Array<T>> parameters, const std::string& metric,
                        double batch_norm_eps, bool want_parameters, bool want_images, bool direct_convolutions, int threads, py::object progress) {
  const py::ssize_t n = static_cast<py::ssize_t>(specs.size());
  const DataSet<T> data = data_set<T>(images, labels, specs);
  const Motifs<T> motifs = motifs_to_read(specs, data, want_parameters || want_images, direct_convolutions);
  expect_parameters(parameters, motifs);
  std::vector<py::array> d_parameters;
  Array<T> d_images(std::vector<py::ssize_t>{want_images ? n : 0, data.n, images.shape(1), images.shape(2), images.shape(3)});
  Array<T> d_labels = zero_array<T>({want_images ? n : 0, data.n, specs[0].classes});
  std::vector<GradientJob<T>> jobs(n);
  for (py::ssize_t k = 0; k < n; ++k) {
    GradientJob<T>& job = jobs[k];
    job.parameters = parameters[k].data();
    job.data = data;
    job.metric = named<Metric>("metric", metric, kMetricNames);
    job.batch_norm_eps = batch_norm_eps;
    if (want_parameters) {
      Array<T> own(std::vector<py::ssize_t>{parameters[k].size()});
      job.d_parameters = own.mutable_data();
      d_parameters.push_back(own);
    }
    if (want_images) job.d_images = d_images.mutable_data() + k * images.size(), job.d_labels = d_labels.mutable_data() + k * labels.size();
  }
  watched(threads, progress, [&](const Run& run) { gradients(motifs, jobs, run); });
  const MetricRecord values = metric_record(n, {}, [&](py::ssize_t k) { return jobs[k].values; });
  return {values.probability, values.loss, values.accuracy, d_parameters, d_images, d_labels};
}

template <class T>
HypergradientRecord hypergradient(const std::vector<MotifSpec>& specs, Array<T> images, Array<T> labels, std::optional<Array<T>> valid_images,
                                  std::optional<Array<T>> valid_labels, Array<std::int64_t> order, int batch, bool drop_last, const Optimizer& optimizer,
                                  Array<double> rates, std::vector<Array<T>> initial, long steps, long first_step, const std::string& metric,
                                  double metric_weight, std::optional<Array<double>> step_weights, double batch_norm_eps, double memory,
                                  bool direct_convolutions, int threads, py::object progress) {
  TrainSettings<T> s = settings_of<T>(specs, images, labels, valid_images, valid_labels, order, batch, drop_last, optimizer, rates);
  s.batch_norm_eps = batch_norm_eps;
  const Motifs<T> motifs = motifs_to_reverse(specs, s, steps, first_step, direct_convolutions);
  if (step_weights) expect_shape(*step_weights, "step_weights", {steps});
  expect_parameters(initial, motifs);
  const py::ssize_t n = static_cast<py::ssize_t>(specs.size()), classes = specs[0].classes;
  const py::ssize_t c = images.shape(1), h = images.shape(2), w = images.shape(3);
  Array<T> d_images = zero_array<T>({n, s.train.n, c, h, w}), d_labels = zero_array<T>({n, s.train.n, classes});
  Array<T> d_valid_images = zero_array<T>({n, s.valid.n, c, h, w}), d_valid_labels = zero_array<T>({n, s.valid.n, classes});
  Array<double> step_loss = nan_array<double>({n, steps}), d_rates = zero_array<double>({n, steps}), d_momenta = zero_array<double>({n, steps});
  std::vector<py::array> trained, d_initial;
  std::vector<HypergradientJob<T>> jobs(n);
  for (py::ssize_t k = 0; k < n; ++k) {
    HypergradientJob<T>& job = jobs[k];
    Array<T> trained_here = zero_array<T>({initial[k].size()}), d_initial_here = zero_array<T>({initial[k].size()});
    trained.push_back(trained_here), d_initial.push_back(d_initial_here);
    job.initial = initial[k].data();
    job.steps = steps, job.first_step = first_step;
    job.metric = named<Metric>("metric", metric, kMetricNames), job.metric_weight = metric_weight;
    job.step_weights = step_weights ? step_weights->data() : nullptr;
    job.step_loss = step_loss.mutable_data() + k * steps;
    job.trained = trained_here.mutable_data();
    job.d_images = d_images.mutable_data() + k * images.size();
    job.d_labels = d_labels.mutable_data() + k * labels.size();
    job.d_valid_images = d_valid_images.mutable_data() + k * s.valid.n * c * h * w;
    job.d_valid_labels = d_valid_labels.mutable_data() + k * s.valid.n * classes;
    job.d_rates = d_rates.mutable_data() + k * steps;
    job.d_momenta = d_momenta.mutable_data() + k * steps;
    job.d_initial = d_initial_here.mutable_data();
  }
  watched(threads, progress, [&](const Run& run) { hypergradients(motifs, s, jobs, memory, run); });
  const MetricRecord values = metric_record(n, {}, [&](py::ssize_t k) { return jobs[k].metrics; });
  return {array_of<double>(n, [&](py::ssize_t k) { return jobs[k].value; }),
          values.loss,
          values.probability,
          values.accuracy,
          step_loss,
          array_of<std::int64_t>(n, [&](py::ssize_t k) { return jobs[k].diverged_step; }),
          trained,
          d_images,
          d_labels,
          d_valid_images,
          d_valid_labels,
          d_rates,
          d_momenta,
          d_initial};
}

template <class T>
void bind_training_of(py::module_& m) {
  m.def("train", train_all<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("labels").noconvert(), py::arg("valid_images").noconvert().none(true),
        py::arg("valid_labels").noconvert().none(true), py::arg("order").noconvert(), py::arg("batch"), py::arg("drop_last"), py::arg("optimizer"),
        py::arg("rates").noconvert(), py::arg("parameters").noconvert(), py::arg("running").noconvert(), py::arg("batch_norm_momentum"),
        py::arg("batch_norm_eps"), py::arg("batch_statistics"), py::arg("evaluate"), py::arg("record_steps"), py::arg("direct_convolutions"),
        py::arg("threads"), py::arg("progress"));
  m.def("gradient", gradient<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("labels").noconvert(), py::arg("parameters").noconvert(),
        py::arg("metric"), py::arg("batch_norm_eps"), py::arg("want_parameters"), py::arg("want_images"), py::arg("direct_convolutions"), py::arg("threads"),
        py::arg("progress"));
  m.def("hypergradient", hypergradient<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("labels").noconvert(),
        py::arg("valid_images").noconvert().none(true), py::arg("valid_labels").noconvert().none(true), py::arg("order").noconvert(), py::arg("batch"),
        py::arg("drop_last"), py::arg("optimizer"), py::arg("rates").noconvert(), py::arg("initial").noconvert(), py::arg("steps"), py::arg("first_step"),
        py::arg("metric"), py::arg("metric_weight"), py::arg("step_weights").noconvert().none(true), py::arg("batch_norm_eps"), py::arg("memory"),
        py::arg("direct_convolutions"), py::arg("threads"), py::arg("progress"));
}

}  // namespace

void bind_train(py::module_& m) {
  RecordClass<MetricRecord>(m, "Metrics")
      .field("probability", &MetricRecord::probability)
      .field("loss", &MetricRecord::loss)
      .field("accuracy", &MetricRecord::accuracy)
      .field("logits", &MetricRecord::logits);
  RecordClass<TrainRecord>(m, "Training")
      .field("loss", &TrainRecord::loss)
      .field("accuracy", &TrainRecord::accuracy)
      .field("seconds", &TrainRecord::seconds)
      .field("diverged_step", &TrainRecord::diverged_step)
      .field("step_loss", &TrainRecord::step_loss)
      .field("step_accuracy", &TrainRecord::step_accuracy)
      .field("train", &TrainRecord::train)
      .field("valid", &TrainRecord::valid);
  RecordClass<GradientRecord>(m, "Gradient")
      .field("probability", &GradientRecord::probability)
      .field("loss", &GradientRecord::loss)
      .field("accuracy", &GradientRecord::accuracy)
      .field("d_parameters", &GradientRecord::d_parameters)
      .field("d_images", &GradientRecord::d_images)
      .field("d_labels", &GradientRecord::d_labels);
  RecordClass<HypergradientRecord>(m, "Hypergradient")
      .field("value", &HypergradientRecord::value)
      .field("loss", &HypergradientRecord::loss)
      .field("probability", &HypergradientRecord::probability)
      .field("accuracy", &HypergradientRecord::accuracy)
      .field("step_loss", &HypergradientRecord::step_loss)
      .field("diverged_step", &HypergradientRecord::diverged_step)
      .field("trained", &HypergradientRecord::trained)
      .field("d_images", &HypergradientRecord::d_images)
      .field("d_labels", &HypergradientRecord::d_labels)
      .field("d_valid_images", &HypergradientRecord::d_valid_images)
      .field("d_valid_labels", &HypergradientRecord::d_valid_labels)
      .field("d_rates", &HypergradientRecord::d_rates)
      .field("d_momenta", &HypergradientRecord::d_momenta)
      .field("d_initial", &HypergradientRecord::d_initial);
  bind_training_of<float>(m);
  bind_training_of<double>(m);
}

}  // namespace spd
