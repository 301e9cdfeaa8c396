// Both factors are packed a block of the depth at a time, so that what was packed is still in the
// second cache when it is used. Each element is a sum over these blocks, in their order.
#include "products.h"

#include "gemm.h"
#include "rows.h"

namespace nnk::NNK_NAMESPACE {
namespace {

constexpr int kRight = 4;     // slot of scratch memory, of each thread
constexpr long kColumns = 512;  // of the right factor that are packed at a time

// to = factor·from, in place or not.
void scale(float* to, const float* from, float factor, long count) {
  if (factor == 1.0f) {
    if (to != from) copy(to, from, count);
    return;
  }
  across(count, [&](auto access, long j) __attribute__((always_inline)) {
    access.put(to + j, access.get(from + j) * factor);
  });
}

constexpr long kFew = 8;  // rows that are packed at a time, so that memory is read along them

// Panels [begin, end) of alpha·a for a block of the depth, where the rows of a lie beside each other.
void pack_beside(const float* from, long rows, long deep, float alpha, float* to, long begin,
                 long end) {
  const long height = panel_rows(rows);
  for (long first = 0; first < deep; first += kFew) {
    const long last = least(first + kFew, deep);
    for (long panel = begin; panel < end; panel++) {
      const long start = panel * height, count = least(height, rows - start);
      const float* source = from + start;
      float* target = to + start * deep;
      long k = first;
      // A whole vector each: the row after it takes back what is too much.
      if (height <= kLanes && start + kLanes <= rows)
        for (; k < least(last, deep - kLanes); k++)
          store(target + k * height, load(source + k * rows) * alpha);
      for (; k < last; k++)
        for (long i = 0; i < height; i++)
          target[k * height + i] = i < count ? source[k * rows + i] * alpha : 0.0f;
    }
  }
}

// Panels of columns of b[deep, width], whose rows are `step` apart.
void pack_rows(const float* from, long step, long deep, long width, float* to) {
  for (long first = 0; first < deep; first += kFew) {
    const long last = least(first + kFew, deep);
    for (long j = 0; j < width; j += kPanelColumns) {
      const long count = least(kPanelColumns, width - j);
      float* panel = to + j * deep;
      for (long k = first; k < last; k++) {
        const float* row = from + k * step + j;
        float* target = panel + k * kPanelColumns;
        if (count == kPanelColumns) {
#pragma GCC unroll 8
          for (int v = 0; v < kWide; v++) store(target + v * kLanes, load(row + v * kLanes));
        } else {
          copy(target, row, count);
          clear(target + count, kPanelColumns - count);
        }
      }
    }
  }
}

// A block of the depth for columns [column, column + width) of the result, of packed factors.
// `first` is the first block, which starts from beta·c.
void multiply_block(const Product& x, const float* left, const float* right, long column,
                    long width, long deep, bool first) {
  const long height = panel_rows(x.rows);
  const Tile full = tile_of<kWide>(height), narrow = tile_of<1>(height);
  const Added added = first ? Added{x.c, x.beta} : Added{x.out, 1.0f};
  // Row by row, as memory holds the result; the right factor is near enough to be read again.
  for (long i = 0; i < x.rows; i += height) {
    for (long j = 0; j < width; j += kPanelColumns) {
      const long wide = least(kPanelColumns, width - j), at = i * x.columns + column + j;
      (wide <= kLanes ? narrow : full)(left + i * deep, right + j * deep, deep, x.out + at,
                                       x.columns, least(height, x.rows - i), wide,
                                       {added.from ? added.from + at : nullptr, added.factor});
    }
  }
}

constexpr long kShallow = 4;  // products of a sum for which packing takes longer than it saves

// `Rows` rows of alpha·aᵀ·b + beta·c from row i on, of factors as they lie.
template <int Rows>
void multiply_rows(const Product& x, long i) {
  float left[kShallow][Rows];
  for (long k = 0; k < x.depth; k++)
    for (int r = 0; r < Rows; r++) left[k][r] = x.a[k * x.rows + i + r] * x.alpha;
  across(x.columns, [&](auto access, long j) __attribute__((always_inline)) {
    Vector sums[Rows] = {};
    for (long k = 0; k < x.depth; k++) {
      const Vector right = access.get(x.b + k * x.columns + j);
      for (int r = 0; r < Rows; r++) sums[r] += left[k][r] * right;
    }
    for (int r = 0; r < Rows; r++) {
      const long at = (i + r) * x.columns + j;
      access.put(x.out + at, x.c ? access.get(x.c + at) * x.beta + sums[r] : sums[r]);
    }
  });
}

void shallow_product(Parallel& parallel, const Product& x) {
  parallel.run(x.rows, 0.2 * x.columns * x.depth, [&](long begin, long end) {
    constexpr int kRows = 4;
    for (; begin + kRows <= end; begin += kRows) multiply_rows<kRows>(x, begin);
    for (; begin < end; begin++) multiply_rows<1>(x, begin);
  });
}

bool product(Parallel& parallel, const Product& x) {
  if (x.transpose_a && !x.transpose_b && x.depth <= kShallow) {
    shallow_product(parallel, x);
    return true;
  }
  const Matrix a = x.transpose_a ? Matrix{x.a, 1, x.rows} : Matrix{x.a, x.depth, 1};
  const Matrix b = x.transpose_b ? Matrix{x.b, 1, x.depth} : Matrix{x.b, x.columns, 1};
  const long height = panel_rows(x.rows), most_deep = least(kDepth, x.depth);
  float* left = scratch(0, packed_left_size(x.rows, most_deep));
  if (!left) return false;
  int failures = 0;
  // A product over nothing is 0 still.
  for (long block = 0; block < x.depth || !block; block += kDepth) {
    const long deep = least(kDepth, x.depth - block);
    parallel.run(parts(x.rows, height), 0.5 * x.rows * deep, [&](long begin, long end) {
      if (x.transpose_a)
        return pack_beside(x.a + block * x.rows, x.rows, deep, x.alpha, left, begin, end);
      pack_panels(a.data + block * a.column_step, a.row_step, a.column_step, x.rows, deep, height,
                  left, begin, end);
      scale(left + begin * height * deep, left + begin * height * deep, x.alpha,
            (end - begin) * height * deep);
    });
    const double work = 1e-2 * x.rows * x.columns * deep;
    parallel.run(parts(x.columns, kColumns), work, [&](long begin, long end) {
      float* right = scratch(kRight, packed_right_size(most_deep, least(kColumns, x.columns)));
      if (!right) {
        __atomic_store_n(&failures, 1, __ATOMIC_RELAXED);
        return;
      }
      for (long part = begin; part < end; part++) {
        const long column = part * kColumns, width = least(kColumns, x.columns - column);
        const float* from = b.data + block * b.row_step + column * b.column_step;
        if (x.transpose_b) pack_right(Matrix{from, b.row_step, b.column_step}, deep, width, right);
        else pack_rows(from, x.columns, deep, width, right);
        multiply_block(x, left, right, column, width, deep, block == 0);
      }
    });
  }
  return !failures;
}

}  // namespace

extern const ProductKernels kProducts;
const ProductKernels kProducts = {product};

}  // namespace nnk::NNK_NAMESPACE
