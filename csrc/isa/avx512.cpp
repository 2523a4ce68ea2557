#define SPD_ISA avx512
#include "functions.hpp"

namespace spd::avx512 {
const Engine& engine() {
  static const Engine engine{"avx512", kFewWgrad, engine_functions<float>(), engine_functions<double>()};
  return engine;
}
}  // namespace spd::avx512
