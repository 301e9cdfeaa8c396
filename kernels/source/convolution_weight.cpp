// The gradient of a convolution at its weights.
#include "convolution_shape.h"
#include "dots.h"
#include "weigh.h"

namespace nnk::NNK_NAMESPACE {
namespace {

// How many parts of the batch are summed on their own: as many as make work for threads, and few
// enough that adding them up costs little time and memory. It does not depend on the number of
// threads.
long batch_parts(const Convolution& c, const Shape& s) {
  constexpr long kPixels = 1200, kFloats = 4 << 20;
  const long worth_it = least(c.batch * s.result / kPixels,
                              kFloats / most(1, c.outputs * s.ins * s.taps));
  return most(1, least(least(8, c.batch), worth_it));
}

// Where each product of a channel and a tap reads, from a pixel's place; the last one is repeated.
long* reaches(const Convolution& c, const Shape& s, const Field& f, long count) {
  long* reach = reinterpret_cast<long*>(scratch(kTaps, 2 * count));
  for (long j = 0; reach && j < count; j++) {
    const long k = least(j, s.ins * s.taps - 1);
    reach[j] = k / s.taps * f.plane + reach_of(c, f, k % s.taps);
  }
  return reach;
}

constexpr long kDotted = 128 * kLanes;  // pixels of one sum, which is added to others

// For groups of few results.
bool gradient_of_few(Parallel& parallel, const Convolution& c, const Shape& s, const float* x,
                     const float* y_gradient, float* w_gradient) {
  const Field f = field_of_input(c);
  const long depth = s.ins * s.taps, batches = batch_parts(c, s), size = s.outs * depth;
  const Dots dots = dots_of(s.outs);
  const long padded = rounded_up(depth, dots.taps);
  float* partial = scratch(kPartial, batches * c.groups * size * kLanes);
  const long* reach = reaches(c, s, f, padded);
  if (!partial || !reach) return false;
  const long rows_at_once = most(1, kDotted / c.result[2]);
  bool enough = true;
  parallel.run(batches * c.groups, 2e-2 * c.batch * c.outputs * s.result * depth,
               [&](long begin, long end) {
    Fields fields(f, c.groups, s.ins, 1, false);
    if (!fields.enough) {
      enough = false;
      return;
    }
    for (long task = begin; task < end; task++) {
      const long part = task / c.groups, group = task % c.groups;
      const long first = c.batch * part / batches, last = c.batch * (part + 1) / batches;
      for (long n = first; n < last; n++) {
        const float* from = fields.of(x, n, 1, group);
        const float* gradient = y_gradient + (n * c.groups + group) * s.outs * s.result;
        bool add = n > first;
        for (long z = 0; z < c.result[0]; z++)
          for (long row = 0; row < c.result[1]; row += rows_at_once) {
            const RowPairs rows{least(rows_at_once, c.result[1] - row), c.result[2],
                                f.pitch * c.stride[1], c.result[2]};
            const float* seen = from + f.row(z * c.stride[0], row * c.stride[1]);
            for (long j = 0; j < depth; j += dots.taps) {
              const float* pixels[16];
              for (long t = 0; t < dots.taps; t++) pixels[t] = seen + reach[j + t];
              dots.tile(rows, pixels, gradient + (z * c.result[1] + row) * c.result[2], s.result,
                        s.outs, depth - j, add, partial + (task * size + j) * kLanes, depth);
            }
            add = true;
          }
      }
    }
  });
  if (!enough) return false;
  for (long i = 0; i < c.groups * size; i++) {
    Vector sum = load(partial + i * kLanes);
    for (long part = 1; part < batches; part++)
      sum += load(partial + (part * c.groups * size + i) * kLanes);
    w_gradient[i] = total(sum);
  }
  return true;
}

}  // namespace

bool convolution_weight_gradient(Parallel& parallel, const Convolution& c, const float* x,
                                 const float* y_gradient, float* w_gradient) {
  const Shape s(c);
  const long depth = s.ins * s.taps;
  if (!(c.outputs && depth)) return true;
  if (is_empty(c, s)) {
    set(w_gradient, c.outputs * depth, 0);
    return true;
  }
  if (s.outs <= kFew) return gradient_of_few(parallel, c, s, x, y_gradient, w_gradient);
  const Field f = field_of_input(c);
  const long blocks = parts(s.outs, kBlock), all_blocks = c.groups * blocks;
  const int at_most = taps_at_once(s.outs > kLanes ? 2 : 1);
  const long taps = parts(depth, parts(depth, at_most)), groups = parts(depth, taps);
  const long padded = groups * taps, batches = batch_parts(c, s);
  float* partial = scratch(kPartial, batches * all_blocks * padded * kBlock);
  const long* reach = reaches(c, s, f, padded);
  if (!partial || !reach) return false;
  const long width = c.result[2], segment = width > 2 * kChunk ? kChunk : width;
  const long rows_at_once = most(1, kChunk / width);
  const long at_once = images_at_once(c.batch, c.result[1] * c.result[2]);
  bool enough = true;
  parallel.run(batches * all_blocks, 1e-2 * c.batch * c.outputs * s.result * depth,
               [&](long begin, long end) {
    Fields fields(f, c.groups, s.ins, at_once, false);
    float* turned = scratch(kTurned, at_once * rows_at_once * segment * kBlock);
    if (!turned || !fields.enough) {
      enough = false;
      return;
    }
    Ahead inputs, gradients;
    // The sums of one block over some images.
    const auto weigh = [&](const float* from, long first, long images, long channel, long count,
                           bool add, float* to) {
      const int vectors = count > kLanes ? 2 : 1;
      const WeighTile tile = vectors == 2 ? weigh_tile_of<2>(taps) : weigh_tile_of<1>(taps);
      for (long z = 0; z < c.result[0]; z++)
        for (long row = 0; row < c.result[1]; row += rows_at_once)
          for (long i = 0; i < width; i += segment, add = true) {
            const Rows rows{images, fields.image_step, least(rows_at_once, c.result[1] - row),
                            f.pitch * c.stride[1], least(segment, width - i)};
            const long pixels = rows.rows * rows.width;
            for (long n = 0; n < images; n++) {
              const long at = ((first + n) * c.outputs + channel) * s.result +
                              (z * c.result[1] + row) * width + i;
              transpose_in(y_gradient + at, s.result, count, pixels,
                           c.batch * c.outputs * s.result - at,
                           turned + n * pixels * vectors * kLanes, vectors * kLanes);
            }
            const float* seen = from + f.row(z * c.stride[0], row * c.stride[1]) + i;
            for (long j = 0; j < padded; j += taps) {
              const float* pointers[16];
              for (long r = 0; r < taps; r++) pointers[r] = seen + reach[j + r];
              inputs.fetch();
              gradients.fetch();
              tile(pointers, rows, turned, add, to + j * kBlock);
            }
          }
    };
    // All blocks of this range that see the same images go through them together.
    for (long task = begin, next; task < end; task = next) {
      const long part = task / all_blocks, group = task % all_blocks / blocks;
      next = least(end, part * all_blocks + (group + 1) * blocks);
      const long first = c.batch * part / batches, last = c.batch * (part + 1) / batches;
      for (long n = first; n < last; n += at_once) {
        const long images = least(at_once, last - n);
        const float* from = fields.of(x, n, images, group);
        const long calls = (next - task) * c.result[0] * parts(c.result[1], rows_at_once) *
                           parts(width, segment) * groups;
        const long following = n + images;
        inputs.begin(x + following * c.channels * s.size, images * c.channels * s.size, calls);
        gradients.begin(y_gradient + following * c.outputs * s.result,
                        images * c.outputs * s.result, calls);
        for (long each = task; each < next; each++) {
          const long start = each % blocks * kBlock;
          weigh(from, n, images, group * s.outs + start, least(kBlock, s.outs - start), n > first,
                partial + each * padded * kBlock);
        }
      }
    }
  });
  if (!enough) return false;
  parallel.run(all_blocks, 0.3 * batches * c.outputs * depth, [&](long begin, long end) {
    for (long block = begin; block < end; block++) {
      const long start = block % blocks * kBlock;
      float* sums = partial + block * padded * kBlock;
      for (long part = 1; part < batches; part++) {
        const float* more = sums + part * all_blocks * padded * kBlock;
        for (long i = 0; i < padded * kBlock; i += kLanes)
          store(sums + i, load(sums + i) + load(more + i));
      }
      transpose_out(sums, kBlock, depth, least(kBlock, s.outs - start),
                    w_gradient + (block / blocks * s.outs + start) * depth, depth);
    }
  });
  return true;
}

}  // namespace nnk::NNK_NAMESPACE
