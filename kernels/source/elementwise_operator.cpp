// A chain of elementwise operations in one pass over memory.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "elementwise.h"
#include "operators.h"
#include "scratch.h"

namespace nnk {
namespace {

// Bytes of outputs beyond which they go past the caches: of all such calls of a model, and of one.
constexpr long kStreamedTogether = 12 << 20, kStreamed = 256 << 10;
constexpr double kNanoseconds = 0.05;  // of an operation on one number
constexpr long kAhead = 8 * kStreamedBlock;  // elements

char letter_of(ort::Type type) {
  switch (type) {
    case ort::kFloat: return 'f';
    case ort::kDouble: return 'd';
    case ort::kInt64: return 'l';
    case ort::kInt32: return 'i';
    case ort::kUint32: return 'u';
    case ort::kBool: return 'b';
    default: throw Problem("Elementwise: an element type that it does not know");
  }
}

bool gives_bool(const std::string& name) {
  for (const char* each : {"less", "less_equal", "equal", "is_nan", "not", "and", "or", "xor"})
    if (name == each) return true;
  return false;
}

Step step_of(const char* name, char letter) {
  return table().elementwise((std::string(name) + letter).c_str());
}

template <class Number>
void put_as(double number, char* bytes) {
  const Number converted = Number(number);
  std::memcpy(bytes, &converted, sizeof converted);
}

// The bytes of a number of that element type.
void put(double number, char letter, char* bytes) {
  switch (letter) {
    case 'f': return put_as<float>(number, bytes);
    case 'd': return put_as<double>(number, bytes);
    case 'l': return put_as<int64_t>(number, bytes);
    case 'i': return put_as<int32_t>(number, bytes);
    case 'u': return put_as<uint32_t>(number, bytes);
    default: bytes[0] = number != 0;
  }
}

// Runs a program of elementwise operations for each of `groups` sets of tensors, block by block.
//
// `program` is text: operations with `;` between them, such as "mul.f 0 2;add.f 3 1". Values have
// numbers: first the inputs, then the results of operations in their order. The letter behind a
// name is the element type of what it computes with; "number.f 3.5" is a constant. `results` are
// the numbers of the results, all of float32. The first `shared` inputs are those of all groups;
// behind them each group has `own` ones, which are broadcast against each other. A result that is
// computed may lie where an own input of its shape does, whatever the program: it is written when
// nothing more of a block is read there.
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
  // Where inputs lie: of each the number of the output that is written in its place, or -1.
  using Written = std::vector<int>;
  std::shared_ptr<const Plan> plan(const std::vector<Kind>& kinds, bool streams,
                                   const Written& written) const;
  void make_plan(const std::vector<Kind>& kinds, bool streams, const Written& written,
                 Plan& plan) const;

  int shared_, own_, groups_, inputs_;
  long together_;  // bytes of what this and other such calls of the model give
  std::string letters_;  // element types of the inputs
  std::vector<int> outputs_;
  std::vector<Operation> operations_;
  std::vector<int> uses_;  // of each value
  mutable std::mutex mutex_;
  mutable std::map<std::tuple<std::vector<Kind>, bool, Written>, std::shared_ptr<const Plan>> plans_;
};

// What is run for groups whose inputs are of the same kinds.
struct Elementwise::Plan {
  std::vector<Instruction> before, block;  // once, and for each block
  std::vector<Constant> constants;
  std::vector<Spread> numbers, repeated;
  long bytes = 0;   // of the buffers
  long length = 0;  // of a block
  int streamed = -1;  // an output that goes past the caches
};

// How many numbers there are before the next line of the caches.
long to_next_line(const float* place) {
  return long(-reinterpret_cast<uintptr_t>(place) % kLine / sizeof(float));
}

Elementwise::Elementwise(const Attributes& attributes)
    : shared_(int(attributes.integer("shared", 0))),
      own_(int(attributes.integer("own", 0))),
      groups_(int(attributes.integer("groups", 1))),
      inputs_(shared_ + own_),
      together_(long(attributes.integer("together", 0))),
      letters_(attributes.text("types")) {
  for (int64_t each : attributes.integers("results")) outputs_.push_back(int(each));
  if (shared_ < 0 || own_ < 1 || groups_ < 1 || outputs_.empty() || int(letters_.size()) != inputs_)
    throw Problem("Elementwise: attributes that do not fit each other");
  parse(attributes.text("program"));
  join();
}

void Elementwise::parse(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line, ';')) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    const size_t dot = word.find('.');
    if (dot == std::string::npos || dot + 1 >= word.size())
      throw Problem("Elementwise: no operation is called " + word);
    Operation operation;
    operation.name = word.substr(0, dot);
    operation.operand = word[dot + 1];
    operation.result = gives_bool(operation.name) ? 'b' : operation.operand;
    if (operation.name == "cast") operation.result = word[word.size() - 1];
    const int count = inputs_ + int(operations_.size());
    if (operation.name == "number") {
      words >> word;
      operation.number = std::strtod(word.c_str(), nullptr);
    } else {
      for (int argument; words >> argument;) {
        if (argument < 0 || argument >= count)
          throw Problem("Elementwise: " + line + " needs a value that is not there");
        operation.arguments.push_back(argument);
      }
      if (operation.arguments.empty() || operation.arguments.size() > 4 || !step(operation))
        throw Problem("Elementwise: no operation is called " + word);
    }
    operations_.push_back(operation);
  }
  for (int output : outputs_)
    if (output < 0 || output >= inputs_ + int(operations_.size()))
      throw Problem("Elementwise: an output that is not there");
}

