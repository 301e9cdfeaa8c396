// The operators that the library registers.
#include "operators.h"

namespace nnk {

using Types = std::vector<KernelType>;

Types convolution_operators(), elementwise_operators(), product_operators(), recurrent_operators(),
    pooling_operators(), embedding_operators(), normalization_operators(), losses_operators();

const Types& kernel_types() {
  static const Types all = [] {
    Types types;
    for (const Types& family :
         {convolution_operators(), elementwise_operators(), product_operators(),
          recurrent_operators(), pooling_operators(), embedding_operators(),
          normalization_operators(), losses_operators()})
      types.insert(types.end(), family.begin(), family.end());
    return types;
  }();
  return all;
}

}  // namespace nnk
