// A sigmoid with a slope, behind a dense layer:
//
//   forward   a = 1 / (1 + exp(-slope (z + bias)))          z = weight x: conv1x1.hpp, at the one pixel of Grid(1, 1)
//   backward  dz = slope a (1 - a) da;  dbias = sum over images of dz
//   tangent   u_t = z_t + bias_t;  a_t = slope a (1 - a) u_t;  dz_t = slope a (1 - a) (da_t + slope (1 - 2 a) da u_t)
//
// z, a and da are views in the row-vector layout. Forward writes a over z as well, because the gradient of a will overwrite a; the tangent writes u_t over z_t.
// Backward reads both there, and overwrites them with dz and dz_t. da and a may be one place. Precondition of backward: lanes without an image are zero in da.
// The slope is that of Rawal et al. 2020, arXiv:2005.13092. Precision: all is in the element type; sums are taken by lanes, then pairwise.
#pragma once

#include <cmath>

#include "../plan/grid.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

// ---- the specification of a dense layer with its sigmoid: a, da (n, units); x, dx (n, features); weight (units, features)

template <class T>
void dense_sigmoid_ref(T* a, T* dx, T* dweight, T* dbias, const T* x, const T* weight, const T* bias, const T* da, T slope, int n, int features, int units) {
  for (int i = 0; i < n * features; ++i) dx[i] = 0;
  for (int i = 0; i < units * features; ++i) dweight[i] = 0;
  for (int u = 0; u < units; ++u) dbias[u] = 0;
  for (int b = 0; b < n; ++b)
    for (int u = 0; u < units; ++u) {
      T z = bias[u];
      for (int f = 0; f < features; ++f) z += weight[u * features + f] * x[b * features + f];
      const T s = 1 / (1 + std::exp(-slope * z)), dz = slope * s * (1 - s) * da[b * units + u];
      a[b * units + u] = s;
      dbias[u] += dz;
      for (int f = 0; f < features; ++f) {
        dweight[u * features + f] += dz * x[b * features + f];
        dx[b * features + f] += dz * weight[u * features + f];
      }
    }
}

// Calls f(pointer to z, pointer to other) for every vector of channel c in the blocks begin..end - 1.
template <class T, class U, class F>
SPD_INLINE void each_vector(View<T> z, View<U> other, const Grid& grid, int begin, int end, int c, F&& f) {
  for (int b = begin; b < end; ++b)
    for (std::size_t at = 0; at < grid.plane(); at += lanes<T>) f(z.at(b, c) + at, other.at(b, c) + at);
}

template <class T>
SPD_NOINLINE void sigmoid_forward(View<T> z, View<T> a, const T* bias, T slope, const Grid& grid, int begin, int end, int channels) {
  for (int c = 0; c < channels; ++c)
    each_vector(z, a, grid, begin, end, c, [&](T* z_c, T* a_c) {
      T s[lanes<T>];
      for (int lane = 0; lane < lanes<T>; ++lane) s[lane] = 1 / (1 + std::exp(-slope * (z_c[lane] + bias[c])));
      store(z_c, load<T>(s));
      store(a_c, load<T>(s));
    });
}
template <class T>
SPD_NOINLINE void sigmoid_backward(View<T> z, T* dbias, View<const T> da, T slope, const Grid& grid, int blocks, int channels) {
  for (int c = 0; c < channels; ++c) {
    vec<T> total{};
    each_vector(z, da, grid, 0, blocks, c, [&](T* z_c, const T* da_c) {
      const vec<T> s = load<T>(z_c), dz = slope * s * (1 - s) * load<T>(da_c);
      store(z_c, dz);
      total += dz;
    });
    dbias[c] = sum<T>(total);
  }
}

// apart: the elements from a tensor to its tangent.
template <class T>
SPD_NOINLINE void sigmoid_tangent(View<T> z, View<T> a, std::ptrdiff_t apart, const T* bias_t, T slope, const Grid& grid, int blocks, int channels) {
  for (int c = 0; c < channels; ++c)
    each_vector(z, a, grid, 0, blocks, c, [&](T* z_c, T* a_c) {
      const vec<T> s = load<T>(z_c), u_t = load<T>(z_c + apart) + bias_t[c];
      store(z_c + apart, u_t);
      store(a_c + apart, slope * s * (1 - s) * u_t);
    });
}
template <class T>
SPD_NOINLINE void sigmoid_backward_tangent(View<T> z, T* dbias_t, View<const T> da, std::ptrdiff_t apart, T slope, const Grid& grid, int blocks, int channels) {
  for (int c = 0; c < channels; ++c) {
    vec<T> total{};
    each_vector(z, da, grid, 0, blocks, c, [&](T* z_c, const T* da_c) {
      const vec<T> s = load<T>(z_c), d = load<T>(da_c), rise = slope * s * (1 - s);
      const vec<T> dz_t = rise * (load<T>(da_c + apart) + slope * (1 - 2 * s) * d * load<T>(z_c + apart));
      store(z_c, rise * d);
      store(z_c + apart, dz_t);
      total += dz_t;
    });
    dbias_t[c] = sum<T>(total);
  }
}

}  // namespace spd::SPD_ISA
