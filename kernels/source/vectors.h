// Vectors of floats as wide as the instruction set has them, by GCC's and Clang's extension.
//
// Every source that includes this is compiled once for each instruction set, with NNK_NAMESPACE set
// to its name. Such a source must not use inline functions or templates from outside that namespace
// (std::max, std::vector): the linker would keep one copy of them, maybe of an instruction set that
// the processor lacks. Sums a*b + c are written in one expression, and are fused where it can.
#pragma once

#ifndef NNK_NAMESPACE
#error "NNK_NAMESPACE is the name of the instruction set that this source is compiled for"
#endif

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace nnk::NNK_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kRegisters = 32;
#else
constexpr int kLanes = 4, kRegisters = 16;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef float Four __attribute__((vector_size(16)));

constexpr long least(long a, long b) { return a < b ? a : b; }
constexpr long most(long a, long b) { return a < b ? b : a; }
// How many parts of that size cover a count.
constexpr long parts(long count, long size) { return (count + size - 1) / size; }
constexpr long rounded_up(long count, long size) { return parts(count, size) * size; }

inline __attribute__((always_inline)) Vector load(const float* from) {
  Vector value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

inline __attribute__((always_inline)) void store(float* to, Vector value) {
  __builtin_memcpy(to, &value, sizeof value);
}

inline __attribute__((always_inline)) Vector broadcast(float value) {
  return value - Vector{};  // −0 stays −0, as it would not in a sum
}

#if defined(__AVX__) && !defined(__AVX512F__)
inline __attribute__((always_inline)) __m256i first_lanes(long count) {
  static const int kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - count));
}
#endif

// The first `count` elements, and zeros for the others; nothing beyond them is read.
inline __attribute__((always_inline)) Vector load_first(const float* from, long count) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from);
#elif defined(__AVX__)
  return _mm256_maskload_ps(from, first_lanes(count));
#else
  float lanes[kLanes] = {};
  for (long i = 0; i < count; i++) lanes[i] = from[i];
  return load(lanes);
#endif
}

inline __attribute__((always_inline)) void store_first(float* to, Vector value, long count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), value);
#elif defined(__AVX__)
  _mm256_maskstore_ps(to, first_lanes(count), value);
#else
  float lanes[kLanes];
  store(lanes, value);
  for (long i = 0; i < count; i++) to[i] = lanes[i];
#endif
}

// Memory that is read soon, and is fetched into the second cache bit by bit meanwhile.
class Ahead {
 public:
  // Of `count` floats from there on, in `calls` calls of `fetch`.
  void begin(const float* from, long count, long calls) {
    from_ = from;
    left_ = count;
    each_ = rounded_up(parts(count, most(1, calls)), kLine);
  }

  void fetch() {
    const long count = least(each_, left_);
    for (long i = 0; i < count; i += kLine) __builtin_prefetch(from_ + i, 0, 2);
    from_ += count;
    left_ -= count;
  }

 private:
  static constexpr long kLine = 16;  // floats
  const float* from_ = nullptr;
  long left_ = 0, each_ = 0;
};

// The sum of the lanes, by halves.
inline float total(Vector value) {
  float lanes[kLanes];
  store(lanes, value);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}

}  // namespace nnk::NNK_NAMESPACE
