#include "recurrent_operators.h"

#include <sstream>

#include "dispatch.h"
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
  if (!compute(call, arrays)) throw Problem("not enough memory");
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
  state = {batch, hidden}, stack = {time, batch, hidden}, rows = {time, batch, wide};
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

Sequence Recurrent::Arrays::sequence() const {
  return {time, batch, hidden, kernel_.reverse_, present()};
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

bool Lstm::compute(const Call& call, const Arrays& a) const {
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

bool LstmBackward::compute(const Call& call, const Arrays& a) const {
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

bool Gru::compute(const Call& call, const Arrays& a) const {
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

bool GruBackward::compute(const Call& call, const Arrays& a) const {
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

}  // namespace nnk
