// What onnxruntime calls to get the operators, and what it calls to run them.
//
// The functions of a file have names of their own where a kernel has several: Elementwise,
// Elementwise_2, and so on. Each name costs a few dozen microseconds when a session is made, so a
// program may say how many it needs: the entry `nncompile.kernels.names` of the session's
// configuration, as in "Elementwise:3 LayerNormGradient:1". Otherwise there are `kNames` of each.
#include <sched.h>
#include <unistd.h>

#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>

#include "dispatch.h"
#include "operators.h"

#define NNK_EXPORT extern "C" __attribute__((visibility("default")))

namespace nnk {
namespace {

constexpr char kDomain[] = "nncompile.kernels";
constexpr int kNames = 32;

const ort::Table* api = nullptr;

void check(ort::Status* status) {
  if (!status) return;
  const std::string message = ort::StatusMessage::call(api, status);
  ort::ReleaseStatus::call(api, status);
  throw Problem(message);
}

// Runs a body, and gives a problem of it as a status.
template <class Body>
ort::Status* guarded(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& problem) {
    return ort::CreateStatus::call(api, ort::kFail, problem.what());
  } catch (...) {
    return ort::CreateStatus::call(api, ort::kFail, "nncompile-kernels: unknown error");
  }
}

int processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
  return count > 0 ? int(count) : 1;
}

// The runtime's own threads.
class Threads final : public Parallel {
 public:
  Threads(const ort::KernelContext* context, int count) : context_(context), count_(count) {}

 protected:
  void split(long count, double work, Range range, const void* body) override {
    struct Job {
      Range range;
      const void* body;
      long count, parts;
      std::mutex mutex;
      std::exception_ptr problem;  // of any thread, for the one that calls
    };
    constexpr double kWorthIt = 20000;  // nanoseconds of a part
    long parts = count_;
    if (work < parts * kWorthIt) parts = long(work / kWorthIt);
    if (parts > count) parts = count;
    if (parts <= 1) return range(body, 0, count);
    Job job{range, body, count, parts, {}, {}};
    check(ort::ParallelFor::call(
        api, context_,
        [](void* data, size_t part) {
          Job& job = *static_cast<Job*>(data);
          const long i = long(part);
          try {
            job.range(job.body, job.count * i / job.parts, job.count * (i + 1) / job.parts);
          } catch (...) {
            const std::lock_guard<std::mutex> lock(job.mutex);
            job.problem = std::current_exception();
          }
        },
        size_t(parts), size_t(parts), &job));
    if (job.problem) std::rethrow_exception(job.problem);
  }

 private:
  const ort::KernelContext* context_;
  int count_;
};

struct Slot {
  ort::Type type;
  ort::Characteristic characteristic;
};

std::vector<Slot> slots(const char* letters) {
  std::vector<Slot> found;
  for (const char* at = letters; *at; at++) {
    switch (*at) {
      case 'f': found.push_back({ort::kFloat, ort::kRequired}); break;
      case 'd': found.push_back({ort::kDouble, ort::kRequired}); break;
      case 'l': found.push_back({ort::kInt64, ort::kRequired}); break;
      case 'i': found.push_back({ort::kInt32, ort::kRequired}); break;
      case 'u': found.push_back({ort::kUint32, ort::kRequired}); break;
      case 'b': found.push_back({ort::kBool, ort::kRequired}); break;
      case '*': found.push_back({ort::Type(0), ort::kRequired}); break;
      case '?': found.back().characteristic = ort::kOptional; break;
      case '+': found.back().characteristic = ort::kVariadic; break;
    }
  }
  return found;
}

// An operator under one of its names.
struct Registered : ort::Operator {
  const KernelType* type;
  std::string own_name;
  std::vector<Slot> inputs, outputs;
  int threads;
};

const Registered& registered(const ort::Operator* op) {
  return *static_cast<const Registered*>(op);
}

struct Node {
  std::unique_ptr<Kernel> kernel;
  int threads;
};

