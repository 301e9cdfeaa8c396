#include "recurrent_operators.h"

#include <sstream>

#include "dispatch.h"
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

}  // namespace

Recurrent::Recurrent(const Attributes& attributes, int gates)
    : takes_(words(attributes.text("takes"))),
      gives_(words(attributes.text("gives"))),
      gates_(gates),
      reverse_(attributes.integer("reverse", 0) != 0) {}

int Recurrent::place_of(const std::vector<std::string>& names, const char* name) const {
  for (size_t i = 0; i < names.size(); i++)
    if (names[i] == name) return int(i);
  return -1;
}

void Recurrent::run(const Call& call) const {
  if (call.inputs() != int(takes_.size()) || call.outputs() != int(gives_.size()))
    throw Problem("a recurrent kernel whose attributes do not name its inputs and outputs");
  const Arrays arrays(*this, call);
  if (!compute(call, arrays, reverse_)) throw Problem("not enough memory");
}

Recurrent::Arrays::Arrays(const Recurrent& kernel, const Call& call)
    : kernel_(kernel), call_(call) {
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
}

const float* Recurrent::Arrays::optional(const char* name, std::vector<int64_t> sizes) const {
  const int place = kernel_.place_of(kernel_.takes_, name);
  if (place < 0) return nullptr;
  const Tensor x = call_.input(place);
  bool fits = x.type == ort::kFloat && x.rank == int(sizes.size());
  for (int i = 0; fits && i < x.rank; i++) fits = x.sizes[i] == sizes[i];
  if (!fits) throw Problem(std::string("an input of a recurrent kernel has a wrong shape: ") + name);
  return x.floats();
}

const float* Recurrent::Arrays::input(const char* name, std::vector<int64_t> sizes) const {
  const float* x = optional(name, std::move(sizes));
  if (!x) throw Problem(std::string("a recurrent kernel lacks its input ") + name);
  return x;
}

const unsigned char* Recurrent::Arrays::present() const {
  const int place = kernel_.place_of(kernel_.takes_, "present");
  if (place < 0) return nullptr;
  const Tensor x = call_.input(place);
  if (x.type != ort::kBool || x.count() != time * batch)
    throw Problem("which steps are present must be said for each of them");
  return static_cast<const unsigned char*>(x.data);
}

float* Recurrent::Arrays::output(const char* name, const std::vector<int64_t>& sizes,
                                 int slot) const {
  const int place = kernel_.place_of(kernel_.gives_, name);
  float* data = nullptr;
  if (place >= 0) data = static_cast<float*>(call_.output(place, sizes.data(), int(sizes.size())));
  if (data || slot < 0) return data;
  long count = 1;
  for (int64_t size : sizes) count *= size;
  data = scratch(slot, count);
  if (!data) throw Problem("not enough memory");
  return data;
}

bool Lstm::compute(const Call& call, const Arrays& a, bool reverse) const {
  const std::vector<int64_t> state{a.batch, a.hidden}, stack{a.time, a.batch, a.hidden};
  LstmForward x;
  x.rows = a.input("rows", {a.time, a.batch, a.wide});
  x.bias = a.optional("bias", {a.wide});
  x.weight = a.input("weight", {a.hidden, a.wide});
  x.h0 = a.input("h0", state), x.c0 = a.input("c0", state);
  x.h_last = a.output("h_last", state, kFirst), x.c_last = a.output("c_last", state, kSecond);
  x.h_before = a.output("h_before", stack), x.c_before = a.output("c_before", stack);
  x.h_after = a.output("h_after", stack), x.c_after = a.output("c_after", stack);
  x.i = a.output("i", stack), x.f = a.output("f", stack), x.g = a.output("g", stack);
  x.o = a.output("o", stack), x.u = a.output("u", stack);
  const Sequence s{a.time, a.batch, a.hidden, reverse, a.present()};
  return table().recurrent->lstm(call.parallel, s, x);
}

bool LstmBackward::compute(const Call& call, const Arrays& a, bool reverse) const {
  const std::vector<int64_t> state{a.batch, a.hidden}, stack{a.time, a.batch, a.hidden};
  LstmGradient x;
  x.weight = a.input("weight", {a.hidden, a.wide});
  x.c_before = a.input("c_before", stack), x.i = a.input("i", stack), x.f = a.input("f", stack);
  x.g = a.input("g", stack), x.o = a.input("o", stack), x.u = a.input("u", stack);
  x.d_after = a.optional("d_after", stack);
  x.d_h = a.optional("d_h", state), x.d_c = a.optional("d_c", state);
  x.d_rows = a.output("d_rows", {a.time, a.batch, a.wide}, kFirst);
  x.d_h0 = a.output("d_h0", state, kSecond), x.d_c0 = a.output("d_c0", state, kThird);
  const Sequence s{a.time, a.batch, a.hidden, reverse, a.present()};
  return table().recurrent->lstm_gradient(call.parallel, s, x);
}

bool Gru::compute(const Call& call, const Arrays& a, bool reverse) const {
  const std::vector<int64_t> state{a.batch, a.hidden}, stack{a.time, a.batch, a.hidden};
  GruForward x;
  x.rows = a.input("rows", {a.time, a.batch, a.wide});
  x.bias = a.optional("bias", {a.wide}), x.inner_bias = a.optional("inner_bias", {a.wide});
  x.weight = a.input("weight", {a.hidden, a.wide});
  x.h0 = a.input("h0", state);
  x.h_last = a.output("h_last", state, kFirst);
  x.h_before = a.output("h_before", stack), x.h_after = a.output("h_after", stack);
  x.r = a.output("r", stack), x.z = a.output("z", stack), x.z_rest = a.output("z_rest", stack);
  x.n = a.output("n", stack), x.p = a.output("p", stack);
  const Sequence s{a.time, a.batch, a.hidden, reverse, a.present()};
  return table().recurrent->gru(call.parallel, s, x);
}

bool GruBackward::compute(const Call& call, const Arrays& a, bool reverse) const {
  const std::vector<int64_t> state{a.batch, a.hidden}, stack{a.time, a.batch, a.hidden};
  GruGradient x;
  x.weight = a.input("weight", {a.hidden, a.wide});
  x.h_before = a.input("h_before", stack), x.r = a.input("r", stack), x.z = a.input("z", stack);
  x.n = a.input("n", stack), x.p = a.input("p", stack);
  x.d_after = a.optional("d_after", stack), x.d_h = a.optional("d_h", state);
  x.d_rows = a.output("d_rows", {a.time, a.batch, a.wide}, kFirst);
  x.d_product = a.output("d_product", {a.time, a.batch, a.wide}, kThird);
  x.d_h0 = a.output("d_h0", state, kSecond);
  const Sequence s{a.time, a.batch, a.hidden, reverse, a.present()};
  return table().recurrent->gru_gradient(call.parallel, s, x);
}

}  // namespace nnk
