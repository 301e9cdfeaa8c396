// Loops over the elements of rows, a vector at a time, with a rest that is no whole vector.
#pragma once

#include "vectors.h"

namespace nnk::NNK_NAMESPACE {

// How a vector is read and written: all of it, or the first elements.
struct Whole {
  Vector get(const float* from) const { return load(from); }
  void put(float* to, Vector value) const { store(to, value); }
  Vector kept(Vector value) const { return value; }
};

struct First {
  long count;
  Vector get(const float* from) const { return load_first(from, count); }
  void put(float* to, Vector value) const { store_first(to, value, count); }
  // Zeros in place of what is beyond the end.
  Vector kept(Vector value) const {
    float lanes[kLanes];
    store(lanes, value);
    return load_first(lanes, count);
  }
};

// body(access, j) for each vector, from element j on.
template <class Body>
inline __attribute__((always_inline)) void across(long count, const Body& body) {
  long j = 0;
  for (; j + kLanes <= count; j += kLanes) body(Whole{}, j);
  if (j < count) body(First{count - j}, j);
}

inline void copy(float* to, const float* from, long count) {
  if (count > 0) __builtin_memcpy(to, from, count * sizeof(float));
}

inline void clear(float* to, long count) {
  if (count > 0) __builtin_memset(to, 0, count * sizeof(float));
}

// A copy, or zeros for null.
inline void copy_or_clear(float* to, const float* from, long count) {
  if (from) copy(to, from, count);
  else clear(to, count);
}

inline void add_to(float* to, const float* from, long count) {
  across(count, [&](auto access, long j) __attribute__((always_inline)) {
    access.put(to + j, access.get(to + j) + access.get(from + j));
  });
}

}  // namespace nnk::NNK_NAMESPACE
