// The kernels one by one, and their references, for tests and benches.
#define SPD_ISA reference  // the references are plain loops, which are compiled once, for the baseline
#include "../calls/ops.hpp"
#include "../engine.hpp"
#include "../kernels/batch_norm.hpp"
#include "../kernels/conv3x3.hpp"
#include "../kernels/head.hpp"
#include "../kernels/pool.hpp"
#include "../kernels/relu.hpp"
#include "../kernels/sigmoid.hpp"
#include "jobs.hpp"

namespace spd {
namespace {

// ---- what comes back; a name with d in front is the gradient of that array

struct ConvRecord {
  py::array y, dx, dk;
  std::vector<double> seconds;  // of forward, dgrad and wgrad; empty for the reference
};
struct BatchNormRecord {  // of batch norm and the ReLU behind it
  py::array z, mean, var, dy, dgamma, dbeta;
};
struct PoolRecord {
  py::array y, dx;
};
struct ReluRecord {
  py::array z, dx;
};
struct HeadRecord {  // of average pooling, the dense layer and the mean cross-entropy
  double loss;
  py::array logit, dx, dweight, dbias;
};
struct DenseRecord {  // of a dense layer and its sigmoid
  py::array a, dx, dweight, dbias;
};

template <class T>
Array<T> make(std::vector<py::ssize_t> shape) {
  return Array<T>(shape);
}
template <class T>
int dim(const Array<T>& a, int i) {
  return static_cast<int>(a.shape(i));
}

template <class T>
ConvRecord conv(Array<T> x, Array<T> k, Array<T> dy, const std::string& algorithm, int repeats, int threads) {
  const int n = dim(x, 0), c_in = dim(x, 1), h = dim(x, 2), w = dim(x, 3), c_out = dim(k, 0), size = dim(k, 2);
  Array<T> y = make<T>({n, c_out, h, w}), dx = make<T>({n, c_in, h, w}), dk = make<T>({c_out, c_in, size, size});
  ConvCheck<T> q{n,
                 c_in,
                 c_out,
                 h,
                 w,
                 size,
                 x.data(),
                 k.data(),
                 dy.data(),
                 y.mutable_data(),
                 dx.mutable_data(),
                 dk.mutable_data(),
                 named<Algorithm>("algorithm", algorithm, kAlgorithmNames),
                 repeats,
                 threads,
                 {}};
  engine().of<T>().conv(q);
  return {y, dx, dk, {std::begin(q.seconds), std::end(q.seconds)}};
}
template <class T>
ConvRecord conv_ref(Array<T> x, Array<T> k, Array<T> dy) {
  const int n = dim(x, 0), c_in = dim(x, 1), h = dim(x, 2), w = dim(x, 3), c_out = dim(k, 0), size = dim(k, 2);
  Array<T> y = make<T>({n, c_out, h, w}), dx = make<T>({n, c_in, h, w}), dk = make<T>({c_out, c_in, size, size});
  reference::conv_forward_ref<T>(y.mutable_data(), x.data(), k.data(), n, c_in, c_out, h, w, size);
  reference::conv_backward_ref<T>(dx.mutable_data(), dk.mutable_data(), dy.data(), x.data(), k.data(), n, c_in, c_out, h, w, size);
  return {y, dx, dk, {}};
}

template <class T>
BatchNormRecord batch_norm(Array<T> y, Array<T> gamma, Array<T> beta, Array<T> dz, double eps, bool ref) {
  const int n = dim(y, 0), c = dim(y, 1), h = dim(y, 2), w = dim(y, 3);
  Array<T> z = make<T>({n, c, h, w}), dy = make<T>({n, c, h, w}), mean = make<T>({c}), var = make<T>({c}), dgamma = make<T>({c}), dbeta = make<T>({c});
  if (ref) {
    reference::batch_norm_relu_ref<T>(z.mutable_data(), mean.mutable_data(), var.mutable_data(), y.data(), gamma.data(), beta.data(), n, c, h * w,
                                      static_cast<T>(eps));
    reference::batch_norm_relu_backward_ref<T>(dy.mutable_data(), dgamma.mutable_data(), dbeta.mutable_data(), dz.data(), y.data(), gamma.data(), beta.data(),
                                               n, c, h * w, static_cast<T>(eps));
  } else {
    BatchNormCheck<T> q{n,
                        c,
                        h,
                        w,
                        y.data(),
                        gamma.data(),
                        beta.data(),
                        dz.data(),
                        z.mutable_data(),
                        mean.mutable_data(),
                        var.mutable_data(),
                        dy.mutable_data(),
                        dgamma.mutable_data(),
                        dbeta.mutable_data(),
                        eps};
    engine().of<T>().batch_norm(q);
  }
  return {z, mean, var, dy, dgamma, dbeta};
}

// Size 3 has stride 1. Size 2 has stride 2; only the maximum is pooled in that way.
template <class T>
PoolRecord pool(Array<T> x, Array<T> dy, int size, bool average, bool ref) {
  const int n = dim(x, 0), c = dim(x, 1), h = dim(x, 2), w = dim(x, 3);
  Array<T> y = make<T>({n, c, size == 3 ? h : h / 2, size == 3 ? w : w / 2}), dx = make<T>({n, c, h, w});
  if (!ref) {
    PoolCheck<T> q{n, c, h, w, size, x.data(), dy.data(), y.mutable_data(), dx.mutable_data(), average};
    engine().of<T>().pool(q);
  } else if (average) {
    reference::avgpool_ref<T>(y.mutable_data(), dx.mutable_data(), x.data(), dy.data(), n * c, h, w);
  } else {
    reference::maxpool_ref<T>(y.mutable_data(), dx.mutable_data(), x.data(), dy.data(), n * c, h, w, size, size == 3 ? 1 : 2);
  }
  return {y, dx};
}
template <class T>
PoolRecord maxpool(Array<T> x, Array<T> dy, int size, bool ref) {
  return pool<T>(x, dy, size, false, ref);
}
template <class T>
PoolRecord avgpool(Array<T> x, Array<T> dy, bool ref) {
  return pool<T>(x, dy, 3, true, ref);
}
template <class T>
ReluRecord relu(Array<T> x, Array<T> dz, bool ref) {
  const int n = dim(x, 0), c = dim(x, 1), h = dim(x, 2), w = dim(x, 3);
  Array<T> z = make<T>({n, c, h, w}), dx = make<T>({n, c, h, w});
  if (ref) {
    reference::relu_ref<T>(z.mutable_data(), dx.mutable_data(), x.data(), dz.data(), static_cast<int>(x.size()));
  } else {
    ReluCheck<T> q{n, c, h, w, x.data(), dz.data(), z.mutable_data(), dx.mutable_data()};
    engine().of<T>().relu(q);
  }
  return {z, dx};
}

template <class T>
HeadRecord head(Array<T> x, Array<T> weight, Array<T> bias, Array<T> label, const std::string& loss, bool ref) {
  const int n = dim(x, 0), c = dim(x, 1), h = dim(x, 2), w = dim(x, 3), classes = dim(weight, 0);
  Array<T> logit = make<T>({n, classes}), dx = make<T>({n, c, h, w}), dweight = make<T>({classes, c}), dbias = make<T>({classes});
  HeadCheck<T> q{n,
                 c,
                 h,
                 w,
                 classes,
                 named<Loss>("loss", loss, kLossNames),
                 x.data(),
                 weight.data(),
                 bias.data(),
                 label.data(),
                 logit.mutable_data(),
                 dx.mutable_data(),
                 dweight.mutable_data(),
                 dbias.mutable_data(),
                 0};
  if (ref)
    q.loss = reference::head_ref<T>(q.logit, q.dx, q.dweight, q.dbias, q.x, q.weight, q.bias, q.label, q.kind, n, c, h * w, classes);
  else
    engine().of<T>().head(q);
  return {q.loss, logit, dx, dweight, dbias};
}

template <class T>
DenseRecord dense(Array<T> x, Array<T> weight, Array<T> bias, Array<T> da, double slope, bool ref) {
  const int n = dim(x, 0), features = dim(x, 1), units = dim(weight, 0);
  Array<T> a = make<T>({n, units}), dx = make<T>({n, features}), dweight = make<T>({units, features}), dbias = make<T>({units});
  DenseCheck<T> q{n,
                  features,
                  units,
                  slope,
                  x.data(),
                  weight.data(),
                  bias.data(),
                  da.data(),
                  a.mutable_data(),
                  dx.mutable_data(),
                  dweight.mutable_data(),
                  dbias.mutable_data()};
  if (ref)
    reference::dense_sigmoid_ref<T>(q.a, q.dx, q.dweight, q.dbias, q.x, q.weight, q.bias, q.da, static_cast<T>(slope), n, features, units);
  else
    engine().of<T>().dense(q);
  return {a, dx, dweight, dbias};
}

template <class T>
void bind(py::module_& m) {
  m.def("conv", conv<T>, py::arg("x").noconvert(), py::arg("k").noconvert(), py::arg("dy").noconvert(), py::arg("algorithm") = "direct", py::arg("repeats") = 0,
        py::arg("threads") = 1);
  m.def("conv_ref", conv_ref<T>, py::arg("x").noconvert(), py::arg("k").noconvert(), py::arg("dy").noconvert());
  m.def("batch_norm", batch_norm<T>, py::arg("y").noconvert(), py::arg("gamma"), py::arg("beta"), py::arg("dz"), py::arg("eps"), py::arg("ref") = false);
  m.def("head", head<T>, py::arg("x").noconvert(), py::arg("weight"), py::arg("bias"), py::arg("label"), py::arg("loss") = "softmax", py::arg("ref") = false);
  m.def("dense", dense<T>, py::arg("x").noconvert(), py::arg("weight"), py::arg("bias"), py::arg("da"), py::arg("slope"), py::arg("ref") = false);
  m.def("avgpool", avgpool<T>, py::arg("x").noconvert(), py::arg("dy").noconvert(), py::arg("ref") = false);
  m.def("relu", relu<T>, py::arg("x").noconvert(), py::arg("dz").noconvert(), py::arg("ref") = false);
  m.def("maxpool", maxpool<T>, py::arg("x").noconvert(), py::arg("dy").noconvert(), py::arg("size"), py::arg("ref") = false);
}

}  // namespace

void bind_kernels(py::module_& m) {
  m.attr("algorithms") = py::cast(std::vector<std::string>(std::begin(kAlgorithmNames), std::end(kAlgorithmNames)));
  m.def("algorithms_at", algorithms_at, py::arg("height"), py::arg("width"));
  RecordClass<ConvRecord>(m, "Conv")
      .field("y", &ConvRecord::y)
      .field("dx", &ConvRecord::dx)
      .field("dk", &ConvRecord::dk)
      .field("seconds", &ConvRecord::seconds);
  RecordClass<BatchNormRecord>(m, "BatchNorm")
      .field("z", &BatchNormRecord::z)
      .field("mean", &BatchNormRecord::mean)
      .field("var", &BatchNormRecord::var)
      .field("dy", &BatchNormRecord::dy)
      .field("dgamma", &BatchNormRecord::dgamma)
      .field("dbeta", &BatchNormRecord::dbeta);
  RecordClass<PoolRecord>(m, "Pool").field("y", &PoolRecord::y).field("dx", &PoolRecord::dx);
  RecordClass<ReluRecord>(m, "Relu").field("z", &ReluRecord::z).field("dx", &ReluRecord::dx);
  RecordClass<HeadRecord>(m, "Head")
      .field("loss", &HeadRecord::loss)
      .field("logit", &HeadRecord::logit)
      .field("dx", &HeadRecord::dx)
      .field("dweight", &HeadRecord::dweight)
      .field("dbias", &HeadRecord::dbias);
  RecordClass<DenseRecord>(m, "Dense")
      .field("a", &DenseRecord::a)
      .field("dx", &DenseRecord::dx)
      .field("dweight", &DenseRecord::dweight)
      .field("dbias", &DenseRecord::dbias);
  bind<float>(m);
  bind<double>(m);
}

}  // namespace spd
