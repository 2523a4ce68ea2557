#include "jobs.hpp"

namespace spd {
namespace {

struct SupernetRecord {
  Array<double> step_loss, step_accuracy;
  std::int64_t diverged_step;
};

template <class T>
SupernetRecord train_steps(const std::vector<MotifSpec>& specs, Array<T> images, Array<T> labels, Array<std::int64_t> order, const Optimizer& optimizer,
                           Array<double> rates, long first_step, std::vector<Array<std::int32_t>> slices, Array<T> weights, Array<T> first, Array<T> second,
                           double batch_norm_eps, bool direct_convolutions, int threads, py::object progress) {
  SupernetJob<T> job{};
  job.data = data_set<T>(images, labels, specs);
  const py::ssize_t steps = static_cast<py::ssize_t>(specs.size()), n = weights.size();
  if (order.ndim() != 2 || order.shape(1) < 1) fail("order must have shape (steps, batch)");
  expect_shape(order, "order", {steps, order.shape(1)});
  if (std::any_of(order.data(), order.data() + order.size(), [&](std::int64_t i) { return i < 0 || i >= job.data.n; }))
    fail("an entry of order is not one of 0 to N - 1");
  expect_shape(rates, "rates", {steps});
  expect_shape(weights, "weights", {n}), expect_shape(first, "first", {n}), expect_shape(second, "second", {n});
  if (slices.size() != specs.size()) fail("expected one slice for each step");
  std::vector<const std::int32_t*> where;
  std::vector<std::size_t> sizes;
  for (const Array<std::int32_t>& slice : slices) {
    if (std::any_of(slice.data(), slice.data() + slice.size(), [&](std::int32_t j) { return j < 0 || j >= n; }))
      fail("an entry of a slice is not one of the supernet's weights");
    where.push_back(slice.data()), sizes.push_back(slice.size());
  }
  Array<double> step_loss = nan_array<double>({steps}), step_accuracy = nan_array<double>({steps});
  job.order = order.data(), job.batch = static_cast<int>(order.shape(1));
  job.steps = steps, job.first_step = first_step;
  job.optimizer = optimizer, job.rates = rates.data(), job.batch_norm_eps = batch_norm_eps;
  job.slices = where.data();
  job.weights = weights.mutable_data(), job.a = first.mutable_data(), job.b = second.mutable_data(), job.n_weights = n;
  job.step_loss = step_loss.mutable_data(), job.step_accuracy = step_accuracy.mutable_data();
  watched(threads, progress, [&](const Run& run) { train_supernet(specs, sizes, direct_convolutions, job, run); });
  return {step_loss, step_accuracy, job.diverged_step};
}

template <class T>
void bind_supernet_of(py::module_& m) {
  m.def("train_supernet", train_steps<T>, py::arg("specs"), py::arg("images").noconvert(), py::arg("labels").noconvert(), py::arg("order").noconvert(),
        py::arg("optimizer"), py::arg("rates").noconvert(), py::arg("first_step"), py::arg("slices").noconvert(), py::arg("weights").noconvert(),
        py::arg("first").noconvert(), py::arg("second").noconvert(), py::arg("batch_norm_eps"), py::arg("direct_convolutions"), py::arg("threads"),
        py::arg("progress"));
}

}  // namespace

void bind_supernet(py::module_& m) {
  RecordClass<SupernetRecord>(m, "SupernetSteps")
      .field("step_loss", &SupernetRecord::step_loss)
      .field("step_accuracy", &SupernetRecord::step_accuracy)
      .field("diverged_step", &SupernetRecord::diverged_step);
  bind_supernet_of<float>(m);
  bind_supernet_of<double>(m);
}

}  // namespace spd
