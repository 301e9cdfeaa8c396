// Memory that kernels write intermediate results into.
#pragma once

namespace nnk {

// At least `count` floats, aligned to 64 bytes, which stay the calling thread's until it asks for
// the same slot again. Null where there is not so much memory.
//
// Pages that are new to a process cost more to touch than most kernels to run, so each thread keeps
// what it has got.
float* scratch(int slot, long count);

constexpr int kScratchSlots = 8;

}  // namespace nnk
