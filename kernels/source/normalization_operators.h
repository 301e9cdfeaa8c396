// Layer and batch normalization as operators.
#pragma once

#include "operators.h"

namespace nnk {

// x and maybe scale and bias; gives y, and mean and inverse of each row.
class LayerNorm final : public Kernel {
 public:
  explicit LayerNorm(const Attributes& attributes) : epsilon_(attributes.number("epsilon", 1e-5f)) {}
  void run(const Call& call) const override;

 private:
  float epsilon_;
};

// The gradient at y, x, mean, inverse and maybe scale; gives those at x, scale and bias, as many as
// are asked for.
class LayerNormBackward final : public Kernel {
 public:
  explicit LayerNormBackward(const Attributes&) {}
  void run(const Call& call) const override;
};

// x, scale, bias, running mean and variance; gives y, both after this batch, centre and inverse.
class BatchNorm final : public Kernel {
 public:
  explicit BatchNorm(const Attributes& attributes)
      : momentum_(attributes.number("momentum", 0.1f)),
        epsilon_(attributes.number("epsilon", 1e-5f)) {}
  void run(const Call& call) const override;

 private:
  float momentum_, epsilon_;
};

// The gradient at y, x, scale, centre and inverse; gives those at x, scale and bias.
class BatchNormBackward final : public Kernel {
 public:
  explicit BatchNormBackward(const Attributes&) {}
  void run(const Call& call) const override;
};

}  // namespace nnk
