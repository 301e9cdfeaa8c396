// Elementwise operations on blocks of numbers that lie in the first cache.
#pragma once

namespace nnk {

// How many numbers a block has at most, and where results go past the caches.
constexpr long kBlock = 256, kStreamedBlock = 128;
constexpr long kLine = 64;  // bytes of a line of the caches

// to[i] = operation(a[i], b[i], c[i], d[i]) for i < count; `to` may be one of the others. An
// operation with fewer arguments ignores the rest.
using Step = void (*)(long count, void* to, const void* a, const void* b, const void* c,
                      const void* d);

// Letters of element types: f float32, d float64, l int64, i int32, u uint32, b bool (a byte).
constexpr int size_of(char letter) {
  return letter == 'b' ? 1 : letter == 'd' || letter == 'l' ? 8 : 4;
}

}  // namespace nnk
