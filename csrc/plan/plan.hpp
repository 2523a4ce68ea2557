// A motif flattened: what runs in which order, and where its data lie. Built once per motif from the cell and the shape; knows the vector
// width, not the element type or the instruction set. Running it is network/network.hpp's part.
//
// Forward runs `ops` in order, backward in reverse. Three rules keep the arena small:
//   * the gradient of a tensor takes the tensor's own place (its last reader in the backward pass has gone by then): dy of a convolution
//     overwrites y, dx overwrites x; only the gradient of the average pooling has a place of its own;
//   * little that is normalised is stored. What a convolution reads (a Sum) it makes itself, and once more for its weight gradient, from what batch norms need
//     again anyway and from poolings; what a 3x3 pooling or the head reads is made chunk by chunk. Stored are the sums that 2x2 poolings and the slower
//     convolutions read, those with a ReLU of their own, and all where tangents need them (Passes::kept);
//   * tensors that are never of use at one moment share a place: what only a pooling read is dead until its gradient comes, and where there is no
//     backward pass everything is dead after its last reader.
// Sibling projections of a cell's input are one wide 1x1 convolution. So are convolutions of one size that leave a node of a cell with operations on
// its edges: there every convolution reads ReLU of a node, and what it writes joins other nodes through batch norm alone.
//
// A multilayer perceptron is a plan over a grid of one pixel, whose channels are the features of an image: its dense layers are 1x1 convolutions there.
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

enum EdgeOp : std::uint8_t { no_edge, skip, edge_conv1x1, edge_conv3x3, edge_avgpool3x3 };  // in the order of nats_cell.py

// A cell in a motif shape. The caller computes the channel counts, because the rule for them is in one place (cell.py). Or a perceptron, which
// `hidden`, the slope, the classes and the image's size describe.
struct MotifSpec {
  enum class Kind { vertex_cell, edge_cell, perceptron } kind = Kind::vertex_cell;  // operations on vertices (NAS-Bench-101), on edges (NATS-Bench)
  int vertices = 0;
  std::vector<std::uint8_t> matrix;        // (vertices, vertices), row major: edge from row to column; of an edge_cell, its EdgeOp
  std::vector<int> ops;                    // of the interior vertices of a vertex_cell: 0 conv3x3, 1 conv1x1, 2 maxpool3x3
  std::vector<std::vector<int>> channels;  // of each cell of the motif, in order: of each vertex, input and output among them
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

// A named tensor in the flat parameter vector (or in the flat vector of running statistics), PyTorch's state_dict names.
struct NamedSlice {
  std::string name;
  std::size_t offset;
  std::vector<int> shape;
};

struct Place : Strides {
  std::size_t offset = 0;  // elements from the beginning of the arena
};

inline constexpr int kMostSources = 6;    // five interior predecessors (or successors) and the projection (or the output)
inline constexpr int kMostSegments = 12;  // of a tensor: where one of six begins or ends

struct Source {
  Place place;
  int batch_norm = -1;  // forward: the first channel in the batch-norm arrays; -1: the tensor is read as it is
  bool relu = false;    // behind the batch norm
  int step = 1;         // backward: 0 where one vector per channel serves all pixels
};

// Channels begin..end - 1, and the tensors that meet there (each placed at channel `begin`).
struct Segment {
  int begin = 0, end = 0, n = 0;
  Source source[kMostSources];
};

// Whether what flows to a segment can be read where it comes from: it is one tensor, and no lane has to be cleared for n images.
inline bool is_read_in_place(const Segment& s, const Grid& grid, int n) { return s.n == 1 && s.source[0].step == 1 && !grid.padded() && n % grid.images == 0; }

// How a 3x3 convolution runs: conv3x3.hpp, winograd.hpp (along columns), winograd2d.hpp (along columns and rows).
enum class Algorithm { direct, winograd, winograd2d };
inline constexpr const char* kAlgorithmNames[] = {"direct", "winograd", "winograd2d"};
// Whether a 3x3 convolution can run like that there.
inline bool fits(Algorithm how, const Grid& grid) {
  return how == Algorithm::direct || (how == Algorithm::winograd ? grid.fits_winograd() : grid.fits_winograd2d());
}

struct Conv {  // convolution, and the batch norm behind it
  int grid = 0, size = 0, c_in = 0, c_out = 0;
  Place x, y;
  std::size_t weight = 0, gamma = 0, beta = 0;  // in the parameter vector
  int batch_norm = 0;                           // first channel in the batch-norm arrays
  Algorithm forward = Algorithm::direct, dgrad = Algorithm::direct, wgrad = Algorithm::direct;
  int sum = -1;                // that x is, where nothing but its gradient has that place
  bool reads_images = false;   // dgrad only where the images' gradient is asked for
  bool relu = true;            // behind the batch norm
  std::vector<Segment> flows;  // where the gradient of its activation comes from
};
struct Sum {  // activations that meet: vertex inputs, cell outputs
  int grid = 0, channels = 0;
  Place z;
  std::vector<Segment> terms;
  bool passes = false;  // kept nowhere: its reader has the number of it
  bool relu = false;
  std::size_t open = 0;        // relu.hpp's bits, counted in elements of the arena
  std::vector<Segment> flows;  // as of a pooling; none where its one reader writes the gradient in its place
};
struct Pool {
  int from = 0, to = 0, channels = 0;  // grids; 3x3 where they are one, 2x2 where not
  bool average = false;                // else the maximum
  int sum = -1;                        // as of a convolution; made right before it, chunk by chunk
  Place x, y;
  std::size_t taken = 0;  // what won: bytes, counted in elements of the arena
  std::vector<Segment> flows;
};
struct Dense {   // a = sigmoid(slope (weight x + bias))
  Conv product;  // weight x
  Place a, da;   // da: where the gradient of a comes from
  std::size_t bias = 0;
  double slope = 1;
};
struct Head {
  int grid = 0, channels = 0, classes = 0;
  Loss loss = Loss::softmax;
  Place x;
  int sum = -1;        // as of a pooling
  std::size_t dx = 0;  // one vector per block and channel
  std::size_t weight = 0, bias = 0;
};

struct Op {
  enum class Kind { conv, sum, pool, dense, head } kind;
  int index;  // into the vector of its kind
};

// kept: forward and backward, with every sum kept from the one to the other.
enum class Passes { forward, forward_backward, kept };

struct Plan {
  Passes passes = Passes::forward_backward;
  int batch = 0, lanes = 0, image_channels = 0;
  std::vector<Grid> grids;
  std::vector<Op> ops;
  std::vector<int> runs;  // where each run of ops ends: ops on one grid of which only the last, a convolution, needs the whole batch
  std::vector<Conv> convs;
  std::vector<Sum> sums;
  std::vector<Pool> pools;
  std::vector<Dense> dense;
  Head head;
  Place images;
  std::size_t arena = 0;  // elements
  int batch_norms = 0;    // batch-norm channels
  std::size_t n_parameters = 0;
  std::vector<NamedSlice> parameters, running;
  double flops = 0;  // of one image's forward: 2 x multiply-adds of convolutions and dense layers
};

// element_bytes: so that byte planes can be counted in elements. The algorithm of each 3x3 convolution is chosen here, by its shape and never by
// timing (same arguments, same bits); `direct_convolutions`: direct everywhere.
Plan make_plan(const MotifSpec& spec, int batch, Passes passes, int lanes, int element_bytes, bool direct_convolutions);

}  // namespace spd
