// Maxima of windows along one to three axes of space.
#pragma once

#include "convolution.h"
#include "operators.h"

namespace nnk {

// The attributes `kernel`, `strides`, `pads` (as many before an axis as after it) and `dilations`.
class PoolingKernel : public Kernel {
 public:
  explicit PoolingKernel(const Attributes& attributes);

 protected:
  // The windows of x[batch, channels, sizes]. Throws Problem where none fits.
  Convolution windows(const Tensor& x) const;

 private:
  std::vector<int64_t> kernel_, strides_, pads_, dilations_;
};

// The greatest element of each window of x.
class MaxPool final : public PoolingKernel {
 public:
  using PoolingKernel::PoolingKernel;
  void run(const Call& call) const override;
};

// One number for each window, added up where the greatest elements of the windows of x are.
class MaxSpread final : public PoolingKernel {
 public:
  using PoolingKernel::PoolingKernel;
  void run(const Call& call) const override;
};

}  // namespace nnk
