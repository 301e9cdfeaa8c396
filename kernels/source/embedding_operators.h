// What embeddings need, as operators.
#pragma once

#include "operators.h"

namespace nnk {

// Inputs are a column of row numbers, the updates and, unless `rows` says of how many rows of zeros
// it is, what they are added to.
class RowScatterAdd final : public Kernel {
 public:
  explicit RowScatterAdd(const Attributes& attributes) : rows_(attributes.integer("rows", 0)) {}
  void run(const Call& call) const override;

 private:
  int64_t rows_;
};

}  // namespace nnk
