#include "batch.hpp"

#include <omp.h>
#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

namespace spd {

int default_threads() { return omp_get_num_procs(); }

int most_threads() { return std::max(64, 4 * default_threads()); }

namespace {

// How many threads the last region of this thread had, itself included. OpenMP keeps them, and starts more only where the next region needs more. Where others
// use the same OpenMP library, they may have made it keep fewer since.
thread_local int kept_threads = 1;

// OpenMP keeps the threads of a region for the next region of the same caller. A forked child has none of them and would wait for them for ever. So the thread
// that forks ends its own first; parent and child make new ones. LLVM's OpenMP handles forks itself, but its kept threads spin for 200 ms unless told not to.
void keep_threads_usable() {
  const auto before_fork = [] {
    kept_threads = 1;
#if !defined(__clang__)
    omp_pause_resource_all(omp_pause_soft);
#endif
  };
  [[maybe_unused]] static const int registered = pthread_atfork(before_fork, nullptr, nullptr);
#if defined(__clang__)
  kmp_set_blocktime(0);
#endif
}

#if defined(__linux__)
long thread_id() { return syscall(SYS_gettid); }
bool is_counted(long thread) { return syscall(SYS_tgkill, getpid(), thread, 0) == 0; }
#else
long thread_id() { return 0; }
bool is_counted(long) { return false; }
#endif

// Returns how many of n more threads the system lets this process have. Only trying tells: it starts threads, which wait for each other and then end.
int threads_to_be_had(int n) {
  std::atomic<bool> end{false};
  std::vector<long> ids(n);
  std::vector<std::thread> threads;
  threads.reserve(n);
  try {
    for (long& id : ids)
      threads.emplace_back([&] {
        id = thread_id();
        end.wait(false);
      });
  } catch (const std::exception&) {  // std::system_error: the system refused a thread
  }
  end = true;
  end.notify_all();
  for (std::thread& t : threads) t.join();
  // The system goes on counting a joined thread for some microseconds, or milliseconds if it is busy, in which it could refuse OpenMP another one.
  for (std::size_t i = 0; i < threads.size(); ++i)
    for (int tries = 0; tries < 20000 && is_counted(ids[i]); ++tries) std::this_thread::sleep_for(std::chrono::microseconds(10));
  return static_cast<int>(threads.size());
}

// The processors that the calling thread may use. Kept threads still have those of an earlier call, so they take these before they work. They do not where
// OpenMP was told to bind threads itself.
class CallersProcessors {
#if defined(__linux__)
 public:
  CallersProcessors() : known_(omp_get_proc_bind() == omp_proc_bind_false && sched_getaffinity(0, sizeof set_, &set_) == 0) {}
  void take() const {
    if (known_) sched_setaffinity(0, sizeof set_, &set_);
  }

 private:
  cpu_set_t set_{};
  bool known_;
#else
 public:
  void take() const {}
#endif
};

const int kProcessors = omp_get_num_procs();  // as the OpenMP library counted them when it was loaded

// Returns how many threads a region needs in which `workers` work: one for each worker, one for the caller, and idle ones until they are more than the
// processors. Only then does GCC's OpenMP let waiting threads sleep at once. Otherwise they would spin for milliseconds while others work.
//
// OpenMP ends the process where the system refuses it a thread. So this function tries first whether the threads can be had that OpenMP would have to start. If
// only some can, the region does without idle threads, then with fewer workers. Inside another region OpenMP starts all threads anew and keeps none.
int region_threads(int workers) {
  const bool are_kept = omp_get_level() == 0;
  const int here = are_kept ? kept_threads : 1;
  int wanted = std::min(std::max(workers, kProcessors) + 1, omp_get_thread_limit());
  if (wanted > here) {
    const int most = here + threads_to_be_had(wanted - here);
    if (most < wanted) wanted = std::min(most, workers + 1);
  }
  if (are_kept) kept_threads = wanted;
  return wanted;
}

}  // namespace

void run_jobs(const std::vector<double>& costs, int threads, Control& control, const std::function<void(int, Worker&)>& job,
              const std::function<bool(double)>& poll) {
  const int n = static_cast<int>(costs.size());
  if (n == 0) return;
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return costs[i] > costs[j]; });
  const double total = std::accumulate(costs.begin(), costs.end(), 0.0);

  threads = std::clamp(threads > 0 ? threads : default_threads(), 1, most_threads());
  std::vector<std::unique_ptr<Worker>> workers;  // each begins with the cost of the job that it is likely to take first
  for (int t = 0; t < threads; ++t) workers.push_back(std::make_unique<Worker>(threads, t < n ? costs[order[t]] : 0));
  std::atomic<int> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  std::condition_variable finished;
  int through = 0;

  const auto watch = [&] {
    if (!control.stop && !poll(total > 0 ? std::min(1.0, control.done.load() / total) : 0)) control.stop = true;
  };
  const auto guarded = [&](int i, Worker& worker) {
    try {
      job(i, worker);
    } catch (...) {
      control.stop = true;
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  // Returns the worker whose team can be joined and has the most work a thread, or null.
  const auto hardest = [&](int present) {
    const auto work = [](const Worker& w) { return w.team.open() ? w.cost.load(std::memory_order_relaxed) / w.team.size() : -1; };
    Worker* most = nullptr;
    for (int t = 0; t < present; ++t) {
      Worker& w = *workers[t];
      if (w.team.open() && (!most || work(w) > work(*most))) most = &w;
    }
    return most;
  };
  // What worker t of the `present` ones does. after_job() is called after each of its jobs.
  const auto work = [&](int t, int present, const auto& after_job) {
    Worker& own = *workers[t];
    for (int i; !control.stop.load(std::memory_order_relaxed) && (i = next++) < n;) {
      own.cost = costs[order[i]];
      guarded(order[i], own);
      after_job();
    }
    own.team.close();
    while (Worker* other = hardest(present)) other->team.serve();
    const std::lock_guard<std::mutex> lock(mutex);
    if (++through == present) finished.notify_one();
  };

  keep_threads_usable();
  const CallersProcessors processors;
  // A training may call back Python code that trains, too. The region of the inner training is then inside that of the outer one.
  if (omp_get_active_level() >= omp_get_max_active_levels()) omp_set_max_active_levels(omp_get_active_level() + 1);
  const int asked_for = region_threads(threads);
#pragma omp parallel num_threads(asked_for)
  {
    // There may be fewer workers than were asked for, because of OMP_THREAD_LIMIT, OMP_DYNAMIC or what region_threads found.
    const int t = omp_get_thread_num(), present = std::min(threads, omp_get_num_threads() - 1);
    if (present == 0) {
      work(0, 1, watch);  // the caller is alone and does the jobs itself
    } else if (t == 0) {  // the caller sleeps, so that each of the others finds a processor, and stays free to answer signals
      std::unique_lock<std::mutex> lock(mutex);
      while (!finished.wait_for(lock, std::chrono::milliseconds(100), [&] { return through == present; })) {
        lock.unlock();
        watch();
        lock.lock();
      }
    } else if (t <= present) {
      processors.take();
      work(t - 1, present, [] {});
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace spd
