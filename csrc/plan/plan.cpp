#include "plan.hpp"

#include <algorithm>
#include <stdexcept>

#include "places.hpp"

namespace spd {
namespace {

// Something whose activation can be read: some channels of a convolution (through its batch norm), a pooling or a sum.
struct Producer {
  Op::Kind kind;
  int index;
  int first;  // its first channel within the convolution
  int channels;
  Place place;  // of channel `first`
  int batch_norm = -1;
  bool relu = false;
};
struct Use {  // the channels begin..end - 1 of a tensor are where this source is read
  int begin, end;
  Source source;
};

Place at_channel(Place p, int c) {
  p.offset += c * p.channel;
  return p;
}

// Cuts the channels into segments, in each of which the same uses meet.
std::vector<Segment> segments_of(const std::vector<Use>& uses, int channels) {
  std::vector<int> cuts{0, channels};
  for (const Use& u : uses) cuts.insert(cuts.end(), {u.begin, u.end});
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<Segment> out;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    Segment s;
    s.begin = cuts[i], s.end = cuts[i + 1];
    for (const Use& u : uses) {
      if (u.begin > s.begin || u.end < s.end) continue;
      if (s.n == kMostSources) throw std::logic_error("more than six tensors meet in one channel");
      Source source = u.source;
      source.place = at_channel(source.place, s.begin - u.begin);
      if (source.batch_norm >= 0) source.batch_norm += s.begin - u.begin;
      s.source[s.n++] = source;
    }
    out.push_back(s);
  }
  if (out.size() > kMostSegments) throw std::logic_error("a tensor of more than twelve segments");
  return out;
}

class Builder {
 public:
  Builder(const MotifSpec& spec, int batch, Passes passes, int lanes, int element_bytes, bool direct_convolutions)
      : spec_(spec), element_bytes_(element_bytes), direct_convolutions_(direct_convolutions) {
    plan_.batch = batch;
    plan_.passes = passes;
    plan_.lanes = lanes;
    plan_.image_channels = spec.image_channels;
  }

  Plan build() {
    switch (spec_.kind) {
      case MotifSpec::Kind::vertex_cell:
      case MotifSpec::Kind::edge_cell: add_network(); break;
      case MotifSpec::Kind::perceptron: add_perceptron();
    }
    end_runs();
    if (plan_.passes != Passes::kept) let_sums_pass();
    places_.share(plan_);
    return std::move(plan_);
  }

 private:
  struct Read {  // the first `channels` channels of a producer are added to a sum, from its channel `to` on
    Producer from;
    int to, channels;
  };

  void add_network() {
    const bool on_edges = spec_.kind == MotifSpec::Kind::edge_cell;
    int grid = add_grid(Grid(spec_.height, spec_.width, plan_.lanes));
    plan_.images = take(grid, spec_.image_channels);
    Producer x = add_conv(grid, 3, spec_.image_channels, spec_.stem_channels, plan_.images, !on_edges, true);
    name_conv("stem", x);
    if (!on_edges) x = add_sum(grid, x.channels, {{x, 0, x.channels}});
    for (int stack = 0, position = 0; stack < spec_.stacks; ++stack) {
      if (stack > 0) x = downsample(grid, x);
      for (int cell = 0; cell < spec_.cells_per_stack; ++cell, ++position) {
        const bool last = stack + 1 == spec_.stacks && cell + 1 == spec_.cells_per_stack;
        const std::string name = "stacks." + std::to_string(stack) + "." + std::to_string(cell);
        x = on_edges ? add_edge_cell(grid, x, position, name, last) : add_vertex_cell(grid, x, position, name, last);
      }
    }
    add_head(grid, x.place, x.channels);
    for (std::size_t i = 0; i < plan_.convs.size(); ++i) {
      plan_.convs[i].flows = segments_of(conv_flows_[i], plan_.convs[i].c_out);
      for (const Segment& s : plan_.convs[i].flows)
        if (s.n == 0) throw std::invalid_argument("a vertex has channels that no successor reads");
    }
    for (std::size_t i = 0; i < plan_.pools.size(); ++i) plan_.pools[i].flows = segments_of(pool_flows_[i], plan_.pools[i].channels);
    for (std::size_t i = 0; i < plan_.sums.size(); ++i)
      if (!sum_flows_[i].empty()) plan_.sums[i].flows = segments_of(sum_flows_[i], plan_.sums[i].channels);
  }

