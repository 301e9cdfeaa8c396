// Recurrent sequences as operators.
//
// The attributes `takes` and `gives` name the inputs and outputs in their order, as the structures
// of recurrent.h do; `reverse` is 1 where the sequence goes from the end. Inputs with other names are
// those that only the function of the call needs.
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "operators.h"
#include "recurrent.h"
#include "scratch.h"

namespace nnk {
namespace {

// Slots of scratch memory that the kernels leave alone.
constexpr int kFirst = 5, kSecond = 6, kThird = 7;

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> found;
  for (std::string word; stream >> word;) found.push_back(word);
  return found;
}

class Arrays;

class Recurrent final : public Kernel {
 public:
  using Compute = bool(const Call& call, const Arrays& arrays);

  Recurrent(const Attributes& attributes, int gates, Compute* compute)
      : takes_(words(attributes.text("takes"))),
        gives_(words(attributes.text("gives"))),
        gates_(gates),
        compute_(compute),
        reverse_(attributes.integer("reverse", 0) != 0) {}

  void run(const Call& call) const override;

 private:
  friend Arrays;

  static int place_of(const std::vector<std::string>& names, const char* name) {
    for (size_t i = 0; i < names.size(); i++)
      if (names[i] == name) return int(i);
    return -1;
  }

  std::vector<std::string> takes_, gives_;
  int gates_;
  Compute* compute_;
  bool reverse_;
};

// What one run has: arrays by their names, null where there is none of that name.
class Arrays {
 public:
  Arrays(const Recurrent& kernel, const Call& call) : kernel_(kernel), call_(call) {
    const int weight = kernel.place_of(kernel.takes_, "weight");
    if (weight < 0) throw Problem("a recurrent kernel needs a weight");
    const Tensor w = call.input(weight);
    if (w.type != ort::kFloat || w.rank != 2 || w.sizes[1] != w.sizes[0] * kernel.gates_)
      throw Problem("a recurrent kernel needs a weight of [hidden, gates·hidden]");
    hidden = w.sizes[0], wide = w.sizes[1];
    for (const char* name : {"rows", "h_before", "c_before"}) {
      const int place = kernel.place_of(kernel.takes_, name);
      if (place < 0) continue;
      const Tensor x = call.input(place);
      if (x.rank == 3) time = x.sizes[0], batch = x.sizes[1];
      break;
    }
    state = {batch, hidden}, stack = {time, batch, hidden}, rows = {time, batch, wide};
  }

  // An input of that shape. Throws Problem where it has another one, or is missing.
  const float* input(const char* name, std::vector<int64_t> sizes) const;
  const float* optional(const char* name, std::vector<int64_t> sizes) const;
  // What the kernels go through. Throws Problem where the input `present` has a wrong shape.
  Sequence sequence() const { return {time, batch, hidden, kernel_.reverse_, present()}; }
  // An output; where nobody asks for it, null or memory in that slot.
  float* output(const char* name, const std::vector<int64_t>& sizes, int slot = -1) const;

  int64_t time = 0, batch = 0, hidden = 0, wide = 0;
  std::vector<int64_t> state, stack, rows;  // shapes: of h, of h at all steps, and of all gates

 private:
  const unsigned char* present() const {
    const int place = kernel_.place_of(kernel_.takes_, "present");
    if (place < 0) return nullptr;
    const Tensor x = call_.input(place);
    if (x.type != ort::kBool || x.count() != time * batch)
      throw Problem("which steps are present must be said for each of them");
    return static_cast<const unsigned char*>(x.data);
  }

