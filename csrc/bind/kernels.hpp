#pragma once

#include <pybind11/pybind11.h>

namespace spd {

// Every kernel beside its scalar reference, for tests and benches.
void bind_kernels(pybind11::module_& m);

}  // namespace spd
