// The table of one instruction set; compiled once for each of them.
#include "dispatch.h"
#include "gemm.h"

#define NNK_TEXT_OF(name) #name
#define NNK_TEXT(name) NNK_TEXT_OF(name)

namespace nnk::NNK_NAMESPACE {

extern const ConvolutionKernels kConvolution;
extern const PoolingKernels kPooling;
extern const ProductKernels kProducts;
extern const RecurrentKernels kRecurrent;
extern const LossKernels kLosses;
extern const NormalizationKernels kNormalization;
extern const EmbeddingKernels kEmbedding;
Step elementwise_step(const char* name);

namespace {

bool multiply_strided(Parallel& parallel, const float* a, long a_row_step, long a_column_step,
                      const float* b, long b_row_step, long b_column_step, long rows, long columns,
                      long depth, float* c, long c_step, bool add) {
  return multiply(parallel, Matrix{a, a_row_step, a_column_step},
                  Matrix{b, b_row_step, b_column_step}, rows, columns, depth, c, c_step, add);
}

}  // namespace

extern const Table kTable;
const Table kTable = {
    NNK_TEXT(NNK_NAMESPACE),
    multiply_strided,
    &kConvolution,
    &kPooling,
    &kProducts,
    &kRecurrent,
    &kLosses,
    &kNormalization,
    &kEmbedding,
    elementwise_step,
};

}  // namespace nnk::NNK_NAMESPACE
