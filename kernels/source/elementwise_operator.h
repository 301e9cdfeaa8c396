// A chain of elementwise operations in one pass over memory.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
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
// behind them each group has `own` ones, which are broadcast against each other. A result that is
// computed may lie where an own input of its shape does, whatever the program: of a block, all is
// read before anything is written.
class Elementwise final : public Kernel {
 public:
  explicit Elementwise(const Attributes& attributes);
  void run(const Call& call) const override;

 private:
  // How an input is read: as it lies in memory, as one number, or repeated along axes.
  enum Kind : char { kWhole, kNumber, kRepeated };
  struct Plan;

  // Tensors of one shape, with what is to be done to them.
  struct Group {
    std::shared_ptr<const Plan> plan;
    std::vector<Tensor> inputs;
    std::vector<float*> outputs;
    int rank = 0;
    int64_t sizes[kMostAxes] = {};
    long count = 1;
  };

  // A group of those inputs, with its outputs from `output` on.
  Group group(const Call& call, std::vector<Tensor> inputs, int output) const;
  // Makes what is the same for all elements, in the calling thread's buffers, which it gives.
  char* prepared(const Group& group) const;
  // Computes the elements from `begin` to `end`.
  void compute(const Group& group, char* buffers, long begin, long end) const;

  struct Operation {
    std::string name;
    char operand, result;  // element types
    std::vector<int> arguments;
    double number = 0;
    bool used = true;
  };

  // Where the numbers of a block are: in an input, in an output, or in a buffer.
  struct Place {
    enum { kInput, kOutput, kBuffer } where = kBuffer;
    long number = 0;  // of the input or output, or bytes from the start of the buffers
    int size = 4;     // bytes of an element
  };

  struct Instruction {
    Step step = nullptr;
    Place to, from[4];
    bool asks = false;  // for what is read later
  };

  struct Constant {
    char bytes[8];
    Place to;
    Step fill;
  };

  struct Spread {  // an input into a buffer
    int input;
    Place to;
    Step fill;
  };

  void parse(const std::string& text);
  void join();
  bool join(Operation& into, int side, const char* name, const char* joined);
  Step step(const Operation& operation) const;
  std::shared_ptr<const Plan> plan(const std::vector<Kind>& kinds, bool streams, bool late) const;
  void make_plan(const std::vector<Kind>& kinds, bool streams, bool late, Plan& plan) const;

  int shared_, own_, groups_, inputs_;
  long together_;  // bytes of what this and other such calls of the model give
  std::string letters_;  // element types of the inputs
  std::vector<int> outputs_;
  std::vector<Operation> operations_;
  std::vector<int> uses_;  // of each value
  mutable std::mutex mutex_;
  mutable std::map<std::tuple<std::vector<Kind>, bool, bool>, std::shared_ptr<const Plan>> plans_;
};

}  // namespace nnk
