#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "../engine.hpp"

namespace spd {
namespace {

struct Choice {
  std::string_view name;
  bool (*runs)();
  const Engine& (*get)();
};

// The best comes first.
const Choice choices[] = {
#if defined(__x86_64__)
    {"avx512",
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq");
     },
     avx512::engine},
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }, avx2::engine},
#endif
    {"baseline", [] { return true; }, baseline::engine},
};

const Engine& choose() {
  const char* wanted = std::getenv("SPD_FAST_ISA");
  std::string names;
  for (const Choice& c : choices) {
    if (!c.runs()) continue;
    if (!wanted || !*wanted || c.name == wanted) return c.get();
    names += (names.empty() ? "" : ", ") + std::string(c.name);
  }
  throw std::invalid_argument("SPD_FAST_ISA is '" + std::string(wanted) + "', expected one of those that this machine runs: " + names);
}

}  // namespace

const Engine& engine() {
  static const Engine& chosen = choose();
  return chosen;
}

}  // namespace spd
