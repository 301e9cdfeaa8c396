// Rows added to rows of a table by their numbers: the gradient of an embedding.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace nnk {

// out[r] = x[r] + Σ updates[i] over all i with indices[i] = r, for rows of `width` numbers; without x
// zeros. A negative index counts from the end. Sums are made in double, in the order of i.
struct RowScatter {
  const float* x;  // [rows, width], or null
  const int64_t* indices;  // [count]
  const float* updates;  // [count, width]
  float* out;  // [rows, width]
  long rows, width, count;
};

struct EmbeddingKernels {
  // 0, or 1 for an index that is out of range, or 2 where there is not enough memory.
  int (*scatter_add)(Parallel&, const RowScatter&);
};

}  // namespace nnk
