// How a team comes to work on the steps of one training.
#pragma once

#include <algorithm>
#include <limits>

#include "../network/network.hpp"
#include "../span.hpp"

namespace spd::SPD_ISA {

// What a team is to share of the steps of a training. What its threads write for each other may cost more than they save (small layers, cores that share no
// cache), so now and then some steps are taken each way, and the fastest is kept. The bits are the same.
class Sharing {
 public:
  // f: a step, of n images.
  template <class T, class F>
  void step(Network<T>& network, const Team& team, int n, F&& f) {
    using Share = typename Network<T>::Share;
    constexpr Share ways[kWays]{Share::most, Share::large, Share::nothing};
    if (team.size() == 1) return f();
    network.share(ways[way_ < kWays ? way_ : best_]);
    const double start = seconds_now();
    f();
    batch_ = std::max(batch_, n);
    if (n < batch_) return;  // a small last batch is no measure
    if (way_ < kWays)
      tried(seconds_now() - start);
    else if (++kept_ == keep_)
      way_ = kept_ = 0, keep_ = kKept, least_ = kNever;
  }

 private:
  static constexpr int kWays = 3, kTries = 2, kKept = 300;
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  static constexpr double kFar = 1.5;  // times as long as the best in one try: not worth another

  void tried(double seconds) {
    taken_ = std::min(taken_, seconds);
    if (++try_ < kTries && taken_ < kFar * least_) return;
    if (taken_ < least_) least_ = taken_, best_ = way_;
    ++way_, try_ = 0, taken_ = kNever;
  }

  int way_ = 0, try_ = 0, best_ = 0, kept_ = 0, batch_ = 0;
  int keep_ = 60;  // at first, when much is slow for other reasons, not for long
  double taken_ = kNever, least_ = kNever;
};

}  // namespace spd::SPD_ISA
