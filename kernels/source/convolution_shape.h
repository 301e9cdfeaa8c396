// What the convolution kernels share.
#pragma once

#include "convolution.h"
#include "field.h"
#include "scratch.h"

namespace nnk::NNK_NAMESPACE {

constexpr long kChunk = 128;  // pixels of results at once

// How many images are computed together: several where they are so small that one does not fill the
// registers, and all weights would be read for each.
inline long images_at_once(long batch, long pixels) {
  return 2 * pixels > kChunk ? 1 : least(batch, kChunk / pixels);
}

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

// Images of one group of channels as fields, in the thread's own memory, or where they are.
class Fields {
 public:
  bool enough;
  long image_step;

  // `reads_ahead` says that a vector may be read that ends behind the image.
  Fields(const Field& f, long groups, long channels, long images, bool reads_ahead)
      : enough(true),
        image_step(channels * f.plane),
        field_(f),
        groups_(groups),
        channels_(channels),
        size_(channels * f.size[0] * f.size[1] * f.size[2]) {
    if (f.is_image() && !reads_ahead) {
      image_step = groups * size_;
      return;
    }
    const long count = images * image_step + kBeyond;
    own_ = scratch(kField, count);
    enough = own_ != nullptr;
    if (own_) set(own_, count, 0);
  }

  // `count` images from the first one on.
  const float* of(const float* images, long first, long count, long group) {
    const float* from = images + (first * groups_ + group) * size_;
    if (!own_) return from;
    if (filled_ != from)
      for (long i = 0; i < count; i++)
        fill(field_, from + i * groups_ * size_, channels_, own_ + i * image_step);
    filled_ = from;
    return own_;
  }

 private:
  const Field& field_;
  long groups_, channels_, size_;
  float* own_ = nullptr;
  const float* filled_ = nullptr;
};

// How far from a pixel's place in the field of the input a tap reads.
inline long reach_of(const Convolution& c, const Field& f, long tap) {
  const long along = tap % c.kernel[2] * c.dilation[2];
  return f.row(tap / (c.kernel[1] * c.kernel[2]) * c.dilation[0],
               tap / c.kernel[2] % c.kernel[1] * c.dilation[1]) +
         along % f.stride * f.phase + along / f.stride;
}

}  // namespace nnk::NNK_NAMESPACE
