#include "batch.hpp"

#include <omp.h>
#if defined(__linux__)
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
#include <thread>

namespace spd {

Memory::~Memory() { std::free(data_); }

void* Memory::zeroed(std::size_t bytes) {
  if (bytes > bytes_) {
    std::free(data_);
    bytes_ = 0;
    // Megabytes read in strides of kilobytes: with small pages, address translation takes a few hundredths of the time.
    constexpr std::size_t huge_page = std::size_t{2} << 20;
    const std::size_t alignment = bytes >= huge_page ? huge_page : 64;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    data_ = std::aligned_alloc(alignment, bytes);
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == huge_page) madvise(data_, bytes, MADV_HUGEPAGE);  // advice: nothing depends on it
#endif
    bytes_ = bytes;
  }
  std::memset(data_, 0, bytes);
  return data_;
}

int default_threads() { return omp_get_num_procs(); }

void run_jobs(const std::vector<double>& costs, int threads, Control& control, const std::function<void(int, Worker&)>& job,
              const std::function<bool(double)>& poll) {
  const int n = static_cast<int>(costs.size());
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return costs[i] > costs[j]; });
  const double total = std::accumulate(costs.begin(), costs.end(), 0.0);

  std::atomic<int> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  std::condition_variable finished;
  bool done = false;

  const auto guarded = [&](int i, Worker& worker) {
    try {
      job(i, worker);
    } catch (...) {
      control.stop = true;
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  // The calling thread stays free to answer signals; the region is this thread's.
  std::thread leader([&] {
    std::vector<std::unique_ptr<Worker>> workers;
    // Of the teams that can be joined, the one with the most work a thread; null: none.
    const auto hardest = [&] {
      const auto work = [](const Worker& w) { return w.team.open() ? w.cost.load(std::memory_order_relaxed) / w.team.size() : -1; };
      Worker* most = nullptr;
      for (const auto& w : workers)
        if (w->team.open() && (!most || work(*w) > work(*most))) most = w.get();
      return most;
    };
#pragma omp parallel num_threads(std::max(1, threads))
    {
      const int t = omp_get_thread_num(), all = omp_get_num_threads();
#pragma omp single
      for (next = 0; next < all; ++next) workers.push_back(std::make_unique<Worker>(all, next < n ? costs[order[next]] : 0));
      Worker& own = *workers[t];
      for (int i = t; i < n && !control.stop.load(std::memory_order_relaxed); i = next++) {
        own.cost = costs[order[i]];
        guarded(order[i], own);
      }
      own.team.close();
      while (Worker* other = hardest()) other->team.serve();
    }
    const std::lock_guard<std::mutex> lock(mutex);
    done = true;
    finished.notify_one();
  });
  std::unique_lock<std::mutex> lock(mutex);
  while (!finished.wait_for(lock, std::chrono::milliseconds(100), [&] { return done; })) {
    lock.unlock();
    if (!control.stop && !poll(total > 0 ? std::min(1.0, control.done.load() / total) : 0)) control.stop = true;
    lock.lock();
  }
  lock.unlock();
  leader.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace spd
