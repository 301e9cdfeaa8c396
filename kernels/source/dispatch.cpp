#include "dispatch.h"

#include <cstdlib>
#include <cstring>

namespace nnk {

namespace baseline {
extern const Table kTable;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Table kTable;
}
namespace avx512 {
extern const Table kTable;
}
#endif

namespace {

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(__x86_64__)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

const Table& choose() {
  const char* asked = std::getenv("NNCOMPILE_KERNELS_ISA");
  if (const Table* found = asked ? table_of(asked) : nullptr) return *found;
  if (const Table* found = table_of("avx512")) return *found;
  if (const Table* found = table_of("avx2")) return *found;
  return baseline::kTable;
}

}  // namespace

const Table* table_of(const char* instruction_set) {
#if defined(__x86_64__)
  if (!std::strcmp(instruction_set, "avx512")) return has_avx512() ? &avx512::kTable : nullptr;
  if (!std::strcmp(instruction_set, "avx2")) return has_avx2() ? &avx2::kTable : nullptr;
#endif
  return std::strcmp(instruction_set, "baseline") ? nullptr : &baseline::kTable;
}

const Table& table() {
  static const Table& chosen = choose();
  return chosen;
}

}  // namespace nnk
