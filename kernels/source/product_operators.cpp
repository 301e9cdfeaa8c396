#include "product_operators.h"

#include "dispatch.h"
#include "products.h"

namespace nnk {

Gemm::Gemm(const Attributes& attributes)
    : alpha_(attributes.number("alpha", 1)),
      beta_(attributes.number("beta", 1)),
      transpose_a_(attributes.integer("transA", 0) != 0),
      transpose_b_(attributes.integer("transB", 0) != 0) {}

void Gemm::run(const Call& call) const {
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

}  // namespace nnk