  void add_perceptron() {
    const int grid = add_grid(Grid(1, 1, plan_.lanes)), layers = static_cast<int>(spec_.hidden.size());
    int channels = plan_.image_channels = spec_.image_channels * spec_.height * spec_.width;
    Place x = plan_.images = take(grid, channels);
    for (int layer = 0; layer < layers; ++layer) {
      x = add_dense(grid, channels, spec_.hidden[layer], x, "hidden" + std::to_string(layer + 1), layer == 0, layer + 1 == layers);
      channels = spec_.hidden[layer];
    }
    add_head(grid, x, channels);
  }

  int add_grid(Grid grid) {
    plan_.grids.push_back(grid.of_batch(plan_.batch));
    return static_cast<int>(plan_.grids.size()) - 1;
  }
  Place take(int grid, int channels) {
    const Grid& g = plan_.grids[grid];
    const int blocks = g.blocks(plan_.batch);
    const Strides strides = g.strides(blocks, channels, element_bytes_);
    return {strides, places_.take(channels * strides.channel, grid, g.slices() > 1)};
  }

  Producer add_conv(int grid, int size, int c_in, int c_out, Place x, bool relu = true, bool reads_images = false) {
    Conv c;
    c.grid = grid, c.size = size, c.c_in = c_in, c.c_out = c_out, c.x = x, c.relu = relu, c.reads_images = reads_images;
    c.y = take(grid, c_out);
    const std::size_t weights = static_cast<std::size_t>(size) * size * c_in * c_out;
    c.weight = plan_.n_parameters;
    c.gamma = c.weight + weights;
    c.beta = c.gamma + c_out;
    plan_.n_parameters = c.beta + c_out;
    c.batch_norm = plan_.batch_norms;
    plan_.batch_norms += c_out;
    if (size == 3 && !direct_convolutions_) choose_algorithms(c);
    plan_.flops += 2.0 * weights * plan_.grids[grid].pixels();
    const int index = static_cast<int>(plan_.convs.size());
    plan_.ops.push_back({Op::Kind::conv, index});
    plan_.convs.push_back(c);
    conv_flows_.emplace_back();
    return {Op::Kind::conv, index, 0, c_out, c.y, c.batch_norm, relu};
  }
  // The choice follows from these useful GFLOP/s of one Zen 4 core (FMA peak 118), batch 20, forward / wgrad. dgrad is within 5 % of the forward with the
  // channel counts exchanged.
  //
  //              direct      columns     columns and rows                direct      columns     columns and rows
  //   3->16  @16 103 / 119   127 / 122   226 / 151       16->16 @8   120 / 113   180 / 162   286 / 262
  //   8->8   @16 115 / 119   164 / 150   208 / 203       32->32 @8   123 / 114   197 / 179   340 / 306
  //   16->16 @16 118 / 119   188 / 175   287 / 264       32->32 @4   125 /  93   159 / 128   290 / 212
  //   32->32 @16 120 / 119   206 / 196   349 / 319       64->64 @4   127 /  93   166 / 135   261 / 225
  //
  // With one or two channels on either side the transforms of the weight gradient cost more than they save; with vectors of eight lanes, of which 16 are kept in
  // registers, up to four (AVX2, microseconds of direct and of columns and rows: 3->8 @8 4.9 and 5.2, 4->4 @8 3.3 and 3.8, 8->8 @8 13.0 and 9.3).
  //
  // On images of 2 x 2 these useful GFLOP/s, of one Intel core (AVX-512, FMA peak 243; AVX2, 128), decide: forward, direct / channels, and wgrad. Channels in the
  // lanes pay where they fill enough of them.
  //
  //             AVX-512                     AVX2                                     AVX-512                     AVX2
  //   4->4      70 / 49      42 / 68        66 / 60      42 / 96        12->12       115 / 167    55 / 211       83 / 101     44 / 167
  //   8->8      97 / 108     51 / 146       83 / 123     43 / 190       16->16       120 / 220    53 / 276       92 / 137     45 / 223
  //   10->10    112 / 135    50 / 175       93 / 86      45 / 142       32->32       127 / 221    54 / 302       101 / 135    45 / 231
  void choose_algorithms(Conv& c) const {
    const Grid& grid = plan_.grids[c.grid];
    if (fits(Algorithm::channels, grid)) {
      const auto fill = [&](int channels) { return 10 * channels >= (grid.lanes == 8 ? 7 : 5) * ((channels + grid.lanes - 1) / grid.lanes * grid.lanes); };
      if (fill(c.c_out)) c.forward = Algorithm::channels;
      if (fill(c.c_in)) c.dgrad = Algorithm::channels;
      if (c.c_out > 3) c.wgrad = Algorithm::channels;
      return;
    }
    const Algorithm best = fits(Algorithm::winograd2d, grid) ? Algorithm::winograd2d
                           : fits(Algorithm::winograd, grid) ? Algorithm::winograd
                                                             : Algorithm::direct;
    c.forward = c.dgrad = best;
    const int few = grid.lanes == 8 && grid.columns == 1 ? 5 : 3;
    c.wgrad = std::min(c.c_in, c.c_out) < few ? Algorithm::direct : best;
  }
  // Names the weights and statistics of those channels of a convolution that `p` stands for.
  void name_conv(const std::string& name, const Producer& p) {
    const Conv& c = plan_.convs[p.index];
    const std::size_t per_channel = static_cast<std::size_t>(c.size) * c.size * c.c_in;
    const std::size_t first = p.first;
    plan_.parameters.push_back({name + ".conv.weight", c.weight + first * per_channel, {p.channels, c.c_in, c.size, c.size}});
    plan_.parameters.push_back({name + ".bn.weight", c.gamma + first, {p.channels}});
    plan_.parameters.push_back({name + ".bn.bias", c.beta + first, {p.channels}});
    plan_.running.push_back({name + ".bn.running_mean", c.batch_norm + first, {p.channels}});
    plan_.running.push_back({name + ".bn.running_var", c.batch_norm + first, {p.channels}});
  }

