// Every example goes its own way through time: what is split over threads is the batch, so that no
// thread waits for another between steps.
#include "recurrent.h"

#include "gemm.h"
#include "mathematics.h"
#include "rows.h"

namespace nnk::NNK_NAMESPACE {
namespace {

constexpr int kWeights = 2, kStates = 3;  // slots of scratch memory; 0 and 1 are those of gemm.h
constexpr double kOfProduct = 1e-2, kOfCell = 2;  // nanoseconds, of a product and of a cell

#define NNK_EACH __attribute__((always_inline))

// body(first, last) for examples [first, last) of the batch, in as many as a tile has rows. False
// where the body gave false.
template <class Body>
bool for_examples(Parallel& parallel, const Sequence& s, long gates, const Body& body) {
  const long height = panel_rows(s.batch);
  const double cells = double(s.time) * s.batch * s.hidden;
  int failures = 0;
  parallel.run(parts(s.batch, height), cells * (s.hidden * gates * kOfProduct + kOfCell),
               [&](long begin, long end) {
                 if (!body(begin * height, least(end * height, s.batch)))
                   __atomic_store_n(&failures, 1, __ATOMIC_RELAXED);
               });
  return !failures;
}

inline long step_at(const Sequence& s, long k) { return s.reverse ? s.time - 1 - k : k; }

inline bool is_present(const Sequence& s, long t, long b) {
  return !s.present || s.present[t * s.batch + b];
}

// Where `row` of a matrix of rows starts, null for null.
template <class Number>
inline Number* row_of(Number* matrix, long row, long columns) {
  return matrix ? matrix + row * columns : nullptr;
}

template <class Access>
inline NNK_EACH void put(Access access, float* row, long j, Vector value) {
  if (row) access.put(row + j, value);
}

// The weights of h·weight, or of d·weightᵀ, packed; null where there is not enough memory.
float* packed_weight(const float* weight, long hidden, long wide, bool transposed) {
  const long depth = transposed ? wide : hidden, columns = transposed ? hidden : wide;
  float* packed = scratch(kWeights, packed_right_size(depth, columns));
  if (packed)
    pack_right(transposed ? Matrix{weight, 1, wide} : Matrix{weight, wide, 1}, depth, columns,
               packed);
  return packed;
}

// Where the results of one example's step go.
struct LstmRows {
  float *c, *h, *c_after, *h_after, *i, *f, *g, *o, *u;
};

void lstm_cell(long hidden, const float* gates, const LstmRows& to) {
  across(hidden, [&](auto access, long j) NNK_EACH {
    const Vector i = sigmoid(access.get(gates + j));
    const Vector f = sigmoid(access.get(gates + hidden + j));
    const Vector g = hyperbolic_tangent(access.get(gates + 2 * hidden + j));
    const Vector o = sigmoid(access.get(gates + 3 * hidden + j));
    const Vector c = f * access.get(to.c + j) + i * g, u = hyperbolic_tangent(c), h = o * u;
    access.put(to.c + j, c);
    access.put(to.h + j, h);
    put(access, to.c_after, j, c);
    put(access, to.h_after, j, h);
    put(access, to.i, j, i);
    put(access, to.f, j, f);
    put(access, to.g, j, g);
    put(access, to.o, j, o);
    put(access, to.u, j, u);
  });
}

// A step that is not there: gates have values, and the state stays. `spare` holds two rows.
void lstm_stays(long hidden, const float* gates, LstmRows to, float* spare) {
  if (to.c_after) copy(to.c_after, to.c, hidden);
  if (to.h_after) copy(to.h_after, to.h, hidden);
  copy(spare, to.c, hidden);
  to.c = spare, to.h = spare + hidden;
  to.c_after = to.h_after = nullptr;
  lstm_cell(hidden, gates, to);
}

// rows + bias, for as many rows.
void add_bias(float* to, const float* rows, const float* bias, long count, long wide) {
  if (!bias) return copy(to, rows, count * wide);
  for (long b = 0; b < count; b++)
    across(wide, [&](auto access, long j) NNK_EACH {
      access.put(to + b * wide + j, access.get(rows + b * wide + j) + access.get(bias + j));
    });
}

bool lstm(Parallel& parallel, const Sequence& s, const LstmForward& x) {
  const long wide = 4 * s.hidden, hidden = s.hidden;
  copy(x.h_last, x.h0, s.batch * hidden);
  copy(x.c_last, x.c0, s.batch * hidden);
  const float* weight = packed_weight(x.weight, hidden, wide, false);
  if (!weight) return false;
  return for_examples(parallel, s, 4, [&](long begin, long end) {
    const long count = end - begin, packed = packed_left_size(count, hidden);
    float* left = scratch(kStates, packed + count * wide + 2 * hidden);
    if (!left) return false;
    float *gates = left + packed, *spare = gates + count * wide;
    float *h = x.h_last + begin * hidden, *c = x.c_last + begin * hidden;
    for (long k = 0; k < s.time; k++) {
      const long t = step_at(s, k), first = t * s.batch + begin;
      if (x.h_before) copy(x.h_before + first * hidden, h, count * hidden);
      if (x.c_before) copy(x.c_before + first * hidden, c, count * hidden);
      pack_left(Matrix{h, hidden, 1}, count, hidden, left);
      add_bias(gates, x.rows + first * wide, x.bias, count, wide);
      multiply_packed(left, weight, count, wide, hidden, gates, wide, true);
      for (long b = 0; b < count; b++) {
        const long row = first + b;
        const LstmRows to{c + b * hidden,
                          h + b * hidden,
                          row_of(x.c_after, row, hidden),
                          row_of(x.h_after, row, hidden),
                          row_of(x.i, row, hidden),
                          row_of(x.f, row, hidden),
                          row_of(x.g, row, hidden),
                          row_of(x.o, row, hidden),
                          row_of(x.u, row, hidden)};
        if (is_present(s, t, begin + b)) lstm_cell(hidden, gates + b * wide, to);
        else lstm_stays(hidden, gates + b * wide, to, spare);
      }
    }
    return true;
  });
}

// From the gradients at h and c after a step to those at the gates before their functions, and at c
// before the step, in place.
void lstm_cell_gradient(long hidden, const LstmGradient& x, long row, const float* dh, float* dc,
                        float* d) {
  const long at = row * hidden;
  across(hidden, [&](auto access, long j) NNK_EACH {
    const Vector i = access.get(x.i + at + j), f = access.get(x.f + at + j);
    const Vector g = access.get(x.g + at + j), o = access.get(x.o + at + j);
    const Vector u = access.get(x.u + at + j), at_h = access.get(dh + j);
    const Vector at_c = access.get(dc + j) + at_h * (o * (1.0f - u * u));
    access.put(d + j, at_c * (g * (i * (1.0f - i))));
    access.put(d + hidden + j, at_c * (access.get(x.c_before + at + j) * (f * (1.0f - f))));
    access.put(d + 2 * hidden + j, at_c * (i * (1.0f - g * g)));
    access.put(d + 3 * hidden + j, at_h * (u * (o * (1.0f - o))));
    access.put(dc + j, at_c * f);
  });
}

bool lstm_gradient(Parallel& parallel, const Sequence& s, const LstmGradient& x) {
  const long wide = 4 * s.hidden, hidden = s.hidden;
  copy_or_clear(x.d_h0, x.d_h, s.batch * hidden);
  copy_or_clear(x.d_c0, x.d_c, s.batch * hidden);
  const float* weight = packed_weight(x.weight, hidden, wide, true);
  if (!weight) return false;
  return for_examples(parallel, s, 4, [&](long begin, long end) {
    const long count = end - begin;
    float* left = scratch(kStates, packed_left_size(count, wide));
    if (!left) return false;
    float *dh = x.d_h0 + begin * hidden, *dc = x.d_c0 + begin * hidden;
    for (long k = s.time - 1; k >= 0; k--) {
      const long t = step_at(s, k), first = t * s.batch + begin;
      float* d = x.d_rows + first * wide;
      if (x.d_after) add_to(dh, x.d_after + first * hidden, count * hidden);
      for (long b = 0; b < count; b++) {
        if (!is_present(s, t, begin + b)) {
          clear(d + b * wide, wide);
          continue;  // the gradients at the state go through
        }
        lstm_cell_gradient(hidden, x, first + b, dh + b * hidden, dc + b * hidden, d + b * wide);
        clear(dh + b * hidden, hidden);
      }
      pack_left(Matrix{d, wide, 1}, count, wide, left);
      multiply_packed(left, weight, count, hidden, wide, dh, hidden, true);
    }
    return true;
  });
}

struct GruRows {
  float *h, *h_after, *r, *z, *z_rest, *n, *p;
};

void gru_cell(long hidden, const float* rows, const float* bias, const float* product,
              const GruRows& to) {
  across(hidden, [&](auto access, long j) NNK_EACH {
    Vector x[3];
    for (int gate = 0; gate < 3; gate++) {
      x[gate] = access.get(rows + gate * hidden + j);
      if (bias) x[gate] += access.get(bias + gate * hidden + j);
    }
    const Vector r = sigmoid(x[0] + access.get(product + j));
    const Vector z = sigmoid(x[1] + access.get(product + hidden + j));
    const Vector p = access.get(product + 2 * hidden + j);
    const Vector n = hyperbolic_tangent(x[2] + r * p), rest = 1.0f - z;
    const Vector h = rest * n + z * access.get(to.h + j);
    access.put(to.h + j, h);
    put(access, to.h_after, j, h);
    put(access, to.r, j, r);
    put(access, to.z, j, z);
    put(access, to.z_rest, j, rest);
    put(access, to.n, j, n);
    put(access, to.p, j, p);
  });
}

void gru_stays(long hidden, const float* rows, const float* bias, const float* product, GruRows to,
               float* spare) {
  if (to.h_after) copy(to.h_after, to.h, hidden);
  copy(spare, to.h, hidden);
  to.h = spare;
  to.h_after = nullptr;
  gru_cell(hidden, rows, bias, product, to);
}

bool gru(Parallel& parallel, const Sequence& s, const GruForward& x) {
  const long wide = 3 * s.hidden, hidden = s.hidden;
  copy(x.h_last, x.h0, s.batch * hidden);
  const float* weight = packed_weight(x.weight, hidden, wide, false);
  if (!weight) return false;
  return for_examples(parallel, s, 3, [&](long begin, long end) {
    const long count = end - begin, packed = packed_left_size(count, hidden);
    float* left = scratch(kStates, packed + count * wide + hidden);
    if (!left) return false;
    float *product = left + packed, *spare = product + count * wide;
    float* h = x.h_last + begin * hidden;
    for (long k = 0; k < s.time; k++) {
      const long t = step_at(s, k), first = t * s.batch + begin;
      if (x.h_before) copy(x.h_before + first * hidden, h, count * hidden);
      pack_left(Matrix{h, hidden, 1}, count, hidden, left);
      if (x.inner_bias)
        for (long b = 0; b < count; b++) copy(product + b * wide, x.inner_bias, wide);
      multiply_packed(left, weight, count, wide, hidden, product, wide, x.inner_bias != nullptr);
      for (long b = 0; b < count; b++) {
        const long row = first + b;
        const GruRows to{h + b * hidden,
                         row_of(x.h_after, row, hidden),
                         row_of(x.r, row, hidden),
                         row_of(x.z, row, hidden),
                         row_of(x.z_rest, row, hidden),
                         row_of(x.n, row, hidden),
                         row_of(x.p, row, hidden)};
        const float *rows = x.rows + row * wide, *p = product + b * wide;
        if (is_present(s, t, begin + b)) gru_cell(hidden, rows, x.bias, p, to);
        else gru_stays(hidden, rows, x.bias, p, to, spare);
      }
    }
    return true;
  });
}

// The gradients at rows and at h·W + b, from that at h after a step, which becomes, in place, the
// part of that before the step that does not go through the product.
void gru_cell_gradient(long hidden, const GruGradient& x, long row, float* dh, float* d,
                       float* product) {
  const long at = row * hidden;
  across(hidden, [&](auto access, long j) NNK_EACH {
    const Vector r = access.get(x.r + at + j), z = access.get(x.z + at + j);
    const Vector n = access.get(x.n + at + j), p = access.get(x.p + at + j);
    const Vector h = access.get(x.h_before + at + j), at_h = access.get(dh + j);
    const Vector at_n = at_h * ((1.0f - z) * (1.0f - n * n));
    const Vector at_r = at_n * (p * (r * (1.0f - r)));
    const Vector at_z = at_h * ((h - n) * (z * (1.0f - z)));
    access.put(d + j, at_r);
    access.put(d + hidden + j, at_z);
    access.put(d + 2 * hidden + j, at_n);
    access.put(product + j, at_r);
    access.put(product + hidden + j, at_z);
    access.put(product + 2 * hidden + j, at_n * r);
    access.put(dh + j, at_h * z);
  });
}

bool gru_gradient(Parallel& parallel, const Sequence& s, const GruGradient& x) {
  const long wide = 3 * s.hidden, hidden = s.hidden;
  copy_or_clear(x.d_h0, x.d_h, s.batch * hidden);
  const float* weight = packed_weight(x.weight, hidden, wide, true);
  if (!weight) return false;
  return for_examples(parallel, s, 3, [&](long begin, long end) {
    const long count = end - begin;
    float* left = scratch(kStates, packed_left_size(count, wide));
    if (!left) return false;
    float* dh = x.d_h0 + begin * hidden;
    for (long k = s.time - 1; k >= 0; k--) {
      const long t = step_at(s, k), first = t * s.batch + begin;
      float *d = x.d_rows + first * wide, *product = x.d_product + first * wide;
      if (x.d_after) add_to(dh, x.d_after + first * hidden, count * hidden);
      for (long b = 0; b < count; b++) {
        if (is_present(s, t, begin + b)) {
          gru_cell_gradient(hidden, x, first + b, dh + b * hidden, d + b * wide,
                            product + b * wide);
        } else {
          clear(d + b * wide, wide);
          clear(product + b * wide, wide);
        }
      }
      pack_left(Matrix{product, wide, 1}, count, wide, left);
      multiply_packed(left, weight, count, hidden, wide, dh, hidden, true);
    }
    return true;
  });
}

}  // namespace

extern const RecurrentKernels kRecurrent;
const RecurrentKernels kRecurrent = {lstm, lstm_gradient, gru, gru_gradient};

}  // namespace nnk::NNK_NAMESPACE
