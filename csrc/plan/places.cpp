#include "places.hpp"

#include <algorithm>
#include <iterator>

namespace spd {
namespace {

// Returns whether two tensors are needed at the same moment. moment_of(op) is the moment of an op.
template <class Tensor, class F>
bool meet(const Tensor& a, const Tensor& b, F&& moment_of) {
  for (const auto& x : a.lives)
    for (const auto& y : b.lives)
      if (moment_of(x.first) <= moment_of(y.last) && moment_of(y.first) <= moment_of(x.last)) return true;
  return false;
}

}  // namespace

std::size_t Places::take(std::size_t elements, int grid, bool is_sliced) {
  const std::size_t begin = tensors_.empty() ? 0 : tensors_.back().begin + tensors_.back().elements;
  tensors_.push_back(
      {begin, (elements + 63) / 64 * 64 + 64, grid, is_sliced, {}});  // one cache line more, so that equal tensors do not fall into the same cache sets
  return begin;
}

void Places::share(Plan& plan) {
  find_lives(plan);
  std::vector<Tensor*> largest_first, own;
  for (Tensor& t : tensors_) largest_first.push_back(&t);
  std::stable_sort(largest_first.begin(), largest_first.end(), [](const Tensor* a, const Tensor* b) { return a->elements > b->elements; });
  const auto meet_in_run = [&](const Tensor& a, const Tensor& b) { return meet(a, b, [&](int op) { return moment_[op]; }); };
  const auto meet_in_op = [](const Tensor& a, const Tensor& b) { return meet(a, b, [](int op) { return op; }); };
  // A run goes through all of its ops chunk by chunk. So two tensors that are both needed in it must have places apart, or, if no op needs both and they are of
  // one grid, the very same place, where a chunk of one overwrites the same chunk of the other.
  std::vector<Tensor*> host(tensors_.size());
  for (Tensor* t : largest_first) {
    const auto of_one_grid = [&](const Tensor* o) { return t->grid >= 0 && o->grid == t->grid && meet_in_run(*o, *t) && !meet_in_op(*o, *t); };
    const auto found = std::find_if(own.begin(), own.end(), of_one_grid);
    host[t - tensors_.data()] = found == own.end() ? t : *found;
    if (found == own.end())
      own.push_back(t);
    else
      (*found)->lives.insert((*found)->lives.end(), t->lives.begin(), t->lives.end());
  }
  // The arena has two parts. A tensor's second slice is in the second part, at the place that its first slice has in the first part, so that each of two
  // threads keeps to the same part. A tensor without slices is in the part where it takes less room.
  std::vector<const Tensor*> placed;  // in the order of their places
  std::size_t parts[2]{};
  for (Tensor* t : own) {
    if (t->lives.empty()) continue;  // a sum that is not stored, in a plan without a backward pass
    const auto first_fit = [&](int part) {
      std::size_t place = kGuard;
      for (const Tensor* o : placed)
        if ((t->is_sliced || o->is_sliced || o->part == part) && meet_in_run(*t, *o) && place < o->place + o->elements && o->place < place + t->elements)
          place = o->place + o->elements;
      return place;
    };
    const auto end_in = [&](int part) { return std::max(parts[part], first_fit(part) + t->elements + kGuard); };
    t->part = !t->is_sliced && end_in(1) - parts[1] < end_in(0) - parts[0];
    t->place = first_fit(t->part);
    for (int part = 0; part < 2; ++part)
      if (t->is_sliced || t->part == part) parts[part] = end_in(part);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), t, [](const Tensor* a, const Tensor* b) { return a->place < b->place; }), t);
  }
  plan.arena = parts[0] + parts[1];
  for (Tensor* t : own) t->place += t->part * parts[0];
  for (Tensor& t : tensors_) t.place = host[&t - tensors_.data()]->place;
  const auto move = [&](std::size_t& offset) {
    const Tensor& t = tensor_at(offset);
    offset += t.place - t.begin;
    return t.is_sliced;
  };
  const auto move_place = [&](Place& p) {
    if (move(p.offset)) p.gap = parts[0] - p.half * p.block;
  };
  const auto move_sources = [&](std::vector<Segment>& segments) {
    for (Segment& s : segments)
      for (int i = 0; i < s.n; ++i) move_place(s.source[i].place);
  };
  move_place(plan.images);
  for (Conv& c : plan.convs) move_place(c.x), move_place(c.y), move_sources(c.flows);
  for (Sum& s : plan.sums) {
    move_place(s.z), move_sources(s.terms), move_sources(s.flows);
    if (s.relu) move(s.open);
  }
  for (Pool& p : plan.pools) {
    move_place(p.x), move_place(p.y), move_sources(p.flows);
    if (!p.average) move(p.taken);
  }
  for (Dense& d : plan.dense) move_place(d.product.x), move_place(d.product.y), move_place(d.a), move_place(d.da);
  move_place(plan.head.x), move(plan.head.dx);
}

