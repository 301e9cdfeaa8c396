// Functions of vectors of floats, within about two units in the last place of the true value
// everywhere; NaN gives NaN, infinities their limits, and what is too small for a float of full
// precision becomes subnormal or 0.
#pragma once

#include "vectors.h"

namespace nnk::NNK_NAMESPACE {

typedef unsigned Words __attribute__((vector_size(kLanes * sizeof(float))));

inline __attribute__((always_inline)) Words words_of(Vector x) {
  Words words;
  __builtin_memcpy(&words, &x, sizeof words);
  return words;
}

inline __attribute__((always_inline)) Vector vector_of(Words words) {
  Vector x;
  __builtin_memcpy(&x, &words, sizeof x);
  return x;
}

inline __attribute__((always_inline)) Vector magnitude(Vector x) {
  return vector_of(words_of(x) & 0x7fffffffu);
}

// The magnitude of x with the sign of y.
inline __attribute__((always_inline)) Vector with_sign(Vector x, Vector y) {
  return vector_of((words_of(x) & 0x7fffffffu) | (words_of(y) & 0x80000000u));
}

// Where one of them is NaN, the first one.
inline __attribute__((always_inline)) Vector smaller(Vector x, Vector y) { return y < x ? y : x; }
inline __attribute__((always_inline)) Vector larger(Vector x, Vector y) { return x < y ? y : x; }

// e^r of x = n·ln 2 + r with |r| ≤ ½·ln 2, and n as what `kRounding` became by adding it. ln 2 is in
// two parts, of which the first has so few bits that its products are exact; the polynomial is that
// of Cephes' expf (S. Moshier).
constexpr float kRounding = 12582912.0f;  // 1.5·2²³: to add it rounds to a whole number
constexpr unsigned kRoundingWord = 0x4b400000u;

inline __attribute__((always_inline)) Vector exponential_of_rest(Vector x, Vector* shifted) {
  *shifted = x * 1.44269504088896341f + kRounding;
  const Vector n = *shifted - kRounding;
  Vector r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return (p * (r * r) + r) + 1.0f;
}

// e^x.
inline __attribute__((always_inline)) Vector exponential(Vector x) {
  x = larger(smaller(x, broadcast(89.0f)), broadcast(-104.0f));
  Vector shifted;
  const Vector p = exponential_of_rest(x, &shifted);
  // 2^n in two factors, as it may itself be too large or too small.
  const Words n = words_of(shifted) - kRoundingWord + 256u;  // n + 256
  const Words half = n >> 1;
  return p * vector_of((half - 1u) << 23) * vector_of((n - half - 1u) << 23);
}

// 1/(1 + e^−x).
inline __attribute__((always_inline)) Vector sigmoid(Vector x) {
  const Vector e = exponential(vector_of(words_of(x) | 0x80000000u));  // e^−|x|
  return (x < 0.0f ? e : broadcast(1.0f)) / (1.0f + e);
}

// tanh x = 1 − 2/(e^2x + 1), and where that would cancel the polynomial of Cephes' tanhf.
inline __attribute__((always_inline)) Vector hyperbolic_tangent(Vector x) {
  const Vector size = magnitude(x);
  const Vector doubled = smaller(size + size, broadcast(20.0f));  // where it is 1 already
  Vector shifted;
  const Vector p = exponential_of_rest(doubled, &shifted);
  const Vector e = p * vector_of((words_of(shifted) - kRoundingWord + 127u) << 23);
  const Vector far = 1.0f - 2.0f / (e + 1.0f);
  const Vector s = x * x;
  Vector q = s * -5.70498872745e-3f + 2.06390887954e-2f;
  q = q * s + -5.37397155531e-2f;
  q = q * s + 1.33314422036e-1f;
  q = q * s + -3.33332819422e-1f;
  const Vector near = q * s * size + size;
  return with_sign(size < 0.625f ? near : far, x);
}

}  // namespace nnk::NNK_NAMESPACE
