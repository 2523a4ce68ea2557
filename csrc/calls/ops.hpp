// The ops of a plan in words and counts, for whoever sets the seconds of a profile beside them.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "../plan/plan.hpp"

namespace spd {

// terms, flows: channels times the tensors that meet in each, of what is read and of the gradient. elements: of one channel of the batch, lanes without a
// pixel among them.
struct ConvOp {  // with its batch norm
  int size, c_in, c_out;
  std::size_t weight;  // where its weights begin in the parameter vector
  std::string forward, wgrad;
  std::optional<std::string> dgrad;  // none where it reads the images
  int terms, flows;
  bool keeps;  // its weight gradient keeps one side in registers
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
  int channels, gathered;  // gathered: channels times the tensors that its gradient is gathered from and to
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
