// Recurrent sequences as operators.
//
// The attributes `takes` and `gives` name the inputs and outputs in their order, as the structures
// of recurrent.h do; `reverse` is 1 where the sequence goes from the end. Inputs with other names are
// those that only the function of the call needs.
#pragma once

#include <string>
#include <vector>

#include "operators.h"
#include "recurrent.h"

namespace nnk {

class Recurrent : public Kernel {
 public:
  Recurrent(const Attributes& attributes, int gates);
  void run(const Call& call) const override;

 protected:
  // What one run has: arrays by their names, null where there is none of that name.
  class Arrays {
   public:
    Arrays(const Recurrent& kernel, const Call& call);
    // An input of that shape. Throws Problem where it has another one, or is missing.
    const float* input(const char* name, std::vector<int64_t> sizes) const;
    const float* optional(const char* name, std::vector<int64_t> sizes) const;
    // What the kernels go through. Throws Problem where the input `present` has a wrong shape.
    Sequence sequence() const;
    // An output; where nobody asks for it, null or memory in that slot.
    float* output(const char* name, const std::vector<int64_t>& sizes, int slot = -1) const;

    int64_t time = 0, batch = 0, hidden = 0, wide = 0;
    std::vector<int64_t> state, stack, rows;  // shapes: of h, of h at all steps, and of all gates

   private:
    const unsigned char* present() const;

    const Recurrent& kernel_;
    const Call& call_;
  };

  virtual bool compute(const Call& call, const Arrays& arrays) const = 0;

 private:
  int place_of(const std::vector<std::string>& names, const char* name) const;

  std::vector<std::string> takes_, gives_;
  int gates_;
  bool reverse_;
};

class Lstm final : public Recurrent {
 public:
  explicit Lstm(const Attributes& attributes) : Recurrent(attributes, 4) {}
  bool compute(const Call& call, const Arrays& arrays) const override;
};

class LstmBackward final : public Recurrent {
 public:
  explicit LstmBackward(const Attributes& attributes) : Recurrent(attributes, 4) {}
  bool compute(const Call& call, const Arrays& arrays) const override;
};

class Gru final : public Recurrent {
 public:
  explicit Gru(const Attributes& attributes) : Recurrent(attributes, 3) {}
  bool compute(const Call& call, const Arrays& arrays) const override;
};

class GruBackward final : public Recurrent {
 public:
  explicit GruBackward(const Attributes& attributes) : Recurrent(attributes, 3) {}
  bool compute(const Call& call, const Arrays& arrays) const override;
};

}  // namespace nnk
