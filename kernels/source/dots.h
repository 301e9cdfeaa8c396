// Sums over pixels of products of what taps see by the gradient at few channels of results:
// neighbouring pixels are the lanes of vectors, whose lanes are added up at the end.
#pragma once

#include "planes.h"

namespace nnk::NNK_NAMESPACE {

// So many taps that there are registers for their sums with each of the channels, and for where
// each reads.
constexpr int dots_at_once(int channels) {
  return int(least(kRegisters == 16 ? 9 : 12 - channels / 2,
                   (kRegisters - (kRegisters == 16 ? 4 : 6)) / channels));
}

// Pixels of results and of what the taps see: rows of `width`, so far apart in each.
struct RowPairs {
  long rows, width, field_step, gradient_step;
};

// to[c·step + t] += Σ pixels[t]·gradient[c], by lanes, for `Channels` channels `plane` apart, of
// which `stored` are there: the others are as the last of them, and not stored.
template <int Channels, int Taps>
void dot_tile(const RowPairs& r, const float* const* pixels, const float* gradient, long plane,
              long stored, long count, bool add, float* to, long step) {
  Vector sums[Channels][Taps] = {};
  const float* from[Taps];
  const float* g[Channels];
#pragma GCC unroll 16
  for (int t = 0; t < Taps; t++) from[t] = pixels[t];
#pragma GCC unroll 8
  for (int c = 0; c < Channels; c++) g[c] = gradient + least(c, stored - 1) * plane;
  for (long row = 0; row < r.rows; row++) {
    const long at = row * r.field_step, along = row * r.gradient_step;
    long i = 0;
    for (; i + kLanes <= r.width; i += kLanes) {
      Vector x[Taps];
#pragma GCC unroll 16
      for (int t = 0; t < Taps; t++) x[t] = load(from[t] + at + i);
#pragma GCC unroll 8
      for (int c = 0; c < Channels; c++) {
        const Vector y = load(g[c] + along + i);
#pragma GCC unroll 16
        for (int t = 0; t < Taps; t++) sums[c][t] += y * x[t];
      }
    }
    if (const long rest = r.width - i) {
      Vector x[Taps];
#pragma GCC unroll 16
      for (int t = 0; t < Taps; t++) x[t] = load_first(from[t] + at + i, rest);
#pragma GCC unroll 8
      for (int c = 0; c < Channels; c++) {
        const Vector y = load_first(g[c] + along + i, rest);
#pragma GCC unroll 16
        for (int t = 0; t < Taps; t++) sums[c][t] += y * x[t];
      }
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < Channels; c++) {
    if (c >= stored) break;
#pragma GCC unroll 16
    for (int t = 0; t < Taps; t++) {
      if (t >= count) break;
      float* target = to + (c * step + t) * kLanes;
      store(target, add ? load(target) + sums[c][t] : sums[c][t]);
    }
  }
}

using DotTile = void (*)(const RowPairs&, const float* const*, const float*, long, long, long, bool,
                         float*, long);

struct Dots {
  DotTile tile;
  long taps;
};

template <int Channels>
inline Dots dots() {
  return {dot_tile<Channels, dots_at_once(Channels)>, dots_at_once(Channels)};
}

inline Dots dots_of(long channels) {
  switch (channels) {
    case 1: return dots<1>();
    case 2: return dots<2>();
    case 3: return dots<3>();
    case 4: return dots<4>();
    case 5:
    case 6: return dots<6>();
    default: return dots<kFew>();
  }
}

}  // namespace nnk::NNK_NAMESPACE
