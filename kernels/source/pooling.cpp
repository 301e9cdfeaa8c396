#include "pooling.h"

#include "convolution_shape.h"

namespace nnk::NNK_NAMESPACE {
namespace {

typedef int Numbers __attribute__((vector_size(kLanes * sizeof(int))));

constexpr float kLowest = -__builtin_inff();

// The greatest elements of a vector of windows, and the taps where they are: −1 where all are −∞.
struct Greatest {
  Vector element;
  Numbers tap;
};

inline __attribute__((always_inline)) Greatest greatest(const float* seen, const long* reach,
                                                        long taps) {
  Greatest found{broadcast(kLowest), Numbers{} - 1};
  for (long t = 0; t < taps; t++) {
    const Vector x = load(seen + reach[t]);
    const Numbers is_greater = (x > found.element) | (x != x);
    found.element = is_greater ? x : found.element;
    found.tap = is_greater ? Numbers{} + int(t) : found.tap;
  }
  return found;
}

// A plane whose padding is −∞, and where its taps are from a window's place.
struct Planes {
  const Convolution& c;
  Field f;
  long taps, result, size;
  long* reach;

  explicit Planes(const Convolution& window)
      : c(window),
        f(field_of_input(window)),
        taps(product(window.kernel)),
        result(product(window.result)),
        size(product(window.size)),
        reach(reinterpret_cast<long*>(scratch(kTaps, 2 * taps))) {
    for (long t = 0; reach && t < taps; t++) reach[t] = reach_of(c, f, t);
  }

  float* own() const {
    float* field = scratch(kField, f.plane + kBeyond);
    if (field) set(field, f.plane + kBeyond, kLowest);
    return field;
  }

  // body(place in the field, place of the result, how many) for vectors of windows of a plane.
  template <class Body>
  void each(const Body& body) const {
    for (long z = 0; z < c.result[0]; z++)
      for (long row = 0; row < c.result[1]; row++)
        for (long i = 0; i < c.result[2]; i += kLanes)
          body(f.row(z * c.stride[0], row * c.stride[1]) + i,
               (z * c.result[1] + row) * c.result[2] + i, least(kLanes, c.result[2] - i));
  }

  double work() const { return 0.2 * c.batch * (result * taps + 2 * size); }
};

bool maximum(Parallel& parallel, const Convolution& c, const float* x, float* y) {
  if (c.batch * product(c.result) <= 0) return true;
  const Planes planes(c);
  if (!planes.reach) return false;
  bool enough = true;
  parallel.run(c.batch, planes.work(), [&](long begin, long end) {
    float* field = planes.own();
    if (!field) {
      enough = false;
      return;
    }
    for (long plane = begin; plane < end; plane++) {
      fill(planes.f, x + plane * planes.size, 1, field);
      float* to = y + plane * planes.result;
      planes.each([&](long at, long place, long count) {
        const Vector found = greatest(field + at, planes.reach, planes.taps).element;
        if (count == kLanes)
          store(to + place, found);
        else
          store_first(to + place, found, count);
      });
    }
  });
  return enough;
}

// Of a window that has nothing above −∞, the first tap that is not in the padding.
long first_tap(const Convolution& c, long place) {
  const long at[3] = {place / (c.result[1] * c.result[2]), place / c.result[2] % c.result[1],
                      place % c.result[2]};
  long tap = 0;
  for (int axis = 0; axis < 3; axis++) {
    const long start = at[axis] * c.stride[axis] - c.before[axis];
    const long k = start < 0 ? parts(-start, c.dilation[axis]) : 0;
    tap = tap * c.kernel[axis] + least(k, c.kernel[axis] - 1);
  }
  return tap;
}

// A plane of the field as an image, zeros where no window reaches.
void take_out(const Field& f, const float* field, float* to) {
  const long reached = least(f.size[2], f.extent[2] - f.before[2]);
  for (long z = 0; z < f.size[0]; z++)
    for (long y = 0; y < f.size[1]; y++, to += f.size[2]) {
      const long at[2] = {z + f.before[0], y + f.before[1]};
      if (at[0] >= f.extent[0] || at[1] >= f.extent[1]) {
        set(to, f.size[2], 0);
        continue;
      }
      const float* row = field + f.row(at[0], at[1]);
      if (f.stride == 2) {
        const long first = f.before[2] & 1, start = f.before[2] / 2;
        zip(row + first * f.phase + start, row + (1 - first) * f.phase + start + first, reached, to);
      } else {
        for (long i = 0; i < reached; i++) {
          const long place = i + f.before[2];
          to[i] = row[place % f.stride * f.phase + place / f.stride];
        }
      }
      set(to + reached, f.size[2] - reached, 0);
    }
}

bool spread(Parallel& parallel, const Convolution& c, const float* y, const float* x, float* to) {
  if (c.batch * product(c.size) <= 0) return true;
  if (product(c.result) <= 0) {
    set(to, c.batch * product(c.size), 0);
    return true;
  }
  const Planes planes(c);
  if (!planes.reach) return false;
  bool enough = true;
  parallel.run(c.batch, 2 * planes.work(), [&](long begin, long end) {
    float* field = planes.own();
    float* sums = scratch(kTurned, planes.f.plane + kBeyond);
    if (!field || !sums) {
      enough = false;
      return;
    }
    for (long plane = begin; plane < end; plane++) {
      fill(planes.f, x + plane * planes.size, 1, field);
      set(sums, planes.f.plane + kBeyond, 0);
      const float* from = y + plane * planes.result;
      planes.each([&](long at, long place, long count) {
        const Numbers tap = greatest(field + at, planes.reach, planes.taps).tap;
        const Vector g = count == kLanes ? load(from + place) : load_first(from + place, count);
        int lowest = 0;
        for (int lane = 0; lane < kLanes; lane++) lowest |= tap[lane];
        for (long t = 0; t < planes.taps; t++) {
          float* sum = sums + at + planes.reach[t];
          store(sum, load(sum) + (tap == int(t) ? g : Vector{}));
        }
        for (long lane = 0; lowest < 0 && lane < count; lane++)
          if (tap[lane] < 0)
            sums[at + lane + planes.reach[first_tap(c, place + lane)]] += from[place + lane];
      });
      take_out(planes.f, sums, to + plane * planes.size);
    }
  });
  return enough;
}

}  // namespace

extern const PoolingKernels kPooling;
const PoolingKernels kPooling = {maximum, spread};

}  // namespace nnk::NNK_NAMESPACE
