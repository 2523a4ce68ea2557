#pragma once

#include <pybind11/pybind11.h>

namespace spd {

// NAS-Bench-101: the space, and the reader of its files. For spd_fast.nasbench101 alone.
void bind_nasbench(pybind11::module_& m);

}  // namespace spd
