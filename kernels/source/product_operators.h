// Products of matrices as an operator: ONNX's Gemm, with its attributes.
#pragma once

#include "operators.h"

namespace nnk {

class Gemm final : public Kernel {
 public:
  explicit Gemm(const Attributes& attributes);
  void run(const Call& call) const override;

 private:
  float alpha_, beta_;
  bool transpose_a_, transpose_b_;
};

}  // namespace nnk
