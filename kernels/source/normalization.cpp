// Means are counted from one of the numbers, so that little cancels where they are far from 0. Sums
// over many rows are made of sums over few of them.
#include "normalization.h"

#include "rows.h"
#include "scratch.h"

namespace nnk::NNK_NAMESPACE {
namespace {

constexpr int kPartial = 2;    // slot of scratch memory
constexpr long kTogether = 64;  // rows that are added up before they are added to others
constexpr double kNanoseconds = 0.15;  // of a number

#define NNK_EACH __attribute__((always_inline))

inline float root(float x) { return __builtin_sqrtf(x); }

// Σ term(access, j) over the elements of a row; what is beyond its end counts nothing.
template <class Term>
inline NNK_EACH float sum_of(long count, const Term& term) {
  Vector sums[2] = {};
  long j = 0;
  for (; j + 2 * kLanes <= count; j += 2 * kLanes) {
    sums[0] += term(Whole{}, j);
    sums[1] += term(Whole{}, j + kLanes);
  }
  for (; j + kLanes <= count; j += kLanes) sums[0] += term(Whole{}, j);
  if (j < count) {
    const First rest{count - j};
    sums[1] += rest.kept(term(rest, j));
  }
  return total(sums[0] + sums[1]);
}

bool layer_norm(Parallel& parallel, const LayerNormForward& s) {
  parallel.run(s.rows, kNanoseconds * s.rows * s.width, [&](long begin, long end) {
    for (long row = begin; row < end; row++) {
      const float* x = s.x + row * s.width;
      float* y = s.y + row * s.width;
      const float start = s.width ? x[0] : 0.0f, n = float(s.width);
      const float mean =
          start + sum_of(s.width, [&](auto a, long j) NNK_EACH { return a.get(x + j) - start; }) / n;
      const float variance = sum_of(s.width, [&](auto a, long j) NNK_EACH {
        const Vector d = a.get(x + j) - mean;
        return d * d;
      }) / n;
      const float inverse = 1.0f / root(variance + s.epsilon);
      s.mean[row] = mean, s.inverse[row] = inverse;
      across(s.width, [&](auto a, long j) NNK_EACH {
        Vector v = (a.get(x + j) - mean) * inverse;
        if (s.scale) v = v * a.get(s.scale + j);
        if (s.bias) v = v + a.get(s.bias + j);
        a.put(y + j, v);
      });
    }
  });
  return true;
}

// The gradient at x of one row; adds to those at scale and bias.
void layer_norm_row(const LayerNormGradient& s, long row, float* d_scale, float* d_bias) {
  const float *x = s.x + row * s.width, *g = s.g + row * s.width;
  float* dx = s.dx + row * s.width;
  const float mean = s.mean[row], inverse = s.inverse[row], n = float(s.width);
  Vector sum{}, weighted{};
  across(s.width, [&](auto a, long j) NNK_EACH {
    const Vector at_y = a.get(g + j), unit = (a.get(x + j) - mean) * inverse;
    const Vector at_unit = s.scale ? at_y * a.get(s.scale + j) : at_y;
    if (d_scale) a.put(d_scale + j, a.get(d_scale + j) + at_y * unit);
    if (d_bias) a.put(d_bias + j, a.get(d_bias + j) + at_y);
    sum += at_unit;  // beyond the end 0
    weighted += a.kept(at_unit * unit);
  });
  const float first = total(sum) / n, second = total(weighted) / n;
  across(s.width, [&](auto a, long j) NNK_EACH {
    const Vector unit = (a.get(x + j) - mean) * inverse;
    const Vector at_y = a.get(g + j);
    const Vector at_unit = s.scale ? at_y * a.get(s.scale + j) : at_y;
    a.put(dx + j, (at_unit - first - unit * second) * inverse);
  });
}

bool layer_norm_gradient(Parallel& parallel, const LayerNormGradient& s) {
  const long blocks = parts(s.rows, kTogether), wide = 2 * s.width;
  float* partial = scratch(kPartial, blocks * wide);
  if (!partial) return false;
  parallel.run(blocks, 2 * kNanoseconds * s.rows * s.width, [&](long begin, long end) {
    for (long block = begin; block < end; block++) {
      float* sums = partial + block * wide;
      clear(sums, wide);
      for (long row = block * kTogether; row < least((block + 1) * kTogether, s.rows); row++)
        layer_norm_row(s, row, s.d_scale ? sums : nullptr, s.d_bias ? sums + s.width : nullptr);
    }
  });
  // In pairs, so that each sum is of few others.
  for (long step = 1; step < blocks; step *= 2)
    for (long block = 0; block + step < blocks; block += 2 * step)
      add_to(partial + block * wide, partial + (block + step) * wide, wide);
  if (s.d_scale) copy_or_clear(s.d_scale, blocks ? partial : nullptr, s.width);
  if (s.d_bias) copy_or_clear(s.d_bias, blocks ? partial + s.width : nullptr, s.width);
  return true;
}

// What one channel is: rows of `size` numbers, `step` from each other.
struct Channel {
  long batch, size, step;
  // Σ term(row start, access, j) over all numbers, in double from row to row.
  template <class Term>
  NNK_EACH double sum(const Term& term) const {
    double sum = 0;
    for (long row = 0; row < batch; row++)
      sum += sum_of(size, [&](auto a, long j) NNK_EACH { return term(row * step, a, j); });
    return sum;
  }
  template <class Body>
  NNK_EACH void each(const Body& body) const {
    for (long row = 0; row < batch; row++)
      across(size, [&](auto a, long j) NNK_EACH { body(row * step, a, j); });
  }
};

void batch_norm_channel(const BatchNormForward& s, const Channel& channel, long c) {
  const float* x = s.x + c * s.size;
  float* y = s.y + c * s.size;
  const double n = double(s.batch) * s.size;
  const float start = n > 0 ? x[0] : 0.0f;
  const float mean = n > 0 ? float(start + channel.sum([&](long row, auto a, long j) NNK_EACH {
    return a.get(x + row + j) - start;
  }) / n) : 0.0f;
  const double squares = channel.sum([&](long row, auto a, long j) NNK_EACH {
    const Vector d = a.get(x + row + j) - mean;
    return d * d;
  });
  const float variance = n > 0 ? float(squares / n) : 0.0f;
  const float inverse = 1.0f / root(variance + s.epsilon), gain = s.scale[c] * inverse;
  const float bias = s.bias[c], sample = n > 1 ? float(squares / (n - 1)) : variance;
  const float share = n > 0 ? s.momentum : 0.0f;
  s.centre[c] = mean, s.inverse[c] = inverse;
  s.next_mean[c] = s.mean[c] * (1 - share) + mean * share;
  s.next_variance[c] = s.variance[c] * (1 - share) + sample * share;
  channel.each([&](long row, auto a, long j) NNK_EACH {
    a.put(y + row + j, (a.get(x + row + j) - mean) * gain + bias);
  });
}

void batch_norm_gradient_channel(const BatchNormGradient& s, const Channel& channel, long c) {
  const float *x = s.x + c * s.size, *g = s.g + c * s.size;
  float* dx = s.dx + c * s.size;
  const float mean = s.centre[c], inverse = s.inverse[c];
  const double n = most(1, s.batch * s.size);
  const double sum =
      channel.sum([&](long row, auto a, long j) NNK_EACH { return a.get(g + row + j); });
  const double weighted = channel.sum([&](long row, auto a, long j) NNK_EACH {
    return a.get(g + row + j) * (a.get(x + row + j) - mean);
  });
  const float gain = s.scale[c] * inverse;
  const float factor = float(-gain * inverse * inverse * weighted / n);
  const float shift = float(-gain * sum / n);
  s.d_scale[c] = float(weighted * inverse), s.d_bias[c] = float(sum);
  channel.each([&](long row, auto a, long j) NNK_EACH {
    a.put(dx + row + j, a.get(g + row + j) * gain + ((a.get(x + row + j) - mean) * factor + shift));
  });
}

// Σ term(row start) over the rows of a batch of vectors, of few at a time.
template <class Term>
inline NNK_EACH Vector sum_down(long batch, long step, const Term& term) {
  Vector sum{};
  for (long first = 0; first < batch; first += kTogether) {
    Vector part{};
    for (long row = first; row < least(first + kTogether, batch); row++) part += term(row * step);
    sum += part;
  }
  return sum;
}

inline Vector root(Vector x) {
  for (int i = 0; i < kLanes; i++) x[i] = root(x[i]);
  return x;
}

// Channels without positions, which lie side by side: a vector of them from channel j on.
template <class Access>
inline NNK_EACH void batch_norm_side_by_side(const BatchNormForward& s, Access a, long j) {
  const float* x = s.x + j;
  const long step = s.channels;
  const float n = float(s.batch);
  const Vector zero{}, start = s.batch ? a.get(x) : zero;
  const Vector mean = s.batch ? start + sum_down(s.batch, step, [&](long row) NNK_EACH {
    return a.get(x + row) - start;
  }) / n : zero;
  const Vector squares = sum_down(s.batch, step, [&](long row) NNK_EACH {
    const Vector d = a.get(x + row) - mean;
    return d * d;
  });
  const Vector variance = s.batch ? squares / n : zero;
  const Vector sample = s.batch > 1 ? squares / (n - 1) : variance;
  const Vector inverse = 1.0f / root(variance + s.epsilon), gain = a.get(s.scale + j) * inverse;
  const Vector bias = a.get(s.bias + j);
  const float share = s.batch ? s.momentum : 0.0f;
  a.put(s.centre + j, mean), a.put(s.inverse + j, inverse);
  a.put(s.next_mean + j, a.get(s.mean + j) * (1 - share) + mean * share);
  a.put(s.next_variance + j, a.get(s.variance + j) * (1 - share) + sample * share);
  for (long row = 0; row < s.batch * step; row += step)
    a.put(s.y + j + row, (a.get(x + row) - mean) * gain + bias);
}

template <class Access>
inline NNK_EACH void batch_norm_gradient_side_by_side(const BatchNormGradient& s, Access a, long j) {
  const float *x = s.x + j, *g = s.g + j;
  const long step = s.channels;
  const float n = float(most(1, s.batch));
  const Vector mean = a.get(s.centre + j), inverse = a.get(s.inverse + j);
  const Vector sum = sum_down(s.batch, step, [&](long row) NNK_EACH { return a.get(g + row); });
  const Vector weighted = sum_down(s.batch, step, [&](long row) NNK_EACH {
    return a.get(g + row) * (a.get(x + row) - mean);
  });
  const Vector gain = a.get(s.scale + j) * inverse;
  const Vector factor = gain * inverse * inverse * weighted / -n, shift = gain * sum / -n;
  a.put(s.d_scale + j, weighted * inverse), a.put(s.d_bias + j, sum);
  for (long row = 0; row < s.batch * step; row += step)
    a.put(s.dx + j + row, a.get(g + row) * gain + ((a.get(x + row) - mean) * factor + shift));
}

// by_channel(channel, c) for each channel, or for vectors of channels without positions
// side_by_side(access, j).
template <class Task, class ByChannel, class SideBySide>
void for_channels(Parallel& parallel, const Task& s, const ByChannel& by_channel,
                  const SideBySide& side_by_side) {
  const double work = 2 * kNanoseconds * s.batch * s.channels * s.size;
  if (s.size == 1) {
    parallel.run(parts(s.channels, kLanes), work, [&](long begin, long end) {
      const long first = begin * kLanes, last = least(end * kLanes, s.channels);
      across(last - first, [&](auto a, long j) { side_by_side(a, first + j); });
    });
    return;
  }
  const Channel channel{s.batch, s.size, s.channels * s.size};
  parallel.run(s.channels, work, [&](long begin, long end) {
    for (long c = begin; c < end; c++) by_channel(channel, c);
  });
}

bool batch_norm(Parallel& parallel, const BatchNormForward& s) {
  for_channels(
      parallel, s, [&](const Channel& channel, long c) { batch_norm_channel(s, channel, c); },
      [&](auto a, long j) { batch_norm_side_by_side(s, a, j); });
  return true;
}

bool batch_norm_gradient(Parallel& parallel, const BatchNormGradient& s) {
  for_channels(
      parallel, s,
      [&](const Channel& channel, long c) { batch_norm_gradient_channel(s, channel, c); },
      [&](auto a, long j) { batch_norm_gradient_side_by_side(s, a, j); });
  return true;
}

}  // namespace

extern const NormalizationKernels kNormalization;
const NormalizationKernels kNormalization = {layer_norm, layer_norm_gradient, batch_norm,
                                             batch_norm_gradient};

}  // namespace nnk::NNK_NAMESPACE
