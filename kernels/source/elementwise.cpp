// The elementwise operations; compiled once for each instruction set, without joining products and
// sums into one rounding: results are those of ONNX's operators of the same names, bit by bit where
// these are exact.
#include "elementwise.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "dispatch.h"
#include "functions.h"

namespace nnk::NNK_NAMESPACE {
namespace {

template <class Result, class Number, class Body>
inline __attribute__((always_inline)) void loop(long count, void* to, const void* a, const void* b,
                                                const void* c, const void* d, Body body) {
  Result* result = static_cast<Result*>(to);
  const Number* x = static_cast<const Number*>(a);
  const Number* y = static_cast<const Number*>(b);
  const Number* z = static_cast<const Number*>(c);
  const Number* u = static_cast<const Number*>(d);
#pragma GCC ivdep
  for (long i = 0; i < count; i++) result[i] = body(x, y, z, u, i);
}

#define NNK_STEP(NAME, RESULT, EXPRESSION)                                                        \
  template <class T>                                                                              \
  void NAME(long count, void* to, const void* a, const void* b, const void* c, const void* d) {   \
    loop<RESULT, T>(count, to, a, b, c, d,                                                        \
                    [](const T* x, const T* y, const T* z, const T* u, long i) {                  \
                      (void)x, (void)y, (void)z, (void)u;                                         \
                      return EXPRESSION;                                                          \
                    });                                                                           \
  }

using Bool = uint8_t;

NNK_STEP(add, T, T(x[i] + y[i]))
NNK_STEP(sub, T, T(x[i] - y[i]))
NNK_STEP(mul, T, T(x[i] * y[i]))
NNK_STEP(div, T, T(x[i] / y[i]))
NNK_STEP(mul_add, T, T(x[i] * y[i] + z[i]))
NNK_STEP(mul_sub, T, T(x[i] * y[i] - z[i]))
NNK_STEP(sub_mul, T, T(z[i] - x[i] * y[i]))
NNK_STEP(mul_add_mul, T, T(x[i] * y[i] + z[i] * u[i]))
NNK_STEP(mul_div, T, T(x[i] * y[i] / z[i]))
NNK_STEP(mul_div_add, T, T(x[i] * y[i] / z[i] + u[i]))
NNK_STEP(div_mul, T, T(x[i] / y[i] * z[i]))
NNK_STEP(div_mul_add, T, T(x[i] / y[i] * z[i] + u[i]))
NNK_STEP(sqrt_add, T, T(root(x[i]) + y[i]))
NNK_STEP(add_add, T, T(x[i] + y[i] + z[i]))
NNK_STEP(add_mul, T, T((x[i] + y[i]) * z[i]))
NNK_STEP(add_mul_mul, T, T((x[i] + y[i]) * z[i] * u[i]))
NNK_STEP(mul_mul, T, T(x[i] * y[i] * z[i]))
NNK_STEP(mul_mul_add, T, T(x[i] * y[i] * z[i] + u[i]))
NNK_STEP(mul_exp, T, T(exponential(x[i] * y[i])))
NNK_STEP(mul_erf, T, T(error_function(x[i] * y[i])))
NNK_STEP(neg, T, T(-x[i]))
NNK_STEP(abs, T, T(x[i] < 0 ? -x[i] : x[i] + T(0)))
NNK_STEP(sign, T, T(x[i] > 0 ? T(1) : x[i] < 0 ? T(-1) : x[i] * T(0)))
NNK_STEP(max, T, T(x[i] > y[i] || x[i] != x[i] ? x[i] : y[i]))
NNK_STEP(min, T, T(x[i] < y[i] || x[i] != x[i] ? x[i] : y[i]))
NNK_STEP(relu, T, T(x[i] < 0 ? T(0) : x[i]))
NNK_STEP(less, Bool, Bool(x[i] < y[i]))
NNK_STEP(less_equal, Bool, Bool(x[i] <= y[i]))
NNK_STEP(equal, Bool, Bool(x[i] == y[i]))
NNK_STEP(is_nan, Bool, Bool(x[i] != x[i]))
NNK_STEP(logical_not, Bool, Bool(!x[i]))
NNK_STEP(bit_and, T, T(x[i] & y[i]))
NNK_STEP(bit_or, T, T(x[i] | y[i]))
NNK_STEP(bit_xor, T, T(x[i] ^ y[i]))
NNK_STEP(bit_not, T, T(~x[i]))
NNK_STEP(left, T, T(y[i] < T(8 * sizeof(T)) ? x[i] << y[i] : 0))
NNK_STEP(right, T, T(y[i] < T(8 * sizeof(T)) ? x[i] >> y[i] : 0))
NNK_STEP(sqrt, T, T(root(x[i])))
NNK_STEP(exp, T, T(exponential(x[i])))
NNK_STEP(log, T, T(logarithm(x[i])))
NNK_STEP(tanh, T, T(hyperbolic_tangent(x[i])))
NNK_STEP(erf, T, T(error_function(x[i])))
NNK_STEP(logistic, T, T(logistic_function(x[i])))
NNK_STEP(floor, T, T(__builtin_floor(x[i])))
NNK_STEP(ceil, T, T(__builtin_ceil(x[i])))
NNK_STEP(round, T, T(__builtin_rint(x[i])))
NNK_STEP(sin, T, T(__builtin_sin(x[i])))
NNK_STEP(cos, T, T(__builtin_cos(x[i])))
NNK_STEP(pow, T, T(sizeof(T) == 4 ? __builtin_powf(float(x[i]), float(y[i])) : __builtin_pow(x[i], y[i])))

// a[i] ? b[i] : c[i], a being bytes.
template <class T>
void where(long count, void* to, const void* a, const void* b, const void* c, const void*) {
  T* result = static_cast<T*>(to);
  const Bool* is = static_cast<const Bool*>(a);
  const T* x = static_cast<const T*>(b);
  const T* y = static_cast<const T*>(c);
#pragma GCC ivdep
  for (long i = 0; i < count; i++) {
    const T first = x[i], second = y[i];
    result[i] = is[i] ? first : second;
  }
}

template <class From, class To>
void cast(long count, void* to, const void* a, const void*, const void*, const void*) {
  To* result = static_cast<To*>(to);
  const From* x = static_cast<const From*>(a);
#pragma GCC ivdep
  for (long i = 0; i < count; i++) result[i] = To(x[i]);
}

template <class From>
void to_bool(long count, void* to, const void* a, const void*, const void*, const void*) {
  Bool* result = static_cast<Bool*>(to);
  const From* x = static_cast<const From*>(a);
#pragma GCC ivdep
  for (long i = 0; i < count; i++) result[i] = x[i] != 0;
}

// One number as often as asked for.
template <class T>
void fill(long count, void* to, const void* a, const void*, const void*, const void*) {
  T* result = static_cast<T*>(to);
  const T x = *static_cast<const T*>(a);
  for (long i = 0; i < count; i++) result[i] = x;
}

template <class T>
void copy(long count, void* to, const void* a, const void*, const void*, const void*) {
  std::memcpy(to, a, size_t(count) * sizeof(T));
}

// A copy of floats that goes past the caches, where nobody reads it soon: whole lines of them, for
// parts of lines take ten times as long.
void stream(long count, void* to, const void* a, const void*, const void*, const void*) {
  float* result = static_cast<float*>(to);
  const float* x = static_cast<const float*>(a);
#if defined(__SSE__)
  typedef float Four __attribute__((vector_size(16)));
#if defined(__AVX512F__)
  typedef float Wide __attribute__((vector_size(64)));
#elif defined(__AVX__)
  typedef float Wide __attribute__((vector_size(32)));
#else
  typedef Four Wide;
#endif
  long i = 0;
  for (; i < count && reinterpret_cast<uintptr_t>(result + i) % kLine; i++) result[i] = x[i];
  const long whole = i + (count - i) / (kLine / 4) * (kLine / 4);
  for (; i < whole; i += sizeof(Wide) / 4) {
    Wide value;
    __builtin_memcpy(&value, x + i, sizeof value);
#if defined(__AVX512F__)
    __builtin_ia32_movntps512(result + i, value);
#elif defined(__AVX__)
    __builtin_ia32_movntps256(result + i, value);
#else
    __builtin_ia32_movntps(result + i, value);
#endif
  }
  for (; i < count; i++) result[i] = x[i];
#else
  std::memcpy(result, x, size_t(count) * sizeof(float));
#endif
}

// Asks for what is read later.
template <class T>
void prefetch(long count, void*, const void* a, const void*, const void*, const void*) {
  const char* from = static_cast<const char*>(a);
  for (long i = 0; i < count * long(sizeof(T)); i += 64) __builtin_prefetch(from + i);
}

struct Named {
  const char* name;
  Step step;
};

#define NNK_REALS(NAME) {#NAME ".f", NAME<float>}, {#NAME ".d", NAME<double>}
#define NNK_WHOLES(NAME) \
  {#NAME ".l", NAME<int64_t>}, {#NAME ".i", NAME<int32_t>}, {#NAME ".u", NAME<uint32_t>}
#define NNK_NUMBERS(NAME) NNK_REALS(NAME), NNK_WHOLES(NAME)
#define NNK_ALL(NAME) NNK_NUMBERS(NAME), {#NAME ".b", NAME<Bool>}
#define NNK_CASTS(FROM, TYPE)                                                              \
  {"cast." FROM "f", cast<TYPE, float>}, {"cast." FROM "d", cast<TYPE, double>},           \
      {"cast." FROM "l", cast<TYPE, int64_t>}, {"cast." FROM "i", cast<TYPE, int32_t>},    \
      {"cast." FROM "u", cast<TYPE, uint32_t>}, {"cast." FROM "b", to_bool<TYPE>}

const Named kSteps[] = {
    NNK_NUMBERS(add), NNK_NUMBERS(sub), NNK_NUMBERS(mul), NNK_REALS(div), NNK_REALS(mul_add),
    NNK_REALS(mul_sub), NNK_REALS(sub_mul),
    NNK_REALS(mul_add_mul), NNK_REALS(mul_div), NNK_REALS(mul_div_add), NNK_REALS(div_mul),
    NNK_REALS(div_mul_add), NNK_REALS(sqrt_add), NNK_REALS(add_add), NNK_REALS(add_mul),
    NNK_REALS(add_mul_mul), NNK_REALS(mul_mul), NNK_REALS(mul_mul_add), NNK_REALS(mul_exp),
    NNK_REALS(mul_erf),
    NNK_ALL(prefetch), NNK_REALS(neg), NNK_REALS(abs), NNK_REALS(sign),
    NNK_NUMBERS(max), NNK_NUMBERS(min), NNK_REALS(relu), NNK_ALL(less), NNK_ALL(less_equal),
    NNK_ALL(equal), NNK_REALS(is_nan), {"not.b", logical_not<Bool>}, {"and.b", bit_and<Bool>},
    {"or.b", bit_or<Bool>}, {"xor.b", bit_xor<Bool>}, NNK_WHOLES(bit_and), NNK_WHOLES(bit_or),
    NNK_WHOLES(bit_xor), NNK_WHOLES(bit_not), {"left.u", left<uint32_t>},
    {"right.u", right<uint32_t>}, NNK_REALS(sqrt), NNK_REALS(exp), NNK_REALS(log), NNK_REALS(tanh),
    NNK_REALS(erf), NNK_REALS(logistic), NNK_REALS(floor), NNK_REALS(ceil), NNK_REALS(round),
    NNK_REALS(sin), NNK_REALS(cos), NNK_REALS(pow), NNK_ALL(where), NNK_ALL(fill), NNK_ALL(copy),
    {"stream.f", stream}, NNK_CASTS("f", float), NNK_CASTS("d", double), NNK_CASTS("l", int64_t),
    NNK_CASTS("i", int32_t), NNK_CASTS("u", uint32_t), NNK_CASTS("b", Bool),
};

}  // namespace

Step elementwise_step(const char* name);
Step elementwise_step(const char* name) {
  for (const Named& each : kSteps)
    if (!std::strcmp(each.name, name)) return each.step;
  return nullptr;
}

}  // namespace nnk::NNK_NAMESPACE
