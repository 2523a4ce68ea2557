// Which tensors of a plan share memory: those that are never of use at one moment may have one place.
#pragma once

#include <cstddef>
#include <vector>

#include "plan.hpp"

namespace spd {

// Gives every tensor a place of its own while a plan is built, and then lets them share.
class Places {
 public:
  // Where a tensor begins. grid: -1 where it is not in the layout; is_sliced: it has as many elements again for the second slice.
  std::size_t take(std::size_t elements, int grid = -1, bool is_sliced = false);
  // Of the tensor that has this place among its elements, before `share`.
  std::size_t begin_of(std::size_t offset) { return tensor_at(offset).begin; }
  // Moves all places in the plan, whose ops and runs are complete, to where they share memory; sets the size of the arena.
  void share(Plan& plan);

 private:
  struct Life {  // ops, counted through forward and backward, while what a tensor holds is of use, both ends among them
    int first, last;
  };
  static constexpr std::size_t kGuard = 64;  // readable elements around the parts of the arena (shifted loads)
  struct Tensor {
    std::size_t begin, elements;  // as if no two shared a place
    int grid;                     // -1: not in the layout
    bool is_sliced;               // then it has as many elements again for the second slice
    std::vector<Life> lives;
    int part = 0;  // of the arena
    std::size_t place = kGuard;
  };

  Tensor& tensor_at(std::size_t offset);
  void find_lives(const Plan& plan);

  std::vector<Tensor> tensors_;
  std::vector<int> moment_;  // of each op, forward and backward: its run; in the backward pass, itself; a convolution's batch norm and product are two
};

}  // namespace spd
