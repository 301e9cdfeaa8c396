#include "scratch.h"

#include <cstdlib>

namespace nnk {
namespace {

struct Slots {
  float* memory[kScratchSlots] = {};
  long count[kScratchSlots] = {};
  ~Slots() {
    for (float* each : memory) std::free(each);
  }
};

thread_local Slots slots;

}  // namespace

float* scratch(int slot, long count) {
  if (count <= slots.count[slot] && slots.memory[slot]) return slots.memory[slot];
  std::free(slots.memory[slot]);
  const long bytes = (count * long(sizeof(float)) + 4095) / 4096 * 4096;
  slots.memory[slot] = static_cast<float*>(std::aligned_alloc(64, bytes ? bytes : 4096));
  slots.count[slot] = slots.memory[slot] ? count : 0;
  return slots.memory[slot];
}

}  // namespace nnk
