// The operators that the library registers.
#include "operators.h"

#include "elementwise_operator.h"

namespace nnk {

const KernelType kKernelTypes[] = {
    {"Elementwise", "*+", "f+", made<Elementwise>},
    {nullptr, nullptr, nullptr, nullptr},
};

}  // namespace nnk
