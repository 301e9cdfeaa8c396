#include "losses_operators.h"

#include "dispatch.h"
#include "losses.h"

namespace nnk {

void CrossEntropyKernel::run(const Call& call) const {
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

}  // namespace nnk
