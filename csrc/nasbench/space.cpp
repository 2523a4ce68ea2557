#include "space.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <stdexcept>
#include <string>

namespace spd::nasbench {
namespace {

constexpr std::uint32_t absent = 3;
constexpr int op_places = max_vertices - 2;

std::uint32_t edge_bit(int x, int y) { return std::uint32_t{1} << (x + y * (y - 1) / 2); }

// Returns whether every vertex lies on a path from input to output, so that nothing would be pruned.
bool is_full(const Graph& g) {
  for (int v = 0; v < g.vertices; ++v) {
    bool in = v == 0, out = v == g.vertices - 1;
    for (int u = 0; u < g.vertices; ++u) in |= g.has_edge(u, v), out |= g.has_edge(v, u);
    if (!in || !out) return false;  // edges lead upwards, so following any of them ends at the input or output
  }
  return true;
}

using Order = std::array<int, max_vertices>;  // the new number of every vertex

// Returns edge_bits after renumbering, or 0 where an edge would lead to a lower number.
std::uint32_t renumbered(const Graph& g, const Order& order) {
  std::uint32_t bits = 0;
  for (int y = 1; y < g.vertices; ++y)
    for (int x = 0; x < y; ++x)
      if (g.has_edge(x, y)) {
        if (order[x] > order[y]) return 0;
        bits |= edge_bit(order[x], order[y]);
      }
  return bits;
}

// Returns whether no renumbering of the interior gives smaller edge_bits. If so, `symmetries` lists the renumberings that give the same ones.
bool is_smallest(const Graph& g, std::vector<Order>& symmetries) {
  symmetries.clear();
  Order order{};
  std::iota(order.begin(), order.begin() + g.vertices, 0);
  while (std::next_permutation(order.begin() + 1, order.begin() + g.vertices - 1)) {
    const std::uint32_t bits = renumbered(g, order);
    if (bits && bits < g.edge_bits) return false;
    if (bits == g.edge_bits) symmetries.push_back(order);
  }
  return true;
}

// Returns whether no symmetry gives smaller op codes. They are compared from vertex 1 on.
bool is_smallest(const Graph& g, const Order& ops, const std::vector<Order>& symmetries) {
  for (const Order& order : symmetries) {
    Order moved{};
    for (int v = 1; v < g.vertices - 1; ++v) moved[order[v]] = ops[v];
    if (std::lexicographical_compare(moved.begin() + 1, moved.begin() + g.vertices - 1, ops.begin() + 1, ops.begin() + g.vertices - 1)) return false;
  }
  return true;
}

std::uint16_t packed(const Graph& g, const Order& ops) {
  std::uint32_t codes = 0;
  for (int i = 0; i < op_places; ++i) codes |= (i < g.vertices - 2 ? static_cast<std::uint32_t>(ops[i + 1]) : absent) << 2 * i;
  return static_cast<std::uint16_t>(codes);
}

// Returns the op codes of every cell with this matrix. None of the cells is isomorphic to another.
std::vector<std::uint16_t> labellings(const Graph& g, const std::vector<Order>& symmetries) {
  std::vector<std::uint16_t> found;
  int total = 1;
  for (int v = 1; v < g.vertices - 1; ++v) total *= 3;
  for (int i = 0; i < total; ++i) {
    Order ops{};
    for (int v = g.vertices - 2, rest = i; v >= 1; --v, rest /= 3) ops[v] = rest % 3;
    if (is_smallest(g, ops, symmetries)) found.push_back(packed(g, ops));
  }
  return found;
}

void write_hex(std::uint8_t* text, const Digest& digest) {
  for (int i = 0; i < 16; ++i) text[2 * i] = "0123456789abcdef"[digest[i] >> 4], text[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
}

// Sorts by insertion, as there are at most seven. Digests have the same order as their hexadecimal digits.
void sort(const Digest** digests, std::size_t n) {
  for (std::size_t i = 1; i < n; ++i)
    for (std::size_t j = i; j > 0 && *digests[j] < *digests[j - 1]; --j) std::swap(digests[j], digests[j - 1]);
}

// Computes the official hashes of md5_lanes cells with one matrix:
//
//   h_v = md5(str((out_degree, in_degree, label)))
//   V times, for all v together: h_v = md5(sorted h of in-neighbours + "|" + sorted h of out-neighbours + "|" + h_v)
//   md5(str(sorted(h)))
void hash_lanes(Digest* module_hash, const Graph& g, const std::uint16_t* op_codes) {
  constexpr std::size_t hex = 32;
  const int n = g.vertices;
  std::array<std::array<Digest, md5_lanes>, max_vertices> now, next;
  std::uint8_t text[md5_lanes][max_vertices * (hex + 4)];
  const std::uint8_t* message[md5_lanes];
  for (int lane = 0; lane < md5_lanes; ++lane) message[lane] = text[lane];

  std::array<std::vector<int>, max_vertices> sources, targets;
  for (int v = 0; v < n; ++v)
    for (int u = 0; u < n; ++u) {
      if (g.has_edge(u, v)) sources[v].push_back(u);
      if (g.has_edge(v, u)) targets[v].push_back(u);
    }
  for (int v = 0; v < n; ++v) {
    int length = 0;
    for (int lane = 0; lane < md5_lanes; ++lane) {
      const int label = v == 0 ? -1 : v == n - 1 ? -2 : op_codes[lane] >> 2 * (v - 1) & 3;
      length = std::snprintf(reinterpret_cast<char*>(text[lane]), sizeof text[lane], "(%d, %d, %d)", static_cast<int>(targets[v].size()),
                             static_cast<int>(sources[v].size()), label);
    }
    md5(now[v].data(), message, static_cast<std::size_t>(length));
  }
  const auto write_sorted = [&](std::uint8_t* to, const std::vector<int>& vertices, int lane) {
    const Digest* sorted[max_vertices];
    for (std::size_t i = 0; i < vertices.size(); ++i) sorted[i] = &now[vertices[i]][lane];
    sort(sorted, vertices.size());
    for (std::size_t i = 0; i < vertices.size(); ++i, to += hex) write_hex(to, *sorted[i]);
    return to;
  };
  for (int round = 0; round < n; ++round) {
    for (int v = 0; v < n; ++v) {
      for (int lane = 0; lane < md5_lanes; ++lane) {
        std::uint8_t* end = write_sorted(text[lane], sources[v], lane);
        *end++ = '|';
        end = write_sorted(end, targets[v], lane);
        *end++ = '|';
        write_hex(end, now[v][lane]);
      }
      md5(next[v].data(), message, (sources[v].size() + targets[v].size() + 1) * hex + 2);
    }
    std::swap(now, next);
  }
  std::size_t length = 0;
  for (int lane = 0; lane < md5_lanes; ++lane) {
    const Digest* sorted[max_vertices];
    for (int v = 0; v < n; ++v) sorted[v] = &now[v][lane];
    sort(sorted, static_cast<std::size_t>(n));
    std::uint8_t* end = text[lane];
    for (int v = 0; v < n; ++v) {
      std::memcpy(end, v ? ", '" : "['", v ? 3 : 2);
      end += v ? 3 : 2;
      write_hex(end, *sorted[v]);
      end[hex] = '\'';
      end += hex + 1;
    }
    *end++ = ']';
    length = static_cast<std::size_t>(end - text[lane]);
  }
  md5(module_hash, message, length);
}

// Does the same for any number of cells with one matrix.
void hash_labellings(Digest* module_hash, const Graph& g, const std::uint16_t* op_codes, std::size_t n) {
  for (std::size_t i = 0; i < n; i += md5_lanes) {
    const std::size_t here = std::min<std::size_t>(md5_lanes, n - i);
    std::uint16_t codes[md5_lanes];
    Digest digests[md5_lanes];
    for (std::size_t lane = 0; lane < md5_lanes; ++lane) codes[lane] = op_codes[i + std::min(lane, here - 1)];
    hash_lanes(digests, g, codes);
    std::copy(digests, digests + here, module_hash + i);
  }
}

}  // namespace

std::int32_t benchmark_parameters(const Graph& g, std::uint32_t op_codes) {
  constexpr int stem = 128, stacks = 3, cells_per_stack = 3, classes = 10;
  const int output = g.vertices - 1;
  int fan_in = 0;
  for (int v = 1; v < output; ++v) fan_in += g.has_edge(v, output);
  std::int64_t total = 3 * 9 * stem + 2 * stem + (stem << (stacks - 1)) * classes + classes;
  for (int cell = 0; cell < stacks * cells_per_stack; ++cell) {
    const int stack = cell / cells_per_stack, c_out = stem << stack;
    const int c_in = cell % cells_per_stack == 0 && stack > 0 ? c_out / 2 : c_out;
    // Vertices with an edge to the output share its channels, and the first of them get the spare ones. Any other vertex has as many channels as the widest
    // vertex that it has an edge to.
    int channels[max_vertices];
    channels[output] = c_out;
    for (int v = 1, spare = fan_in ? c_out % fan_in : 0; v < output; ++v)
      if (g.has_edge(v, output)) channels[v] = c_out / fan_in + (spare-- > 0);
    for (int v = output - 1; v >= 1; --v)
      if (!g.has_edge(v, output)) {
        channels[v] = 0;
        for (int u = v + 1; u < output; ++u)
          if (g.has_edge(v, u)) channels[v] = std::max(channels[v], channels[u]);
      }
    for (int v = 1; v <= output; ++v) {
      const std::int64_t width = channels[v];
      if (g.has_edge(0, v)) total += c_in * width + 2 * width;  // projection, then scale and shift
      const std::uint32_t op = op_codes >> 2 * (v - 1) & 3;
      if (v < output && op < 2) total += width * width * (op == 0 ? 9 : 1) + 2 * width;
    }
  }
  return static_cast<std::int32_t>(total);
}

Columns enumerate_space(const ForEach& for_each) {
  struct Job {
    Graph graph;
    std::vector<std::uint16_t> op_codes;
    std::size_t first;
  };
  struct Part {  // the graphs of some edge_bits
    int vertices;
    std::uint32_t first, end;
    std::vector<Job> jobs;
  };
  constexpr std::uint32_t part_size = 1 << 14;
  std::vector<Part> parts;
  std::vector<double> costs;
  for (int vertices = 2; vertices <= max_vertices; ++vertices) {
    const std::uint32_t end = std::uint32_t{1} << vertices * (vertices - 1) / 2;
    for (std::uint32_t first = 0; first < end; first += part_size) {
      parts.push_back({vertices, first, std::min(end, first + part_size), {}});
      costs.push_back(static_cast<double>(vertices));
    }
  }
  for_each(costs, [&](int i) {
    Part& part = parts[i];
    std::vector<Order> symmetries;
    for (std::uint32_t bits = part.first; bits < part.end; ++bits) {
      const Graph g{part.vertices, bits};
      if (std::popcount(bits) > max_edges || !is_full(g) || !is_smallest(g, symmetries)) continue;
      part.jobs.push_back({g, labellings(g, symmetries), 0});
    }
  });
  std::vector<Job> jobs;
  costs.clear();
  std::size_t n = 0;
  for (Part& part : parts)
    for (Job& job : part.jobs) {
      const Graph& g = job.graph;
      job.first = n;
      n += job.op_codes.size();
      costs.push_back(static_cast<double>(job.op_codes.size() * g.vertices) * (g.vertices + 2 * std::popcount(g.edge_bits)));
      jobs.push_back(std::move(job));
    }
  std::vector<Digest> hashes(n);
  std::vector<std::int32_t> parameters(n);
  for_each(costs, [&](int i) {
    const Job& job = jobs[i];
    hash_labellings(hashes.data() + job.first, job.graph, job.op_codes.data(), job.op_codes.size());
    for (std::size_t k = 0; k < job.op_codes.size(); ++k) parameters[job.first + k] = benchmark_parameters(job.graph, job.op_codes[k]);
  });
  std::vector<std::uint32_t> owner(n), order(n);
  for (std::size_t i = 0; i < jobs.size(); ++i)
    std::fill_n(owner.begin() + static_cast<std::ptrdiff_t>(jobs[i].first), jobs[i].op_codes.size(), static_cast<std::uint32_t>(i));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return hashes[a] < hashes[b]; });
  Columns space;
  space.module_hash.resize(n), space.vertices.resize(n), space.edge_bits.resize(n), space.op_codes.resize(n), space.trainable_parameters.resize(n);
  for (std::size_t row = 0; row < n; ++row) {
    const std::uint32_t at = order[row];
    const Job& job = jobs[owner[at]];
    space.module_hash[row] = hashes[at];
    space.vertices[row] = static_cast<std::uint8_t>(job.graph.vertices);
    space.edge_bits[row] = job.graph.edge_bits;
    space.op_codes[row] = job.op_codes[at - job.first];
    space.trainable_parameters[row] = parameters[at];
  }
  return space;
}

