// Sums of products of pixels by weights, for as many results beside each other as the registers
// hold: their channels are the lanes of vectors, each pixel is broadcast.
#pragma once

#include "transpose.h"
#include "vectors.h"

namespace nnk::NNK_NAMESPACE {

constexpr int kBlock = 2 * kLanes;  // channels of results computed at once

// How many pixels the sums of so many vectors of channels leave registers for.
constexpr int pixels_at_once(int vectors) {
  return (kRegisters - vectors - (kRegisters == 16 ? 1 : 0)) / vectors;
}

struct Tap {
  long field, weight;  // the distances from a pixel's place, and in a channel's weights
};

// What is summed: over the channels of the field, and over the taps.
struct Sum {
  const Tap* taps;
  long tap_count, channels;
  long plane;         // of the field, from channel to channel
  long weight_step;   // of the weights, from channel to channel
};

// `Pixels` pixels in each of `Rows` rows, at `first` and `second`; sums begin at the bias, or are
// added to what is there. Results are [pixel][Vectors·kLanes].
template <int Vectors, int Rows, int Pixels>
void correlate_tile(const Sum& s, const float* first, const float* second, const float* weights,
                    const float* bias, bool add, float* to) {
  constexpr int kCount = Rows * Pixels;
  Vector sums[kCount][Vectors];
#pragma GCC unroll 32
  for (int p = 0; p < kCount; p++) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; v++)
      sums[p][v] = add ? Vector{} : load(bias + v * kLanes);
  }
  for (long c = 0; c < s.channels; c++) {
    for (const Tap* tap = s.taps; tap != s.taps + s.tap_count; tap++) {
      const float* a = first + tap->field;
      const float* b = second + tap->field;
      Vector w[Vectors];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; v++) w[v] = load(weights + tap->weight + v * kLanes);
#pragma GCC unroll 32
      for (int p = 0; p < Pixels; p++) {
        const Vector x = broadcast(a[p]);
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; v++) sums[p][v] += x * w[v];
      }
      if constexpr (Rows == 2) {
#pragma GCC unroll 32
        for (int p = 0; p < Pixels; p++) {
          const Vector x = broadcast(b[p]);
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; v++) sums[Pixels + p][v] += x * w[v];
        }
      }
    }
    first += s.plane;
    second += s.plane;
    weights += s.weight_step;
  }
#pragma GCC unroll 32
  for (int p = 0; p < kCount; p++) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; v++) {
      float* target = to + (p * Vectors + v) * kLanes;
      store(target, add ? load(target) + sums[p][v] : sums[p][v]);
    }
  }
}

using CorrelateTile = void (*)(const Sum&, const float*, const float*, const float*, const float*,
                               bool, float*);

template <int Vectors, int Rows, int Pixels = pixels_at_once(Vectors) / Rows>
inline CorrelateTile correlate_tile_of(long pixels) {
  if constexpr (Pixels == 1) {
    return correlate_tile<Vectors, Rows, 1>;
  } else {
    return pixels == Pixels ? correlate_tile<Vectors, Rows, Pixels>
                            : correlate_tile_of<Vectors, Rows, Pixels - 1>(pixels);
  }
}

// Where results go: to[channel·channel_step + row·row_step + pixel].
struct Target {
  float* to;
  long channel_step, row_step;
};

// What a block of results is computed from.
struct Block {
  Sum sum;
  const float* weights;
  const float* bias;
  long channels;  // of results, at most kBlock
};

// `rows` rows of `width` pixels, `row_step` apart in the field, to [rows·width][Vectors·kLanes].
template <int Vectors>
void correlate_rows(const Sum& s, const float* field, long row_step, long rows, long width,
                    const float* weights, const float* bias, bool add, float* to) {
  constexpr long kAtOnce = pixels_at_once(Vectors), kLane = Vectors * kLanes;
  if (row_step == width) {
    width *= rows;
    rows = 1;
  }
  if (width <= kAtOnce / 2 && rows > 1) {
    const CorrelateTile pair = correlate_tile_of<Vectors, 2>(width);
    for (; rows > 1; rows -= 2) {
      pair(s, field, field + row_step, weights, bias, add, to);
      field += 2 * row_step;
      to += 2 * width * kLane;
    }
  }
  const long count = parts(width, kAtOnce), base = width / count, longer = width % count;
  const CorrelateTile wide = correlate_tile_of<Vectors, 1>(least(base + 1, kAtOnce));
  const CorrelateTile tile = correlate_tile_of<Vectors, 1>(base);
  for (long row = 0; row < rows; row++) {
    const float* pixel = field + row * row_step;
    for (long i = 0; i < count; i++) {
      const long pixels = base + (i < longer);
      (i < longer ? wide : tile)(s, pixel, pixel, weights, bias, add, to);
      pixel += pixels;
      to += pixels * kLane;
    }
  }
}

constexpr long kCachedWeights = 6144;  // floats, half of the first cache

// A block of results, by parts of the channels whose weights stay in the first cache, and whose sums
// are not long: one sum of thousands of products would be several times less exact. `results` is room
// for rows·width·kBlock floats.
inline void correlate(const Block& block, const float* field, long row_step, long rows, long width,
                      float* results, Target target) {
  const Sum& sum = block.sum;
  const int vectors = block.channels > kLanes ? 2 : 1;
  const long cached = most(1, kCachedWeights / most(1, sum.tap_count * vectors * kLanes));
  const long each = most(1, parts(sum.channels, most(1, parts(sum.channels, cached))));
  Sum part = sum;
  for (long start = 0; start < sum.channels || start == 0; start += each) {
    part.channels = least(each, sum.channels - start);
    const float* from = field + start * sum.plane;
    const float* by = block.weights + start * sum.weight_step;
    if (vectors == 2)
      correlate_rows<2>(part, from, row_step, rows, width, by, block.bias, start > 0, results);
    else
      correlate_rows<1>(part, from, row_step, rows, width, by, block.bias, start > 0, results);
  }
  if (target.row_step == width) {
    width *= rows;
    rows = 1;
  }
  for (long row = 0; row < rows; row++)
    transpose_out(results + row * width * vectors * kLanes, vectors * kLanes, width,
                  block.channels, target.to + row * target.row_step, target.channel_step);
}

}  // namespace nnk::NNK_NAMESPACE