  void end_runs() {
    const int n = static_cast<int>(plan_.ops.size());
    const auto alone = [&](const Op& op) {
      return op.kind == Op::Kind::head || op.kind == Op::Kind::dense || (op.kind == Op::Kind::pool && plan_.pools[op.index].from != plan_.pools[op.index].to);
    };
    for (int i = 0; i < n; ++i) {
      const Op& op = plan_.ops[i];
      if (op.kind == Op::Kind::conv || alone(op) || i + 1 == n || alone(plan_.ops[i + 1])) plan_.runs.push_back(i + 1);
    }
  }

  // A sum that is read by the op right behind it need not be stored. A convolution computes it (kernels/input.hpp), in the backward pass once more: its terms
  // were written by poolings and by other convolutions, and are there until it is those convolutions' turn. Poolings and the head read the sum only once.
  void let_sums_pass() {
    std::vector<std::size_t> pools;
    for (const Pool& p : plan_.pools) pools.push_back(places_.begin_of(p.y.offset));
    const auto stays = [&](const Source& term) {
      return term.batch_norm >= 0 || std::find(pools.begin(), pools.end(), places_.begin_of(term.place.offset)) != pools.end();
    };
    const auto is_kept = [&](const Segment& s) { return s.n > 0 && std::all_of(s.source, s.source + s.n, stays); };
    for (std::size_t i = 1; i < plan_.ops.size(); ++i) {
      const auto [kind, index] = plan_.ops[i];
      if (plan_.ops[i - 1].kind != Op::Kind::sum) continue;
      const int before = plan_.ops[i - 1].index;
      Sum& sum = plan_.sums[before];
      const auto reads_it = [&](const Place& x) { return x.offset == sum.z.offset && !sum.relu; };
      if (kind == Op::Kind::pool) {
        Pool& p = plan_.pools[index];
        if (p.from == p.to && reads_it(p.x)) p.sum = before, sum.passes = true;
      } else if (kind == Op::Kind::head) {
        if (reads_it(plan_.head.x)) plan_.head.sum = before, sum.passes = true;
      } else if (kind == Op::Kind::conv) {
        Conv& c = plan_.convs[index];
        const bool is_read_in_parts = c.size == 1 || (c.forward == Algorithm::winograd2d && c.wgrad == Algorithm::winograd2d);
        if (reads_it(c.x) && is_read_in_parts && std::all_of(sum.terms.begin(), sum.terms.end(), is_kept)) c.sum = before, sum.passes = true;
      }
    }
  }

