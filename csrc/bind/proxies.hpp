#pragma once

#include <pybind11/pybind11.h>

namespace spd {

// The engine's part of zero-cost proxies.
void bind_proxies(pybind11::module_& m);

}  // namespace spd
