// Preloaded before the C library: counts the calls that allocate on every thread but the main one, which is Python's. `operator new` calls malloc.
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>

namespace {
std::atomic<long> calls{0};
void count() {
  if (syscall(SYS_gettid) != getpid()) ++calls;
}
}  // namespace

extern "C" {
// glibc's own, behind the names that are taken here.
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

long allocations() { return calls.load(); }

void* malloc(std::size_t bytes) { return count(), __libc_malloc(bytes); }
void* calloc(std::size_t n, std::size_t bytes) { return count(), __libc_calloc(n, bytes); }
void* realloc(void* p, std::size_t bytes) { return count(), __libc_realloc(p, bytes); }
void* memalign(std::size_t alignment, std::size_t bytes) { return count(), __libc_memalign(alignment, bytes); }
void* aligned_alloc(std::size_t alignment, std::size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** p, std::size_t alignment, std::size_t bytes) { return (*p = memalign(alignment, bytes)) ? 0 : ENOMEM; }
}
