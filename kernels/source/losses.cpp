#include "losses.h"

#include "mathematics.h"
#include "rows.h"

namespace nnk::NNK_NAMESPACE {
namespace {

constexpr double kNanoseconds = 0.5;  // of a class
constexpr long kTogether = 64 * kLanes;  // classes whose powers are added up as floats

#define NNK_EACH __attribute__((always_inline))

float largest(const float* x, long count) {
  Vector most = broadcast(x[0]);
  long j = 0;
  for (; j + kLanes <= count; j += kLanes) most = larger(most, load(x + j));
  float result = most[0];
  for (int i = 1; i < kLanes; i++) result = result < most[i] ? most[i] : result;
  for (; j < count; j++) result = result < x[j] ? x[j] : result;
  return result;
}

// to = e^(x − most), and their sum.
double powers(const float* x, float most, long count, float* to) {
  double sum = 0;
  for (long start = 0; start < count; start += kTogether) {
    Vector part{};
    across(least(kTogether, count - start), [&](auto a, long j) NNK_EACH {
      const Vector e = exponential(a.get(x + start + j) - most);
      a.put(to + start + j, e);
      part += a.kept(e);
    });
    sum += total(part);
  }
  return sum;
}

bool cross_entropy(Parallel& parallel, const CrossEntropy& s) {
  for (long row = 0; row < s.rows; row++)
    if (s.indices[row] < -s.classes || s.indices[row] >= s.classes) return false;
  parallel.run(s.rows, kNanoseconds * s.rows * s.classes, [&](long begin, long end) {
    for (long row = begin; row < end; row++) {
      const float* x = s.x + row * s.classes;
      float* gradient = s.gradient + row * s.classes;
      const long index = s.indices[row] < 0 ? s.indices[row] + s.classes : s.indices[row];
      const float most = largest(x, s.classes);
      const double sum = powers(x, most, s.classes, gradient);
      s.picked[row] = (x[index] - most) - __builtin_logf(float(sum));
      const float factor = float(s.sign * s.weights[row * s.weight_step] / sum);
      across(s.classes, [&](auto a, long j) NNK_EACH {
        a.put(gradient + j, a.get(gradient + j) * factor);
      });
      gradient[index] += s.addends[row * s.addend_step];
    }
  });
  return true;
}

}  // namespace

extern const LossKernels kLosses;
const LossKernels kLosses = {cross_entropy};

}  // namespace nnk::NNK_NAMESPACE
