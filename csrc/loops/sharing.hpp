// Finds out how much of a training step a team should share.
#pragma once

#include <algorithm>
#include <limits>

#include "../network/network.hpp"
#include "../span.hpp"

namespace spd::SPD_ISA {

// Decides what a team shares of the steps of a training. Threads that read what others wrote may lose more time than sharing saves, where layers are small or
// cores share no cache. So now and then some steps are taken in each way, and the fastest way is kept. All ways give the same bits.
class Sharing {
 public:
  // Calls f, which is a step of n images. The networks of two steps may differ: what counts is the time for a FLOP.
  template <class T, class F>
  void step(Network<T>& network, const Team& team, int n, F&& f) {
    using Share = typename Network<T>::Share;
    constexpr Share ways[kWays]{Share::most, Share::large, Share::nothing};
    if (team.size() == 1) return f();
    network.share(ways[way_ < kWays ? way_ : best_]);
    const double start = seconds_now();
    f();
    batch_ = std::max(batch_, n);
    if (n < batch_) return;  // the time of a smaller last batch says nothing
    if (way_ < kWays)
      tried((seconds_now() - start) / network.plan().flops);
    else if (++kept_ == keep_)
      way_ = kept_ = 0, keep_ = kKept, least_ = kNever;
  }

 private:
  static constexpr int kWays = 3, kTries = 2, kKept = 300;
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  static constexpr double kFar = 1.5;  // a way that took so many times as long as the best is not tried again

  void tried(double seconds) {
    taken_ = std::min(taken_, seconds);
    if (++try_ < kTries && taken_ < kFar * least_) return;
    if (taken_ < least_) least_ = taken_, best_ = way_;
    ++way_, try_ = 0, taken_ = kNever;
  }

  int way_ = 0, try_ = 0, best_ = 0, kept_ = 0, batch_ = 0;
  int keep_ = 60;  // steps that the best way is kept for; few at first, when much is slow for other reasons
  double taken_ = kNever, least_ = kNever;
};

}  // namespace spd::SPD_ISA
