// Many motifs at once: the only parallel region. One thread, one motif, longest first; threads that find no motif (any more) join those that have one.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "control.hpp"
#include "memory.hpp"
#include "team.hpp"

namespace spd {

struct Worker {  // what the owner of a team keeps between jobs
  Memory network, metrics;
  Team team;
  std::atomic<double> cost;  // of its present job

  Worker(int threads, double cost) : team(threads), cost(cost) {}
};

// Runs job(i, worker) for i = 0 .. costs.size() - 1, the costliest first, on `threads` threads (0: default_threads()), at most most_threads(). Meanwhile the
// calling thread calls poll(share of the cost done) ten times a second; poll returns false to stop, and does not throw. Rethrows the first exception of a job.
void run_jobs(const std::vector<double>& costs, int threads, Control& control, const std::function<void(int, Worker&)>& job,
              const std::function<bool(double)>& poll);

// Threads to use where the caller names none: the processors that this process may use.
int default_threads();

// Threads that a call uses at most: 64, or four times the processors that this process may use, whichever is more.
int most_threads();

}  // namespace spd
