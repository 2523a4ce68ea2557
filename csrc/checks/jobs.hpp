// One kernel on (n, c, h, w) arrays, for tests and benches: what is asked of it. kernels.hpp packs into the layout, runs and unpacks.
#pragma once

#include "../plan/plan.hpp"

namespace spd {

template <class T>
struct ConvCheck {
  int n, c_in, c_out, height, width, size;
  const T *x, *k, *dy;
  T *y, *dx, *dk;       // each null: not wanted
  Algorithm algorithm;  // where the shape allows it, else direct
  int repeats;          // > 0: seconds[0..2] of forward, dgrad, wgrad, each the shortest of so many
  int threads;          // of wgrad
  double seconds[3];
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
  int n, channels, height, width, size;  // size 3: stride 1; size 2: stride 2
  const T *x, *dy;
  T *y, *dx;
  bool average;  // 3x3 alone
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
  T *logit, *dx, *dweight, *dbias;  // of the mean cross-entropy
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
