// What tests and benches ask of a single kernel, on (n, c, h, w) arrays. kernels.hpp packs the arrays into the layout, runs the kernel and unpacks the results.
#pragma once

#include "../plan/plan.hpp"

namespace spd {

template <class T>
struct ConvCheck {
  int n, c_in, c_out, height, width, size;
  const T *x, *k, *dy;
  T *y, *dx, *dk;       // each is null where it is not wanted
  Algorithm algorithm;  // where the shape allows it, otherwise direct
  int repeats;          // each of the seconds is the shortest of so many runs
  int threads;          // they share wgrad
  double seconds[3];    // of forward, dgrad and wgrad
};
template <class T>
struct BatchNormCheck {
  int n, channels, height, width;
  const T *y, *gamma, *beta, *dz;
  T *z, *mean, *var, *dy, *dgamma, *dbeta;
  double eps;
};
template <class T>
struct PoolCheck {
  int n, channels, height, width, size;  // size 3 has stride 1, size 2 has stride 2
  const T *x, *dy;
  T *y, *dx;
  bool average;  // only with size 3
};
template <class T>
struct ReluCheck {
  int n, channels, height, width;
  const T *x, *dz;
  T *z, *dx;
};
template <class T>
struct HeadCheck {
  int n, channels, height, width, classes;
  Loss kind;
  const T *x, *weight, *bias, *label;
  T *logit, *dx, *dweight, *dbias;  // gradients are those of the mean cross-entropy
  double loss;
};
template <class T>
struct DenseCheck {
  int n, features, units;
  double slope;
  const T *x, *weight, *bias, *da;  // (n, features), (units, features), (units), (n, units)
  T *a, *dx, *dweight, *dbias;
};

}  // namespace spd
