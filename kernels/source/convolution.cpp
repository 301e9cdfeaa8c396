// Convolutions and their gradients at the input: how images are cut into what the innermost loops
// take, a block of channels and a chunk of rows of results at a time.
#include "convolution.h"

#include "convolution_shape.h"
#include "correlate.h"
#include "gemm.h"
#include "planes.h"

namespace nnk::NNK_NAMESPACE {

bool convolution_weight_gradient(Parallel&, const Convolution&, const float* x,
                                 const float* y_gradient, float* w_gradient);

namespace {

// How the channels of results are cut into blocks, and the weights of those.
struct Blocks {
  bool few;         // neighbouring pixels are computed together, else channels
  long size;        // channels of a block
  long channels;    // of a group
  long per_group;
  long all;         // blocks of all groups
  long step;        // floats of a block's weights
  float* weights;   // [group][block][depth][size]

  Blocks(long groups, long of_group, long depth, long width)
      : few(suits_planes(of_group, width)),
        size(few ? kFew : kBlock),
        channels(of_group),
        per_group(parts(channels, size)),
        all(groups * per_group),
        step(depth * size),
        weights(nullptr) {}

  long group(long block) const { return block / per_group; }
  // The first channel of a block within its group, and how many channels it has.
  long start(long block) const { return block % per_group * size; }
  long count(long block) const { return least(size, channels - start(block)); }

  // About how many tiles of a block are computed for so many pixels.
  long tiles(long pixels) const {
    return pixels / (few ? kLanes * segments_at_once(kFew) : pixels_at_once(size > kLanes ? 2 : 1));
  }

  // Weights of which a channel's are `across` apart to [depth][size].
  void pack(const float* from, long across, long count, long depth, long readable,
            float* to) const {
    if (few)
      pack_panel(from, across, 1, count, depth, size, to);
    else
      transpose_in(from, across, count, depth, readable, to, size);
  }
};

// How results along the last axis are cut: rows that are too long into segments, short ones are
// computed several at a time.
struct Chunks {
  long width, segment, rows;

  explicit Chunks(long pixels)
      : width(pixels),
        segment(pixels > 2 * kChunk ? kChunk : pixels),
        rows(most(1, kChunk / most(1, pixels))) {}

  long pixels() const { return rows * segment; }
};

void compute(const Blocks& blocks, const Block& block, const float* field, const Rows& rows,
             float* results, Target target) {
  if (blocks.few)
    correlate_planes(block, field, rows, target);
  else
    correlate(block, field, rows, results, target);
}

bool forward(Parallel& parallel, const Convolution& c, const float* x, const float* w,
             const float* bias, float* y) {
  const Shape s(c);
  if (is_empty(c, s)) return true;
  const Field f = field_of_input(c);
  const long depth = s.ins * s.taps;
  const Chunks chunks(c.result[2]);
  Blocks blocks(c.groups, s.outs, depth, chunks.width);
  const long all = blocks.all;
  blocks.weights = scratch(kWeights, all * blocks.step + 1);
  float* biases = scratch(kBias, all * blocks.size);
  Tap* taps = reinterpret_cast<Tap*>(scratch(kTaps, s.taps * long(sizeof(Tap) / sizeof(float))));
  if (!blocks.weights || !biases || !taps) return false;
  for (long k = 0; k < s.taps; k++) taps[k] = {reach_of(c, f, k), k * blocks.size};
  parallel.run(all, 0.3 * c.outputs * depth, [&](long begin, long end) {
    for (long block = begin; block < end; block++) {
      const long first = blocks.group(block) * s.outs + blocks.start(block);
      const long count = blocks.count(block);
      blocks.pack(w + first * depth, depth, count, depth, (c.outputs - first) * depth,
                  blocks.weights + block * blocks.step);
      for (long o = 0; o < blocks.size; o++)
        biases[block * blocks.size + o] = bias && o < count ? bias[first + o] : 0;
    }
  });
  const Sum sum{taps, s.taps, s.ins, f.plane, s.taps * blocks.size};
  const long at_once = images_at_once(c.batch, c.result[1] * c.result[2]);
  bool enough = true;
  parallel.run(parts(c.batch, at_once) * all, 1e-2 * c.batch * c.outputs * s.result * depth,
               [&](long begin, long end) {
    Fields fields(f, c.groups, s.ins, at_once, blocks.few && chunks.width < kLanes);
    float* results = scratch(kResults, at_once * chunks.pixels() * kBlock + kSpareResults);
    if (!results || !fields.enough) {
      enough = false;
      return;
    }
    Ahead ahead;
    for (long task = begin; task < end; task++) {
      const long first = task / all * at_once, images = least(at_once, c.batch - first);
      const long of_block = task % all;
      const long group = blocks.group(of_block), start = blocks.start(of_block);
      const float* from = fields.of(x, first, images, group);
      if (!of_block)
        ahead.begin(x + (first + images) * c.channels * s.size, images * c.channels * s.size,
                    all * blocks.tiles(images * s.result));
      float* to = y + ((first * c.groups + group) * s.outs + start) * s.result;
      const Block block{sum, blocks.weights + of_block * blocks.step,
                        biases + of_block * blocks.size, blocks.count(of_block), &ahead};
      for (long z = 0; z < c.result[0]; z++)
        for (long row = 0; row < c.result[1]; row += chunks.rows)
          for (long i = 0; i < chunks.width; i += chunks.segment)
            compute(blocks, block, from + f.row(z * c.stride[0], row * c.stride[1]) + i,
                    {images, fields.image_step, least(chunks.rows, c.result[1] - row),
                     f.pitch * c.stride[1], least(chunks.segment, chunks.width - i)},
                    results,
                    {to + (z * c.result[1] + row) * chunks.width + i, c.outputs * s.result,
                     s.result, chunks.width});
    }
  });
  return enough;
}

// The taps that the pixels of one remainder modulo the strides are met by.
struct Phase {
  const Tap* taps;
  long count;
};

// The results along the last axis that the same taps meet: which, and where they are in the field.
struct Remainder {
  long first, at, count;

