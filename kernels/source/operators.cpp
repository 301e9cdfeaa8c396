// The operators that the library registers.
#include "operators.h"

#include "convolution_operators.h"
#include "elementwise_operator.h"
#include "losses_operators.h"
#include "normalization_operators.h"
#include "embedding_operators.h"
#include "pooling_operators.h"
#include "product_operators.h"
#include "recurrent_operators.h"

namespace nnk {

const KernelType kKernelTypes[] = {
    {"Convolution", "fff?", "f", made<ConvolutionForward>},
    {"ConvolutionInputGradient", "ff", "f", made<ConvolutionInputGradient>},
    {"ConvolutionWeightGradient", "ff", "f", made<ConvolutionWeightGradient>},
    {"Elementwise", "*+", "f+", made<Elementwise>},
    {"Gemm", "fff?", "f", made<Gemm>},
    {"Gru", "*+", "f+", made<Gru>},
    {"GruGradient", "*+", "f+", made<GruBackward>},
    {"Lstm", "*+", "f+", made<Lstm>},
    {"LstmGradient", "*+", "f+", made<LstmBackward>},
    {"MaxPool", "f", "f", made<MaxPool>},
    {"MaxSpread", "ff", "f", made<MaxSpread>},
    {"RowScatterAdd", "lff?", "f", made<RowScatterAdd>},
    {"BatchNorm", "fffff", "fffff", made<BatchNorm>},
    {"BatchNormGradient", "fffff", "fff", made<BatchNormBackward>},
    {"LayerNorm", "ff?f?", "fff", made<LayerNorm>},
    {"LayerNormGradient", "fffff?", "ff?f?", made<LayerNormBackward>},
    {"CrossEntropy", "flff", "ff", made<CrossEntropyKernel>},
    {nullptr, nullptr, nullptr, nullptr},
};

}  // namespace nnk
