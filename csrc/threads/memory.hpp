// The memory that a thread uses for its jobs.
#pragma once

#include <cstddef>

namespace spd {

// Aligned memory that every job finds zeroed; it grows as needed and is used again.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();
  void* zeroed(std::size_t bytes);  // throws std::bad_alloc

 private:
  void release();

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace spd