Places::Tensor& Places::tensor_at(std::size_t offset) {
  return *std::prev(std::upper_bound(tensors_.begin(), tensors_.end(), offset, [](std::size_t at, const Tensor& t) { return at < t.begin; }));
}

// Finds when each tensor is needed, by going through a training step in the way that network.hpp does.
void Places::find_lives(const Plan& plan) {
  int now = -1;
  const auto write = [&](std::size_t offset) { tensor_at(offset).lives.push_back({now, now}); };
  const auto read = [&](std::size_t offset) { tensor_at(offset).lives.back().last = now; };
  const auto read_sources = [&](const std::vector<Segment>& segments) {
    for (const Segment& s : segments)
      for (int i = 0; i < s.n; ++i) read(s.source[i].place.offset);
  };
  const auto gather = [&](std::size_t offset, const std::vector<Segment>& flows) {  // without flows, its one reader wrote the gradient there
    const auto flow = [](const Segment& s) { return s.n > 0; };
    if (std::none_of(flows.begin(), flows.end(), flow)) return;
    std::all_of(flows.begin(), flows.end(), flow) ? write(offset) : read(offset);
    read_sources(flows);
  };
  std::size_t run = 0;
  for (const auto [kind, index] : plan.ops) {
    if (++now == plan.runs[run]) ++run;
    moment_.push_back(static_cast<int>(run));
    switch (kind) {
      case Op::Kind::conv: {
        const Conv& c = plan.convs[index];
        c.sum >= 0 ? read_sources(plan.sums[c.sum].terms) : c.reads_images ? void() : read(c.x.offset);
        write(c.y.offset);
        break;
      }
      case Op::Kind::sum: {
        const Sum& sum = plan.sums[index];
        read_sources(sum.terms);
        if (!sum.passes) write(sum.z.offset);
        if (sum.relu) write(sum.open);
        break;
      }
      case Op::Kind::pool: {
        const Pool& p = plan.pools[index];
        if (p.sum < 0) read(p.x.offset);
        write(p.y.offset);
        if (!p.average) write(p.taken);
        break;
      }
      case Op::Kind::dense: {
        const Dense& d = plan.dense[index];
        if (!d.product.reads_images) read(d.product.x.offset);
        write(d.product.y.offset), write(d.a.offset);
        break;
      }
      case Op::Kind::head: plan.head.sum < 0 ? read(plan.head.x.offset) : read_sources(plan.sums[plan.head.sum].terms);
    }
  }
  for (std::size_t i = plan.ops.size(); plan.passes != Passes::forward && i-- > 0;) {
    ++now;
    moment_.push_back(moment_.back() + 1);
    switch (const auto [kind, index] = plan.ops[i]; kind) {
      case Op::Kind::conv: {
        const Conv& c = plan.convs[index];
        read_sources(c.flows), read(c.y.offset);
        ++now;
        moment_.push_back(moment_.back() + 1);
        read(c.y.offset);
        c.sum >= 0 ? read_sources(plan.sums[c.sum].terms) : c.reads_images ? void() : read(c.x.offset);
        if (!c.reads_images) write(c.x.offset);
        break;
      }
      case Op::Kind::sum: {
        const Sum& sum = plan.sums[index];
        gather(sum.z.offset, sum.flows);
        if (sum.relu) read(sum.z.offset), read(sum.open);
        break;
      }
      case Op::Kind::pool: {
        const Pool& p = plan.pools[index];
        gather(p.y.offset, p.flows);
        read(p.y.offset), write(p.x.offset);
        if (!p.average) read(p.taken);
        break;
      }
      case Op::Kind::dense: {
        const Dense& d = plan.dense[index];
        read(d.da.offset), read(d.product.y.offset);
        if (!d.product.reads_images) read(d.product.x.offset), write(d.product.x.offset);
        break;
      }
      case Op::Kind::head: write(plan.head.dx);
    }
  }
  tensor_at(plan.images.offset).lives = {{0, now}};  // its lanes without a pixel are zero from the start, and its gradient is read at the end
}

}  // namespace spd
