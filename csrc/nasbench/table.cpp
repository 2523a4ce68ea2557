#include "table.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

namespace spd::nasbench {

void TableBuilder::add(const std::uint8_t* data, std::size_t size, const ForEach& for_each) {
  framer_.add(data, size);
  drain(false, for_each);
}

void TableBuilder::note(std::uint64_t number, std::uint64_t offset, const std::string& what) {
  const std::string text = "record " + std::to_string(number) + ", counted from 0, at byte " + std::to_string(offset) + ": " + what;
  if (strict_) throw Malformed(text);
  if (faults++ == 0) first_fault = text;
}

// Cuts frames one after the other, parses them in parallel, and merges them in their order.
void TableBuilder::drain(bool last, const ForEach& for_each) {
  constexpr std::size_t batch = 32768, chunk = 512;
  struct Parsed {
    Record record;
    std::string fault;
  };
  std::vector<Frame> frames;
  std::vector<Parsed> parsed;
  for (bool more = true; more;) {
    frames.clear();
    std::string fault;
    std::uint64_t fault_offset = 0;
    while (frames.size() < batch) {
      Frame frame;
      fault_offset = framer_.offset();
      try {
        if (framer_.next(frame, last) != Framer::Found::frame) {
          more = false;
          break;
        }
      } catch (const Malformed& e) {
        fault = e.what();
        break;
      }
      frames.push_back(frame);
    }
    parsed.resize(frames.size());
    const std::size_t chunks = (frames.size() + chunk - 1) / chunk;
    for_each(std::vector<double>(chunks, 1.0), [&](int c) {
      for (std::size_t i = c * chunk; i < std::min(frames.size(), (c + 1) * chunk); ++i) {
        parsed[i].fault.clear();
        try {
          check_payload(frames[i]);
          parsed[i].record = parse_payload(frames[i].payload, frames[i].size);
        } catch (const Malformed& e) {
          parsed[i].fault = e.what();
        }
      }
    });
    for (std::size_t i = 0; i < frames.size(); ++i, ++frames_) {
      try {
        if (!parsed[i].fault.empty()) throw Malformed(parsed[i].fault);
        merge(parsed[i].record);
      } catch (const Malformed& e) {
        note(frames_, frames[i].offset, e.what());
      }
    }
    if (!fault.empty()) note(frames_++, fault_offset, fault);
  }
}

std::uint32_t TableBuilder::find_or_add(const Record& r) {
  if (2 * (cells_.size() + 1) > slots_.size()) {
    slots_.assign(std::max<std::size_t>(64, 2 * slots_.size()), 0);
    for (std::uint32_t i = 0; i < cells_.size(); ++i) {
      std::size_t slot;
      for (std::memcpy(&slot, cells_[i].module_hash.data(), sizeof slot); slots_[slot & (slots_.size() - 1)]; ++slot) {
      }
      slots_[slot & (slots_.size() - 1)] = i + 1;
    }
  }
  std::size_t slot;
  for (std::memcpy(&slot, r.module_hash.data(), sizeof slot);; ++slot) {
    std::uint32_t& at = slots_[slot & (slots_.size() - 1)];
    if (at == 0) {
      cells_.push_back({r.module_hash, r.graph, r.op_codes, r.trainable_parameters});
      at = static_cast<std::uint32_t>(cells_.size());
    }
    if (cells_[at - 1].module_hash == r.module_hash) return at - 1;
  }
}

void TableBuilder::merge(const Record& r) {
  auto budget = std::find_if(budgets_.begin(), budgets_.end(), [&](const Budget& b) { return b.epochs == r.epochs; });
  if (budget == budgets_.end()) {
    if (budgets_.size() == max_budgets)
      throw Malformed("epochs are " + std::to_string(r.epochs) + ": more than " + std::to_string(max_budgets) + " different budgets");
    budgets_.push_back({r.epochs, {}, {}});
    budget = budgets_.end() - 1;
  }
  const std::uint32_t cell = find_or_add(r);
  const CellRow& known = cells_[cell];
  if (known.graph.vertices != r.graph.vertices || known.graph.edge_bits != r.graph.edge_bits || known.op_codes != r.op_codes)
    throw Malformed("the graph differs from that of an earlier record with the same hash");
  if (known.trainable_parameters != r.trainable_parameters)
    throw Malformed("trainable_parameters are " + std::to_string(r.trainable_parameters) + ", but " + std::to_string(known.trainable_parameters) +
                    " in an earlier record with the same hash");
  if (budget->runs.size() <= cell) budget->runs.resize(std::max<std::size_t>(cell + 1, budget->runs.size() * 3 / 2));
  const std::size_t run = budget->runs[cell];
  if (run == max_runs) throw Malformed("more than " + std::to_string(max_runs) + " runs of one cell at " + std::to_string(r.epochs) + " epochs");
  if (budget->blocks.size() <= run) budget->blocks.resize(run + 1);
  std::vector<Block>& blocks = budget->blocks[run];
  const std::size_t which = cell / block_cells;
  if (blocks.size() <= which) blocks.resize(which + 1);
  if (!blocks[which]) {
    blocks[which] = std::make_unique_for_overwrite<float[]>(block_cells * n_metrics);
    std::fill_n(blocks[which].get(), block_cells * n_metrics, std::numeric_limits<float>::quiet_NaN());
  }
  std::copy(r.metrics, r.metrics + n_metrics, blocks[which].get() + cell % block_cells * n_metrics);
  ++budget->runs[cell];
  ++records;
  extended += r.extended;
  off_half += r.off_half;
}

void TableBuilder::finish(const ForEach& for_each) {
  drain(true, for_each);
  if (records == 0) throw Malformed(faults ? "no record could be read; the first fault: " + first_fault : "holds no record");
  std::sort(budgets_.begin(), budgets_.end(), [](const Budget& a, const Budget& b) { return a.epochs < b.epochs; });
  order_.resize(cells_.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto ascending = [&](std::uint32_t a, std::uint32_t b) { return cells_[a].module_hash < cells_[b].module_hash; };
  if (!std::is_sorted(order_.begin(), order_.end(), ascending)) std::sort(order_.begin(), order_.end(), ascending);
}

std::vector<int> TableBuilder::budgets() const {
  std::vector<int> epochs;
  for (const Budget& b : budgets_) epochs.push_back(b.epochs);
  return epochs;
}

int TableBuilder::runs() const {
  std::size_t most = 0;
  for (const Budget& b : budgets_) most = std::max(most, b.blocks.size());
  return static_cast<int>(most);
}

Columns TableBuilder::columns() const {
  Columns out;
  for (const std::uint32_t i : order_) {
    const CellRow& row = cells_[i];
    out.module_hash.push_back(row.module_hash);
    out.vertices.push_back(static_cast<std::uint8_t>(row.graph.vertices));
    out.edge_bits.push_back(row.graph.edge_bits);
    out.op_codes.push_back(row.op_codes);
    out.trainable_parameters.push_back(row.trainable_parameters);
  }
  return out;
}

void TableBuilder::column(float* values, int metric, int budget, int run) const {
  if (metric < 0 || metric >= n_metrics || budget < 0 || budget >= static_cast<int>(budgets_.size()) || run < 0)
    throw std::invalid_argument("there is no column of metric " + std::to_string(metric) + ", budget " + std::to_string(budget) + ", run " +
                                std::to_string(run));
  static const std::vector<Block> none;
  const Budget& b = budgets_[budget];
  const std::vector<Block>& blocks = static_cast<std::size_t>(run) < b.blocks.size() ? b.blocks[run] : none;
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const std::size_t cell = order_[i], which = cell / block_cells;
    values[i] = which < blocks.size() && blocks[which] ? blocks[which][cell % block_cells * n_metrics + metric] : std::numeric_limits<float>::quiet_NaN();
  }
}

std::ptrdiff_t find_hash(const Digest* sorted, std::size_t n, const std::string& hex) {
  static const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  if (hex.size() != 32 || std::any_of(hex.begin(), hex.end(), [](char c) { return digit(c) < 0; }))
    throw std::invalid_argument("module_hash is '" + hex + "', expected 32 hexadecimal digits in lower case");
  Digest wanted;
  for (int i = 0; i < 16; ++i) wanted[i] = static_cast<std::uint8_t>(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
  const Digest* found = std::lower_bound(sorted, sorted + n, wanted);
  return found != sorted + n && *found == wanted ? found - sorted : -1;
}

}  // namespace spd::nasbench
