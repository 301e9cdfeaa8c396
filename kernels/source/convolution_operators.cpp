// Convolutions along one to three axes of space.
#include "convolution.h"
#include "dispatch.h"
#include "operators.h"

namespace nnk {
namespace {

std::vector<int64_t> sizes_of(const Tensor& tensor) {
  return {tensor.sizes, tensor.sizes + tensor.rank};
}

void finish(bool enough) {
  if (!enough) throw Problem("a convolution needs more memory than there is");
}

// What the three operators have in common: the attributes `strides`, `pads` (those before each axis,
// then those after each), `dilations` and `group` of ONNX's `Conv`.
class ConvolutionKernel : public Kernel {
 public:
  explicit ConvolutionKernel(const Attributes& attributes)
      : strides_(attributes.integers("strides")),
        pads_(attributes.integers("pads")),
        dilations_(attributes.integers("dilations")),
        groups_(long(attributes.integer("group", 1))) {
    const size_t rank = strides_.size();
    if (rank < 1 || rank > 3 || dilations_.size() != rank || pads_.size() != 2 * rank ||
        groups_ < 1)
      throw Problem("Convolution: strides, pads and dilations are not of one to three axes");
    for (size_t i = 0; i < rank; i++)
      if (strides_[i] < 1 || dilations_[i] < 1 || pads_[i] < 0 || pads_[rank + i] < 0)
        throw Problem("Convolution: a stride, dilation or padding that is too small");
  }

 protected:
  // x[batch, channels, sizes], w[outputs, channels/group, kernels], y[batch, outputs, results], the
  // last one's sizes computed where it is not given. Throws Problem where they do not fit.
  Convolution geometry(const std::vector<int64_t>& x, const std::vector<int64_t>& w,
                       const std::vector<int64_t>* y) const {
    const size_t rank = strides_.size(), first = 3 - rank;
    if (x.size() != rank + 2 || w.size() != rank + 2 || (y && y->size() != rank + 2))
      throw Problem("Convolution: tensors of other ranks than its strides");
    if (x[1] % groups_ || w[0] % groups_ || x[1] / groups_ != w[1])
      throw Problem("Convolution: weights for other channels");
    Convolution c{long(x[0]), long(x[1]), long(w[0]), groups_, {}, {}, {}, {}, {}, {}};
    for (size_t axis = 0; axis < 3; axis++) {
      c.size[axis] = c.result[axis] = c.kernel[axis] = c.stride[axis] = c.dilation[axis] = 1;
      if (axis < first) continue;
      const size_t i = axis - first;
      c.size[axis] = long(x[2 + i]);
      c.kernel[axis] = long(w[2 + i]);
      c.stride[axis] = long(strides_[i]);
      c.dilation[axis] = long(dilations_[i]);
      c.before[axis] = long(pads_[i]);
      const long padded = c.size[axis] + c.before[axis] + long(pads_[rank + i]);
      const long extent = (c.kernel[axis] - 1) * c.dilation[axis] + 1;
      if (c.kernel[axis] < 1 || padded < extent)
        throw Problem("Convolution: a kernel that is larger than the image with its padding");
      c.result[axis] = (padded - extent) / c.stride[axis] + 1;
      if (y && (*y)[2 + i] != c.result[axis])
        throw Problem("Convolution: a gradient of other sizes than the results have");
    }
    if (y && ((*y)[0] != x[0] || (*y)[1] != w[0]))
      throw Problem("Convolution: a gradient of another batch or of other channels");
    return c;
  }
  long groups() const { return groups_; }

 private:
  std::vector<int64_t> strides_, pads_, dilations_;
  long groups_;
};

// y of x, w and an optional bias.
class ConvolutionForward final : public ConvolutionKernel {
 public:
  using ConvolutionKernel::ConvolutionKernel;
  void run(const Call& call) const override {
    const Tensor x = call.input(0), w = call.input(1);
    const Tensor bias = call.inputs() > 2 ? call.input(2) : Tensor{};
    const Convolution c = geometry(sizes_of(x), sizes_of(w), nullptr);
    if (bias.given() && bias.count() != c.outputs)
      throw Problem("Convolution: a bias of another size than there are channels");
    std::vector<int64_t> sizes = {x.sizes[0], w.sizes[0]};
    for (int i = 2; i < x.rank; i++) sizes.push_back(c.result[5 - x.rank + i - 2]);
    float* y = static_cast<float*>(call.output(0, sizes.data(), x.rank));
    finish(table().convolution->forward(call.parallel, c, x.floats(), w.floats(),
                                        bias.given() ? bias.floats() : nullptr, y));
  }
};

// The gradient at x of the one at y and w; the attribute `sizes` is x's along space.
class ConvolutionInputGradient final : public ConvolutionKernel {
 public:
  explicit ConvolutionInputGradient(const Attributes& attributes)
      : ConvolutionKernel(attributes), sizes_(attributes.integers("sizes")) {}
  void run(const Call& call) const override {
    const Tensor gradient = call.input(0), w = call.input(1);
    const std::vector<int64_t> of_gradient = sizes_of(gradient), of_w = sizes_of(w);
    if (of_w.size() != sizes_.size() + 2 || of_gradient.size() != of_w.size())
      throw Problem("ConvolutionInputGradient: tensors of other ranks than its sizes");
    std::vector<int64_t> sizes = {of_gradient[0], of_w[1] * groups()};
    sizes.insert(sizes.end(), sizes_.begin(), sizes_.end());
    const Convolution c = geometry(sizes, of_w, &of_gradient);
    float* to = static_cast<float*>(call.output(0, sizes.data(), int(sizes.size())));
    finish(
        table().convolution->input_gradient(call.parallel, c, gradient.floats(), w.floats(), to));
  }

 private:
  std::vector<int64_t> sizes_;
};

// The gradient at w of x and the one at y; the attribute `kernel` is w's sizes along space.
class ConvolutionWeightGradient final : public ConvolutionKernel {
 public:
  explicit ConvolutionWeightGradient(const Attributes& attributes)
      : ConvolutionKernel(attributes), kernel_(attributes.integers("kernel")) {}
  void run(const Call& call) const override {
    const Tensor x = call.input(0), gradient = call.input(1);
    const std::vector<int64_t> of_x = sizes_of(x), of_gradient = sizes_of(gradient);
    if (of_x.size() != kernel_.size() + 2 || of_gradient.size() != of_x.size())
      throw Problem("ConvolutionWeightGradient: tensors of other ranks than its kernel");
    std::vector<int64_t> sizes = {of_gradient[1], of_x[1] / groups()};
    sizes.insert(sizes.end(), kernel_.begin(), kernel_.end());
    const Convolution c = geometry(of_x, sizes, &of_gradient);
    float* to = static_cast<float*>(call.output(0, sizes.data(), int(sizes.size())));
    finish(
        table().convolution->weight_gradient(call.parallel, c, x.floats(), gradient.floats(), to));
  }

 private:
  std::vector<int64_t> kernel_;
};

}  // namespace

std::vector<KernelType> convolution_operators() {
  return {
      {"Convolution", "fff?", "f", made<ConvolutionForward>},
      {"ConvolutionInputGradient", "ff", "f", made<ConvolutionInputGradient>},
      {"ConvolutionWeightGradient", "ff", "f", made<ConvolutionWeightGradient>},
  };
}

}  // namespace nnk
