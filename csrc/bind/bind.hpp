// What every file of bind/ uses, which is arrays and records as Python sees them; and what each file adds to the module.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

namespace py = pybind11;

namespace spd {

template <class T>
using Array = py::array_t<T, py::array::c_style>;  // no argument is copied: the Python side hands over arrays that fit and that nobody else can change

[[noreturn]] inline void fail(const std::string& what) { throw py::value_error(what); }

// Defines the Python class of a record. Python reads the fields and cannot set them; __match_args__ lists their names.
template <class R>
class RecordClass {
 public:
  RecordClass(py::module_& m, const char* name) : of_(m, name) {}
  template <class V, class Base>
  RecordClass& field(const char* name, V Base::* member) {
    of_.def_readonly(name, member);
    fields_.append(name);
    of_.attr("__match_args__") = py::tuple(fields_);
    return *this;
  }

 private:
  py::class_<R> of_;
  py::list fields_;
};

// Training, gradients, and the derivative of a whole training.
void bind_train(py::module_& m);
// Training on cells that share their weights.
void bind_supernet(py::module_& m);
// The derivatives and counts of which zero-cost proxies are made.
void bind_proxies(py::module_& m);
// Where the time of a training step goes, and what the machine can do at most.
void bind_measure(py::module_& m);
// Every kernel and its scalar reference, for tests and benches.
void bind_kernels(py::module_& m);
// NAS-Bench-101: the space, and the reader of its files. spd_fast.nasbench101 alone uses them.
void bind_nasbench(py::module_& m);

}  // namespace spd