  const Recurrent& kernel_;
  const Call& call_;
};

const float* Arrays::optional(const char* name, std::vector<int64_t> sizes) const {
  const int place = kernel_.place_of(kernel_.takes_, name);
  if (place < 0) return nullptr;
  const Tensor x = call_.input(place);
  bool fits = x.type == ort::kFloat && x.rank == int(sizes.size());
  for (int i = 0; fits && i < x.rank; i++) fits = x.sizes[i] == sizes[i];
  if (!fits) throw Problem(std::string("an input of a recurrent kernel has a wrong shape: ") + name);
  return x.floats();
}

const float* Arrays::input(const char* name, std::vector<int64_t> sizes) const {
  const float* x = optional(name, std::move(sizes));
  if (!x) throw Problem(std::string("a recurrent kernel lacks its input ") + name);
  return x;
}

float* Arrays::output(const char* name, const std::vector<int64_t>& sizes, int slot) const {
  const int place = kernel_.place_of(kernel_.gives_, name);
  void* given = place < 0 ? nullptr : call_.output(place, sizes.data(), int(sizes.size()));
  if (given || slot < 0) return static_cast<float*>(given);
  long count = 1;
  for (int64_t size : sizes) count *= size;
  float* data = scratch(slot, count);
  if (!data) throw Problem("not enough memory");
  return data;
}

void Recurrent::run(const Call& call) const {
  if (call.inputs() != int(takes_.size()) || call.outputs() != int(gives_.size()))
    throw Problem("a recurrent kernel whose attributes do not name its inputs and outputs");
  const Arrays arrays(*this, call);
  if (!compute_(call, arrays)) throw Problem("not enough memory");
}

bool lstm(const Call& call, const Arrays& a) {
  LstmForward x;
  x.rows = a.input("rows", a.rows);
  x.bias = a.optional("bias", {a.wide});
  x.weight = a.input("weight", {a.hidden, a.wide});
  x.h0 = a.input("h0", a.state), x.c0 = a.input("c0", a.state);
  x.h_last = a.output("h_last", a.state, kFirst), x.c_last = a.output("c_last", a.state, kSecond);
  x.h_before = a.output("h_before", a.stack), x.c_before = a.output("c_before", a.stack);
  x.h_after = a.output("h_after", a.stack), x.c_after = a.output("c_after", a.stack);
  x.i = a.output("i", a.stack), x.f = a.output("f", a.stack), x.g = a.output("g", a.stack);
  x.o = a.output("o", a.stack), x.u = a.output("u", a.stack);
  return table().recurrent->lstm(call.parallel, a.sequence(), x);
}

bool lstm_gradient(const Call& call, const Arrays& a) {
  LstmGradient x;
  x.weight = a.input("weight", {a.hidden, a.wide});
  x.c_before = a.input("c_before", a.stack);
  x.i = a.input("i", a.stack), x.f = a.input("f", a.stack), x.g = a.input("g", a.stack);
  x.o = a.input("o", a.stack), x.u = a.input("u", a.stack);
  x.d_after = a.optional("d_after", a.stack);
  x.d_h = a.optional("d_h", a.state), x.d_c = a.optional("d_c", a.state);
  x.d_rows = a.output("d_rows", a.rows, kFirst);
  x.d_h0 = a.output("d_h0", a.state, kSecond), x.d_c0 = a.output("d_c0", a.state, kThird);
  return table().recurrent->lstm_gradient(call.parallel, a.sequence(), x);
}

bool gru(const Call& call, const Arrays& a) {
  GruForward x;
  x.rows = a.input("rows", a.rows);
  x.bias = a.optional("bias", {a.wide}), x.inner_bias = a.optional("inner_bias", {a.wide});
  x.weight = a.input("weight", {a.hidden, a.wide});
  x.h0 = a.input("h0", a.state);
  x.h_last = a.output("h_last", a.state, kFirst);
  x.h_before = a.output("h_before", a.stack), x.h_after = a.output("h_after", a.stack);
  x.r = a.output("r", a.stack), x.z = a.output("z", a.stack);
  x.z_rest = a.output("z_rest", a.stack);
  x.n = a.output("n", a.stack), x.p = a.output("p", a.stack);
  return table().recurrent->gru(call.parallel, a.sequence(), x);
}

bool gru_gradient(const Call& call, const Arrays& a) {
  GruGradient x;
  x.weight = a.input("weight", {a.hidden, a.wide});
  x.h_before = a.input("h_before", a.stack);
  x.r = a.input("r", a.stack), x.z = a.input("z", a.stack);
  x.n = a.input("n", a.stack), x.p = a.input("p", a.stack);
  x.d_after = a.optional("d_after", a.stack), x.d_h = a.optional("d_h", a.state);
  x.d_rows = a.output("d_rows", a.rows, kFirst);
  x.d_product = a.output("d_product", a.rows, kThird);
  x.d_h0 = a.output("d_h0", a.state, kSecond);
  return table().recurrent->gru_gradient(call.parallel, a.sequence(), x);
}

template <int gates, Recurrent::Compute compute>
Kernel* recurrent(const Attributes& attributes) {
  return new Recurrent(attributes, gates, compute);
}

}  // namespace

std::vector<KernelType> recurrent_operators() {
  return {
      {"Gru", "*+", "f+", recurrent<3, gru>},
      {"GruGradient", "*+", "f+", recurrent<3, gru_gradient>},
      {"Lstm", "*+", "f+", recurrent<4, lstm>},
      {"LstmGradient", "*+", "f+", recurrent<4, lstm_gradient>},
  };
}

}  // namespace nnk
