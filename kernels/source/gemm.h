// Products of matrices of floats: c = a·b or c += a·b.
//
// Both factors are packed into panels: of the left one, panels of a few rows, of the right one,
// panels of as many columns as a few vectors are wide, each with the elements in the order in which
// the innermost loop reads them. A factor that stays may be packed once and used often.
//
// Each element of the result is a sum over blocks of `kDepth` products, in one order, however the
// result is split over threads.
#pragma once

#include "parallel.h"
#include "rows.h"
#include "scratch.h"
#include "vectors.h"

namespace nnk::NNK_NAMESPACE {

// A matrix with any distances between its elements: a transposed one has them exchanged.
struct Matrix {
  const float* data;
  long row_step, column_step;
};

constexpr int kWide = kRegisters == 32 && kLanes == 4 ? 4 : 2;  // vectors beside each other
constexpr int kPanelColumns = kWide * kLanes;
constexpr int kPanelRows = kRegisters == 16 ? 6 : kLanes == 4 ? 6 : 14;
constexpr long kDepth = 256;  // so deep that a panel of the right factor stays in the first cache

// How many rows a panel of the left factor has: about equally many in each.
constexpr long panel_rows(long rows) {
  return rows ? parts(rows, parts(rows, kPanelRows)) : 1;
}

constexpr long packed_left_size(long rows, long depth) {
  return rounded_up(rows, panel_rows(rows)) * depth;
}

constexpr long packed_right_size(long depth, long columns) {
  return rounded_up(columns, kPanelColumns) * depth;
}

// to[k·to_step + i] = from[i·from_step + k] for four i and four k.
inline __attribute__((always_inline)) void transpose_four(const float* from, long from_step,
                                                          float* to, long to_step) {
  Four r[4];
  for (int i = 0; i < 4; i++) __builtin_memcpy(&r[i], from + i * from_step, sizeof(Four));
  const Four a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
  const Four b = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  const Four c = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  const Four d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  const Four out[4] = {__builtin_shufflevector(a, c, 0, 1, 4, 5),
                       __builtin_shufflevector(a, c, 2, 3, 6, 7),
                       __builtin_shufflevector(b, d, 0, 1, 4, 5),
                       __builtin_shufflevector(b, d, 2, 3, 6, 7)};
  for (int k = 0; k < 4; k++) __builtin_memcpy(to + k * to_step, &out[k], sizeof(Four));
}

// One panel: to[k·height + i] = from[i·across + k·along], with zeros for i ≥ count.
inline void pack_panel(const float* from, long across, long along, long count, long depth,
                       long height, float* to) {
  if (across == 1) {
    for (long k = 0; k < depth; k++) {
      const float* row = from + k * along;
      float* target = to + k * height;
      long i = 0;
      for (; i + kLanes <= count; i += kLanes) store(target + i, load(row + i));
      for (; i < count; i++) target[i] = row[i];
      for (; i < height; i++) target[i] = 0;
    }
    return;
  }
  long i = 0;
  if (along == 1) {
    for (; i + 4 <= count; i += 4) {
      long k = 0;
      for (; k + 4 <= depth; k += 4)
        transpose_four(from + i * across + k, across, to + k * height + i, height);
      for (; k < depth; k++)
        for (long j = i; j < i + 4; j++) to[k * height + j] = from[j * across + k];
    }
  }
  for (; i < count; i++)
    for (long k = 0; k < depth; k++) to[k * height + i] = from[i * across + k * along];
  for (; i < height; i++)
    for (long k = 0; k < depth; k++) to[k * height + i] = 0;
}

// Panels [first, last) of `length` rows (or columns) in panels of `height`, in blocks of kDepth.
inline void pack_panels(const float* from, long across, long along, long length, long depth,
                        long height, float* to, long first, long last) {
  for (long block = 0; block < depth; block += kDepth) {
    const long deep = least(kDepth, depth - block);
    float* panels = to + block * rounded_up(length, height);
    for (long panel = first; panel < last; panel++) {
      const long start = panel * height;
      pack_panel(from + start * across + block * along, across, along,
                 least(height, length - start), deep, height, panels + start * deep);
    }
  }
}

// a[rows, depth] into packed_left_size(rows, depth) floats.
inline void pack_left(Matrix a, long rows, long depth, float* to) {
  const long height = panel_rows(rows);
  pack_panels(a.data, a.row_step, a.column_step, rows, depth, height, to, 0, parts(rows, height));
}

// b[depth, columns] into packed_right_size(depth, columns) floats.
inline void pack_right(Matrix b, long depth, long columns, float* to) {
  pack_panels(b.data, b.column_step, b.row_step, columns, depth, kPanelColumns, to, 0,
              parts(columns, kPanelColumns));
}

// What is added to a product: factor·from[rows, columns], as far from row to row as in the result; or
// nothing for null.
struct Added {
  const float* from;
  float factor;
};

// A tile of `Rows` rows and `Vectors` vectors of the result, of which count_rows and count_columns
// are stored; over `depth` products.
template <int Rows, int Vectors>
void multiply_tile(const float* left, const float* right, long depth, float* c, long step,
                   long count_rows, long count_columns, Added added) {
  Vector sums[Rows][Vectors] = {};
  for (long k = 0; k < depth; k++) {
    Vector b[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; v++) b[v] = load(right + k * kPanelColumns + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; i++) {
      const Vector a = broadcast(left[k * Rows + i]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; v++) sums[i][v] += a * b[v];
    }
  }
  if (count_rows == Rows && count_columns == Vectors * kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; i++) {
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; v++) {
        const long at = i * step + v * kLanes;
        store(c + at,
              added.from ? load(added.from + at) * added.factor + sums[i][v] : sums[i][v]);
      }
    }
    return;
  }
  float tile[Rows][Vectors * kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; v++) store(&tile[i][v * kLanes], sums[i][v]);
  }
  for (long i = 0; i < count_rows; i++)
    across(count_columns, [&](auto access, long j) __attribute__((always_inline)) {
      const Vector sum = access.get(&tile[i][j]);
      const long at = i * step + j;
      access.put(c + at, added.from ? access.get(added.from + at) * added.factor + sum : sum);
    });
}

