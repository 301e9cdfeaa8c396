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

// `Pixels` pixels in each of `Rows` rows, which begin at `from`; sums begin at the bias, or are added
// to what is there. Results are [pixel][Vectors·kLanes].
template <int Vectors, int Rows, int Pixels>
void correlate_tile(const Sum& s, const float* const* from, const float* weights,
                    const float* bias, bool add, float* to) {
  constexpr int kCount = Rows * Pixels;
  Vector sums[kCount][Vectors];
#pragma GCC unroll 32
  for (int p = 0; p < kCount; p++) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; v++)
      sums[p][v] = add ? Vector{} : load(bias + v * kLanes);
  }
  const float* rows[Rows];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; r++) rows[r] = from[r];
  for (long c = 0; c < s.channels; c++) {
    const long plane = c * s.plane;
    for (const Tap* tap = s.taps; tap != s.taps + s.tap_count; tap++) {
      const long at = plane + tap->field;
      Vector w[Vectors];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; v++) w[v] = load(weights + tap->weight + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; r++) {
#pragma GCC unroll 32
        for (int p = 0; p < Pixels; p++) {
          const Vector x = broadcast(rows[r][at + p]);
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; v++) sums[r * Pixels + p][v] += x * w[v];
        }
      }
    }
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

using CorrelateTile = void (*)(const Sum&, const float* const*, const float*, const float*, bool,
                               float*);

constexpr long kMostRows = 6;  // of a tile: each has a register for where it is

struct RowsTile {
  CorrelateTile tile;
  long rows;
};

// The tile of so many pixels in a row, at most half of those that there are registers for, with as
// many rows as there are.
template <int Vectors, int Pixels = pixels_at_once(Vectors) / 2>
inline RowsTile rows_tile_of(long pixels) {
  constexpr int kRows = int(least(kMostRows, pixels_at_once(Vectors) / Pixels));
  if constexpr (Pixels > 1)
    if (pixels < Pixels) return rows_tile_of<Vectors, Pixels - 1>(pixels);
  return {correlate_tile<Vectors, kRows, Pixels>, kRows};
}

// The tile of so many pixels in one row, at least half of those that there are registers for.
template <int Vectors, int Pixels = pixels_at_once(Vectors)>
inline CorrelateTile row_tile_of(long pixels) {
  if constexpr (2 * Pixels > pixels_at_once(Vectors))
    if (pixels < Pixels) return row_tile_of<Vectors, Pixels - 1>(pixels);
  return correlate_tile<Vectors, 1, Pixels>;
}

// Rows of as many pixels, equally far apart in the field, of several images.
struct Rows {
  long images, image_step, rows, row_step, width;

  long count() const { return images * rows * width; }
};

// Where results go: to[image·image_step + channel·channel_step + row·row_step + pixel].
struct Target {
  float* to;
  long image_step, channel_step, row_step;
};

// What a block of results is computed from.
struct Block {
  Sum sum;
  const float* weights;
  const float* bias;
  long channels;  // of results, at most kBlock
  Ahead* ahead;   // what is read next
};

// How many floats there must be room for behind the results: those of rows that fill up a tile.
constexpr long kSpareResults = 32 * kBlock;

// Rows of pixels to [image][row][pixel][Vectors·kLanes].
template <int Vectors>
void correlate_rows(const Sum& s, const float* field, Rows r, const float* weights,
                    const float* bias, bool add, float* to, Ahead& ahead) {
  constexpr long kAtOnce = pixels_at_once(Vectors), kLane = Vectors * kLanes;
  if (r.row_step == r.width) {
    r.width *= r.rows;
    r.rows = 1;
  }
  if (2 * r.width <= kAtOnce) {
    const RowsTile several = rows_tile_of<Vectors>(r.width);
    const long all = r.images * r.rows;
    for (long row = 0; row < all; row += several.rows) {
      const float* from[kMostRows];
      for (long i = 0; i < several.rows; i++) {
        const long each = least(row + i, all - 1);
        from[i] = field + each / r.rows * r.image_step + each % r.rows * r.row_step;
      }
      ahead.fetch();
      several.tile(s, from, weights, bias, add, to);
      to += several.rows * r.width * kLane;
    }
    return;
  }
  const long count = parts(r.width, kAtOnce), base = r.width / count, longer = r.width % count;
  const CorrelateTile wide = row_tile_of<Vectors>(least(base + 1, kAtOnce));
  const CorrelateTile tile = row_tile_of<Vectors>(base);
  for (long image = 0; image < r.images; image++)
    for (long row = 0; row < r.rows; row++) {
      const float* pixel = field + image * r.image_step + row * r.row_step;
      for (long i = 0; i < count; i++) {
        const long pixels = base + (i < longer);
        ahead.fetch();
        (i < longer ? wide : tile)(s, &pixel, weights, bias, add, to);
        pixel += pixels;
        to += pixels * kLane;
      }
    }
}

constexpr long kCachedWeights = 6144;  // floats, half of the first cache
constexpr long kSummed = 192;          // products of one sum, which is added to others

// A block of results, by parts of the channels whose weights stay in the first cache, and whose sums
// are not long: one sum of thousands of products would be several times less exact. `results` is room
// for r.count()·kBlock + kSpareResults floats.
inline void correlate(const Block& block, const float* field, Rows r, float* results,
                      Target target) {
  const Sum& sum = block.sum;
  const int vectors = block.channels > kLanes ? 2 : 1;
  const long products = least(kSummed, kCachedWeights / (vectors * kLanes));
  const long cached = most(1, products / most(1, sum.tap_count));
  const long each = most(1, parts(sum.channels, most(1, parts(sum.channels, cached))));
  Sum part = sum;
  for (long start = 0; start < sum.channels || start == 0; start += each) {
    part.channels = least(each, sum.channels - start);
    const float* from = field + start * sum.plane;
    const float* by = block.weights + start * sum.weight_step;
    if (vectors == 2)
      correlate_rows<2>(part, from, r, by, block.bias, start > 0, results,
                        *block.ahead);
    else
      correlate_rows<1>(part, from, r, by, block.bias, start > 0, results,
                        *block.ahead);
  }
  if (target.row_step == r.width) {
    r.width *= r.rows;
    r.rows = 1;
  }
  const long lane = vectors * kLanes;
  for (long image = 0; image < r.images; image++)
    for (long row = 0; row < r.rows; row++, results += r.width * lane)
      transpose_out(results, lane, r.width, block.channels,
                    target.to + image * target.image_step + row * target.row_step,
                    target.channel_step);
}

}  // namespace nnk::NNK_NAMESPACE
