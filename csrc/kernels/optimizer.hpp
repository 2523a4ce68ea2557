// One pass over the flat parameter vector w with gradient g and two state vectors a, b. lr, t: of this step, t = 1, 2, ...
//
//   Adam      g += wd w;  a = b1 a + (1 - b1) g;  b = b2 b + (1 - b2) g^2;  w -= lr / (1 - b1^t) * a / (sqrt(b) / sqrt(1 - b2^t) + eps)
//             (Kingma and Ba 2015, arXiv:1412.6980; weight decay as PyTorch's Adam: L2, not decoupled)
//   SGD       g += wd w;  a = momentum a + g (a = g at t = 1);  w -= lr * (nesterov ? g + momentum a : a)                 (PyTorch's)
//   RMSProp   g += wd w;  b = alpha b + (1 - alpha) g^2 (b = 1 before t = 1);  a = momentum a + lr g / sqrt(b + eps);  w -= a   (TensorFlow 1's)
//
// Precision: element type; step constants in double.
#pragma once

#include <cmath>

#include "../plan.hpp"
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
        a[i] = b1 * a[i] + c1 * gi;
        b[i] = b2 * b[i] + c2 * gi * gi;
        w[i] -= step * a[i] / (std::sqrt(b[i]) * root + eps);
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

}  // namespace spd::SPD_ISA
