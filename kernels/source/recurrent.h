// Sequences of LSTM and GRU cells, and their gradients.
//
// Time is the first axis. What comes from below, x·W, is computed before, for all steps at once;
// here are the products with the weights of the state, from step to step, and the cells. Of what is
// written, anything but a gradient's `d_rows` and states may be null, where nobody needs it.
#pragma once

#include "parallel.h"

namespace nnk {

struct Sequence {
  long time, batch, hidden;
  bool reverse;                  // from the last step to the first
  const unsigned char* present;  // [time, batch]; where it is 0 the state stays. Null: 1 everywhere
};

// Gates of x = rows + bias + h·weight: c' = σ(f)·c + σ(i)·tanh(g), h' = σ(o)·tanh(c').
struct LstmForward {
  const float* rows;  // [time, batch, 4·hidden], the gates in the order i, f, g, o
  const float* bias;  // [4·hidden], or null
  const float* weight;  // [hidden, 4·hidden]
  const float *h0, *c0;  // [batch, hidden]
  float *h_last, *c_last;  // [batch, hidden]; never null
  // Of each step, [time, batch, hidden]: the state before and after it, the values of the gates, and
  // u = tanh(c'); these two also of steps that are not present, as if they were.
  float *h_before, *c_before, *h_after, *c_after, *i, *f, *g, *o, *u;
};

struct LstmGradient {
  const float* weight;
  const float *c_before, *i, *f, *g, *o, *u;
  const float *d_after, *d_h, *d_c;  // at h after each step, and at the last state; null for zeros
  float *d_rows, *d_h0, *d_c0;
};

// Gates of x = rows + bias and p = h·weight + inner_bias: σ(x + p) for r and z,
// n = tanh(x + r·p), h' = (1 − z)·n + z·h.
struct GruForward {
  const float* rows;  // [time, batch, 3·hidden], the gates in the order r, z, n
  const float *bias, *inner_bias;  // [3·hidden], or null
  const float *weight, *h0;
  float* h_last;  // never null
  float *h_before, *h_after, *r, *z, *z_rest, *n, *p;  // z_rest is 1 − z, p that of n
};

struct GruGradient {
  const float* weight;
  const float *h_before, *r, *z, *n, *p;
  const float *d_after, *d_h;  // null for zeros
  float *d_rows, *d_product, *d_h0;  // at rows and at h·W + b, both [time, batch, 3·hidden]
};

// Each gives false where there is not enough memory.
struct RecurrentKernels {
  bool (*lstm)(Parallel&, const Sequence&, const LstmForward&);
  bool (*lstm_gradient)(Parallel&, const Sequence&, const LstmGradient&);
  bool (*gru)(Parallel&, const Sequence&, const GruForward&);
  bool (*gru_gradient)(Parallel&, const Sequence&, const GruGradient&);
};

}  // namespace nnk
