// Sums of products of pixels by weights for few channels of results: neighbouring pixels are the
// lanes of vectors, each weight is broadcast.
#pragma once

#include "correlate.h"

namespace nnk::NNK_NAMESPACE {

constexpr int kFew = kRegisters == 16 ? 6 : 8;  // channels of results computed at once

// Whether results of so many channels and of rows of such a width are rather computed so. Where
// channels fill one vector of 16 exactly, half of all loads would be of pixels.
constexpr bool suits_planes(long channels, long width) {
  return channels <= kFew || (kLanes == 16 && channels <= 16 &&
                              8 * width >= 7 * rounded_up(width, kLanes));
}

// How many vectors of pixels the sums of so many channels leave registers for.
constexpr int segments_at_once(int channels) {
  return int(least(8, (kRegisters - (kRegisters == 16 ? 3 : 4)) / channels));
}

// A vector of pixels: where they are in the field, where the results go, and how many are stored.
struct Segment {
  const float* from;
  float* to;
  long count;
};

// The results of `Channels` channels (of which `stored` are stored) at `Segments` segments; a
// channel's weights are beside each other.
template <int Channels, int Segments>
void plane_tile(const Block& block, const Segment* segments, long channel_step) {
  Vector sums[Channels][Segments], totals[Channels][Segments];
  const float* from[Segments];
#pragma GCC unroll 8
  for (int i = 0; i < Segments; i++) from[i] = segments[i].from;
#pragma GCC unroll 8
  for (int c = 0; c < Channels; c++) {
#pragma GCC unroll 8
    for (int i = 0; i < Segments; i++) sums[c][i] = broadcast(block.bias[c]);
  }
  const Sum& s = block.sum;
  const float* weights = block.weights;
  const long most_channels = most(1, kSummed / most(1, s.tap_count));
  const bool is_long = s.channels > most_channels;
  if (is_long) __builtin_memset(totals, 0, sizeof totals);
  for (long channel = 0; channel < s.channels; channel++) {
    if (is_long && channel && channel % most_channels == 0) {  // sums are not to be long
#pragma GCC unroll 8
      for (int c = 0; c < Channels; c++) {
#pragma GCC unroll 8
        for (int i = 0; i < Segments; i++) {
          totals[c][i] += sums[c][i];
          sums[c][i] = Vector{};
        }
      }
    }
    const long plane = channel * s.plane;
    for (const Tap* tap = s.taps; tap != s.taps + s.tap_count; tap++) {
      const long at = plane + tap->field;
      const float* w = weights + tap->weight;
      Vector x[Segments];
#pragma GCC unroll 8
      for (int i = 0; i < Segments; i++) x[i] = load(from[i] + at);
#pragma GCC unroll 8
      for (int c = 0; c < Channels; c++) {
        const Vector factor = broadcast(w[c]);
#pragma GCC unroll 8
        for (int i = 0; i < Segments; i++) sums[c][i] += factor * x[i];
      }
    }
    weights += s.weight_step;
  }
#pragma GCC unroll 8
  for (int c = 0; c < Channels; c++) {
    if (c >= block.channels) break;
#pragma GCC unroll 8
    for (int i = 0; i < Segments; i++) {
      float* to = segments[i].to + c * channel_step;
      if (is_long) sums[c][i] += totals[c][i];
      if (segments[i].count == kLanes)
        store(to, sums[c][i]);
      else
        store_first(to, sums[c][i], segments[i].count);
    }
  }
}

using PlaneTile = void (*)(const Block&, const Segment*, long);

template <int Channels>
struct PlaneTiles {
  static constexpr int kAtOnce = segments_at_once(Channels);
  static constexpr PlaneTile kTile = plane_tile<Channels, kAtOnce>;
};

// A block of at most kFew channels of results. A row of at least a vector's pixels is read up to its
// end only, of a shorter one a whole vector is read.
inline void correlate_planes(const Block& block, const float* field, Rows r, Target target) {
  long at_once;
  PlaneTile tile;
  switch (block.channels) {
#define NNK_CASE(channels)                        \
  at_once = PlaneTiles<channels>::kAtOnce;        \
  tile = PlaneTiles<channels>::kTile;             \
  break;
    case 1: NNK_CASE(1)
    case 2: NNK_CASE(2)
    case 3: NNK_CASE(3)
    case 4: NNK_CASE(4)
    case 5:
    case 6: NNK_CASE(6)
    default: NNK_CASE(kFew)
#undef NNK_CASE
  }
  if (r.row_step == r.width && target.row_step == r.width) {
    r.width *= r.rows;
    r.rows = 1;
  }
  Segment segments[8];
  long count = 0;
  for (long image = 0; image < r.images; image++)
    for (long row = 0; row < r.rows; row++) {
      const float* from = field + image * r.image_step + row * r.row_step;
      float* to = target.to + image * target.image_step + row * target.row_step;
      for (long i = 0; i < r.width; i += kLanes) {
        const long at = r.width < kLanes ? 0 : least(i, r.width - kLanes);
        segments[count++] = {from + at, to + at, least(kLanes, r.width)};
        if (count < at_once) continue;
        block.ahead->fetch();
        tile(block, segments, target.channel_step);
        count = 0;
      }
    }
  if (!count) return;
  for (; count < at_once; count++) segments[count] = segments[count - 1];
  tile(block, segments, target.channel_step);
}

}  // namespace nnk::NNK_NAMESPACE
