// Trains one small motif with the portable instruction set, on a team of two, and prints the loss of every step. Given the losses that another machine
// printed, as arguments, it fails unless they agree.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../csrc/engine.hpp"
#include "../../csrc/random.hpp"
#include "../../csrc/threads/batch.hpp"

namespace spd {
namespace {

constexpr int kImages = 12, kEpochs = 4, kBatch = 4, kSteps = kEpochs * kImages / kBatch, kClasses = 3, kSide = 8;
constexpr double kTolerance = 1e-5;  // float, with and without fused multiply-adds

std::vector<float> random(std::uint64_t key, std::size_t n, float low, float high) {
  std::vector<float> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = low + (high - low) * static_cast<float>(uniform(key, static_cast<std::uint32_t>(i), 0, 0));
  return out;
}

// Every op, two stacks, odd channel counts.
MotifSpec motif() {
  MotifSpec spec;
  spec.vertices = 5;
  spec.matrix = {0, 1, 1, 1, 0,   //
                 0, 0, 1, 0, 1,   //
                 0, 0, 0, 1, 0,   //
                 0, 0, 0, 0, 1,   //
                 0, 0, 0, 0, 0};  //
  spec.ops = {0, 2, 1};
  spec.channels = {{5, 3, 2, 2, 5}, {5, 5, 5, 5, 10}};
  spec.stem_channels = 5, spec.stacks = 2, spec.cells_per_stack = 1, spec.classes = kClasses, spec.image_channels = 3, spec.height = spec.width = kSide;
  return spec;
}

std::vector<double> losses() {
  const EngineFunctions<float>& f = baseline::engine().f32;
  const Plan plan = make_plan(motif(), kBatch, Passes::forward_backward, f.lanes, sizeof(float), false);
  std::vector<float> images = random(1, kImages * 3 * kSide * kSide, -1, 1), labels(kImages * kClasses), parameters(plan.n_parameters);
  for (int i = 0; i < kImages; ++i) labels[i * kClasses + i % kClasses] = 1;
  for (const NamedSlice& s : plan.parameters) {
    std::size_t n = 1;
    for (const int extent : s.shape) n *= extent;
    const bool is_scale = s.name.ends_with("bn.weight");
    const std::vector<float> values = random(2 + s.offset, n, is_scale ? 1 : -0.3f, is_scale ? 1 : 0.3f);
    std::copy(values.begin(), values.end(), parameters.begin() + s.offset);
  }
  std::vector<float> running(2 * plan.batch_norms, 1);
  std::vector<std::int64_t> order(kEpochs * kImages);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i * 5 % kImages;
  const std::vector<double> rates(kSteps, 1e-2);
  TrainSettings<float> s{};
  s.train = {images.data(), labels.data(), kImages};
  s.order = order.data(), s.epochs = kEpochs, s.batch = kBatch, s.steps_per_epoch = kImages / kBatch;
  s.optimizer = {Optimizer::Kind::adam, 0.9, 0.999, 1e-8, 0, false}, s.rates = rates.data();
  s.batch_norm_momentum = 0.1, s.batch_norm_eps = 1e-5;
  std::vector<double> step_loss(kSteps), step_accuracy(kSteps), loss(kEpochs), accuracy(kEpochs);
  Control control;
  run_jobs(
      {1}, 2, control,
      [&](int, Worker& worker) {
        TrainJob<float> job{};
        job.plan = &plan;
        job.memory = static_cast<float*>(worker.network.zeroed(f.memory(plan, worker.team) * sizeof(float)));
        job.parameters = parameters.data(), job.running = running.data();
        job.loss = loss.data(), job.accuracy = accuracy.data(), job.step_loss = step_loss.data(), job.step_accuracy = step_accuracy.data();
        f.train(s, job, control, worker.team);
      },
      [](double) { return true; });
  return step_loss;
}

}  // namespace
}  // namespace spd

int main(int argc, char** argv) {
  const std::vector<double> found = spd::losses();
  int apart = argc > 1 && argc - 1 != static_cast<int>(found.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    std::printf("%.9f\n", found[i]);
    if (!apart && argc > 1) apart = !(std::abs(found[i] - std::atof(argv[i + 1])) <= spd::kTolerance);
  }
  if (apart) std::fprintf(stderr, "these losses are not those given, to %g\n", spd::kTolerance);
  return apart;
}
