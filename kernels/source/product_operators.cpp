// Products of matrices as an operator: ONNX's Gemm, with its attributes.
#include "dispatch.h"
#include "operators.h"
#include "products.h"

namespace nnk {
namespace {

class Gemm final : public Kernel {
 public:
  explicit Gemm(const Attributes& attributes)
      : alpha_(attributes.number("alpha", 1)),
        beta_(attributes.number("beta", 1)),
        transpose_a_(attributes.integer("transA", 0) != 0),
        transpose_b_(attributes.integer("transB", 0) != 0) {}
  void run(const Call& call) const override {
    const Tensor a = call.input(0), b = call.input(1);
    const Tensor c = call.inputs() > 2 ? call.input(2) : Tensor{};
    if (a.rank != 2 || b.rank != 2) throw Problem("Gemm multiplies matrices");
    Product x;
    x.rows = a.sizes[transpose_a_], x.depth = a.sizes[!transpose_a_];
    x.columns = b.sizes[!transpose_b_];
    if (b.sizes[transpose_b_] != x.depth) throw Problem("Gemm: factors that do not fit each other");
    if (c.given() && (c.rank != 2 || c.sizes[0] != x.rows || c.sizes[1] != x.columns))
      throw Problem("Gemm: what is added has another shape than the result");
    const int64_t sizes[] = {x.rows, x.columns};
    x.a = a.floats(), x.b = b.floats(), x.c = c.given() ? c.floats() : nullptr;
    x.out = static_cast<float*>(call.output(0, sizes, 2));
    x.transpose_a = transpose_a_, x.transpose_b = transpose_b_;
    x.alpha = alpha_, x.beta = beta_;
    if (!table().products->multiply(call.parallel, x)) throw Problem("not enough memory");
  }

 private:
  float alpha_, beta_;
  bool transpose_a_, transpose_b_;
};

}  // namespace

std::vector<KernelType> product_operators() {
  return {{"Gemm", "fff?", "f", made<Gemm>}};
}

}  // namespace nnk