Step Elementwise::step(const Operation& operation) const {
  std::string name = operation.name + "." + operation.operand;
  if (operation.name == "cast") name += operation.result;
  return table().elementwise(name.c_str());
}

// Puts an argument that nothing else needs into the operation that needs it, if that is called
// `name`: its arguments come first. Both roundings stay.
bool Elementwise::join(Operation& into, int side, const char* name, const char* joined) {
  const int place = into.arguments[size_t(side)] - inputs_;
  if (place < 0 || operations_[size_t(place)].name != name) return false;
  if (uses_[size_t(place + inputs_)] != 1) return false;
  Operation& argument = operations_[size_t(place)];
  std::vector<int> arguments = argument.arguments;
  for (int i = 0; i < int(into.arguments.size()); i++)
    if (i != side) arguments.push_back(into.arguments[size_t(i)]);
  into.name = joined;
  into.arguments = arguments;
  argument.used = false;
  return true;
}

// What an operation becomes with the one that makes its argument; `swapped` where that is the second
// of two which cannot change places.
struct Joined {
  const char *into, *argument, *name, *swapped;
};

constexpr Joined kJoined[] = {
    {"div", "mul", "mul_div", nullptr},
    {"exp", "mul", "mul_exp", nullptr},
    {"erf", "mul", "mul_erf", nullptr},
    {"sub", "mul", "mul_sub", "sub_mul"},
    {"mul", "div", "div_mul", nullptr},
    {"mul", "add_mul", "add_mul_mul", nullptr},
    {"mul", "add", "add_mul", nullptr},
    {"mul", "mul", "mul_mul", nullptr},
    {"add", "mul_div", "mul_div_add", nullptr},
    {"add", "div_mul", "div_mul_add", nullptr},
    {"add", "mul_mul", "mul_mul_add", nullptr},
    {"add", "mul", "mul_add", nullptr},
    {"add", "sqrt", "sqrt_add", nullptr},
    {"add", "add", "add_add", nullptr},
};

// Operations that follow each other become one, so that fewer results go through the cache.
void Elementwise::join() {
  uses_.assign(size_t(inputs_) + operations_.size(), 0);
  for (const Operation& operation : operations_)
    for (int argument : operation.arguments) uses_[size_t(argument)]++;
  for (int output : outputs_) uses_[size_t(output)] += 2;
  for (Operation& each : operations_) {
    if (each.operand != 'f' && each.operand != 'd') continue;
    const bool commutes = each.name == "mul" || each.name == "add";
    for (const Joined& rule : kJoined)
      if (each.name == rule.into && (join(each, 0, rule.argument, rule.name) ||
                                     ((commutes || rule.swapped) &&
                                      join(each, 1, rule.argument, rule.swapped ? rule.swapped
                                                                                : rule.name))))
        break;
    if (each.name == "mul_add") {
      // a·b + c·d: the second product's arguments come last.
      std::vector<int>& arguments = each.arguments;
      const std::vector<int> first(arguments.begin(), arguments.begin() + 2);
      std::vector<int> second = {arguments[2]};
      arguments = second;
      if (join(each, 0, "mul", "mul_add_mul"))
        arguments.insert(arguments.begin(), first.begin(), first.end());
      else
        arguments = {first[0], first[1], second[0]};
    }
  }
}

std::shared_ptr<const Elementwise::Plan> Elementwise::plan(const std::vector<Kind>& kinds,
                                                           bool streams,
                                                           const Written& written) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<const Plan>& known = plans_[{kinds, streams, written}];
  if (!known) {
    auto made = std::make_shared<Plan>();
    make_plan(kinds, streams, written, *made);
    known = made;
  }
  return known;
}

