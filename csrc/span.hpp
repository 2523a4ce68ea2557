// Where the time of a training step goes: seconds of each part of each op. Kept only where somebody asks (loops/profile.hpp); else a span is a branch on a null pointer.
#pragma once

#include <chrono>
#include <cstddef>

namespace spd {

// Of an op: forward (of a convolution: without its statistics) to backward; beside the ops: load and what follows.
enum class Part { forward, statistics, norm_backward, wgrad, dgrad, backward, load, loss, optimizer, running };
inline constexpr const char* kPartNames[] = {"forward", "statistics", "norm_backward", "wgrad", "dgrad", "backward", "load", "loss", "optimizer", "running"};
inline constexpr int kParts = sizeof kPartNames / sizeof *kPartNames;

inline double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct StepTimes {
  double* seconds = nullptr;  // (ops + 1, kParts): the last row is what lies beside the ops
  std::size_t op = 0;

  void add(Part part, double taken) { seconds[op * kParts + static_cast<int>(part)] += taken; }
};

// From here to `next` or to the end of the block.
class Span {
 public:
  Span(StepTimes* times, Part part) : times_(times), part_(part) {
    if (times_) since_ = seconds_now();
  }
  Span(const Span&) = delete;
  ~Span() {
    if (times_) times_->add(part_, seconds_now() - since_);
  }
  void next(Part part) {
    if (!times_) return;
    const double now = seconds_now();
    times_->add(part_, now - since_);
    part_ = part, since_ = now;
  }

 private:
  StepTimes* times_;
  Part part_;
  double since_ = 0;
};

}  // namespace spd
