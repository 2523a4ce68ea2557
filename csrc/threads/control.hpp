// The threads that do the jobs and the one that waits for them share this record. Through it the one that waits may ask the others to stop.
#pragma once

#include <atomic>

namespace spd {

struct Control {
  std::atomic<bool> stop{false};
  std::atomic<double> done{0};  // so far, in the unit of the costs: FLOPs, or steps of a supernet

  void add(double flops) { done.fetch_add(flops, std::memory_order_relaxed); }
};

}  // namespace spd
