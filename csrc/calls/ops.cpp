#include "ops.hpp"

#include "../engine.hpp"

namespace spd {
namespace {

const char* name_of(Algorithm how) { return kAlgorithmNames[static_cast<int>(how)]; }

// Returns the sum over channels of how many tensors meet in each. A source whose `step` is 0 (one vector for all pixels) does not count.
int meeting(const std::vector<Segment>& segments) {
  int total = 0;
  for (const Segment& s : segments)
    for (int i = 0; i < s.n; ++i) total += (s.end - s.begin) * (s.source[i].step != 0);
  return total;
}
int gathered(const Pool& p, const Plan& plan) {
  int total = 0;
  for (const Segment& s : p.flows)
    if (s.n > 0 && (p.from != p.to || !is_read_in_place(s, plan.grids[p.from], plan.batch))) total += s.end - s.begin + meeting({s});
  return total;
}
int terms_of(int sum, int channels, const Plan& plan) { return sum < 0 ? channels : meeting(plan.sums[sum].terms); }

}  // namespace

std::vector<AnyOp> ops_of(const Plan& plan) {
  const auto elements = [&](int grid) { return plan.grids[grid].plane() * plan.grids[grid].blocks(plan.batch); };
  const auto height = [&](int grid) { return plan.grids[grid].height; };
  const auto width = [&](int grid) { return plan.grids[grid].width; };
  std::vector<AnyOp> out;
  for (const Op& op : plan.ops) {
    switch (op.kind) {
      case Op::Kind::conv: {
        const Conv& c = plan.convs[op.index];
        const bool keeps = c.wgrad == Algorithm::winograd2d && c.c_in <= engine().few;
        const std::optional<std::string> dgrad = c.reads_images ? std::nullopt : std::optional<std::string>(name_of(c.dgrad));
        out.push_back(ConvOp{c.size, c.c_in, c.c_out, c.weight, name_of(c.forward), name_of(c.wgrad), dgrad, terms_of(c.sum, c.c_in, plan), meeting(c.flows),
                             keeps, height(c.grid), width(c.grid), elements(c.grid)});
        break;
      }
      case Op::Kind::sum: {
        const Sum& s = plan.sums[op.index];
        out.push_back(
            SumOp{s.channels, meeting(s.terms), meeting(s.flows), !s.flows.empty(), s.passes, s.relu, height(s.grid), width(s.grid), elements(s.grid)});
        break;
      }
      case Op::Kind::pool: {
        const Pool& p = plan.pools[op.index];
        out.push_back(PoolOp{p.from == p.to ? 3 : 2, p.average, p.channels, gathered(p, plan), elements(p.from), height(p.to), width(p.to), elements(p.to)});
        break;
      }
      case Op::Kind::dense: {
        const Conv& c = plan.dense[op.index].product;
        out.push_back(DenseOp{c.c_in, c.c_out, height(c.grid), width(c.grid), elements(c.grid)});
        break;
      }
      case Op::Kind::head: {
        const Head& h = plan.head;
        out.push_back(HeadOp{h.channels, h.classes, terms_of(h.sum, h.channels, plan), height(h.grid), width(h.grid), elements(h.grid)});
      }
    }
  }
  return out;
}

std::vector<std::string> algorithms_at(int height, int width) {
  const Grid grid(height, width, engine().f32.lanes);
  std::vector<std::string> names;
  for (const Algorithm how : {Algorithm::direct, Algorithm::winograd, Algorithm::winograd2d, Algorithm::channels})
    if (fits(how, grid)) names.push_back(name_of(how));
  return names;
}

}  // namespace spd