using Tile = void (*)(const float*, const float*, long, float*, long, long, long, Added);

template <int Vectors, int Rows = kPanelRows>
inline Tile tile_of(long rows) {
  if constexpr (Rows == 1) {
    return multiply_tile<1, Vectors>;
  } else {
    return rows == Rows ? multiply_tile<Rows, Vectors> : tile_of<Vectors, Rows - 1>(rows);
  }
}

// The rows of left panels [first_row_panel, last) and the columns of right panels, of c with `step`
// floats from row to row. The depth's blocks go one after the other.
inline void multiply_panels(const float* left, const float* right, long rows, long columns,
                            long depth, float* c, long step, bool add, long first_row,
                            long last_row, long first_column, long last_column) {
  const long height = panel_rows(rows);
  const Tile full = tile_of<kWide>(height), narrow = tile_of<1>(height);
  for (long block = 0; block < depth; block += kDepth) {
    const long deep = least(kDepth, depth - block);
    const float* lefts = left + block * rounded_up(rows, height);
    const float* rights = right + block * rounded_up(columns, kPanelColumns);
    for (long j = first_column * kPanelColumns; j < least(columns, last_column * kPanelColumns);
         j += kPanelColumns) {
      const long width = least(kPanelColumns, columns - j);
      const Tile tile = width <= kLanes ? narrow : full;
      for (long i = first_row * height; i < least(rows, last_row * height); i += height) {
        float* to = c + i * step + j;
        tile(lefts + i * deep, rights + j * deep, deep, to, step, least(height, rows - i), width,
             {add || block > 0 ? to : nullptr, 1.0f});
      }
    }
  }
  if (depth || add) return;
  for (long i = first_row * height; i < least(rows, last_row * height); i++)
    for (long j = first_column * kPanelColumns;
         j < least(columns, last_column * kPanelColumns); j++)
      c[i * step + j] = 0;
}

// c[rows, columns] = a·b (or c += a·b) of packed factors, with `step` floats from row to row of c;
// on the calling thread.
inline void multiply_packed(const float* left, const float* right, long rows, long columns,
                            long depth, float* c, long step, bool add) {
  const long height = panel_rows(rows);
  const long group = most(1, 336 / height);  // so many rows of the left that they stay in the second cache
  for (long i = 0; i < parts(rows, height); i += group)
    multiply_panels(left, right, rows, columns, depth, c, step, add, i,
                    least(i + group, parts(rows, height)), 0, parts(columns, kPanelColumns));
}

// The same, split over threads by tiles of the result.
inline void multiply_packed(Parallel& parallel, const float* left, const float* right, long rows,
                            long columns, long depth, float* c, long step, bool add) {
  const long row_panels = parts(rows, panel_rows(rows));
  const long column_panels = parts(columns, kPanelColumns);
  const long group = most(1, 336 / panel_rows(rows));
  const long groups = parts(row_panels, group);
  constexpr long kColumns = 8;  // panels of a task
  const long across = parts(column_panels, kColumns);
  parallel.run(groups * across, 2e-2 * rows * columns * depth, [&](long begin, long end) {
    for (long task = begin; task < end; task++) {
      const long i = task / across * group, j = task % across * kColumns;
      multiply_panels(left, right, rows, columns, depth, c, step, add, i,
                      least(i + group, row_panels), j, least(j + kColumns, column_panels));
    }
  });
}

// c[rows, columns] = a[rows, depth]·b[depth, columns], or c += a·b, with `step` floats from row to
// row of c. Packs both into the scratch slots 0 and 1; false where there is no memory for that.
inline bool multiply(Parallel& parallel, Matrix a, Matrix b, long rows, long columns, long depth,
                     float* c, long step, bool add) {
  float* left = scratch(0, packed_left_size(rows, depth));
  float* right = scratch(1, packed_right_size(depth, columns));
  if (!left || !right) return false;
  const long height = panel_rows(rows);
  parallel.run(parts(rows, height), 0.5 * rows * depth, [&](long begin, long end) {
    pack_panels(a.data, a.row_step, a.column_step, rows, depth, height, left, begin, end);
  });
  parallel.run(parts(columns, kPanelColumns), 0.5 * columns * depth, [&](long begin, long end) {
    pack_panels(b.data, b.column_step, b.row_step, columns, depth, kPanelColumns, right, begin,
                end);
  });
  multiply_packed(parallel, left, right, rows, columns, depth, c, step, add);
  return true;
}

}  // namespace nnk::NNK_NAMESPACE
