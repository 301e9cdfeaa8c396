// Layer and batch normalization as operators.
#include "dispatch.h"
#include "normalization.h"
#include "operators.h"

namespace nnk {
namespace {

// An input of so many numbers, null where it is left out.
const float* numbers(const Call& call, int place, long count) {
  if (place >= call.inputs()) return nullptr;
  const Tensor x = call.input(place);
  if (!x.given()) return nullptr;
  if (x.count() != count) throw Problem("a normalization's inputs do not fit together");
  return x.floats();
}

float* vector(const Call& call, int place, int64_t size) {
  if (place >= call.outputs()) return nullptr;
  return static_cast<float*>(call.output(place, &size, 1));
}

struct Rows {
  explicit Rows(const Tensor& x) {
    if (!x.rank) throw Problem("layer normalization needs an axis");
    width = x.sizes[x.rank - 1];
    for (int i = 0; i < x.rank - 1; i++) count *= x.sizes[i];
  }
  int64_t count = 1, width = 1;
};

struct Channels {
  explicit Channels(const Tensor& x) {
    if (x.rank < 2) throw Problem("batch normalization needs an axis of channels");
    batch = x.sizes[0], channels = x.sizes[1];
    for (int i = 2; i < x.rank; i++) size *= x.sizes[i];
  }
  int64_t batch = 1, channels = 1, size = 1;
};

// x and maybe scale and bias; gives y, and mean and inverse of each row.
class LayerNorm final : public Kernel {
 public:
  explicit LayerNorm(const Attributes& attributes)
      : epsilon_(attributes.number("epsilon", 1e-5f)) {}
  void run(const Call& call) const override {
    const Tensor x = call.input(0);
    const Rows rows(x);
    Tensor statistics = x;
    statistics.sizes[x.rank - 1] = 1;
    LayerNormForward s;
    s.rows = rows.count, s.width = rows.width, s.epsilon = epsilon_;
    s.x = x.floats(), s.scale = numbers(call, 1, rows.width), s.bias = numbers(call, 2, rows.width);
    s.y = call.output_like(0, x);
    s.mean = call.output_like(1, statistics), s.inverse = call.output_like(2, statistics);
    table().normalization->layer_norm(call.parallel, s);
  }

 private:
  float epsilon_;
};

// The gradient at y, x, mean, inverse and maybe scale; gives those at x, scale and bias, as many as
// are asked for.
class LayerNormBackward final : public Kernel {
 public:
  explicit LayerNormBackward(const Attributes&) {}
  void run(const Call& call) const override {
    const Tensor x = call.input(1);
    const Rows rows(x);
    LayerNormGradient s;
    s.rows = rows.count, s.width = rows.width;
    s.g = numbers(call, 0, x.count()), s.x = x.floats();
    s.mean = numbers(call, 2, rows.count), s.inverse = numbers(call, 3, rows.count);
    s.scale = numbers(call, 4, rows.width);
    s.dx = call.output_like(0, x);
    s.d_scale = vector(call, 1, rows.width), s.d_bias = vector(call, 2, rows.width);
    if (!table().normalization->layer_norm_gradient(call.parallel, s))
      throw Problem("not enough memory");
  }
};

// x, scale, bias, running mean and variance; gives y, both after this batch, centre and inverse.
class BatchNorm final : public Kernel {
 public:
  explicit BatchNorm(const Attributes& attributes)
      : momentum_(attributes.number("momentum", 0.1f)),
        epsilon_(attributes.number("epsilon", 1e-5f)) {}
  void run(const Call& call) const override {
    const Tensor x = call.input(0);
    const Channels n(x);
    BatchNormForward s;
    s.batch = n.batch, s.channels = n.channels, s.size = n.size;
    s.momentum = momentum_, s.epsilon = epsilon_;
    s.x = x.floats();
    s.scale = numbers(call, 1, n.channels), s.bias = numbers(call, 2, n.channels);
    s.mean = numbers(call, 3, n.channels), s.variance = numbers(call, 4, n.channels);
    s.y = call.output_like(0, x);
    s.next_mean = vector(call, 1, n.channels), s.next_variance = vector(call, 2, n.channels);
    s.centre = vector(call, 3, n.channels), s.inverse = vector(call, 4, n.channels);
    table().normalization->batch_norm(call.parallel, s);
  }

 private:
  float momentum_, epsilon_;
};

// The gradient at y, x, scale, centre and inverse; gives those at x, scale and bias.
class BatchNormBackward final : public Kernel {
 public:
  explicit BatchNormBackward(const Attributes&) {}
  void run(const Call& call) const override {
    const Tensor x = call.input(1);
    const Channels n(x);
    BatchNormGradient s;
    s.batch = n.batch, s.channels = n.channels, s.size = n.size;
    s.g = numbers(call, 0, x.count()), s.x = x.floats();
    s.scale = numbers(call, 2, n.channels);
    s.centre = numbers(call, 3, n.channels), s.inverse = numbers(call, 4, n.channels);
    s.dx = call.output_like(0, x);
    s.d_scale = vector(call, 1, n.channels), s.d_bias = vector(call, 2, n.channels);
    table().normalization->batch_norm_gradient(call.parallel, s);
  }
};

}  // namespace

std::vector<KernelType> normalization_operators() {
  return {
      {"BatchNorm", "fffff", "fffff", made<BatchNorm>},
      {"BatchNormGradient", "fffff", "fff", made<BatchNormBackward>},
      {"LayerNorm", "ff?f?", "fff", made<LayerNorm>},
      {"LayerNormGradient", "fffff?", "ff?f?", made<LayerNormBackward>},
  };
}

}  // namespace nnk
