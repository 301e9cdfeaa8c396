// The kernels of the instruction set that the processor has.
#pragma once

#include "convolution.h"
#include "elementwise.h"
#include "losses.h"
#include "normalization.h"
#include "embedding.h"
#include "parallel.h"
#include "pooling.h"
#include "products.h"
#include "recurrent.h"

namespace nnk {

// What is compiled once for each instruction set: pointers to the kernels, a group for each header.
struct Table {
  const char* instruction_set;
  // c[rows, columns] = a·b, or c += a·b; steps from row to row and from column to column of a and
  // b, and from row to row of c. False where there is not enough memory.
  bool (*multiply)(Parallel&, const float* a, long a_row_step, long a_column_step, const float* b,
                   long b_row_step, long b_column_step, long rows, long columns, long depth,
                   float* c, long c_step, bool add);
  const ConvolutionKernels* convolution;
  const PoolingKernels* pooling;
  const ProductKernels* products;
  const RecurrentKernels* recurrent;
  const LossKernels* losses;
  const NormalizationKernels* normalization;
  const EmbeddingKernels* embedding;
  // The elementwise operation of a name such as "add.f", null where there is none.
  Step (*elementwise)(const char* name);
};

// The best one that the processor has. The environment variable NNCOMPILE_KERNELS_ISA names a
// smaller one, for tests: baseline, avx2 or avx512.
const Table& table();

// By its name, null where this build or this processor has none of it.
const Table* table_of(const char* instruction_set);

}  // namespace nnk