// Buffers of the first cache, used again where a value is needed no more.
class Buffers {
 public:
  long take(int size) {
    std::vector<long>& free = free_[size];
    if (!free.empty()) {
      const long place = free.back();
      free.pop_back();
      return place;
    }
    const long place = bytes;
    bytes += kBlock * size + 64;  // so that they do not all begin in the same set of the cache
    return place;
  }
  void give(long place, int size) { free_[size].push_back(place); }

  long bytes = 0;

 private:
  std::map<int, std::vector<long>> free_;
};

void Elementwise::make_plan(const std::vector<Kind>& kinds, bool streams, const Written& written,
                            Plan& plan) const {
  const int count = inputs_ + int(operations_.size());
  Buffers buffers;
  std::vector<Place> places(count);
  std::vector<bool> uniform(count);
  std::vector<int> last(count, -1);  // the operation that needs a value last
  for (int i = 0; i < int(operations_.size()); i++)
    if (operations_[i].used)
      for (int argument : operations_[i].arguments) last[argument] = i;
  std::vector<int> output(count, -1);
  for (int i = 0; i < int(outputs_.size()); i++) {
    if (output[outputs_[i]] < 0) output[outputs_[i]] = i;
    last[outputs_[i]] = count;
  }
  // The operation after which an output may be written. Past the caches go those in places of their
  // own, in copies; of what was just read, the caches hold the lines.
  std::vector<int> from(outputs_.size(), -1);
  std::vector<bool> apart(outputs_.size(), true);
  for (int i = 0; i < inputs_; i++)
    if (written[i] >= 0) {
      int& first = from[written[i]];
      first = std::max(first, kinds[i] == kWhole ? last[i] : count);
      apart[written[i]] = false;
    }
  const auto is_direct = [&](int i, int operation) {
    return !(streams && apart[i]) && from[i] <= operation;
  };
  const auto buffer = [&](char letter) {
    Place place;
    place.size = size_of(letter);
    place.number = buffers.take(place.size);
    return place;
  };
  for (int i = 0; i < inputs_; i++) {
    uniform[i] = kinds[i] == kNumber;
    places[i] = Place{Place::kInput, i, size_of(letters_[i])};
    if (kinds[i] == kWhole || last[i] < 0) continue;
    places[i] = buffer(letters_[i]);
    const Step fill = step_of("fill.", letters_[i]);
    (kinds[i] == kNumber ? plan.numbers : plan.repeated).push_back({i, places[i], fill});
  }
  // What is the same for all elements has buffers that stay; so these are taken first.
  const auto make = [&](int i, bool stays) {
    const Operation& operation = operations_[i];
    Instruction made;
    made.step = step(operation);
    for (int k = 0; k < int(operation.arguments.size()); k++)
      made.from[k] = places[operation.arguments[k]];
    const int value = inputs_ + i;
    const auto free_arguments = [&](bool of_the_size) {
      if (stays) return;
      for (int k = 0; k < int(operation.arguments.size()); k++) {
        const int argument = operation.arguments[k];
        const Place& place = places[argument];
        const bool is_first = std::find(operation.arguments.begin(), operation.arguments.begin() + k,
                                        argument) == operation.arguments.begin() + k;
        if (place.where != Place::kBuffer || last[argument] != i || uniform[argument] || !is_first ||
            argument < inputs_ || (place.size == size_of(operation.result)) != of_the_size)
          continue;
        buffers.give(place.number, place.size);
      }
    };
    free_arguments(true);  // the result may take their place
    if (!stays && output[value] >= 0 && is_direct(output[value], i))
      made.to = Place{Place::kOutput, output[value], 4};
    else
      made.to = buffer(operation.result);
    free_arguments(false);
    places[value] = made.to;
    return made;
  };
  for (int i = 0; i < int(operations_.size()); i++) {
    const Operation& operation = operations_[i];
    if (!operation.used) continue;
    const int value = inputs_ + i;
    if (operation.name == "number") {
      uniform[value] = true;
      Constant constant;
      constant.to = places[value] = buffer(operation.operand);
      constant.fill = step_of("fill.", operation.operand);
      put(operation.number, operation.operand, constant.bytes);
      plan.constants.push_back(constant);
      continue;
    }
    uniform[value] = std::all_of(operation.arguments.begin(), operation.arguments.end(),
                                 [&](int argument) { return uniform[argument]; });
    if (uniform[value]) plan.before.push_back(make(i, true));
  }
  plan.length = streams ? kStreamedBlock : kBlock;
  for (int i = 0; i < int(outputs_.size()); i++)
    if (streams && apart[i]) plan.streamed = i;
  const auto ask_ahead = [&](int i) {  // for inputs that are not read again in this block
    for (int argument : operations_[i].arguments) {
      if (argument >= inputs_ || kinds[argument] != kWhole || last[argument] != i) continue;
      Instruction ahead;
      ahead.step = table().elementwise((std::string("prefetch.") + letters_[argument]).c_str());
      ahead.to = ahead.from[0] = places[argument];
      ahead.asks = true;
      plan.block.push_back(ahead);
    }
  };
  std::vector<Instruction> at_the_end;  // of a block, where results lie in the place of inputs
  const auto give_out = [&](int value) {
    for (int i = 0; i < int(outputs_.size()); i++) {
      const Place& place = places[value];
      if (outputs_[i] != value || (place.where == Place::kOutput && place.number == i)) continue;
      Instruction copy;
      copy.step = table().elementwise(streams && apart[i] ? "stream.f" : "copy.f");
      copy.from[0] = place;
      copy.to = Place{Place::kOutput, i, 4};
      (apart[i] ? plan.block : at_the_end).push_back(copy);
    }
  };
  for (int i = 0; i < int(operations_.size()); i++) {
    if (!operations_[i].used || uniform[inputs_ + i]) continue;
    plan.block.push_back(make(i, false));
    give_out(inputs_ + i);
    if (streams) ask_ahead(i);
  }
  for (int value = 0; value < count; value++)  // what no block computes
    if (value < inputs_ || uniform[value]) give_out(value);
  plan.block.insert(plan.block.end(), at_the_end.begin(), at_the_end.end());
  plan.bytes = buffers.bytes;
}

