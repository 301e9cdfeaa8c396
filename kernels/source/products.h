// Products of matrices as BLAS has them.
#pragma once

#include "parallel.h"

namespace nnk {

// out[rows, columns] = alpha·a·b + beta·c; a[rows, depth] is stored as [depth, rows] where it is
// transposed, and b[depth, columns] as [columns, depth]. c may be null.
struct Product {
  const float *a, *b, *c;
  float* out;
  long rows, columns, depth;
  bool transpose_a, transpose_b;
  float alpha, beta;
};

// False where there is not enough memory.
struct ProductKernels {
  bool (*multiply)(Parallel&, const Product&);
};

}  // namespace nnk
