// Images with the zeros around them that a window reaches, so that a tap of the window is one
// distance from any of the pixels that it is slid over.
//
// Along the last axis the elements of each remainder modulo the stride stand together: pixels of a
// row are read one after the other, whatever the stride.
#pragma once

#include "convolution.h"
#include "transpose.h"
#include "vectors.h"

namespace nnk::NNK_NAMESPACE {

constexpr long kBeyond = 64;  // floats behind a field that may be read, and are not used

constexpr long kRemainders = 8;  // of a stride; all rows are read where it is larger

// How a field is laid out, and what of an image goes where.
struct Field {
  long size[3];    // of the image
  long before[3];  // zeros before it
  long extent[3];  // of the field
  long stride;     // along the last axis
  long row_stride[2];  // along the others
  bool read[2][kRemainders];  // whether a tap falls on rows of a remainder modulo that
  long phase;      // elements of one remainder
  long pitch;      // from row to row
  long plane;      // from channel to channel

  long row(long z, long y) const { return (z * extent[1] + y) * pitch; }

  // Whether the image itself will do.
  bool is_image() const {
    if (stride != 1) return false;
    for (int axis = 0; axis < 3; axis++)
      if (before[axis] || extent[axis] > size[axis]) return false;
    return true;
  }
};

// What a window of the convolution reaches of x.
inline Field field_of_input(const Convolution& c) {
  Field f{};
  for (int axis = 0; axis < 3; axis++) {
    f.size[axis] = c.size[axis];
    f.before[axis] = c.before[axis];
    f.extent[axis] =
        (c.result[axis] - 1) * c.stride[axis] + (c.kernel[axis] - 1) * c.dilation[axis] + 1;
  }
  for (int axis = 0; axis < 2; axis++) {
    const bool is_small = c.stride[axis] <= kRemainders;
    f.row_stride[axis] = is_small ? c.stride[axis] : 1;
    f.read[axis][0] = !is_small;
    for (long k = 0; is_small && k < c.kernel[axis]; k++)
      f.read[axis][k * c.dilation[axis] % c.stride[axis]] = true;
  }
  f.stride = c.stride[2];
  f.phase = parts(f.extent[2], f.stride);
  f.pitch = f.phase * f.stride;
  if (f.is_image()) {
    for (int axis = 0; axis < 3; axis++) f.extent[axis] = f.size[axis];
    f.phase = f.pitch = f.size[2];
  }
  f.plane = f.extent[0] * f.extent[1] * f.pitch;
  return f;
}

// Where the tap k along an axis meets the gradient at y: `back` results before the pixel's own.
struct Back {
  long phase, back;
};
inline Back back_of(const Convolution& c, int axis, long k) {
  return {k * c.dilation[axis] % c.stride[axis], k * c.dilation[axis] / c.stride[axis]};
}

// What the gradient at x is made of: the gradient at y, with zeros before it and after it.
inline Field field_of_gradient(const Convolution& c) {
  Field f{};
  for (int axis = 0; axis < 3; axis++) {
    const long most_back = (c.kernel[axis] - 1) * c.dilation[axis] / c.stride[axis];
    const long last = (c.size[axis] - 1 + c.before[axis]) / c.stride[axis];
    f.size[axis] = c.result[axis];
    f.before[axis] = most_back;
    f.extent[axis] = last + most_back + 1;
  }
  for (int axis = 0; axis < 2; axis++) {
    f.row_stride[axis] = 1;
    f.read[axis][0] = true;
  }
  f.stride = 1;
  f.phase = f.pitch = f.extent[2];
  if (f.is_image()) {
    for (int axis = 0; axis < 3; axis++) f.extent[axis] = f.size[axis];
    f.phase = f.pitch = f.size[2];
  }
  f.plane = f.extent[0] * f.extent[1] * f.pitch;
  return f;
}

// One row of the image to the field's, where its zeros are already.
inline void fill_row(const Field& f, const float* from, float* to) {
  const long before = f.before[2], last = least(f.size[2], f.extent[2] - before);
  if (f.stride == 1) {
    long i = 0;
    for (; i + kLanes <= last; i += kLanes) store(to + before + i, load(from + i));
    if (i < last) store_first(to + before + i, load_first(from + i, last - i), last - i);
    return;
  }
  long i = 0;
  if (f.stride == 2) {
    float* even = to + (before & 1) * f.phase + before / 2;
    float* odd = to + (~before & 1) * f.phase + (before + 1) / 2;
    for (; i + 2 * kLanes <= last; i += 2 * kLanes) {
      const Vector a = load(from + i), b = load(from + i + kLanes);
      store(even + i / 2, evens(a, b));
      store(odd + i / 2, odds(a, b));
    }
    // The last eight may overlap with those before.
    for (; last >= 8 && i + 2 <= last; i += 8) {
      i = least(i, (last - 8) & ~1L);
      Four a, b;
      __builtin_memcpy(&a, from + i, sizeof a);
      __builtin_memcpy(&b, from + i + 4, sizeof b);
      const Four first = __builtin_shufflevector(a, b, 0, 2, 4, 6);
      const Four second = __builtin_shufflevector(a, b, 1, 3, 5, 7);
      __builtin_memcpy(even + i / 2, &first, sizeof first);
      __builtin_memcpy(odd + i / 2, &second, sizeof second);
    }
  }
  for (; i < last; i++) {
    const long at = i + before;
    to[at % f.stride * f.phase + at / f.stride] = from[i];
  }
}

// to[2i] = even[i] and to[2i + 1] = odd[i], for 2i and 2i + 1 < count.
inline void zip(const float* even, const float* odd, long count, float* to) {
  long i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    const Vector a = load(even + i / 2), b = load(odd + i / 2);
    store(to + i, zipped_first(a, b));
    store(to + i + kLanes, zipped_last(a, b));
  }
  for (; count >= 8 && i + 2 <= count; i += 8) {  // the last eight may overlap with those before
    i = least(i, (count - 8) & ~1L);
    Four a, b;
    __builtin_memcpy(&a, even + i / 2, sizeof a);
    __builtin_memcpy(&b, odd + i / 2, sizeof b);
    const Four first = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const Four last = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    __builtin_memcpy(to + i, &first, sizeof first);
    __builtin_memcpy(to + i + 4, &last, sizeof last);
  }
  for (; i < count; i++) to[i] = (i & 1 ? odd : even)[i / 2];
}

// `channels` images, one behind the other, to a field whose zeros are there already.
inline void fill(const Field& f, const float* from, long channels, float* to) {
  const long depth = least(f.size[0], f.extent[0] - f.before[0]);
  const long rows = least(f.size[1], f.extent[1] - f.before[1]);
  for (long c = 0; c < channels; c++)
    for (long z = 0; z < depth; z++) {
      if (!f.read[0][(z + f.before[0]) % f.row_stride[0]]) continue;
      const float* row = from + (c * f.size[0] + z) * f.size[1] * f.size[2];
      float* to_row = to + c * f.plane + f.row(z + f.before[0], f.before[1]);
      long remainder = f.before[1] % f.row_stride[1];
      for (long y = 0; y < rows; y++) {
        if (f.read[1][remainder]) fill_row(f, row, to_row);
        if (++remainder == f.row_stride[1]) remainder = 0;
        row += f.size[2];
        to_row += f.pitch;
      }
    }
}

}  // namespace nnk::NNK_NAMESPACE
