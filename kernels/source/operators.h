// Kernels as operators of onnxruntime: what one of them says, and what it is given when it runs.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "onnxruntime.h"
#include "parallel.h"

namespace nnk {

// A problem that the runtime shows its user.
struct Problem : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr int kMostAxes = 8;

// An input or output as it lies in memory, without gaps, the last axis first.
struct Tensor {
  void* data = nullptr;  // null where an optional input is left out
  ort::Type type = ort::kFloat;
  int rank = 0;
  int64_t sizes[kMostAxes] = {};

  bool given() const { return data != nullptr; }
  long count() const {
    long product = 1;
    for (int i = 0; i < rank; i++) product *= sizes[i];
    return product;
  }
  const float* floats() const { return static_cast<const float*>(data); }
  const int64_t* integers() const { return static_cast<const int64_t*>(data); }
};

// The attributes of a node, read when the session is made.
class Attributes {
 public:
  Attributes(const ort::Table* table, const ort::KernelInfo* info) : table_(table), info_(info) {}
  int64_t integer(const char* name, int64_t otherwise) const;
  float number(const char* name, float otherwise) const;
  std::string text(const char* name) const;  // empty where there is none
  std::vector<int64_t> integers(const char* name) const;  // none where there is no such attribute
  std::vector<float> numbers(const char* name) const;

 private:
  const ort::Table* table_;
  const ort::KernelInfo* info_;
};

// One run of a node.
class Call {
 public:
  Call(const ort::Table* table, ort::KernelContext* context, Parallel& parallel)
      : parallel(parallel), table_(table), context_(context) {}
  int inputs() const;
  int outputs() const;
  Tensor input(int place) const;
  // Of the element type that the operator declares; null where nobody asks for it.
  void* output(int place, const int64_t* sizes, int rank) const;
  float* output_like(int place, const Tensor& tensor) const {
    return static_cast<float*>(output(place, tensor.sizes, tensor.rank));
  }

  Parallel& parallel;

 private:
  const ort::Table* table_;
  ort::KernelContext* context_;
};

// What is kept of a node from run to run. Several threads may run it at once.
class Kernel {
 public:
  virtual ~Kernel() = default;
  // Throws Problem for inputs that do not fit.
  virtual void run(const Call& call) const = 0;
};

// An operator of the domain `nncompile.kernels`. Inputs and outputs are a letter each: f float32,
// d float64, l int64, i int32, u uint32, b bool, * any; behind it ? where it may be left out, or +
// where there are any number of them, each of which may be of another type than the others.
struct KernelType {
  const char* name;
  const char* inputs;
  const char* outputs;
  Kernel* (*create)(const Attributes&);
};

// All operators: those that the families give, each at the end of its FAMILY_operators.cpp.
const std::vector<KernelType>& kernel_types();

// For a kernel that keeps nothing but what its constructor takes from the attributes.
template <class Made>
Kernel* made(const Attributes& attributes) {
  return new Made(attributes);
}

}  // namespace nnk
