#include "memory.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace spd {
namespace {

constexpr std::size_t kLine = 64, kHugePage = std::size_t{2} << 20;

std::size_t whole(std::size_t bytes, std::size_t units) { return (bytes + units - 1) / units * units; }

#if defined(__linux__)
// Returns zeroed memory from the system, in huge pages. An allocator may hand out memory again that lies in small pages. Reading megabytes in strides of
// kilobytes takes a few per cent longer there, because more addresses have to be translated. bytes: a multiple of the huge page.
void* huge_pages(std::size_t bytes) {
  void* mapped = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  char *begin = static_cast<char*>(mapped), *end = begin + bytes + kHugePage;
  char* aligned = reinterpret_cast<char*>(whole(reinterpret_cast<std::uintptr_t>(begin), kHugePage));
  if (aligned > begin) munmap(begin, aligned - begin);
  munmap(aligned + bytes, end - (aligned + bytes));
  madvise(aligned, bytes, MADV_HUGEPAGE);  // nothing depends on whether the system follows this advice
  return aligned;
}
#endif

}  // namespace

Memory::~Memory() { release(); }

void* Memory::zeroed(std::size_t bytes) {
  bytes = whole(bytes, kLine);
  if (bytes <= bytes_) return std::memset(data_, 0, bytes);
  release();
#if defined(__linux__)
  if (bytes >= kHugePage) {
    data_ = huge_pages(whole(bytes, kHugePage));
    bytes_ = whole(bytes, kHugePage);
    return data_;
  }
#endif
  data_ = std::aligned_alloc(kLine, bytes);
  if (!data_) throw std::bad_alloc();
  bytes_ = bytes;
  return std::memset(data_, 0, bytes);
}

void Memory::release() {
  const std::size_t bytes = std::exchange(bytes_, 0);
#if defined(__linux__)
  if (bytes >= kHugePage) {
    munmap(data_, bytes);
    return;
  }
#endif
  if (bytes > 0) std::free(data_);
}

}  // namespace spd
