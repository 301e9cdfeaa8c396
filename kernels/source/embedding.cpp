// The updates of each row are chained first. Then rows are written once each, in their order, with
// all that is added to them: what is split over threads is the table.
#include "embedding.h"

#include "rows.h"
#include "scratch.h"

namespace nnk::NNK_NAMESPACE {
namespace {

constexpr int kFirst = 2, kNext = 3;  // slots of scratch memory
constexpr long kColumns = 64;  // that are added up at a time
constexpr double kNanoseconds = 0.2;  // of a number

void add_row(const RowScatter& s, long row, const int* next, long first) {
  for (long start = 0; start < s.width; start += kColumns) {
    const long count = least(kColumns, s.width - start), at = row * s.width + start;
    double sum[kColumns];
    for (long j = 0; j < count; j++) sum[j] = s.x ? double(s.x[at + j]) : 0.0;
    for (long i = first; i >= 0; i = next[i]) {
      const float* update = s.updates + i * s.width + start;
      for (long j = 0; j < count; j++) sum[j] += double(update[j]);
    }
    for (long j = 0; j < count; j++) s.out[at + j] = float(sum[j]);
  }
}

int scatter_add(Parallel& parallel, const RowScatter& s) {
  static_assert(sizeof(int) == sizeof(float), "scratch memory is of floats");
  if (s.count >= 0x7fffffff) return 2;
  int* first = reinterpret_cast<int*>(scratch(kFirst, s.rows));
  int* next = reinterpret_cast<int*>(scratch(kNext, s.count));
  if (!first || !next) return 2;
  for (long row = 0; row < s.rows; row++) first[row] = -1;
  for (long i = s.count - 1; i >= 0; i--) {
    const long row = s.indices[i] < 0 ? s.indices[i] + s.rows : s.indices[i];
    if (row < 0 || row >= s.rows) return 1;
    next[i] = first[row];
    first[row] = int(i);
  }
  parallel.run(s.rows, kNanoseconds * (s.rows + s.count) * s.width, [&](long begin, long end) {
    for (long row = begin; row < end;) {
      long after = row;  // rows that nothing is added to are copied together
      while (after < end && first[after] < 0) after++;
      const long at = row * s.width, size = (after - row) * s.width;
      copy_or_clear(s.out + at, s.x ? s.x + at : nullptr, size);
      if (after < end) add_row(s, after, next, first[after]);
      row = after + 1;
    }
  });
  return 0;
}

}  // namespace

extern const EmbeddingKernels kEmbedding;
const EmbeddingKernels kEmbedding = {scatter_add};

}  // namespace nnk::NNK_NAMESPACE
