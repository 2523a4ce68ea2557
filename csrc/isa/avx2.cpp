#define SPD_ISA avx2
#include "functions.hpp"

namespace spd::avx2 {
const Engine& engine() {
  static const Engine engine{"avx2", kFewWgrad, engine_functions<float>(), engine_functions<double>()};
  return engine;
}
}  // namespace spd::avx2