  std::vector<Use>& flows_to(const Producer& p) {
    switch (p.kind) {
      case Op::Kind::conv: return conv_flows_[p.index];
      case Op::Kind::pool: return pool_flows_[p.index];
      default: return sum_flows_[p.index];
    }
  }
  Producer add_sum(int grid, int channels, const std::vector<Read>& reads, bool relu = false) {
    const Place z = take(grid, channels);
    return add_sum(grid, z, channels, reads, z, 1, relu);
  }
  // gradient and step say where the sum's gradient will be.
  Producer add_sum(int grid, Place z, int channels, const std::vector<Read>& reads, Place gradient, int step, bool relu = false) {
    std::vector<Use> terms;
    for (const Read& r : reads) {
      terms.push_back({r.to, r.to + r.channels, {r.from.place, r.from.batch_norm, r.from.relu, 1}});
      flows_to(r.from).push_back({r.from.first, r.from.first + r.channels, {at_channel(gradient, r.to), -1, false, step}});
    }
    const int index = static_cast<int>(plan_.sums.size());
    plan_.ops.push_back({Op::Kind::sum, index});
    plan_.sums.push_back(
        {grid, channels, z, segments_of(terms, channels), false, relu, relu ? take_bytes(grid, channels, 2 * plan_.grids[grid].vectors()) : 0, {}});
    sum_flows_.emplace_back();
    return {Op::Kind::sum, index, 0, channels, z};
  }
  // Takes `each` bytes for every channel of every block.
  std::size_t take_bytes(int grid, int channels, int each) {
    const std::size_t bytes = static_cast<std::size_t>(each) * plan_.grids[grid].blocks(plan_.batch) * channels;
    return places_.take((bytes + element_bytes_ - 1) / element_bytes_);
  }

  Producer add_pool(int from, int to, int channels, Place x, bool average = false) {
    Pool p;
    p.from = from, p.to = to, p.average = average, p.channels = channels, p.x = x;
    p.y = take(to, channels);
    const Grid& g = plan_.grids[to];
    if (!average) p.taken = take_bytes(to, channels, from == to ? kWinnerBytes * g.row_pairs() * g.columns : 4 * g.vectors());
    const int index = static_cast<int>(plan_.pools.size());
    plan_.ops.push_back({Op::Kind::pool, index});
    plan_.pools.push_back(p);
    pool_flows_.emplace_back();
    return {Op::Kind::pool, index, 0, channels, p.y};
  }
  Producer downsample(int& grid, const Producer& x) {
    const int from = grid;
    grid = add_grid(plan_.grids[from].halved());
    return add_pool(from, grid, x.channels, x.place);
  }

  Producer add_vertex_cell(int grid, const Producer& input, int position, const std::string& name, bool last) {
    const std::vector<int>& channels = spec_.channels[position];
    const int v_out = spec_.vertices - 1;
    const auto edge = [&](int from, int to) { return spec_.matrix[from * spec_.vertices + to] != 0; };
    std::vector<Producer> projections = add_projections(grid, input, channels, edge);
    std::vector<Producer> outputs(spec_.vertices);
    for (int v = 1; v < v_out; ++v) {
      std::vector<Read> reads;
      for (int u = 1; u < v; ++u)
        if (edge(u, v)) reads.push_back({outputs[u], 0, channels[v]});
      if (edge(0, v)) {
        name_conv(name + ".projection" + std::to_string(v), projections[v]);
        reads.push_back({projections[v], 0, channels[v]});
      }
      const Place z = add_sum(grid, channels[v], reads).place;
      const int op = spec_.ops[v - 1];
      if (op == 2) {
        outputs[v] = add_pool(grid, grid, channels[v], z);
      } else {
        outputs[v] = add_conv(grid, op == 0 ? 3 : 1, channels[v], channels[v], z);
        name_conv(name + ".vertex" + std::to_string(v), outputs[v]);
      }
    }
    std::vector<Read> reads;
    int to = 0;
    for (int v = 1; v < v_out; ++v)
      if (edge(v, v_out)) {
        reads.push_back({outputs[v], to, channels[v]});
        to += channels[v];
      }
    if (edge(0, v_out)) {
      name_conv(name + ".projection" + std::to_string(v_out), projections[v_out]);
      reads.push_back({projections[v_out], 0, channels[v_out]});
    }
    if (to != 0 && to != channels[v_out]) throw std::invalid_argument("the channels of the vertices before the output do not add up to the output's");
    const Place z = take(grid, channels[v_out]);
    return add_sum(grid, z, channels[v_out], reads, last ? head_gradient(grid, channels[v_out]) : z, last ? 0 : 1);
  }
  static Producer slice_of(const Producer& conv, int first, int channels) {
    return {Op::Kind::conv, conv.index, first, channels, at_channel(conv.place, first), conv.batch_norm + first, conv.relu};
  }
  // Adds one wide convolution, and returns its slice for each vertex that the input leads to.
  template <class Edge>
  std::vector<Producer> add_projections(int grid, const Producer& input, const std::vector<int>& channels, const Edge& edge) {
    std::vector<Producer> slices(spec_.vertices);
    int total = 0;
    for (int v = 1; v < spec_.vertices; ++v)
      if (edge(0, v)) total += channels[v];
    const Producer all = add_conv(grid, 1, input.channels, total, input.place);
    int first = 0;
    for (int v = 1; v < spec_.vertices; ++v) {
      if (!edge(0, v)) continue;
      slices[v] = slice_of(all, first, channels[v]);
      first += channels[v];
    }
    return slices;
  }

