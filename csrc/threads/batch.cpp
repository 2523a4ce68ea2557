#include "batch.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <system_error>
#include <thread>

namespace spd {

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
