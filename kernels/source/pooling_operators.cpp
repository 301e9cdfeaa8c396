// Maxima of windows along one to three axes of space.
#include "convolution.h"
#include "dispatch.h"
#include "operators.h"

namespace nnk {
namespace {

void finish(bool enough) {
  if (!enough) throw Problem("a pooling needs more memory than there is");
}

// The attributes `kernel`, `strides`, `pads` (as many before an axis as after it) and `dilations`.
class PoolingKernel : public Kernel {
 public:
  explicit PoolingKernel(const Attributes& attributes)
      : kernel_(attributes.integers("kernel")),
        strides_(attributes.integers("strides")),
        pads_(attributes.integers("pads")),
        dilations_(attributes.integers("dilations")) {
    const size_t rank = kernel_.size();
    if (rank < 1 || rank > 3 || strides_.size() != rank || pads_.size() != rank ||
        dilations_.size() != rank)
      throw Problem("MaxPool: kernel, strides, pads and dilations are not of one to three axes");
    for (size_t i = 0; i < rank; i++)
      if (kernel_[i] < 1 || strides_[i] < 1 || dilations_[i] < 1 || pads_[i] < 0)
        throw Problem("MaxPool: a kernel, stride, dilation or padding that is too small");
  }

 protected:
  // The windows of x[batch, channels, sizes]. Throws Problem where none fits.
  Convolution windows(const Tensor& x) const {
    const size_t rank = kernel_.size(), first = 3 - rank;
    if (size_t(x.rank) != rank + 2)
      throw Problem("MaxPool: a tensor of another rank than its kernel");
    Convolution c{long(x.sizes[0] * x.sizes[1]), 1, 1, 1, {}, {}, {}, {}, {}, {}};
    for (size_t axis = 0; axis < 3; axis++) {
      c.size[axis] = c.result[axis] = c.kernel[axis] = c.stride[axis] = c.dilation[axis] = 1;
      if (axis < first) continue;
      const size_t i = axis - first;
      c.size[axis] = long(x.sizes[2 + i]);
      c.kernel[axis] = long(kernel_[i]);
      c.stride[axis] = long(strides_[i]);
      c.dilation[axis] = long(dilations_[i]);
      c.before[axis] = long(pads_[i]);
      const long extent = (c.kernel[axis] - 1) * c.dilation[axis] + 1;
      const long padded = c.size[axis] + 2 * c.before[axis];
      if (padded < extent)
        throw Problem("MaxPool: a kernel that is larger than what it slides over");
      c.result[axis] = (padded - extent) / c.stride[axis] + 1;
    }
    return c;
  }

 private:
  std::vector<int64_t> kernel_, strides_, pads_, dilations_;
};

// The greatest element of each window of x.
class MaxPool final : public PoolingKernel {
 public:
  using PoolingKernel::PoolingKernel;
  void run(const Call& call) const override {
    const Tensor x = call.input(0);
    const Convolution c = windows(x);
    std::vector<int64_t> sizes = {x.sizes[0], x.sizes[1]};
    for (int i = 2; i < x.rank; i++) sizes.push_back(c.result[5 - x.rank + i - 2]);
    float* y = static_cast<float*>(call.output(0, sizes.data(), x.rank));
    finish(table().pooling->maximum(call.parallel, c, x.floats(), y));
  }
};

// One number for each window, added up where the greatest elements of the windows of x are.
class MaxSpread final : public PoolingKernel {
 public:
  using PoolingKernel::PoolingKernel;
  void run(const Call& call) const override {
    const Tensor y = call.input(0), x = call.input(1);
    const Convolution c = windows(x);
    if (y.count() != c.batch * c.result[0] * c.result[1] * c.result[2])
      throw Problem("MaxSpread: not one number for each window");
    float* to = call.output_like(0, x);
    finish(table().pooling->spread(call.parallel, c, y.floats(), x.floats(), to));
  }
};

}  // namespace

std::vector<KernelType> pooling_operators() {
  return {{"MaxPool", "f", "f", made<MaxPool>}, {"MaxSpread", "ff", "f", made<MaxSpread>}};
}

}  // namespace nnk
