#define SPD_ISA baseline
#include "functions.hpp"

namespace spd::baseline {
const Engine& engine() {
  static const Engine engine{"baseline", kFewWgrad, engine_functions<float>(), engine_functions<double>()};
  return engine;
}
}  // namespace spd::baseline
