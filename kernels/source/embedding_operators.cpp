// What embeddings need, as operators.
#include "dispatch.h"
#include "embedding.h"
#include "operators.h"

namespace nnk {
namespace {

// Inputs are a column of row numbers, the updates and, unless `rows` says of how many rows of zeros
// it is, what they are added to.
class RowScatterAdd final : public Kernel {
 public:
  explicit RowScatterAdd(const Attributes& attributes) : rows_(attributes.integer("rows", 0)) {}
  void run(const Call& call) const override {
    const Tensor indices = call.input(0), updates = call.input(1);
    const Tensor x = call.inputs() > 2 ? call.input(2) : Tensor{};
    const bool fits = updates.rank == 2 && indices.count() == updates.sizes[0] &&
                      (!x.given() || (x.rank == 2 && x.sizes[1] == updates.sizes[1]));
    if (!fits) throw Problem("RowScatterAdd needs a row number for each row that is added");
    const int64_t sizes[] = {x.given() ? x.sizes[0] : rows_, updates.sizes[1]};
    RowScatter s;
    s.x = x.given() ? x.floats() : nullptr;
    s.indices = indices.integers(), s.updates = updates.floats();
    s.rows = sizes[0], s.width = sizes[1], s.count = updates.sizes[0];
    s.out = static_cast<float*>(call.output(0, sizes, 2));
    const int problem = table().embedding->scatter_add(call.parallel, s);
    if (problem == 1) throw Problem("RowScatterAdd: a row number out of range");
    if (problem == 2) throw Problem("not enough memory");
  }

 private:
  int64_t rows_;
};

}  // namespace

std::vector<KernelType> embedding_operators() {
  return {{"RowScatterAdd", "lff?", "f", made<RowScatterAdd>}};
}

}  // namespace nnk
