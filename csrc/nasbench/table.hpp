// From records to columns: which cells there are, and the metrics of every run of each at every budget.
#pragma once

#include <memory>

#include "tfrecord.hpp"

namespace spd::nasbench {

inline constexpr int max_budgets = 32, max_runs = 32;  // the official file has 4 budgets and 3 runs at each

class TableBuilder {
 public:
  // strict: the first fault ends the reading, as Malformed with the record's number and offset. Otherwise faults are counted and passed over.
  explicit TableBuilder(bool strict) : strict_(strict) {}

  void add(const std::uint8_t* data, std::size_t size, const ForEach& for_each);
  void finish(const ForEach& for_each);  // no more is added; sorts by module_hash

  std::size_t cells() const { return cells_.size(); }
  std::vector<int> budgets() const;  // ascending
  int runs() const;                  // the most of any cell at any budget

  Columns columns() const;

  // One metric of every cell's run number `run` at budgets()[budget], in the order of rows; NaN where a cell has fewer runs. Throws std::invalid_argument
  // where there is no such metric or budget, or `run` is negative.
  void column(float* values, int metric, int budget, int run) const;

  std::uint64_t records = 0, faults = 0, extended = 0, off_half = 0;
  std::string first_fault;

 private:
  static constexpr std::size_t block_cells = 256;
  using Block = std::unique_ptr<float[]>;  // block_cells x n_metrics
  struct CellRow {
    Digest module_hash;
    Graph graph;
    std::uint16_t op_codes;
    std::int32_t trainable_parameters;
  };
  struct Budget {
    int epochs;
    std::vector<std::uint8_t> runs;          // of every cell
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
  std::vector<std::uint32_t> slots_, order_;  // open addressing: 1 + index of a cell, 0 where free
  std::vector<Budget> budgets_;
};

// The row of a hash among ascending ones, or -1. The hash is written as 32 hexadecimal digits in lower case, else std::invalid_argument.
std::ptrdiff_t find_hash(const Digest* sorted, std::size_t n, const std::string& hex);

}  // namespace spd::nasbench