  // A node is the sum of what enters it. Node 0 is the cell's input, projected where the number of channels changes.
  Producer add_edge_cell(int grid, Producer input, int position, const std::string& name, bool last) {
    const int nodes = spec_.vertices, channels = spec_.channels[position].back();
    const auto op = [&](int from, int to) { return spec_.matrix[from * nodes + to]; };
    if (input.channels != channels) {
      input = add_conv(grid, 1, input.channels, channels, input.place, false);
      name_conv(name + ".projection0", input);
    }
    std::vector<std::vector<Read>> entering(nodes);
    std::vector<Producer> made(nodes * nodes);
    entering[0] = {{input, 0, channels}};
    for (int u = 0; u + 1 < nodes; ++u) {
      for (const EdgeOp kind : {edge_conv1x1, edge_conv3x3, edge_avgpool3x3}) {
        std::vector<int> targets;
        for (int v = u + 1; v < nodes; ++v)
          if (op(u, v) == kind) targets.push_back(v);
        if (targets.empty()) continue;
        const bool pools = kind == edge_avgpool3x3;
        const Place z = add_sum(grid, channels, entering[u], !pools).place;
        const int wide = channels * static_cast<int>(targets.size());
        const Producer all = pools ? add_pool(grid, grid, channels, z, true) : add_conv(grid, kind == edge_conv3x3 ? 3 : 1, channels, wide, z, false);
        for (std::size_t i = 0; i < targets.size(); ++i) {
          Producer& one = made[u * nodes + targets[i]];
          one = pools ? all : slice_of(all, static_cast<int>(i) * channels, channels);
          entering[targets[i]].push_back({one, 0, channels});
        }
      }
      for (int v = u + 1; v < nodes; ++v)
        if (op(u, v) == skip) entering[v].insert(entering[v].end(), entering[u].begin(), entering[u].end());
    }
    for (int v = 1; v < nodes; ++v)
      for (int u = 0; u < v; ++u)
        if (op(u, v) == edge_conv1x1 || op(u, v) == edge_conv3x3) name_conv(name + ".edge" + std::to_string(u) + std::to_string(v), made[u * nodes + v]);
    if (entering.back().empty()) throw std::invalid_argument("no path of operations leads from a cell's input to its output");
    const Producer output = add_sum(grid, channels, entering.back(), last);
    if (last) flows_to(output).push_back({0, channels, {head_gradient(grid, channels), -1, false, 0}});
    return output;
  }