std::unique_ptr<Registered> registered(const KernelType& type, const std::string& name,
                                       int threads) {
  auto op = std::make_unique<Registered>();
  static_cast<ort::Operator&>(*op) = ort::Operator{};
  op->type = &type;
  op->own_name = name;
  op->inputs = slots(type.inputs);
  op->outputs = slots(type.outputs);
  op->threads = threads;
  op->version = ort::kVersion;
  op->name = [](const ort::Operator* o) { return registered(o).own_name.c_str(); };
  op->provider = [](const ort::Operator*) -> const char* { return nullptr; };
  op->input_type = [](const ort::Operator* o, size_t i) { return registered(o).inputs[i].type; };
  op->input_count = [](const ort::Operator* o) { return registered(o).inputs.size(); };
  op->output_type = [](const ort::Operator* o, size_t i) { return registered(o).outputs[i].type; };
  op->output_count = [](const ort::Operator* o) { return registered(o).outputs.size(); };
  op->input_characteristic = [](const ort::Operator* o, size_t i) {
    return registered(o).inputs[i].characteristic;
  };
  op->output_characteristic = [](const ort::Operator* o, size_t i) {
    return registered(o).outputs[i].characteristic;
  };
  op->input_memory = [](const ort::Operator*, size_t) { return 0; };
  op->variadic_input_least = [](const ort::Operator*) { return 1; };
  op->variadic_input_same = [](const ort::Operator*) { return 0; };
  op->variadic_output_least = [](const ort::Operator*) { return 1; };
  op->variadic_output_same = [](const ort::Operator* o) {
    return int(registered(o).outputs.back().type != ort::Type(0));
  };
  op->first_version = [](const ort::Operator*) { return 1; };
  op->last_version = [](const ort::Operator*) { return 1; };
  op->create_checked = [](const ort::Operator* o, const ort::Table* table,
                          const ort::KernelInfo* info, void** made) {
    return guarded([&] {
      auto node = std::make_unique<Node>();
      node->kernel.reset(registered(o).type->create(Attributes(table, info)));
      node->threads = registered(o).threads;
      *made = node.release();
    });
  };
  op->compute_checked = [](void* made, ort::KernelContext* context) {
    return guarded([&] {
      const Node& node = *static_cast<const Node*>(made);
      Threads threads(context, node.threads);
      node.kernel->run(Call(api, context, threads));
    });
  };
  op->destroy = [](void* made) { delete static_cast<Node*>(made); };
  return op;
}

std::string configuration(const ort::SessionOptions* options, const char* key) {
  int is_there = 0;
  check(ort::HasConfiguration::call(api, options, key, &is_there));
  if (!is_there) return "";
  size_t size = 0;
  if (ort::Status* status = ort::Configuration::call(api, options, key, nullptr, &size))
    ort::ReleaseStatus::call(api, status);
  std::string text(size ? size : 1, '\0');
  size = text.size();
  check(ort::Configuration::call(api, options, key, &text[0], &size));
  return text.c_str();
}

// How many names a kernel is to have, by the text of the configuration.
int names(const std::string& text, const std::string& kernel) {
  if (text.empty()) return kNames;
  std::istringstream words(text);
  std::string word;
  while (words >> word) {
    const size_t colon = word.find(':');
    if (colon == kernel.size() && !word.compare(0, colon, kernel))
      return std::atoi(word.c_str() + colon + 1);
  }
  return 0;
}

struct Domain {
  ort::Domain* handle = nullptr;
  std::vector<std::unique_ptr<Registered>> operators;
};

// Sessions of the same configuration share their operators, which stay as long as the process.
ort::Domain* domain(const std::string& wanted, int threads) {
  static std::mutex mutex;
  static auto& made = *new std::map<std::string, Domain>();
  const std::lock_guard<std::mutex> lock(mutex);
  Domain& domain = made[wanted + " " + std::to_string(threads)];
  if (domain.handle) return domain.handle;
  ort::Domain* handle = nullptr;
  check(ort::CreateDomain::call(api, kDomain, &handle));
  for (const KernelType& type : kernel_types()) {
    const int count = names(wanted, type.name);
    for (int i = 1; i <= count; i++) {
      const std::string name = i == 1 ? type.name : type.name + ("_" + std::to_string(i));
      domain.operators.push_back(registered(type, name, threads));
      check(ort::AddOperator::call(api, handle, domain.operators.back().get()));
    }
  }
  return domain.handle = handle;
}

// The table of functions, or null with a status that says why there is none.
ort::Status* connect(const ort::Base* base) {
  const ort::Table* table = base->get(ort::kVersion);
  const std::string version = base->version ? base->version() : "?";
  if (!table) {
    const ort::Table* least = base->get(1);
    const std::string message = "nncompile-kernels needs onnxruntime 1.18 or later, this is " + version;
    return least ? ort::CreateStatus::call(least, ort::kNotImplemented, message.c_str()) : nullptr;
  }
  for (int place : ort::kUsedPlaces) {
    if (table[place]) continue;
    if (!table[ort::CreateStatus::kPlace]) return nullptr;
    const std::string message = "onnxruntime " + version + " lacks function " +
                                std::to_string(place) + ", which nncompile-kernels needs";
    return ort::CreateStatus::call(table, ort::kNotImplemented, message.c_str());
  }
  api = table;
  return nullptr;
}

}  // namespace

