// The ops of a plan, described in words and counts. A profile lists its seconds beside them.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "../plan/plan.hpp"

namespace spd {

// terms and flows count channels times the tensors that meet in each channel: terms of what the op reads, flows of the gradient that arrives. elements counts
// one channel of the whole batch, with the lanes that hold no pixel.
struct ConvOp {  // a convolution and its batch norm
  int size, c_in, c_out;
  std::size_t weight;  // where its weights begin in the parameter vector
  std::string forward, wgrad;
  std::optional<std::string> dgrad;  // none where the convolution reads the images
  int terms, flows;
  bool keeps;  // its weight gradient keeps what it transforms of dy in registers
  int height, width;
  std::size_t elements;
};
struct SumOp {
  int channels, terms, flows;
  bool gathers, passes, relu;
  int height, width;
  std::size_t elements;
};
struct PoolOp {
  int size;
  bool average;
  int channels, gathered;  // gathered counts channels times the tensors between which its gradient is gathered
  std::size_t elements_in;
  int height, width;
  std::size_t elements;
};
struct DenseOp {
  int c_in, c_out, height, width;
  std::size_t elements;
};
struct HeadOp {
  int channels, classes, terms, height, width;
  std::size_t elements;
};
using AnyOp = std::variant<ConvOp, SumOp, PoolOp, DenseOp, HeadOp>;

std::vector<AnyOp> ops_of(const Plan& plan);

// The names of the algorithms by which a 3x3 convolution of float32 can run on images of this size.
std::vector<std::string> algorithms_at(int height, int width);

}  // namespace spd
