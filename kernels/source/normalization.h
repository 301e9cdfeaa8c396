// Layer and batch normalization as they are trained, and their gradients.
#pragma once

#include "parallel.h"

namespace nnk {

// y = (x − mean)·inverse·scale + bias of each row, inverse = 1/√(mean (x − mean)² + epsilon); scale
// and bias, [width], may be null.
struct LayerNormForward {
  long rows, width;
  float epsilon;
  const float *x, *scale, *bias;
  float *y, *mean, *inverse;  // of each row
};

// From the gradient g at y. d_scale and d_bias, [width], may be null.
struct LayerNormGradient {
  long rows, width;
  const float *g, *x, *scale, *mean, *inverse;
  float *dx, *d_scale, *d_bias;
};

// The same of each channel of x[batch, channels, size], and running statistics, [channels]:
// next = now + momentum·(of this batch − now), whose variance is that of a sample.
struct BatchNormForward {
  long batch, channels, size;
  float momentum, epsilon;
  const float *x, *scale, *bias, *mean, *variance;
  float *y, *next_mean, *next_variance, *centre, *inverse;
};

struct BatchNormGradient {
  long batch, channels, size;
  const float *g, *x, *scale, *centre, *inverse;
  float *dx, *d_scale, *d_bias;  // d_scale and d_bias are never null
};

struct NormalizationKernels {
  bool (*layer_norm)(Parallel&, const LayerNormForward&);
  bool (*layer_norm_gradient)(Parallel&, const LayerNormGradient&);  // false: no memory
  bool (*batch_norm)(Parallel&, const BatchNormForward&);
  bool (*batch_norm_gradient)(Parallel&, const BatchNormGradient&);
};

}  // namespace nnk
