// Turns records into columns: which cells there are, and the metrics of every run of each cell at every budget.
#pragma once

#include <memory>

#include "tfrecord.hpp"

namespace spd::nasbench {

inline constexpr int max_budgets = 32, max_runs = 32;  // the official file has 4 budgets and 3 runs at each

class TableBuilder {
 public:
  // A strict reader stops at the first fault and throws Malformed, with the record's number and offset. Otherwise faults are counted and passed over.
  explicit TableBuilder(bool strict) : strict_(strict) {}

  void add(const std::uint8_t* data, std::size_t size, const ForEach& for_each);
  void finish(const ForEach& for_each);  // to be called when nothing more is added; it sorts cells by module_hash

  std::size_t cells() const { return cells_.size(); }
  std::vector<int> budgets() const;  // in ascending order
  int runs() const;                  // the most runs of any cell at any budget

  Columns columns() const;

  // Writes one metric of run number `run` of every cell at budgets()[budget], in the order of columns(). It is NaN where a cell has fewer runs. Throws
  // std::invalid_argument where there is no such metric or budget, or `run` is negative.
  void column(float* values, int metric, int budget, int run) const;

  std::uint64_t records = 0, faults = 0, extended = 0, off_half = 0;
  std::string first_fault;

 private:
  static constexpr std::size_t block_cells = 256;
  using Block = std::unique_ptr<float[]>;  // (block_cells, n_metrics)
  struct CellRow {
    Digest module_hash;
    Graph graph;
    std::uint16_t op_codes;
    std::int32_t trainable_parameters;
  };
  struct Budget {
    int epochs;
    std::vector<std::uint8_t> runs;          // the number of runs of every cell
    std::vector<std::vector<Block>> blocks;  // [run][cell / block_cells]
  };

  void drain(bool last, const ForEach& for_each);
  void merge(const Record& record);
  void note(std::uint64_t number, std::uint64_t offset, const std::string& what);
  std::uint32_t find_or_add(const Record& record);

  bool strict_;
  Framer framer_;
  std::uint64_t frames_ = 0;
  std::vector<CellRow> cells_;
  std::vector<std::uint32_t> slots_, order_;  // slots_: open addressing, 1 + the index of a cell, or 0 where free
  std::vector<Budget> budgets_;
};

// Returns the row of a hash among ascending ones, or -1. Throws std::invalid_argument unless it is written as 32 hexadecimal digits in lower case.
std::ptrdiff_t find_hash(const Digest* sorted, std::size_t n, const std::string& hex);

}  // namespace spd::nasbench
