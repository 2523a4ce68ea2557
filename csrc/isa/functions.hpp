// The table of functions (engine.hpp) of one instruction set. One source file for each set includes this header, with SPD_ISA defined as the namespace in which
// the functions are compiled.
#pragma once

#include "../checks/kernels.hpp"
#include "../checks/machine.hpp"
#include "../engine.hpp"
#include "../loops/gradient.hpp"
#include "../loops/hypergradient.hpp"
#include "../loops/profile.hpp"
#include "../loops/proxies.hpp"
#include "../loops/supernet.hpp"
#include "../loops/train.hpp"

namespace spd::SPD_ISA {

template <class T>
EngineFunctions<T> engine_functions() {
  return {lanes<T>,
          training_memory<T>,
          train_motif<T>,
          train_supernet<T>,
          motif_gradient<T>,
          hypergradient_memory<T>,
          motif_hypergradient<T>,
          conv_check<T>,
          batch_norm_check<T>,
          pool_check<T>,
          relu_check<T>,
          head_check<T>,
          dense_check<T>,
          motif_profile<T>,
          logit_gradient<T>,
          activations<T>,
          fma_peak<T>,
          read_rate<T>,
          write_rate<T>,
          clock_rate};
}

#define SPD_QUOTED(name) #name
#define SPD_NAME(name) SPD_QUOTED(name)
const Engine& engine() {
#if SPD_VECTOR_BYTES == 64
  // With AVX-512 the kernels of AVX2 compute in double, which verifies float and is hardly ever trained in. That saves a sixth of the build.
  static const Engine engine{SPD_NAME(SPD_ISA), kFewWgrad, engine_functions<float>(), avx2::engine().f64};
#else
  static const Engine engine{SPD_NAME(SPD_ISA), kFewWgrad, engine_functions<float>(), engine_functions<double>()};
#endif
  return engine;
}

}  // namespace spd::SPD_ISA
