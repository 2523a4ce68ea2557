#include "measure.hpp"

#include <algorithm>

#include "../span.hpp"
#include "jobs.hpp"

namespace spd {
namespace {

const char* name_of(Algorithm how) { return kAlgorithmNames[static_cast<int>(how)]; }

py::dict conv_of(const Conv& c) {
  py::dict d;
  d["kind"] = "conv", d["size"] = c.size, d["c_in"] = c.c_in, d["c_out"] = c.c_out, d["weight"] = c.weight;
  d["forward"] = name_of(c.forward), d["wgrad"] = name_of(c.wgrad);
  d["dgrad"] = c.reads_images ? py::object(py::none()) : py::cast(name_of(c.dgrad));
  return d;
}
// Channels times the tensors that meet in each; `step` 0 (one vector for all pixels) does not count.
int meeting(const std::vector<Segment>& segments) {
  int total = 0;
  for (const Segment& s : segments)
    for (int i = 0; i < s.n; ++i) total += (s.end - s.begin) * (s.source[i].step != 0);
  return total;
}
// Channels times the tensors that a pooling's gradient is gathered from, and that it is gathered to.
int gathered(const Pool& p, const Plan& plan) {
  int total = 0;
  for (const Segment& s : p.flows)
    if (s.n > 0 && (p.from != p.to || !is_read_in_place(s, plan.grids[p.from], plan.batch))) total += s.end - s.begin + meeting({s});
  return total;
}
// Each op in words and counts. elements: of one channel of the batch, lanes without a pixel among them.
py::list ops_of(const Plan& plan) {
  const auto elements = [&](int grid) { return plan.grids[grid].plane() * plan.grids[grid].blocks(plan.batch); };
  py::list out;
  for (const Op& op : plan.ops) {
    py::dict d;
    int grid = 0;
    switch (op.kind) {
      case Op::Kind::conv: {
        const Conv& c = plan.convs[op.index];
        d = conv_of(c), d["flows"] = meeting(c.flows), grid = c.grid;
        d["terms"] = c.sum < 0 ? c.c_in : meeting(plan.sums[c.sum].terms);
        d["keeps"] = c.wgrad == Algorithm::winograd2d && c.c_in <= engine().few;
        break;
      }
      case Op::Kind::sum: {
        const Sum& s = plan.sums[op.index];
        d["kind"] = "sum", d["channels"] = s.channels, d["terms"] = meeting(s.terms), d["flows"] = meeting(s.flows), d["gathers"] = !s.flows.empty(),
        d["passes"] = s.passes, d["relu"] = s.relu, grid = s.grid;
        break;
      }
      case Op::Kind::pool: {
        const Pool& p = plan.pools[op.index];
        d["kind"] = "pool", d["size"] = p.from == p.to ? 3 : 2, d["average"] = p.average, d["channels"] = p.channels, d["gathered"] = gathered(p, plan),
        grid = p.to;
        d["elements_in"] = elements(p.from);
        break;
      }
      case Op::Kind::dense: {
        const Conv& c = plan.dense[op.index].product;
        d["kind"] = "dense", d["c_in"] = c.c_in, d["c_out"] = c.c_out, grid = c.grid;
        break;
      }
      case Op::Kind::head: {
        const Head& h = plan.head;
        d["kind"] = "head", d["channels"] = h.channels, d["classes"] = h.classes, grid = h.grid;
        d["terms"] = h.sum < 0 ? h.channels : meeting(plan.sums[h.sum].terms);
      }
    }
    d["height"] = plan.grids[grid].height, d["width"] = plan.grids[grid].width, d["elements"] = elements(grid);
    out.append(d);
  }
  return out;
}

py::dict profile(const MotifSpec& spec, Array<float> images, Array<float> labels, Array<float> parameters, const Optimizer& optimizer, double rate,
                 double batch_norm_momentum, double batch_norm_eps, bool strict, int repeats, py::object progress) {
  const DataSet<float> data = data_set<float>(images, labels, spec);
  if (repeats < 1) fail("repeats is " + std::to_string(repeats) + ", expected at least 1");
  const EngineFunctions<float>& f = engine().f32;
  const Plan plan = make_plan(spec, data.n, Passes::forward_backward, f.lanes, sizeof(float), strict);
  expect_shape(parameters, "parameters", {static_cast<py::ssize_t>(plan.n_parameters)});
  std::vector<float> own(parameters.data(), parameters.data() + parameters.size()), running(2 * plan.batch_norms, 1.0f);
  Array<double> whole = nan_array({repeats}), timed = nan_array({repeats});
  Array<double> seconds = zero_array<double>({repeats, static_cast<py::ssize_t>(plan.ops.size()) + 1, kParts});
  ProfileJob<float> job{&plan,
                        nullptr,
                        own.data(),
                        running.data(),
                        data,
                        optimizer,
                        rate,
                        batch_norm_momentum,
                        batch_norm_eps,
                        repeats,
                        whole.mutable_data(),
                        timed.mutable_data(),
                        seconds.mutable_data()};
  run_watched({6 * plan.flops * data.n * repeats}, 1, progress, [&](int, Worker& worker, Control& control) {
    job.memory = static_cast<float*>(worker.network.zeroed(f.memory(plan, worker.team) * sizeof(float)));
    f.profile(job, control, worker.team);
  });
  py::dict out;
  out["parts"] = py::cast(std::vector<std::string>(std::begin(kPartNames), std::end(kPartNames)));
  out["ops"] = ops_of(plan), out["parameters"] = plan.n_parameters, out["lanes"] = plan.lanes;
  out["whole"] = whole, out["timed"] = timed, out["seconds"] = seconds;
  return out;
}

}  // namespace

void bind_measure(py::module_& m) {
  m.def("profile", profile, py::arg("spec"), py::arg("images").noconvert(), py::arg("labels").noconvert(), py::arg("parameters").noconvert(),
        py::arg("optimizer"), py::arg("rate"), py::arg("batch_norm_momentum"), py::arg("batch_norm_eps"), py::arg("strict"), py::arg("repeats"),
        py::arg("progress"));
  m.def(
      "fma_peak",
      [](double seconds) {
        const py::gil_scoped_release release;
        return engine().f32.peak(seconds);
      },
      py::arg("seconds") = 0.1);
  m.def(
      "clock_rate",
      [](double seconds) {
        const py::gil_scoped_release release;
        return engine().f32.clock(seconds);
      },
      py::arg("seconds") = 0.1);
  const auto def_rate = [&](const char* name, auto rate) {
    m.def(
        name,
        [rate](std::size_t bytes, double seconds) {
          if (bytes == 0) fail("bytes is 0, expected at least 1");
          const py::gil_scoped_release release;
          constexpr std::size_t step = 1024;  // of the rates: eight vectors of any instruction set
          Memory memory;
          const std::size_t n = (bytes / sizeof(float) + step - 1) / step * step;
          return (engine().f32.*rate)(static_cast<float*>(memory.zeroed(n * sizeof(float))), n, seconds);
        },
        py::arg("bytes"), py::arg("seconds") = 0.1);
  };
  def_rate("read_rate", &EngineFunctions<float>::read);
  def_rate("write_rate", &EngineFunctions<float>::write);
}

}  // namespace spd
