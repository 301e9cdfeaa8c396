// Losses as operators.
#include "dispatch.h"
#include "losses.h"
#include "operators.h"

namespace nnk {
namespace {

// x[…, classes], indices[…, 1], weights and addends, each [], or one for each row; gives log
// softmax(x) at the indices, and softmax(x)·weights, or minus that where it is `negative`, with the
// addends at the indices.
class CrossEntropyKernel final : public Kernel {
 public:
  explicit CrossEntropyKernel(const Attributes& attributes)
      : sign_(attributes.integer("negative", 0) ? -1.0f : 1.0f) {}
  void run(const Call& call) const override {
    const Tensor x = call.input(0), indices = call.input(1);
    const Tensor weights = call.input(2), addends = call.input(3);
    if (!x.rank || x.type != ort::kFloat) throw Problem("CrossEntropy needs an axis of classes");
    CrossEntropy s;
    s.classes = x.sizes[x.rank - 1];
    s.rows = s.classes ? x.count() / s.classes : 0;
    for (const Tensor* each : {&weights, &addends})
      if (each->count() != 1 && each->count() != s.rows)
        throw Problem("CrossEntropy needs one weight for all rows or for each");
    if (indices.count() != s.rows) throw Problem("CrossEntropy needs an index for each row");
    s.x = x.floats(), s.indices = indices.integers();
    s.weights = weights.floats(), s.addends = addends.floats();
    s.sign = sign_;
    s.weight_step = weights.count() != 1, s.addend_step = addends.count() != 1;
    s.picked = call.output_like(0, indices), s.gradient = call.output_like(1, x);
    if (!table().losses->cross_entropy(call.parallel, s))
      throw Problem("CrossEntropy: an index out of range");
  }

 private:
  float sign_;
};

}  // namespace

std::vector<KernelType> losses_operators() {
  return {{"CrossEntropy", "flff", "ff", made<CrossEntropyKernel>}};
}

}  // namespace nnk