Elementwise::Group Elementwise::group(const Call& call, std::vector<Tensor> inputs,
                                      int output) const {
  Group group;
  group.inputs = std::move(inputs);
  for (int i = 0; i < inputs_; i++) {
    const Tensor& tensor = group.inputs[i];
    if (letter_of(tensor.type) != letters_[i]) throw Problem("Elementwise: an input of another type");
    group.rank = std::max(group.rank, tensor.rank);
  }
  std::fill(group.sizes, group.sizes + group.rank, 1);
  for (const Tensor& tensor : group.inputs)
    for (int axis = 0; axis < tensor.rank; axis++) {
      int64_t& size = group.sizes[group.rank - tensor.rank + axis];
      if (size == 1) size = tensor.sizes[axis];
      if (tensor.sizes[axis] != 1 && tensor.sizes[axis] != size)
        throw Problem("Elementwise: shapes that do not fit each other");
    }
  for (int axis = 0; axis < group.rank; axis++) group.count *= group.sizes[axis];
  for (int i = 0; i < int(outputs_.size()); i++)
    group.outputs.push_back(
        static_cast<float*>(call.output(output + i, group.sizes, group.rank)));
  std::vector<Kind> kinds;
  for (const Tensor& tensor : group.inputs)
    kinds.push_back(tensor.count() == group.count ? kWhole
                    : tensor.count() == 1         ? kNumber
                                                  : kRepeated);
  const long bytes = group.count * long(outputs_.size()) * 4;
  const bool streams = bytes > kStreamed && std::max(bytes, together_) > kStreamedTogether;
  Written written;
  for (const Tensor& tensor : group.inputs) {
    const auto found = std::find(group.outputs.begin(), group.outputs.end(), tensor.data);
    written.push_back(found == group.outputs.end() ? -1 : int(found - group.outputs.begin()));
  }
  group.plan = plan(kinds, streams, written);
  return group;
}

// count elements of a tensor as it is broadcast to sizes, from element `first` of the result on.
void spread(const Tensor& tensor, int rank, const int64_t* sizes, long first, long count, int bytes,
            char* to) {
  int64_t steps[kMostAxes] = {}, at[kMostAxes] = {};
  int64_t step = 1;
  for (int axis = tensor.rank - 1; axis >= 0; axis--) {
    steps[rank - tensor.rank + axis] = tensor.sizes[axis] == 1 ? 0 : step;
    step *= tensor.sizes[axis];
  }
  long place = 0, rest = first;
  for (int axis = rank - 1; axis >= 0; axis--) {
    at[axis] = rest % sizes[axis];
    rest /= sizes[axis];
    place += at[axis] * steps[axis];
  }
  const char* from = static_cast<const char*>(tensor.data);
  while (count > 0) {
    const long along = std::min<long>(count, sizes[rank - 1] - at[rank - 1]);
    if (steps[rank - 1]) {
      std::memcpy(to, from + place * bytes, size_t(along * bytes));
    } else if (bytes == 4) {
      uint32_t bits;
      std::memcpy(&bits, from + place * bytes, 4);
      std::fill_n(reinterpret_cast<uint32_t*>(to), along, bits);
    } else {
      for (long i = 0; i < along; i++) std::memcpy(to + i * bytes, from + place * bytes, size_t(bytes));
    }
    to += along * bytes;
    count -= along;
    place += along * steps[rank - 1];
    at[rank - 1] += along;
    for (int axis = rank - 1; axis > 0 && at[axis] == sizes[axis]; axis--) {
      place -= at[axis] * steps[axis];
      at[axis] = 0;
      at[axis - 1]++;
      place += steps[axis - 1];
    }
  }
}

