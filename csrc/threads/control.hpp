// What is shared by the threads that do the jobs and the one that waits for them, which may ask them to stop.
#pragma once

#include <atomic>

namespace spd {

struct Control {
  std::atomic<bool> stop{false};
  std::atomic<double> done{0};  // FLOPs

  void add(double flops) { done.fetch_add(flops, std::memory_order_relaxed); }
};

}  // namespace spd
