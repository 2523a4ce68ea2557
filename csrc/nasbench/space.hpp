// Enumerates the NAS-Bench-101 space without a file: every cell, its official hash and its number of parameters.
//
// A matrix is packed in edge_bits. Bit x + y (y - 1) / 2 is set when an edge leads from vertex x to vertex y > x. Op codes take two bits for each interior
// vertex, and the first vertex has the lowest bits: 0 is conv3x3-bn-relu, 1 conv1x1-bn-relu, 2 maxpool3x3. All places above the last vertex are 3.
// Source: Ying et al. 2019, arXiv:1902.09635, and the published reference implementation's hashing, pruning and vertex channels.
#pragma once

#include <functional>
#include <vector>

#include "md5.hpp"

namespace spd::nasbench {

inline constexpr int max_vertices = 7, max_edges = 9;

struct Graph {
  int vertices;
  std::uint32_t edge_bits;
  bool has_edge(int x, int y) const { return x < y && edge_bits >> (x + y * (y - 1) / 2) & 1; }
};

// Runs job(i) for i = 0 .. costs.size() - 1 in any order, perhaps at the same time.
using ForEach = std::function<void(const std::vector<double>& costs, const std::function<void(int)>& job)>;

// Cells as columns. Each cell has a row, in ascending order of module_hash.
struct Columns {
  std::vector<Digest> module_hash;
  std::vector<std::uint8_t> vertices;
  std::vector<std::uint32_t> edge_bits;
  std::vector<std::uint16_t> op_codes;
  std::vector<std::int32_t> trainable_parameters;
};

// Returns all 423,624 cells. Of isomorphic cells it returns the one with the smallest edge_bits, and then the smallest op codes in vertex order. It compares
// matrices and op codes, not hashes. So it is a fact and not an assumption that cells which are not isomorphic have different hashes.
Columns enumerate_space(const ForEach& for_each);

// Computes the official hashes of any `n` pruned cells. Throws std::invalid_argument unless each has 2 to 7 vertices.
void hash_cells(Digest* module_hash, const std::uint8_t* vertices, const std::uint32_t* edge_bits, const std::uint16_t* op_codes, std::size_t n,
                const ForEach& for_each);

// Returns the trainable parameters of the benchmark's network, which has 128 stem channels, 3 stacks of 3 cells, and 10 classes.
std::int32_t benchmark_parameters(const Graph& graph, std::uint32_t op_codes);

}  // namespace spd::nasbench
