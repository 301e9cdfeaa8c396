// Products of matrices of every instruction set that this processor has, against sums in double.
// Built with the sources, each table.cpp once for each instruction set; exits with 1 where one is
// wrong.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../source/dispatch.h"

namespace {

float number() { return float(std::rand()) / float(RAND_MAX) - 0.5f; }

bool right(const nnk::Table& table, long rows, long columns, long depth, bool left_turned,
           bool right_turned, bool add) {
  const long step = columns + 3;
  std::vector<float> a(rows * depth), b(depth * columns), c(rows * step + 1, 7.0f);
  for (float& each : a) each = number();
  for (float& each : b) each = number();
  const long a_row = left_turned ? 1 : depth, a_column = left_turned ? rows : 1;
  const long b_row = right_turned ? 1 : columns, b_column = right_turned ? depth : 1;
  nnk::Serial serial;
  if (!table.multiply(serial, a.data(), a_row, a_column, b.data(), b_row, b_column, rows, columns,
                      depth, c.data(), step, add))
    return false;
  for (long i = 0; i < rows; i++) {
    for (long j = 0; j < step; j++) {
      double expected = add || j >= columns ? 7 : 0;
      for (long k = 0; j < columns && k < depth; k++)
        expected += double(a[i * a_row + k * a_column]) * b[k * b_row + j * b_column];
      if (std::fabs(c[i * step + j] - expected) > 1e-5 * (1 + std::sqrt(double(depth))))
        return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  const long counts[] = {0, 1, 5, 7, 14, 15, 31, 33, 64}, depths[] = {0, 1, 4, 5, 256, 257, 600};
  for (const char* name : {"baseline", "avx2", "avx512"}) {
    const nnk::Table* table = nnk::table_of(name);
    if (!table) continue;
    for (long rows : counts)
      for (long columns : counts)
        for (long depth : depths)
          for (int way = 0; way < 8; way++)
            if (!right(*table, rows, columns, depth, way & 1, way & 2, way & 4)) {
              std::printf("%s: wrong at %ld×%ld×%ld, way %d\n", name, rows, columns, depth, way);
              return 1;
            }
    std::printf("%s: right\n", name);
  }
}
