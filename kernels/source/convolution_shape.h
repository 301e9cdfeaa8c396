// What the convolution kernels share.
#pragma once

#include "convolution.h"
#include "field.h"
#include "scratch.h"

namespace nnk::NNK_NAMESPACE {

constexpr long kChunk = 128;  // pixels of results at once

// Scratch slots: the first three are the calling thread's, which all threads read, the others each
// thread's own.
enum Slot { kWeights, kTaps, kBias, kField, kResults, kTurned, kPartial };

inline long product(const long n[3]) { return n[0] * n[1] * n[2]; }

// What all kernels need of a convolution.
struct Shape {
  long ins, outs;  // channels of a group
  long taps, size, result;

  explicit Shape(const Convolution& c)
      : ins(c.channels / c.groups),
        outs(c.outputs / c.groups),
        taps(product(c.kernel)),
        size(product(c.size)),
        result(product(c.result)) {}
};

inline bool is_empty(const Convolution& c, const Shape& s) {
  return !(c.batch && c.outputs && s.result > 0);
}

inline void set(float* to, long count, float value) {
  for (long i = 0; i < count; i++) to[i] = value;
}

// The thread's own field for so many channels, of zeros.
inline float* empty_field(const Field& f, long channels) {
  float* field = scratch(kField, channels * f.plane + kBeyond);
  if (field) set(field, channels * f.plane + kBeyond, 0);
  return field;
}

// How far from a pixel's place in the field of the input a tap reads.
inline long reach_of(const Convolution& c, const Field& f, long tap) {
  const long along = tap % c.kernel[2] * c.dilation[2];
  return f.row(tap / (c.kernel[1] * c.kernel[2]) * c.dilation[0],
               tap / c.kernel[2] % c.kernel[1] * c.dilation[1]) +
         along % f.stride * f.phase + along / f.stride;
}

}  // namespace nnk::NNK_NAMESPACE
