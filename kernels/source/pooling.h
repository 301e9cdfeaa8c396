// Maxima of windows, and the places where they are.
#pragma once

#include "convolution.h"
#include "parallel.h"

namespace nnk {

// Windows over planes x[batch·channels, sizes]: of a convolution of one channel, `batch` being the
// number of planes, with nothing in its padding. NaN is the greatest of all; of equal elements the
// first counts, of several NaN the last.
struct PoolingKernels {
  // The greatest element of each window. False where there is not enough memory.
  bool (*maximum)(Parallel&, const Convolution& window, const float* x, float* y);
  // y's elements added up at the places of the greatest elements of the windows of x, zeros
  // elsewhere.
  bool (*spread)(Parallel&, const Convolution& window, const float* y, const float* x, float* to);
};

}  // namespace nnk
