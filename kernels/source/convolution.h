// Convolutions of floats along up to three axes of space, and their gradients.
#pragma once

#include "parallel.h"

namespace nnk {

// x[batch, channels, sizes], w[outputs, channels/groups, kernels] and y[batch, outputs, results]:
//
//   y[n, o, i] = bias[o] + Σ x[n, c, i·stride + k·dilation − before]·w[o, c, k]
//
// with zeros beyond x, over the channels c of the group of o. Axes that there are not come first, of
// one element each. All arrays are dense, and no result overlaps with an argument. Results that are
// sums are added up in one order, whatever the number of threads.
struct Convolution {
  long batch, channels, outputs, groups;
  long size[3], result[3], kernel[3], stride[3], dilation[3], before[3];
};

// Each returns false, with an undefined result, where there is not enough memory.
struct ConvolutionKernels {
  // y of x and w; the bias may be null.
  bool (*forward)(Parallel&, const Convolution&, const float* x, const float* w, const float* bias,
                  float* y);
  // The gradient at x of the one at y.
  bool (*input_gradient)(Parallel&, const Convolution&, const float* y_gradient, const float* w,
                         float* x_gradient);
  // The gradient at w of the one at y.
  bool (*weight_gradient)(Parallel&, const Convolution&, const float* x, const float* y_gradient,
                          float* w_gradient);
};

}  // namespace nnk
