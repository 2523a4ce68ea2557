// Where the time of a training step goes: the seconds of each part of each op. They are measured only for a profile (loops/profile.hpp). Otherwise a span costs
// one branch on a null pointer.
#pragma once

#include <chrono>
#include <cstddef>

namespace spd {

// forward to backward are parts of an op; the forward of a convolution is without its statistics. load and what follows belong to no op.
enum class Part { forward, statistics, norm_backward, wgrad, dgrad, backward, load, loss, optimizer, running };
inline constexpr const char* kPartNames[] = {"forward", "statistics", "norm_backward", "wgrad", "dgrad", "backward", "load", "loss", "optimizer", "running"};
inline constexpr int kParts = sizeof kPartNames / sizeof *kPartNames;

inline double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct StepTimes {
  double* seconds = nullptr;  // (ops + 1, kParts); the last row is for the parts that belong to no op
  std::size_t op = 0;

  void add(Part part, double taken) { seconds[op * kParts + static_cast<int>(part)] += taken; }
};

// Times a part: from where the object is made to `next`, or to the end of its block.
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
