#include "machine.hpp"

#include <stdexcept>

#include "../engine.hpp"
#include "../threads/memory.hpp"

namespace spd {
namespace {

// Returns rate(data, n, seconds). n is a multiple of eight vectors of any instruction set.
template <class F>
double rate_of(F&& rate, std::size_t bytes, double seconds) {
  constexpr std::size_t step = 1024;
  if (bytes == 0) throw std::invalid_argument("bytes is 0, expected at least 1");
  Memory memory;
  const std::size_t n = (bytes / sizeof(float) + step - 1) / step * step;
  return rate(static_cast<float*>(memory.zeroed(n * sizeof(float))), n, seconds);
}

}  // namespace

double fma_peak(double seconds) { return engine().f32.peak(seconds); }
double clock_rate(double seconds) { return engine().f32.clock(seconds); }
double read_rate(std::size_t bytes, double seconds) { return rate_of(engine().f32.read, bytes, seconds); }
double write_rate(std::size_t bytes, double seconds) { return rate_of(engine().f32.write, bytes, seconds); }

}  // namespace spd