char* Elementwise::prepared(const Group& group) const {
  const Plan& plan = *group.plan;
  char* buffers = reinterpret_cast<char*>(scratch(0, plan.bytes / 4 + 1));
  if (!buffers) throw Problem("Elementwise: not enough memory");
  const long count = std::min(plan.length, group.count);
  for (const Constant& constant : plan.constants)
    constant.fill(count, buffers + constant.to.number, constant.bytes, nullptr, nullptr, nullptr);
  for (const Spread& each : plan.numbers)
    each.fill(count, buffers + each.to.number, group.inputs[each.input].data, nullptr, nullptr,
              nullptr);
  for (const Instruction& each : plan.before)
    each.step(count, buffers + each.to.number, buffers + each.from[0].number,
              buffers + each.from[1].number, buffers + each.from[2].number,
              buffers + each.from[3].number);
  return buffers;
}

void Elementwise::compute(const Group& group, char* buffers, long begin, long end) const {
  const Plan& plan = *group.plan;
  // Where the block of element 0 would be, and how many bytes further on each element is.
  struct Range {
    char* base;
    long bytes;
  };
  const auto range = [&](const Place& place, long ahead = 0) {
    switch (place.where) {
      case Place::kInput:
        return Range{static_cast<char*>(group.inputs[place.number].data) + ahead * place.size,
                     place.size};
      case Place::kOutput:
        return Range{reinterpret_cast<char*>(group.outputs[place.number]), place.size};
      default:
        return Range{buffers + place.number, 0};
    }
  };
  struct Bound {
    Step step;
    Range to, from[4];
  };
  static thread_local std::vector<Bound> block;  // of every call, as its memory stays
  block.clear();
  for (const Instruction& each : plan.block)
    block.push_back({each.step,
                     range(each.to),
                     {range(each.from[0], each.asks ? kAhead : 0), range(each.from[1]),
                      range(each.from[2]), range(each.from[3])}});
  long count = plan.streamed < 0 ? 0 : to_next_line(group.outputs[plan.streamed] + begin);
  if (!count) count = plan.length;
  for (long start = begin; start < end; start += count, count = plan.length) {
    count = std::min(count, end - start);
    const auto at = [&](const Range& range) { return range.base + start * range.bytes; };
    for (const Spread& each : plan.repeated)
      spread(group.inputs[each.input], group.rank, group.sizes, start, count, each.to.size,
             buffers + each.to.number);
    for (const Bound& each : block)
      each.step(count, at(each.to), at(each.from[0]), at(each.from[1]), at(each.from[2]),
                at(each.from[3]));
  }
}

void Elementwise::run(const Call& call) const {
  std::vector<Group> groups;
  std::vector<long> ends;
  long total = 0, blocks = 0;
  for (int i = 0; i < groups_; i++) {
    std::vector<Tensor> inputs;
    for (int k = 0; k < inputs_; k++) inputs.push_back(call.input(k < shared_ ? k : k + i * own_));
    groups.push_back(group(call, inputs, i * int(outputs_.size())));
    total += groups.back().count;
    const long length = groups.back().plan->length;
    blocks += (groups.back().count + length - 1) / length;
    ends.push_back(blocks);
  }
  const double work = double(total) * double(operations_.size()) * kNanoseconds;
  call.parallel.run(blocks, work, [&](long begin, long end) {
    size_t i = size_t(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
    for (; begin < end; i++) {
      const long start = i ? ends[i - 1] : 0;
      const long stop = std::min(end, ends[i]);
      if (stop > begin) {
        const long length = groups[i].plan->length;
        compute(groups[i], prepared(groups[i]), (begin - start) * length,
                std::min((stop - start) * length, groups[i].count));
      }
      begin = std::max(begin, stop);
    }
  });
}

}  // namespace

std::vector<KernelType> elementwise_operators() {
  return {{"Elementwise", "*+", "f+", made<Elementwise>}};
}

}  // namespace nnk
