// Convolutions along one to three axes of space.
#pragma once

#include "convolution.h"
#include "operators.h"

namespace nnk {

// What the three operators have in common: the attributes `strides`, `pads` (those before each axis,
// then those after each), `dilations` and `group` of ONNX's `Conv`.
class ConvolutionKernel : public Kernel {
 public:
  explicit ConvolutionKernel(const Attributes& attributes);

 protected:
  // x[batch, channels, sizes], w[outputs, channels/group, kernels], y[batch, outputs, results], the
  // last one's sizes computed where it is not given. Throws Problem where they do not fit.
  Convolution geometry(const std::vector<int64_t>& x, const std::vector<int64_t>& w,
                       const std::vector<int64_t>* y) const;
  long groups() const { return groups_; }

 private:
  std::vector<int64_t> strides_, pads_, dilations_;
  long groups_;
};

// y of x, w and an optional bias.
class ConvolutionForward final : public ConvolutionKernel {
 public:
  using ConvolutionKernel::ConvolutionKernel;
  void run(const Call& call) const override;
};

// The gradient at x of the one at y and w; the attribute `sizes` is x's along space.
class ConvolutionInputGradient final : public ConvolutionKernel {
 public:
  explicit ConvolutionInputGradient(const Attributes& attributes)
      : ConvolutionKernel(attributes), sizes_(attributes.integers("sizes")) {}
  void run(const Call& call) const override;

 private:
  std::vector<int64_t> sizes_;
};

// The gradient at w of x and the one at y; the attribute `kernel` is w's sizes along space.
class ConvolutionWeightGradient final : public ConvolutionKernel {
 public:
  explicit ConvolutionWeightGradient(const Attributes& attributes)
      : ConvolutionKernel(attributes), kernel_(attributes.integers("kernel")) {}
  void run(const Call& call) const override;

 private:
  std::vector<int64_t> kernel_;
};

}  // namespace nnk
