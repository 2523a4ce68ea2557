// What the bindings of the engine's calls share: they check arrays, and run a call while signals are answered.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "../calls/calls.hpp"
#include "bind.hpp"

namespace spd {

// Returns the value of an enumeration that has this name.
template <class E, std::size_t n>
E named(const char* what, const std::string& name, const char* const (&names)[n]) {
  std::string expected;
  for (std::size_t i = 0; i < n; ++i) {
    if (name == names[i]) return static_cast<E>(i);
    expected += (i == 0 ? "'" : i + 1 < n ? ", '" : " or '") + std::string(names[i]) + "'";
  }
  fail(what + (" is '" + name + "', expected " + expected));
}

template <class T>
void expect_shape(const Array<T>& a, const char* name, const std::vector<py::ssize_t>& shape) {
  const bool same = a.ndim() == static_cast<py::ssize_t>(shape.size()) && std::equal(shape.begin(), shape.end(), a.shape());
  if (!same) fail(std::string(name) + " has shape " + std::string(py::str(a.attr("shape"))) + ", expected " + std::string(py::str(py::cast(shape))));
}

// Returns the data set of a call, which all of its motifs read.
template <class T>
DataSet<T> data_set(const Array<T>& images, const Array<T>& labels, const std::vector<MotifSpec>& specs) {
  if (specs.empty()) fail("no motif given");
  if (images.ndim() != 4) fail("images has " + std::to_string(images.ndim()) + " dimensions, expected 4: (N, C, H, W)");
  const py::ssize_t n = images.shape(0);
  if (n < 1) fail("images is empty");
  for (const MotifSpec& spec : specs) {
    expect_shape(images, "images", {n, spec.image_channels, spec.height, spec.width});
    expect_shape(labels, "labels", {n, spec.classes});
  }
  return {images.data(), labels.data(), static_cast<int>(n)};
}

// Checks that there is one flat vector of weights for each motif.
template <class T>
void expect_parameters(const std::vector<Array<T>>& parameters, const Motifs<T>& motifs) {
  if (parameters.size() != motifs.plans.size()) fail("expected one vector of parameters for each motif");
  for (std::size_t k = 0; k < motifs.plans.size(); ++k) expect_shape(parameters[k], "parameters", {static_cast<py::ssize_t>(motifs.plans[k].n_parameters)});
}

// Answers signals and reports progress on the calling thread, for which it takes the GIL. It remembers what was raised.
class Watch {
 public:
  explicit Watch(py::object progress) : progress_(std::move(progress)) {}
  bool operator()(double share) {
    const py::gil_scoped_acquire gil;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!progress_.is_none()) progress_(share);
      return true;
    } catch (py::error_already_set& e) {
      raised_.emplace(e);
      return false;
    }
  }
  void rethrow() {
    if (raised_) throw *raised_;
  }

 private:
  py::object progress_;
  std::optional<py::error_already_set> raised_;
};

// Calls call(run) without the GIL, and raises what the watch remembers.
template <class F>
void watched(int threads, py::object progress, F&& call) {
  Watch watch(progress);
  {
    const py::gil_scoped_release release;
    call(Run{threads, [&](double share) { return watch(share); }});
  }
  watch.rethrow();
  if (!progress.is_none()) progress(1.0);
}

template <class T>
Array<T> filled_array(std::vector<py::ssize_t> shape, T value) {
  Array<T> a(shape);
  std::fill(a.mutable_data(), a.mutable_data() + a.size(), value);
  return a;
}
template <class T>
Array<T> nan_array(std::vector<py::ssize_t> shape) {
  return filled_array<T>(shape, std::numeric_limits<T>::quiet_NaN());
}
template <class T>
Array<T> zero_array(std::vector<py::ssize_t> shape) {
  return filled_array<T>(shape, T(0));
}
// Returns an array of value(k) for k = 0..n - 1.
template <class T, class F>
Array<T> array_of(py::ssize_t n, F&& value) {
  Array<T> a(std::vector<py::ssize_t>{n});
  for (py::ssize_t k = 0; k < n; ++k) a.mutable_data()[k] = value(k);
  return a;
}

}  // namespace spd