void hash_cells(Digest* module_hash, const std::uint8_t* vertices, const std::uint32_t* edge_bits, const std::uint16_t* op_codes, std::size_t n,
                const ForEach& for_each) {
  for (std::size_t i = 0; i < n; ++i)
    if (vertices[i] < 2 || vertices[i] > max_vertices) throw std::invalid_argument("row " + std::to_string(i) + " does not have 2 to 7 vertices");
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  const auto matrix = [&](std::uint32_t i) { return std::pair(vertices[i], edge_bits[i]); };
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return std::pair(matrix(a), a) < std::pair(matrix(b), b); });
  std::vector<std::size_t> begins;
  for (std::size_t i = 0; i < n; ++i)
    if (i == 0 || matrix(order[i]) != matrix(order[i - 1])) begins.push_back(i);
  begins.push_back(n);
  std::vector<double> costs;
  for (std::size_t i = 0; i + 1 < begins.size(); ++i) costs.push_back(static_cast<double>(begins[i + 1] - begins[i]));
  for_each(costs, [&](int i) {
    const std::size_t first = begins[i], count = begins[i + 1] - first;
    std::vector<std::uint16_t> codes(count);
    std::vector<Digest> digests(count);
    for (std::size_t k = 0; k < count; ++k) codes[k] = op_codes[order[first + k]];
    hash_labellings(digests.data(), {vertices[order[first]], edge_bits[order[first]]}, codes.data(), count);
    for (std::size_t k = 0; k < count; ++k) module_hash[order[first + k]] = digests[k];
  });
}

}  // namespace spd::nasbench
