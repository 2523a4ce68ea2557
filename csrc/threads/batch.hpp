// The only parallel region, which runs the jobs of many motifs at once. Each thread takes one motif at a time, the longest first. A thread that finds no motif,
// from the start or any more, helps one that has.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "control.hpp"
#include "memory.hpp"
#include "team.hpp"

namespace spd {

// What a thread that takes jobs keeps between them. It is the owner of a team.
struct Worker {
  Memory network, metrics;
  Team team;
  std::atomic<double> cost;  // of the job that it is doing

  Worker(int threads, double cost) : team(threads), cost(cost) {}
};

// Runs job(i, worker) for i = 0 .. costs.size() - 1, the costliest first, on `threads` threads (0: default_threads()), at most most_threads(). Meanwhile the
// calling thread calls poll(share of the cost done) ten times a second; poll returns false to stop, and does not throw. Rethrows the first exception of a job.
void run_jobs(const std::vector<double>& costs, int threads, Control& control, const std::function<void(int, Worker&)>& job,
              const std::function<bool(double)>& poll);

// Returns how many threads a call uses where the caller names no number: one for each processor that this process may use.
int default_threads();

// Returns how many threads a call uses at most: 64, or four times the processors that this process may use, whichever is more.
int most_threads();

}  // namespace spd
