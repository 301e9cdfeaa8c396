// Sums over pixels of products of what taps see by the gradient at the results, for as many taps as
// the registers hold: the results' channels are the lanes of vectors.
#pragma once

#include "correlate.h"

namespace nnk::NNK_NAMESPACE {

// So many taps that there are registers for their sums, and for where each reads.
constexpr int taps_at_once(int vectors) {
  return least(12, pixels_at_once(vectors));
}

// to[r] (+)= Σ pixels[r]·gradient over rows of pixels where the taps read, which are without gaps in
// the gradient, [pixel][Vectors·kLanes]. Sums are kBlock apart.
template <int Vectors, int Taps>
void weigh_tile(const float* const* pixels, const Rows& rows, const float* gradient, bool add,
                float* to) {
  Vector sums[Taps][Vectors] = {};
  const float* from[Taps];
#pragma GCC unroll 16
  for (int r = 0; r < Taps; r++) from[r] = pixels[r];
  for (long row = 0; row < rows.images * rows.rows; row++) {
    const long first = row / rows.rows * rows.image_step + row % rows.rows * rows.row_step;
    for (long i = first; i < first + rows.width; i++) {
      Vector g[Vectors];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; v++) g[v] = load(gradient + v * kLanes);
      gradient += Vectors * kLanes;
#pragma GCC unroll 16
      for (int r = 0; r < Taps; r++) {
        const Vector x = broadcast(from[r][i]);
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; v++) sums[r][v] += x * g[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Taps; r++) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; v++) {
      float* target = to + r * kBlock + v * kLanes;
      store(target, add ? load(target) + sums[r][v] : sums[r][v]);
    }
  }
}

using WeighTile = void (*)(const float* const*, const Rows&, const float*, bool, float*);

template <int Vectors, int Taps = taps_at_once(Vectors)>
inline WeighTile weigh_tile_of(long taps) {
  if constexpr (Taps == 1) {
    return weigh_tile<Vectors, 1>;
  } else {
    return taps == Taps ? weigh_tile<Vectors, Taps> : weigh_tile_of<Vectors, Taps - 1>(taps);
  }
}

}  // namespace nnk::NNK_NAMESPACE
