#include "../calls/machine.hpp"
#include "../calls/ops.hpp"
#include "../span.hpp"
#include "jobs.hpp"

namespace spd {
namespace {

struct ProfileRecord {
  std::vector<std::string> parts;
  std::vector<AnyOp> ops;
  std::size_t parameters;
  int lanes;
  Array<double> whole, timed, seconds;
};

ProfileRecord profile_one(const MotifSpec& spec, Array<float> images, Array<float> labels, Array<float> parameters, const Optimizer& optimizer, double rate,
                          double batch_norm_momentum, double batch_norm_eps, bool direct_convolutions, int repeats, py::object progress) {
  const std::vector<MotifSpec> specs{spec};
  const DataSet<float> data = data_set<float>(images, labels, {spec});
  if (repeats < 1) fail("repeats is " + std::to_string(repeats) + ", expected at least 1");
  const Motifs<float> motif = motifs_to_read(specs, data, true, direct_convolutions);
  expect_parameters({parameters}, motif);
  const Plan& plan = motif.plans[0];
  Array<double> whole = nan_array<double>({repeats}), timed = nan_array<double>({repeats});
  Array<double> seconds = zero_array<double>({repeats, static_cast<py::ssize_t>(plan.ops.size()) + 1, kParts});
  ProfileJob<float> job{};
  job.data = data, job.optimizer = optimizer, job.rate = rate, job.batch_norm_momentum = batch_norm_momentum, job.batch_norm_eps = batch_norm_eps;
  job.repeats = repeats, job.whole = whole.mutable_data(), job.timed = timed.mutable_data(), job.seconds = seconds.mutable_data();
  watched(1, progress, [&](const Run& run) { profile(motif, parameters.data(), job, run); });
  return {{std::begin(kPartNames), std::end(kPartNames)}, ops_of(plan), plan.n_parameters, plan.lanes, whole, timed, seconds};
}

// The fields that every op has.
template <class Op>
void place(RecordClass<Op>& op) {
  op.field("height", &Op::height).field("width", &Op::width).field("elements", &Op::elements);
}

void bind_ops(py::module_& m) {
  place(RecordClass<ConvOp>(m, "ConvOp")
            .field("size", &ConvOp::size)
            .field("c_in", &ConvOp::c_in)
            .field("c_out", &ConvOp::c_out)
            .field("weight", &ConvOp::weight)
            .field("forward", &ConvOp::forward)
            .field("wgrad", &ConvOp::wgrad)
            .field("dgrad", &ConvOp::dgrad)
            .field("terms", &ConvOp::terms)
            .field("flows", &ConvOp::flows)
            .field("keeps", &ConvOp::keeps));
  place(RecordClass<SumOp>(m, "SumOp")
            .field("channels", &SumOp::channels)
            .field("terms", &SumOp::terms)
            .field("flows", &SumOp::flows)
            .field("gathers", &SumOp::gathers)
            .field("passes", &SumOp::passes)
            .field("relu", &SumOp::relu));
  place(RecordClass<PoolOp>(m, "PoolOp")
            .field("size", &PoolOp::size)
            .field("average", &PoolOp::average)
            .field("channels", &PoolOp::channels)
            .field("gathered", &PoolOp::gathered)
            .field("elements_in", &PoolOp::elements_in));
  place(RecordClass<DenseOp>(m, "DenseOp").field("c_in", &DenseOp::c_in).field("c_out", &DenseOp::c_out));
  place(RecordClass<HeadOp>(m, "HeadOp").field("channels", &HeadOp::channels).field("classes", &HeadOp::classes).field("terms", &HeadOp::terms));
}

}  // namespace

void bind_measure(py::module_& m) {
  bind_ops(m);
  RecordClass<ProfileRecord>(m, "Profile")
      .field("parts", &ProfileRecord::parts)
      .field("ops", &ProfileRecord::ops)
      .field("parameters", &ProfileRecord::parameters)
      .field("lanes", &ProfileRecord::lanes)
      .field("whole", &ProfileRecord::whole)
      .field("timed", &ProfileRecord::timed)
      .field("seconds", &ProfileRecord::seconds);
  m.def("profile", profile_one, py::arg("spec"), py::arg("images").noconvert(), py::arg("labels").noconvert(), py::arg("parameters").noconvert(),
        py::arg("optimizer"), py::arg("rate"), py::arg("batch_norm_momentum"), py::arg("batch_norm_eps"), py::arg("direct_convolutions"), py::arg("repeats"),
        py::arg("progress"));
  using Released = py::call_guard<py::gil_scoped_release>;
  m.def("fma_peak", fma_peak, py::arg("seconds") = 0.1, Released());
  m.def("clock_rate", clock_rate, py::arg("seconds") = 0.1, Released());
  m.def("read_rate", read_rate, py::arg("bytes"), py::arg("seconds") = 0.1, Released());
  m.def("write_rate", write_rate, py::arg("bytes"), py::arg("seconds") = 0.1, Released());
}

}  // namespace spd