int Call::inputs() const {
  size_t count = 0;
  check(ort::InputCount::call(table_, context_, &count));
  return int(count);
}

int Call::outputs() const {
  size_t count = 0;
  check(ort::OutputCount::call(table_, context_, &count));
  return int(count);
}

Tensor Call::input(int place) const {
  const ort::Value* value = nullptr;
  check(ort::Input::call(table_, context_, size_t(place), &value));
  Tensor tensor;
  if (!value) return tensor;
  ort::Shape* shape = nullptr;
  check(ort::ShapeOf::call(table_, value, &shape));
  size_t rank = 0;
  ort::Status* status = ort::ElementType::call(table_, shape, &tensor.type);
  if (!status) status = ort::Rank::call(table_, shape, &rank);
  if (!status && rank <= kMostAxes) status = ort::Sizes::call(table_, shape, tensor.sizes, rank);
  ort::ReleaseShape::call(table_, shape);
  check(status);
  if (rank > kMostAxes) throw Problem("a tensor of more than 8 axes");
  tensor.rank = int(rank);
  check(ort::TensorData::call(table_, const_cast<ort::Value*>(value), &tensor.data));
  static char empty;
  if (!tensor.data) tensor.data = &empty;  // one without elements
  return tensor;
}

void* Call::output(int place, const int64_t* sizes, int rank) const {
  ort::Value* value = nullptr;
  check(ort::Output::call(table_, context_, size_t(place), sizes, size_t(rank), &value));
  if (!value) return nullptr;
  void* data = nullptr;
  check(ort::TensorData::call(table_, value, &data));
  return data;
}

namespace {

// What a function of the table gives for an attribute; `otherwise` where there is none.
template <class Read, class Number>
Number attribute(const ort::Table* table, const ort::KernelInfo* info, const char* name,
                 Number otherwise) {
  Number number = otherwise;
  if (ort::Status* status = Read::call(table, info, name, &number)) {
    ort::ReleaseStatus::call(table, status);
    return otherwise;
  }
  return number;
}

template <class Read, class Number>
std::vector<Number> attributes(const ort::Table* table, const ort::KernelInfo* info,
                               const char* name) {
  size_t size = 0;
  if (ort::Status* status = Read::call(table, info, name, nullptr, &size)) {
    ort::ReleaseStatus::call(table, status);
    return {};
  }
  std::vector<Number> numbers(size);
  if (size) check(Read::call(table, info, name, numbers.data(), &size));
  return numbers;
}

}  // namespace

int64_t Attributes::integer(const char* name, int64_t otherwise) const {
  return attribute<ort::IntAttribute>(table_, info_, name, otherwise);
}

float Attributes::number(const char* name, float otherwise) const {
  return attribute<ort::FloatAttribute>(table_, info_, name, otherwise);
}

std::string Attributes::text(const char* name) const {
  size_t size = 0;
  if (ort::Status* status = ort::TextAttribute::call(table_, info_, name, nullptr, &size)) {
    ort::ReleaseStatus::call(table_, status);
    return "";
  }
  std::string text(size ? size : 1, '\0');
  size = text.size();
  check(ort::TextAttribute::call(table_, info_, name, &text[0], &size));
  return text.c_str();
}

std::vector<int64_t> Attributes::integers(const char* name) const {
  return attributes<ort::IntsAttribute, int64_t>(table_, info_, name);
}

std::vector<float> Attributes::numbers(const char* name) const {
  return attributes<ort::FloatsAttribute, float>(table_, info_, name);
}

}  // namespace nnk

// The entry that `register_custom_ops_library` of every language calls.
NNK_EXPORT nnk::ort::Status* RegisterCustomOps(nnk::ort::SessionOptions* options,
                                               const nnk::ort::Base* base) {
  using namespace nnk;
  if (ort::Status* status = connect(base)) return status;
  if (!api) return nullptr;
  return guarded([&] {
    const std::string threads = configuration(options, "nncompile.kernels.threads");
    const int count = threads.empty() ? processors() : std::atoi(threads.c_str());
    const std::string wanted = configuration(options, "nncompile.kernels.names");
    check(ort::AddDomain::call(api, options, domain(wanted, count > 0 ? count : processors())));
  });
}

// The instruction set that is used on this processor: avx512, avx2 or baseline.
NNK_EXPORT const char* nncompile_kernels_instruction_set() { return nnk::table().instruction_set; }

// The names of the operators, with spaces between them.
NNK_EXPORT const char* nncompile_kernels_names() {
  static const std::string text = [] {
    std::string names;
    for (const nnk::KernelType& type : nnk::kernel_types())
      names += (names.empty() ? "" : " ") + std::string(type.name);
    return names;
  }();
  return text.c_str();
}
