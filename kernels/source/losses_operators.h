// Losses as operators.
#pragma once

#include "operators.h"

namespace nnk {

// x[…, classes], indices[…, 1], weights and addends, each [], or one for each row; gives log
// softmax(x) at the indices, and softmax(x)·weights, or minus that where it is `negative`, with the
// addends at the indices.
class CrossEntropyKernel final : public Kernel {
 public:
  explicit CrossEntropyKernel(const Attributes& attributes)
      : sign_(attributes.integer("negative", 0) ? -1.0f : 1.0f) {}
  void run(const Call& call) const override;

 private:
  float sign_;
};

}  // namespace nnk
