// Functions of one number, written so that compilers make loops over vectors of them.
#pragma once

#include <cstdint>

#include "vectors.h"

namespace nnk::NNK_NAMESPACE {

#define NNK_INLINE inline __attribute__((always_inline))

NNK_INLINE float root(float x) { return __builtin_sqrtf(x); }
NNK_INLINE double root(double x) { return __builtin_sqrt(x); }

// a·b + c, rounded once where the processor does that.
NNK_INLINE float joined(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// c₀·xⁿ + c₁·xⁿ⁻¹ + … + cₙ, from the highest power on (Horner).
NNK_INLINE float polynomial(float, float sum) { return sum; }

template <class... Floats>
NNK_INLINE float polynomial(float x, float sum, float next, Floats... others) {
  return polynomial(x, joined(sum, x, next), others...);
}

NNK_INLINE float of_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

NNK_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

// e^x as a number near 1 and the exponent n of a power of 2: x = n·ln 2 + r with |r| ≤ ½·ln 2, where
// n·ln 2 is taken off in two parts; e^r by its series up to r⁷. Right to two units in the last
// place for |x| up to 104.
struct Power {
  float value;
  int32_t exponent;
};

NNK_INLINE Power power_of_e(float x) {
  const float shifted = joined(x, 1.44269504f, 12582912.0f);  // 1.5·2²³: rounds to a whole number
  const float n = shifted - 12582912.0f;
  const float r = joined(n, 2.12194440e-4f, joined(n, -0.693359375f, x));
  const float series = polynomial(r, 1.9841270e-4f, 1.3888889e-3f, 8.3333333e-3f, 4.1666667e-2f,
                                  1.6666667e-1f, 0.5f);
  return {joined(series * r, r, r) + 1.0f, int32_t(n)};
}

// Of any number: 2^n is applied in two halves, for results without an exponent of their own.
NNK_INLINE float exponential(float x) {
  const Power power = power_of_e(x > 89.0f ? 89.0f : x < -104.0f ? -104.0f : x);
  const int32_t half = power.exponent >> 1;
  const float first = of_bits(uint32_t(half + 127) << 23);
  const float second = of_bits(uint32_t(power.exponent - half + 127) << 23);
  return power.value * first * second;
}

// Of a number from −87 to 87.
NNK_INLINE float exponential_within(float x) {
  const Power power = power_of_e(x);
  return power.value * of_bits(uint32_t(power.exponent + 127) << 23);
}

// log x = e·ln 2 + log m with ½·√2 ≤ m < √2, log m = 2·artanh(s), s = (m − 1)/(m + 1).
NNK_INLINE float logarithm(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const float scaled = tiny ? x * 8388608.0f : x;
  const uint32_t bits = bits_of(scaled);
  const int32_t shift = int32_t(bits - 0x3f3504f3u) >> 23;
  const float m = of_bits(bits - (uint32_t(shift) << 23));
  const float e = float(shift) - (tiny ? 23.0f : 0.0f);
  const float f = m - 1.0f, s = f / (2.0f + f), z = s * s;
  const float series = polynomial(z, 0.24279078841f, 0.28498786688f, 0.40000972152f,
                                  0.66666662693f);
  const float half = 0.5f * f * f;
  const float value = e * 0.693359375f + (f - (half - (s * (half + series * z) - e * 2.12194440e-4f)));
  const float limit = x == 0.0f ? -__builtin_inff() : x < 0.0f ? __builtin_nanf("") : x;
  return x > 0.0f && x < __builtin_inff() ? value : limit;
}

// Near 0 by its series, else 1 − 2/(e^2|x| + 1), with the sign of x.
NNK_INLINE float hyperbolic_tangent(float x) {
  const float size = x < 0 ? -x : x, z = x * x;
  const float series = polynomial(z, -5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                                  1.33314422036e-1f, -3.33332819422e-1f);
  const float near = joined(series * z, x, x);
  const float bounded = size > 10.0f ? 10.0f : size;
  const float far = 1.0f - 2.0f / (exponential_within(2.0f * bounded) + 1.0f);
  return size < 0.625f ? near : x < 0 ? -far : far;
}

NNK_INLINE float logistic_function(float x) { return 1.0f / (1.0f + exponential(-x)); }

// Near 0 a series of odd powers, else 1 − e^−p(|x|).
NNK_INLINE float error_function(float x) {
  const float size = x < 0 ? -x : x, z = x * x;
  float near = polynomial(z, -5.99104969e-4f, 4.99339588e-3f, -2.67667342e-2f, 1.12818025e-1f,
                          -3.76124859e-1f, 1.28379151e-1f);
  near = joined(near, x, x);
  const float bounded = size > 3.925f ? 3.925f : size;
  float far = polynomial(bounded, 1.72948930e-5f, -3.83208680e-4f, 3.88393435e-3f, -2.42545605e-2f,
                         1.06777847e-1f, 6.34846687e-1f, 1.28717512e-1f);
  far = joined(far, bounded, bounded);
  far = 1.0f - exponential_within(-far);
  return size < 0.921875f ? near : x < 0 ? -far : far;
}

NNK_INLINE double exponential(double x) { return __builtin_exp(x); }
NNK_INLINE double logarithm(double x) { return __builtin_log(x); }
NNK_INLINE double hyperbolic_tangent(double x) { return __builtin_tanh(x); }
NNK_INLINE double error_function(double x) { return __builtin_erf(x); }
NNK_INLINE double logistic_function(double x) { return 1.0 / (1.0 + __builtin_exp(-x)); }

}  // namespace nnk::NNK_NAMESPACE
