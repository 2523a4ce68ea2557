#pragma once

#include <pybind11/pybind11.h>

namespace spd {

// Training, and gradients of it and through it.
void bind_train(pybind11::module_& m);

}  // namespace spd
