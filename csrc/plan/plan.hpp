// A plan is a motif as a list: which ops run in which order, and where their data lie in memory. It is built once per motif from the cell and the shape. It
// knows the width of vectors, but neither the element type nor the instruction set. network/network.hpp runs it.
//
// The forward pass runs `ops` in order, the backward pass in reverse. All tensors lie in one piece of memory, the arena. Three rules keep it small:
//   * The gradient of a tensor overwrites the tensor, which nobody reads any more by then: dy of a convolution overwrites y, and dx overwrites x. Only the
//     gradient of the global average pooling has a place of its own.
//   * Few normalised tensors are stored. A convolution computes the Sum that it reads itself, and once more for its weight gradient. The terms of that sum are
//     there anyway, because batch norms and poolings keep them. The sums that a 3x3 pooling or the head reads are computed chunk by chunk. Sums are stored
//     where a 2x2 pooling or one of the slower convolutions reads them, where they have a ReLU of their own, and where tangents need them (Passes::kept).
//   * Tensors that are not needed at the same time share a place. A tensor that only a pooling reads is not needed from then until its gradient comes. Without
//     a backward pass no tensor is needed after its last reader.
// The projections of a cell's input are one wide 1x1 convolution. In a cell with operations on its edges, so are the convolutions of one size that leave the
// same node: they all read ReLU of that node, and their outputs join other nodes through batch norm without ReLU.
//
// A multilayer perceptron is a plan over a grid of one pixel, whose channels are the features of an image. Its dense layers are 1x1 convolutions there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "grid.hpp"