  Place add_dense(int grid, int c_in, int c_out, Place x, const std::string& name, bool reads_images, bool last) {
    Dense d;
    Conv& c = d.product;
    c.grid = grid, c.size = 1, c.c_in = c_in, c.c_out = c_out, c.x = x, c.reads_images = reads_images;
    c.y = take(grid, c_out);
    c.weight = plan_.n_parameters;
    d.a = take(grid, c_out);
    d.da = last ? head_gradient(grid, c_out) : d.a;
    d.bias = c.weight + static_cast<std::size_t>(c_in) * c_out;
    d.slope = spec_.slope;
    plan_.n_parameters = d.bias + c_out;
    plan_.parameters.push_back({name + ".weight", c.weight, {c_out, c_in}});
    plan_.parameters.push_back({name + ".bias", d.bias, {c_out}});
    plan_.flops += 2.0 * c_in * c_out;
    plan_.ops.push_back({Op::Kind::dense, static_cast<int>(plan_.dense.size())});
    plan_.dense.push_back(d);
    return d.a;
  }

  // Takes the place where the head writes the gradient of what it reads, which is one vector per block and channel.
  Place head_gradient(int grid, int channels) {
    Place p;
    p.channel = plan_.lanes;
    p.block = static_cast<std::size_t>(channels) * plan_.lanes;
    p.offset = plan_.head.dx = places_.take(plan_.grids[grid].blocks(plan_.batch) * p.block);
    return p;
  }
  void add_head(int grid, Place x, int channels) {
    Head& h = plan_.head;
    h.grid = grid, h.x = x, h.channels = channels, h.classes = spec_.classes, h.loss = spec_.loss;
    h.weight = plan_.n_parameters;
    h.bias = h.weight + static_cast<std::size_t>(spec_.classes) * channels;
    plan_.n_parameters = h.bias + spec_.classes;
    plan_.parameters.push_back({"dense.weight", h.weight, {spec_.classes, channels}});
    plan_.parameters.push_back({"dense.bias", h.bias, {spec_.classes}});
    plan_.flops += 2.0 * spec_.classes * channels;
    plan_.ops.push_back({Op::Kind::head, 0});
  }

  const MotifSpec& spec_;
  int element_bytes_;
  bool direct_convolutions_;
  Plan plan_;
  Places places_;
  std::vector<std::vector<Use>> conv_flows_, pool_flows_, sum_flows_;
};

}  // namespace

MotifSpec checked(MotifSpec spec) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument(what);
  };
  const auto at_least_one = [&](const std::string& name, int value) { require(value >= 1, name + " is " + std::to_string(value) + ", expected at least 1"); };
  const auto size = [&](const std::string& name, std::size_t got, int expected, const char* of) {
    require(got == static_cast<std::size_t>(expected), name + " has " + std::to_string(got) + " entries, expected " + std::to_string(expected) + ": " + of);
  };
  at_least_one("classes", spec.classes), at_least_one("image_channels", spec.image_channels);
  at_least_one("height", spec.height), at_least_one("width", spec.width);
  if (spec.kind == MotifSpec::Kind::perceptron) {
    require(!spec.hidden.empty(), "hidden is empty, expected the units of each hidden layer");
    for (const int units : spec.hidden) at_least_one("hidden", units);
    return spec;
  }
  at_least_one("stem_channels", spec.stem_channels), at_least_one("stacks", spec.stacks), at_least_one("cells_per_stack", spec.cells_per_stack);
  const bool on_edges = spec.kind == MotifSpec::Kind::edge_cell;
  const int n = spec.vertices;
  require(n >= 2 && n <= kMostVertices, "vertices is " + std::to_string(n) + ", expected 2 to " + std::to_string(kMostVertices));
  size("matrix", spec.matrix.size(), n * n, "the square of vertices");
  size("ops", spec.ops.size(), on_edges ? 0 : n - 2, on_edges ? "the matrix holds the operations" : "one for each interior vertex");
  size("channels", spec.channels.size(), spec.stacks * spec.cells_per_stack, "one for each cell");
  for (const std::vector<int>& channels : spec.channels) size("channels of a cell", channels.size(), n, "one for each vertex");
  require(spec.stacks <= 30 && std::min(spec.height, spec.width) >> (spec.stacks - 1) >= 1,
          "images of " + std::to_string(spec.height) + " x " + std::to_string(spec.width) + " are too small to be halved between " +
              std::to_string(spec.stacks) + " stacks");
  return spec;
}

Plan make_plan(const MotifSpec& spec, int batch, Passes passes, int lanes, int element_bytes, bool direct_convolutions) {
  return Builder(spec, batch, passes, lanes, element_bytes, direct_convolutions).build();
}

}  // namespace spd
