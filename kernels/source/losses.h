// The cross-entropy of classes and its gradient.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace nnk {

// Of each row of x[rows, classes]: log softmax(x) at its index, and softmax(x)·weight with `addend`
// added there. Weights and addends are one for each row, or one for all where a step is 0. A
// negative index counts from the end.
struct CrossEntropy {
  long rows, classes;
  const float* x;
  const int64_t* indices;
  const float *weights, *addends;
  long weight_step, addend_step;
  float sign;  // 1 or −1, of the weights
  float *picked, *gradient;  // [rows], [rows, classes]
};

struct LossKernels {
  // False for an index that is out of range.
  bool (*cross_entropy)(Parallel&, const CrossEntropy&);
};

}  // namespace nnk