namespace spd {

// The loss: softmax cross-entropy with one class for each image, or binary cross-entropy with one bit for each logit.
enum class Loss { softmax, binary };
inline constexpr const char* kLossNames[] = {"softmax", "binary"};

inline constexpr int kMostVertices = 7;

enum EdgeOp : std::uint8_t { no_edge, skip, edge_conv1x1, edge_conv3x3, edge_avgpool3x3 };  // in the same order as in nats_cell.py

// Describes a cell in a motif shape. The caller computes the channel counts, because the rule for them is in one place (spd_fast/motif.py). Or it describes a
// perceptron, by `hidden`, the slope, the classes and the size of images.
struct MotifSpec {
  // Cells have operations on vertices (NAS-Bench-101) or on edges (NATS-Bench).
  enum class Kind { vertex_cell, edge_cell, perceptron } kind = Kind::vertex_cell;
  int vertices = 0;
  std::vector<std::uint8_t> matrix;        // (vertices, vertices), row major: is there an edge from row to column; for an edge_cell, its EdgeOp
  std::vector<int> ops;                    // of a vertex_cell's interior vertices: 0 conv3x3, 1 conv1x1, 2 maxpool3x3
  std::vector<std::vector<int>> channels;  // for each cell of the motif, in order: those of all its vertices, input and output too
  int stem_channels = 0, stacks = 0, cells_per_stack = 0, classes = 0, image_channels = 0, height = 0, width = 0;
  std::vector<int> hidden;  // units of each hidden layer
  double slope = 1;         // of its sigmoid
  Loss loss = Loss::softmax;
};

// Returns the spec. Throws std::invalid_argument where its fields do not fit together.
MotifSpec checked(MotifSpec spec);

struct Optimizer {
  enum class Kind { adam, sgd, rmsprop } kind = Kind::adam;
  double momentum = 0;  // Adam's beta 1
  double decay = 0;     // Adam's beta 2, RMSProp's alpha
  double eps = 0, weight_decay = 0;
  bool nesterov = false;
};
inline constexpr const char* kOptimizerNames[] = {"adam", "sgd", "rmsprop"};

// A named tensor in the flat vector of parameters, or of running statistics. The names are those of PyTorch's state_dict.
struct NamedSlice {
  std::string name;
  std::size_t offset;
  std::vector<int> shape;
};

struct Place : Strides {
  std::size_t offset = 0;  // elements from the beginning of the arena
};

inline constexpr int kMostSources = 6;    // five interior predecessors (or successors) and the projection (or the output)
inline constexpr int kMostSegments = 12;  // of one tensor; a segment ends wherever one of six sources begins or ends

struct Source {
  Place place;
  int batch_norm = -1;  // forward: the first channel in the batch-norm arrays, or -1 where the tensor is read as it is
  bool relu = false;    // there is a ReLU behind the batch norm
  int step = 1;         // backward: 0 where one vector per channel serves all pixels, otherwise 1
};

// The channels begin..end - 1, and the n tensors that meet there. Each source's place is that of channel `begin`.
struct Segment {
  int begin = 0, end = 0, n = 0;
  Source source[kMostSources];
};

// Returns whether the gradient that flows to a segment can be read where it comes from. It can if it is one tensor and no lane has to be cleared for n images.
inline bool is_read_in_place(const Segment& s, const Grid& grid, int n) { return s.n == 1 && s.source[0].step == 1 && !grid.padded() && n % grid.images == 0; }

// How a 3x3 convolution runs: by conv3x3.hpp, winograd.hpp (along columns), winograd2d.hpp (along columns and rows) or conv3x3_channels.hpp (images of 2 x 2).
enum class Algorithm { direct, winograd, winograd2d, channels };
inline constexpr const char* kAlgorithmNames[] = {"direct", "winograd", "winograd2d", "channels"};
// Returns whether a 3x3 convolution on this grid can run by this algorithm.
inline bool fits(Algorithm how, const Grid& grid) {
  switch (how) {
    case Algorithm::winograd: return grid.fits_winograd();
    case Algorithm::winograd2d: return grid.fits_winograd2d();
    case Algorithm::channels: return grid.fits_channels();
    default: return true;
  }
}

struct Conv {  // a convolution and the batch norm behind it
  int grid = 0, size = 0, c_in = 0, c_out = 0;
  Place x, y;
  std::size_t weight = 0, gamma = 0, beta = 0;  // where they begin in the parameter vector
  int batch_norm = 0;                           // first channel in the batch-norm arrays
  Algorithm forward = Algorithm::direct, dgrad = Algorithm::direct, wgrad = Algorithm::direct;
  int sum = -1;                // the sum that the convolution computes itself instead of reading x, or -1; x is then the place of its gradient alone
  bool reads_images = false;   // dgrad runs only where the gradient of the images is asked for
  bool relu = true;            // there is a ReLU behind the batch norm
  std::vector<Segment> flows;  // where the gradient of its activation comes from
};
struct Sum {  // a sum of activations: the input of a vertex, or the output of a cell
  int grid = 0, channels = 0;
  Place z;
  std::vector<Segment> terms;
  bool passes = false;  // it is not stored; the op that reads it has its number in `sum` and computes it
  bool relu = false;
  std::size_t open = 0;        // where relu.hpp's bits begin, counted in elements of the arena
  std::vector<Segment> flows;  // where its gradient comes from; none where its one reader writes the gradient in its place
};
struct Pool {
  int from = 0, to = 0, channels = 0;  // the grids of x and y; the pooling is 3x3 where they are the same grid, otherwise 2x2
  bool average = false;                // the average is pooled, otherwise the maximum
  int sum = -1;                        // the sum that is computed right before the pooling, chunk by chunk, or -1
  Place x, y;
  std::size_t taken = 0;  // where the bytes begin that say which pixels won, counted in elements of the arena
  std::vector<Segment> flows;
};
struct Dense {   // a = sigmoid(slope (weight x + bias))
  Conv product;  // weight x
  Place a, da;   // da is where the gradient of a comes from
  std::size_t bias = 0;
  double slope = 1;
};
struct Head {
  int grid = 0, channels = 0, classes = 0;
  Loss loss = Loss::softmax;
  Place x;
  int sum = -1;        // the same as of a pooling
  std::size_t dx = 0;  // where the gradient of x begins, which is one vector per block and channel
  std::size_t weight = 0, bias = 0;
};

struct Op {
  enum class Kind { conv, sum, pool, dense, head } kind;
  int index;  // in the plan's vector of its kind
};

// Which passes a plan is for. kept: forward and backward, and every sum is stored from the one to the other.
enum class Passes { forward, forward_backward, kept };

struct Plan {
  Passes passes = Passes::forward_backward;
  int batch = 0, lanes = 0, image_channels = 0;
  std::vector<Grid> grids;
  std::vector<Op> ops;
  std::vector<int> runs;  // where each run ends; a run is ops on one grid of which none but the last, a convolution, needs the whole batch
  std::vector<Conv> convs;
  std::vector<Sum> sums;
  std::vector<Pool> pools;
  std::vector<Dense> dense;
  Head head;
  Place images;
  std::size_t arena = 0;  // its elements
  int batch_norms = 0;    // the channels of all batch norms
  std::size_t n_parameters = 0;
  std::vector<NamedSlice> parameters, running;
  double flops = 0;  // of one image's forward pass: 2 for each multiply-add of convolutions and dense layers
};

// Makes a plan. element_bytes is needed to count bytes in elements. The algorithm of each 3x3 convolution is chosen here, by its shape and never by timing, so
// that the same arguments give the same bits. With `direct_convolutions` every convolution is direct.
Plan make_plan(const MotifSpec& spec, int batch, Passes passes, int lanes, int element_bytes, bool direct_convolutions);

}  // namespace spd
