// What one core of this machine can do at most, with the instruction set in use.
#pragma once

#include <cstddef>

namespace spd {

// Each measures for so many seconds: FLOP/s of multiply-adds, cycles/s, and bytes/s of reading and of writing a working set of so many bytes.
double fma_peak(double seconds);
double clock_rate(double seconds);
double read_rate(std::size_t bytes, double seconds);
double write_rate(std::size_t bytes, double seconds);

}  // namespace spd
