// ReLU of a sum, in place. One bit for each lane says where it was open. Backward needs only these, and the sum may be overwritten.
//
//   forward   z = max(z, 0),  open = [z > 0]
//   backward  d = [open] d;  given `open` this is linear, so it is also its own tangent and that of the forward
//
// z and d are views in the row-vector layout. z is zero in lanes without a pixel, and so is d afterwards.
#pragma once

#include "../plan/grid.hpp"
#include "../simd.hpp"

namespace spd::SPD_ISA {

// ---- the specification, on flat arrays

template <class T>
void relu_ref(T* z, T* dx, const T* x, const T* dz, int elements) {
  for (int i = 0; i < elements; ++i) {
    z[i] = x[i] < 0 ? 0 : x[i];
    dx[i] = x[i] > 0 ? dz[i] : 0;
  }
}

// ----

using Open = std::uint16_t;  // a bit for each lane of a vector

// Calls f(pointer to a vector, its open lanes) for every vector of the blocks begin..end - 1. open: (blocks, channels, vectors of a plane).
template <class T, class F>
SPD_INLINE void each_open_vector(View<T> z, Open* open, const Grid& grid, int begin, int end, int channels, F&& f) {
  open += static_cast<std::size_t>(begin) * channels * grid.vectors();
  for (int b = begin; b < end; ++b)
    for (int c = 0; c < channels; ++c) {
      T* p = z.at(b, c);
      for (int v = 0; v < grid.vectors(); ++v, p += lanes<T>, ++open) f(p, *open);
    }
}

template <class T>
void relu_forward(View<T> z, Open* open, const Grid& grid, int begin, int end, int channels) {
  each_open_vector<T>(z, open, grid, begin, end, channels, [](T* p, Open& kept) {
    const vec<T> v = load(p);
    kept = static_cast<Open>(bits_of_mask<T>(greater<T>(v, zeros<T>())));
    store<T>(p, at_least<T>(zeros<T>(), v));
  });
}
template <class T>
void relu_backward(View<T> d, Open* open, const Grid& grid, int begin, int end, int channels) {
  each_open_vector<T>(d, open, grid, begin, end, channels, [](T* p, const Open& kept) { store<T>(p, load_masked<T>(p, mask_of_bits<T>(kept))); });
}

}  // namespace spd::SPD_ISA
