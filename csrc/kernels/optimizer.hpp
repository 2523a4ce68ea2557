// A step of an optimiser is one pass over the flat parameter vector w, its gradient g and two state vectors
// a and b. t = 1, 2, ... counts steps; lr is the rate of this step.
//
//   Adam      g += wd w;  a = b1 a + (1 - b1) g;  b = b2 b + (1 - b2) g^2;  w -= lr / (1 - b1^t) * a / (sqrt(b) / sqrt(1 - b2^t) + eps)
//             (Kingma and Ba 2015, arXiv:1412.6980; weight decay as PyTorch's Adam: L2, not decoupled)
//   SGD       g += wd w;  a = momentum a + g (a = g at t = 1);  w -= lr * (nesterov ? g + momentum a : a)                 (PyTorch's)
//   RMSProp   g += wd w;  b = alpha b + (1 - alpha) g^2 (b = 1 before t = 1);  a = momentum a + lr g / sqrt(b + eps);  w -= a   (TensorFlow 1's)
//
// `optimizer_reverse` is the reverse of one step. From the adjoints of w, a and b after the step it computes those before it, without the second-order part
// (the Hessian's), which needs the gradient's tangent along g_adjoint. Where b = 0 the term of its adjoint is taken as 0, as the root has no derivative there.
//
// Precision: all is in the element type, but for constants of a step, which are computed in double.
#pragma once

#include <cmath>

#include "../plan/plan.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

template <class T>
void optimizer_start(T* a, T* b, const Optimizer& how, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    a[i] = 0;
    b[i] = how.kind == Optimizer::Kind::rmsprop ? T(1) : T(0);
  }
}

template <class T>
SPD_NOINLINE void optimizer_step(T* w, const T* g, T* a, T* b, const Optimizer& how, double rate, long t, std::size_t n) {
  const T decay = static_cast<T>(how.weight_decay), momentum = static_cast<T>(how.momentum), eps = static_cast<T>(how.eps);
  switch (how.kind) {
    case Optimizer::Kind::adam: {
      const T b1 = static_cast<T>(how.momentum), b2 = static_cast<T>(how.decay), c1 = static_cast<T>(1 - how.momentum), c2 = static_cast<T>(1 - how.decay);
      const T step = static_cast<T>(rate / (1 - std::pow(how.momentum, static_cast<double>(t))));
      const T root = static_cast<T>(1 / std::sqrt(1 - std::pow(how.decay, static_cast<double>(t))));
      for (std::size_t i = 0; i < n; ++i) {
        const T gi = g[i] + decay * w[i];
        const T ai = b1 * a[i] + c1 * gi, bi = b2 * b[i] + c2 * gi * gi;  // kept in registers: a vector that was just stored across two cache lines comes late
        a[i] = ai;
        b[i] = bi;
        w[i] -= step * ai / (std::sqrt(bi) * root + eps);
      }
      break;
    }
    case Optimizer::Kind::sgd: {
      const T lr = static_cast<T>(rate), keep_old = t == 1 ? T(0) : momentum;
      const T g_weight = how.nesterov ? T(1) : T(0), a_weight = how.nesterov ? momentum : T(1);
      for (std::size_t i = 0; i < n; ++i) {
        const T gi = g[i] + decay * w[i];
        a[i] = keep_old * a[i] + gi;
        w[i] -= lr * (g_weight * gi + a_weight * a[i]);
      }
      break;
    }
    case Optimizer::Kind::rmsprop: {
      const T lr = static_cast<T>(rate), alpha = static_cast<T>(how.decay), rest = static_cast<T>(1 - how.decay);
      for (std::size_t i = 0; i < n; ++i) {
        const T gi = g[i] + decay * w[i];
        b[i] = alpha * b[i] + rest * gi * gi;
        a[i] = momentum * a[i] + lr * gi / std::sqrt(b[i] + eps);
        w[i] -= a[i];
      }
      break;
    }
  }
}

