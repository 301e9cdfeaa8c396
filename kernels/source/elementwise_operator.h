// A chain of elementwise operations in one pass over memory.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "elementwise.h"
#include "operators.h"

namespace nnk {

// Runs a program of elementwise operations for each of `groups` sets of tensors, block by block.
//
// `program` is text: operations with `;` between them, such as "mul.f 0 2;add.f 3 1". Values have
// numbers: first the inputs, then the results of operations in their order. The letter behind a
// name is the element type of what it computes with; "number.f 3.5" is a constant. `results` are
// the numbers of the results, all of float32. The first `shared` inputs are those of all groups;
// behind them each group has `own` ones, which are broadcast against each other.
class Elementwise final : public Kernel {
 public:
  explicit Elementwise(const Attributes& attributes);
  void run(const Call& call) const override;

 private:
  struct Operation {
    std::string name;
    char operand, result;  // element types
    std::vector<int> arguments;
    double number = 0;
    bool used = true;
  };

  // How an input is read: as it lies in memory, as one number, or repeated along axes.
  enum Kind : char { kWhole, kNumber, kRepeated };

  // Where the numbers of a block are: in an input, in an output, or in a buffer.
  struct Place {
    enum { kInput, kOutput, kBuffer } where = kBuffer;
    long number = 0;  // of the input or output, or bytes from the start of the buffers
    int size = 4;     // bytes of an element
  };

  struct Instruction {
    Step step = nullptr;
    Place to, from[4];
  };

  // What is run for groups whose inputs are of the same kinds.
  struct Plan {
    std::vector<Instruction> before, block;  // once, and for each block
    std::vector<std::pair<int, Place>> repeated, numbers;  // inputs to be spread into buffers
    std::vector<std::pair<double, Instruction>> constants;
    long bytes = 0;   // of the buffers
    long length = 0;  // of a block
  };

  struct Group;

  void parse(const std::string& text);
  void join();
  bool join(Operation& into, int side, const char* name, const char* joined);
  Step step(const Operation& operation) const;
  std::shared_ptr<const Plan> plan(const std::vector<Kind>& kinds, bool streams) const;
  void make_plan(const std::vector<Kind>& kinds, bool streams, Plan& plan) const;
  Group group(const Call& call, int number) const;
  void run_blocks(const Group& group, long first, long last) const;

  int shared_, own_, groups_, inputs_;
  long together_;  // bytes of what this and other such calls of the model give
  std::string letters_;  // element types of the inputs
  std::vector<int> outputs_;
  std::vector<Operation> operations_;
  std::vector<int> uses_;  // of each value
  mutable std::mutex mutex_;
  mutable std::map<std::pair<std::vector<Kind>, bool>, std::shared_ptr<const Plan>> plans_;
};

}  // namespace nnk