  Remainder(const Convolution& c, long phase) {
    const long stride = c.stride[2], before = c.before[2];
    at = parts(most(0, before - phase), stride);
    first = phase + at * stride - before;
    count = most(0, parts(c.size[2] - first, stride));
  }
};

// to[i·count + r] = from[r·step + i] for all that are < size.
void interleave(const float* from, long step, long count, long size, float* to) {
  if (count == 2) return zip(from, from + step, size, to);
  for (long i = 0; i < size; i++) to[i] = from[i % count * step + i / count];
}

bool input_gradient(Parallel& parallel, const Convolution& c, const float* y_gradient,
                    const float* w, float* x_gradient) {
  const Shape s(c);
  const long total = c.batch * c.channels * s.size;
  if (total <= 0) return true;
  if (is_empty(c, s)) {
    set(x_gradient, total, 0);
    return true;
  }
  const Field f = field_of_gradient(c);
  const long across = c.stride[2], step = c.stride[1];
  const Chunks chunks(across == 1 ? c.size[2] : parts(c.size[2], across));
  Blocks blocks(c.groups, s.ins, s.outs * s.taps, chunks.width);
  const long all = blocks.all, phases = product(c.stride);
  blocks.weights = scratch(kWeights, all * blocks.step);
  float* zeros = scratch(kBias, kBlock);
  const long tap_floats = s.taps * long(sizeof(Tap) / sizeof(float));
  float* memory = scratch(kTaps, tap_floats + phases * long(sizeof(Phase) / sizeof(float)));
  if (!blocks.weights || !zeros || !memory) return false;
  set(zeros, kBlock, 0);
  Tap* tap = reinterpret_cast<Tap*>(memory);
  Phase* of_phase = reinterpret_cast<Phase*>(memory + tap_floats);
  for (long phase = 0; phase < phases; phase++) {
    const Tap* first = tap;
    for (long k = 0; k < s.taps; k++) {
      const Back z = back_of(c, 0, k / (c.kernel[1] * c.kernel[2]));
      const Back row = back_of(c, 1, k / c.kernel[2] % c.kernel[1]);
      const Back i = back_of(c, 2, k % c.kernel[2]);
      if ((z.phase * step + row.phase) * across + i.phase != phase) continue;
      tap->field = f.row(f.before[0] - z.back, f.before[1] - row.back) + f.before[2] - i.back;
      tap->weight = k * blocks.size;
      tap++;
    }
    of_phase[phase] = {first, tap - first};
  }
  parallel.run(all, 0.3 * c.outputs * s.ins * s.taps, [&](long begin, long end) {
    for (long block = begin; block < end; block++) {
      for (long o = 0; o < s.outs; o++) {
        const long output = blocks.group(block) * s.outs + o;
        const long first = (output * s.ins + blocks.start(block)) * s.taps;
        blocks.pack(w + first, s.taps, blocks.count(block), s.taps,
                    c.outputs * s.ins * s.taps - first,
                    blocks.weights + block * blocks.step + o * s.taps * blocks.size);
      }
    }
  });
  const long at_once = images_at_once(c.batch, c.size[1] * c.size[2]);
  // Pixels of one remainder of a chunk: `turned` is [remainder][channel][image][row][pixel].
  const long pixels = at_once * (across == 1 ? chunks.pixels() : chunks.rows * chunks.width);
  bool enough = true;
  parallel.run(parts(c.batch, at_once) * all,
               1e-2 * c.batch * c.outputs * s.result * s.ins * s.taps, [&](long begin, long end) {
    Fields fields(f, c.groups, s.outs, at_once, blocks.few && chunks.width < kLanes);
    float* results = scratch(kResults, pixels * kBlock + kSpareResults);
    float* turned = scratch(kTurned, across * kBlock * pixels + kBeyond);
    if (!results || !turned || !fields.enough) {
      enough = false;
      return;
    }
    Ahead ahead;
    for (long task = begin; task < end; task++) {
      const long first = task / all * at_once, images = least(at_once, c.batch - first);
      const long of_block = task % all;
      const long group = blocks.group(of_block), start = blocks.start(of_block);
      const float* from = fields.of(y_gradient, first, images, group);
      if (!of_block)
        ahead.begin(y_gradient + (first + images) * c.outputs * s.result,
                    images * c.outputs * s.result, all * blocks.tiles(images * s.size));
      float* to = x_gradient + ((first * c.groups + group) * s.ins + start) * s.size;
      const long image_step = c.channels * s.size;
      Block block{{nullptr, 0, s.outs, f.plane, s.taps * blocks.size},
                  blocks.weights + of_block * blocks.step, zeros, blocks.count(of_block), &ahead};
      // A chunk of rows `step` apart, of pixels that the same taps meet.
      const auto chunk = [&](long phase, const float* at, long rows, long width, Target target) {
        block.sum.taps = of_phase[phase].taps;
        block.sum.tap_count = of_phase[phase].count;
        compute(blocks, block, at, {images, fields.image_step, rows, f.pitch, width}, results,
                target);
      };
      const auto rows_of = [&](long z, long first_row, long rows) {
        const long field_z = z + c.before[0], field_row = first_row + c.before[1];
        const long phase = (field_z % c.stride[0] * step + field_row % step) * across;
        const float* at = from + f.row(field_z / c.stride[0], field_row / step);
        float* target = to + (z * c.size[1] + first_row) * c.size[2];
        if (across == 1) {
          for (long i = 0; i < chunks.width; i += chunks.segment)
            chunk(phase, at + c.before[2] + i, rows, least(chunks.segment, chunks.width - i),
                  {target + i, image_step, s.size, step * c.size[2]});
          return;
        }
        for (long p = 0; p < across; p++) {
          const Remainder of(c, p);
          if (!of.count) continue;
          chunk(phase + p, at + of.at, rows, of.count,
                {turned + of.first * kBlock * pixels, rows * chunks.width, pixels, chunks.width});
        }
        for (long image = 0; image < images; image++)
          for (long o = 0; o < block.channels; o++)
            for (long r = 0; r < rows; r++)
              interleave(turned + o * pixels + (image * rows + r) * chunks.width, kBlock * pixels,
                         across, c.size[2],
                         target + image * image_step + o * s.size + r * step * c.size[2]);
      };
      for (long z = 0; z < c.size[0]; z++)
        for (long remainder = 0; remainder < least(step, c.size[1]); remainder++) {
          const long count = parts(c.size[1] - remainder, step);
          for (long row = 0; row < count; row += chunks.rows)
            rows_of(z, remainder + row * step, least(chunks.rows, count - row));
        }
    }
  });
  return enough;
}

}  // namespace

extern const ConvolutionKernels kConvolution;
const ConvolutionKernels kConvolution = {forward, input_gradient, convolution_weight_gradient};

}  // namespace nnk::NNK_NAMESPACE