// Turns the adjoints w_a, a_a and b_a after step t into those before it, and writes g_a, the adjoint of the gradient before weight decay is added (what the
// decay adds to w_a is added here). w, a and b are those before the step; g is the gradient of the loss at w. Returns d / d rate. Unless momentum_a is null,
// adds d / d momentum to it; for Adam, whose momentum is beta 1, that is not computed.
template <class T>
SPD_NOINLINE double optimizer_reverse(T* w_a, T* a_a, T* b_a, T* g_a, double* momentum_a, const T* w, const T* a, const T* b, const T* g, const Optimizer& how,
                                      double rate, long t, std::size_t n) {
  const T decay = static_cast<T>(how.weight_decay), lr = static_cast<T>(rate), eps = static_cast<T>(how.eps), momentum = static_cast<T>(how.momentum);
  double rate_a = 0, by_momentum = 0;
  switch (how.kind) {
    case Optimizer::Kind::adam: {
      const T b1 = static_cast<T>(how.momentum), b2 = static_cast<T>(how.decay), c1 = static_cast<T>(1 - how.momentum), c2 = static_cast<T>(1 - how.decay);
      const T first = static_cast<T>(1 / (1 - std::pow(how.momentum, static_cast<double>(t))));  // bias corrections
      const T second = static_cast<T>(1 / (1 - std::pow(how.decay, static_cast<double>(t))));
      for (std::size_t i = 0; i < n; ++i) {
        const T gi = g[i] + decay * w[i], m_hat = (b1 * a[i] + c1 * gi) * first, root = std::sqrt((b2 * b[i] + c2 * gi * gi) * second), d = root + eps;
        rate_a -= static_cast<double>(w_a[i]) * m_hat / d;
        const T a_after = a_a[i] - lr * w_a[i] * first / d;
        const T b_after = b_a[i] + (root > 0 ? lr * w_a[i] * m_hat * second / (d * d * 2 * root) : T(0));
        g_a[i] = c1 * a_after + 2 * c2 * gi * b_after;
        w_a[i] += decay * g_a[i];
        a_a[i] = b1 * a_after;
        b_a[i] = b2 * b_after;
      }
      break;
    }
    case Optimizer::Kind::sgd: {
      const T keep_old = t == 1 ? T(0) : momentum, g_weight = how.nesterov ? T(1) : T(0), a_weight = how.nesterov ? momentum : T(1);
      for (std::size_t i = 0; i < n; ++i) {
        const T gi = g[i] + decay * w[i], after = keep_old * a[i] + gi;
        rate_a -= static_cast<double>(w_a[i]) * (g_weight * gi + a_weight * after);
        const T a_after = a_a[i] - lr * a_weight * w_a[i];
        if (t > 1) by_momentum += static_cast<double>(a_after) * a[i];
        if (how.nesterov) by_momentum -= static_cast<double>(lr) * w_a[i] * after;
        g_a[i] = a_after - lr * g_weight * w_a[i];
        w_a[i] += decay * g_a[i];
        a_a[i] = keep_old * a_after;
      }
      break;
    }
    case Optimizer::Kind::rmsprop: {
      const T alpha = static_cast<T>(how.decay), rest = static_cast<T>(1 - how.decay);
      for (std::size_t i = 0; i < n; ++i) {
        const T gi = g[i] + decay * w[i], square = alpha * b[i] + rest * gi * gi + eps, root = std::sqrt(square);
        const T a_after = a_a[i] - w_a[i];
        rate_a += static_cast<double>(a_after) * gi / root;
        by_momentum += static_cast<double>(a_after) * a[i];
        const T b_after = b_a[i] - (root > 0 ? a_after * lr * gi / (2 * square * root) : T(0));
        g_a[i] = a_after * lr / root + 2 * rest * gi * b_after;
        w_a[i] += decay * g_a[i];
        a_a[i] = momentum * a_after;
        b_a[i] = alpha * b_after;
      }
      break;
    }
  }
  if (momentum_a) *momentum_a += by_momentum;
  return rate_a;
}

}  // namespace spd::SPD_ISA
