// Decides which tensors of a plan share memory. Those that are not needed at the same time may have one place.
#pragma once

#include <cstddef>
#include <vector>

#include "plan.hpp"

namespace spd {

// Gives every tensor a place of its own while a plan is built, and then lets them share.
class Places {
 public:
  // Returns where a new tensor begins. grid is -1 where the tensor is not in the row-vector layout. A tensor
  // that is_sliced has as many elements again for the second slice.
  std::size_t take(std::size_t elements, int grid = -1, bool is_sliced = false);
  // Returns where the tensor begins to which this element belongs. To be called before `share`.
  std::size_t begin_of(std::size_t offset) { return tensor_at(offset).begin; }
  // Moves all places in the plan to where they share memory, and sets the size of the arena. The plan's ops and runs must be complete.
  void share(Plan& plan);

 private:
  // A time in which a tensor is needed: from the op `first` to the op `last`, both included. Ops are counted through the forward and the backward pass.
  struct Life {
    int first, last;
  };
  static constexpr std::size_t kGuard = 64;  // elements around the parts of the arena that shifted loads may read
  struct Tensor {
    std::size_t begin, elements;  // as they are while no two tensors share a place
    int grid;                     // these two as of `take`
    bool is_sliced;
    std::vector<Life> lives;
    int part = 0;  // the part of the arena that it is in
    std::size_t place = kGuard;
  };

  Tensor& tensor_at(std::size_t offset);
  void find_lives(const Plan& plan);

  std::vector<Tensor> tensors_;
  // The moment of each op, counted like lives. In the forward pass it is the same for all ops of a run. In the backward pass each op has its own, and a
  // convolution's batch norm and product have two.
  std::vector<int> moment_;
};

}  // namespace spd
