#pragma once

#include <pybind11/pybind11.h>

namespace spd {

// Where the time of a training step goes, and what the machine can do at most.
void bind_measure(pybind11::module_& m);

}  // namespace spd
