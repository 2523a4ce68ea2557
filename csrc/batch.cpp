#include "batch.hpp"

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <system_error>
#include <thread>
#include <utility>

namespace spd {
namespace {

constexpr std::size_t kLine = 64, kHugePage = std::size_t{2} << 20;

std::size_t whole(std::size_t bytes, std::size_t units) { return (bytes + units - 1) / units * units; }

#if defined(__linux__)
// Zeroed, from the system: what an allocator gives out again may lie in small pages. Megabytes read in strides of kilobytes take a few hundredths
// longer with those, for the translation of addresses. bytes: whole huge pages.
void* huge_pages(std::size_t bytes) {
  void* mapped = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  char *begin = static_cast<char*>(mapped), *end = begin + bytes + kHugePage;
  char* aligned = reinterpret_cast<char*>(whole(reinterpret_cast<std::uintptr_t>(begin), kHugePage));
  if (aligned > begin) munmap(begin, aligned - begin);
  munmap(aligned + bytes, end - (aligned + bytes));
  madvise(aligned, bytes, MADV_HUGEPAGE);  // advice: nothing depends on it
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

int default_threads() {
#if defined(__linux__)
  cpu_set_t processors;
  if (sched_getaffinity(0, sizeof processors, &processors) == 0) return CPU_COUNT(&processors);
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

void run_jobs(const std::vector<double>& costs, int threads, Control& control, const std::function<void(int, Worker&)>& job,
              const std::function<bool(double)>& poll) {
  const int n = static_cast<int>(costs.size());
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return costs[i] > costs[j]; });
  const double total = std::accumulate(costs.begin(), costs.end(), 0.0);

  threads = std::max(1, threads);
  std::vector<std::unique_ptr<Worker>> workers;  // with the cost of the job that each is likely to take first
  for (int t = 0; t < threads; ++t) workers.push_back(std::make_unique<Worker>(threads, t < n ? costs[order[t]] : 0));
  std::atomic<int> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  std::condition_variable finished;
  int working = 0;

  const auto guarded = [&](int i, Worker& worker) {
    try {
      job(i, worker);
    } catch (...) {
      control.stop = true;
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  // Of the teams that can be joined, the one with the most work a thread; null: none.
  const auto hardest = [&] {
    const auto work = [](const Worker& w) { return w.team.open() ? w.cost.load(std::memory_order_relaxed) / w.team.size() : -1; };
    Worker* most = nullptr;
    for (const auto& w : workers)
      if (w->team.open() && (!most || work(*w) > work(*most))) most = w.get();
    return most;
  };
  const auto work = [&](Worker& own) {
    for (int i; !control.stop.load(std::memory_order_relaxed) && (i = next++) < n;) {
      own.cost = costs[order[i]];
      guarded(order[i], own);
    }
    own.team.close();
    while (Worker* other = hardest()) other->team.serve();
    const std::lock_guard<std::mutex> lock(mutex);
    if (--working == 0) finished.notify_one();
  };

  // The calling thread makes them all and then sleeps, so that each finds a processor; it stays free to answer signals.
  std::vector<std::thread> running;
  running.reserve(threads);
  std::unique_lock<std::mutex> lock(mutex);
  try {
    for (const auto& w : workers) {
      running.emplace_back(work, std::ref(*w));
      ++working;
    }
  } catch (const std::system_error&) {  // no more threads to be had: the others do the work
    if (running.empty()) throw;
    for (std::size_t t = running.size(); t < workers.size(); ++t) workers[t]->team.close();
  }
  while (!finished.wait_for(lock, std::chrono::milliseconds(100), [&] { return working == 0; })) {
    lock.unlock();
    if (!control.stop && !poll(total > 0 ? std::min(1.0, control.done.load() / total) : 0)) control.stop = true;
    lock.lock();
  }
  lock.unlock();
  for (std::thread& t : running) t.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace spd
