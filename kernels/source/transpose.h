// Blocks of channels beside pixels turned into pixels beside channels, and back.
#pragma once

#include "vectors.h"

namespace nnk::NNK_NAMESPACE {

#define NNK_SWAP(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
// Exchanges elements between each vector and the one `d` behind it.
#define NNK_STAGE(d, first, second)                           \
  _Pragma("GCC unroll 16") for (int i = 0; i < kLanes; i++) { \
    if (i & d) continue;                                      \
    const Vector a = r[i], b = r[i + d];                      \
    r[i] = NNK_SWAP first;                                    \
    r[i + d] = NNK_SWAP second;                               \
  }

#if defined(__AVX512F__)
inline __attribute__((always_inline)) void transpose(Vector r[kLanes]) {
  NNK_STAGE(1, (a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
            (a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
  NNK_STAGE(2, (a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
            (a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  NNK_STAGE(4, (a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
            (a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  NNK_STAGE(8, (a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
            (a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
}
// Even and odd elements of two vectors beside each other, and the reverse.
inline Vector evens(Vector a, Vector b) {
  return NNK_SWAP(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
inline Vector odds(Vector a, Vector b) {
  return NNK_SWAP(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
inline Vector zipped_first(Vector a, Vector b) {
  return NNK_SWAP(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Vector zipped_last(Vector a, Vector b) {
  return NNK_SWAP(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif defined(__AVX__)
inline __attribute__((always_inline)) void transpose(Vector r[kLanes]) {
  NNK_STAGE(1, (a, b, 0, 8, 2, 10, 4, 12, 6, 14), (a, b, 1, 9, 3, 11, 5, 13, 7, 15))
  NNK_STAGE(2, (a, b, 0, 1, 8, 9, 4, 5, 12, 13), (a, b, 2, 3, 10, 11, 6, 7, 14, 15))
  NNK_STAGE(4, (a, b, 0, 1, 2, 3, 8, 9, 10, 11), (a, b, 4, 5, 6, 7, 12, 13, 14, 15))
}
inline Vector evens(Vector a, Vector b) { return NNK_SWAP(a, b, 0, 2, 4, 6, 8, 10, 12, 14); }
inline Vector odds(Vector a, Vector b) { return NNK_SWAP(a, b, 1, 3, 5, 7, 9, 11, 13, 15); }
inline Vector zipped_first(Vector a, Vector b) { return NNK_SWAP(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Vector zipped_last(Vector a, Vector b) {
  return NNK_SWAP(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#else
inline __attribute__((always_inline)) void transpose(Vector r[kLanes]) {
  NNK_STAGE(1, (a, b, 0, 4, 2, 6), (a, b, 1, 5, 3, 7))
  NNK_STAGE(2, (a, b, 0, 1, 4, 5), (a, b, 2, 3, 6, 7))
}
inline Vector evens(Vector a, Vector b) { return NNK_SWAP(a, b, 0, 2, 4, 6); }
inline Vector odds(Vector a, Vector b) { return NNK_SWAP(a, b, 1, 3, 5, 7); }
inline Vector zipped_first(Vector a, Vector b) { return NNK_SWAP(a, b, 0, 4, 1, 5); }
inline Vector zipped_last(Vector a, Vector b) { return NNK_SWAP(a, b, 2, 6, 3, 7); }
#endif
#undef NNK_STAGE
#undef NNK_SWAP

// The first `count` of the vectors, or all of them, `step` floats apart.
inline __attribute__((always_inline)) void store_rows(const Vector r[kLanes], long count, float* to,
                                                      long step) {
  if (count >= kLanes) {
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; l++) store(to + l * step, r[l]);
  } else {
    for (long l = 0; l < count; l++) store(to + l * step, r[l]);
  }
}

// to[j·to_step + i] = from[i·from_step + j] for i < rows and j < columns, and zeros in the lanes that
// fill up the last vector of rows. Of `from` as many floats may be read.
inline void transpose_in(const float* from, long from_step, long rows, long columns, long readable,
                         float* to, long to_step) {
  for (long i = 0; i < rows; i += kLanes) {
    for (long j = 0; j < columns; j += kLanes) {
      Vector r[kLanes];
      const long start = i * from_step + j;
      if (i + kLanes <= rows && start + (kLanes - 1) * from_step + kLanes <= readable) {
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; l++) r[l] = load(from + start + l * from_step);
      } else {
        for (int l = 0; l < kLanes; l++) {
          const long at = start + l * from_step;
          r[l] = i + l < rows && at < readable
                     ? load_first(from + at, least(kLanes, readable - at))
                     : Vector{};
        }
      }
      transpose(r);
      store_rows(r, columns - j, to + j * to_step + i, to_step);
    }
  }
}

// to[j·to_step + i] = from[i·from_step + j] for i < rows and j < columns; more columns may be read,
// up to whole vectors, but nothing else is written.
inline void transpose_out(const float* from, long from_step, long rows, long columns, float* to,
                          long to_step) {
  if (rows < kLanes) {
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < columns; j++) to[j * to_step + i] = from[i * from_step + j];
    return;
  }
  for (long first = 0; first < rows; first += kLanes) {
    const long i = least(first, rows - kLanes);  // the last ones overlap with those before
    for (long j = 0; j < columns; j += kLanes) {
      Vector r[kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; l++) r[l] = load(from + (i + l) * from_step + j);
      transpose(r);
      store_rows(r, columns - j, to + j * to_step + i, to_step);
    }
  }
}

}  // namespace nnk::NNK_NAMESPACE
