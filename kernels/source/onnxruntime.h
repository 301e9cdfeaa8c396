// What these kernels need of onnxruntime's C interface, in our own words.
//
// onnxruntime hands a library a table of functions, in an order that never changes; new ones are
// added at its end, and the version that is asked for says how many there are. A custom operator is
// described by a structure of functions, which has grown in the same way. Both are documented at
// https://onnxruntime.ai/docs/api/c/ ; the numbers below are places in the table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nnk::ort {

constexpr uint32_t kVersion = 18;  // of onnxruntime 1.18: the first one with all that is used here

// Things of the runtime's own, which are known by their addresses alone.
struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct Shape;
struct ShapeContext;

using Entry = void (*)();
using Table = Entry;  // the first of its functions

struct Base {
  const Table* (*get)(uint32_t version);
  const char* (*version)();
};

enum Type : int { kFloat = 1, kUint8 = 2, kInt32 = 6, kInt64 = 7, kBool = 9, kDouble = 11, kUint32 = 12 };
enum Characteristic : int { kRequired = 0, kOptional = 1, kVariadic = 2 };
enum Code : int { kFail = 1, kInvalidArgument = 2, kNotImplemented = 9 };

// A custom operator. The runtime calls these functions, the first argument being the structure.
struct Operator {
  uint32_t version;
  void* (*create)(const Operator*, const Table*, const KernelInfo*);
  const char* (*name)(const Operator*);
  const char* (*provider)(const Operator*);
  Type (*input_type)(const Operator*, size_t);
  size_t (*input_count)(const Operator*);
  Type (*output_type)(const Operator*, size_t);
  size_t (*output_count)(const Operator*);
  void (*compute)(void*, KernelContext*);
  void (*destroy)(void*);
  Characteristic (*input_characteristic)(const Operator*, size_t);
  Characteristic (*output_characteristic)(const Operator*, size_t);
  int (*input_memory)(const Operator*, size_t);
  int (*variadic_input_least)(const Operator*);
  int (*variadic_input_same)(const Operator*);
  int (*variadic_output_least)(const Operator*);
  int (*variadic_output_same)(const Operator*);
  Status* (*create_checked)(const Operator*, const Table*, const KernelInfo*, void**);
  Status* (*compute_checked)(void*, KernelContext*);
  Status* (*infer_shapes)(const Operator*, ShapeContext*);
  int (*first_version)(const Operator*);
  int (*last_version)(const Operator*);
  size_t (*may_overwrite)(int**, int**);
  void (*release_may_overwrite)(int*, int*);
  size_t (*aliases)(int**, int**);
  void (*release_aliases)(int*, int*);
};

// The functions of the table that are used: place, result and arguments.
template <int Place, class Result, class... Arguments>
struct Function {
  static constexpr int kPlace = Place;
  static Result call(const Table* table, Arguments... arguments) {
    return reinterpret_cast<Result (*)(Arguments...)>(table[Place])(arguments...);
  }
};

using CreateStatus = Function<0, Status*, int, const char*>;
using StatusMessage = Function<2, const char*, const Status*>;
using ReleaseStatus = Function<93, void, Status*>;
using CreateDomain = Function<26, Status*, const char*, Domain**>;
using AddOperator = Function<27, Status*, Domain*, const Operator*>;
using AddDomain = Function<28, Status*, SessionOptions*, Domain*>;
using TensorData = Function<51, Status*, Value*, void**>;
using ElementType = Function<60, Status*, const Shape*, Type*>;
using Rank = Function<61, Status*, const Shape*, size_t*>;
using Sizes = Function<62, Status*, const Shape*, int64_t*, size_t>;
using ShapeOf = Function<65, Status*, const Value*, Shape**>;
using ReleaseShape = Function<99, void, Shape*>;
using FloatAttribute = Function<85, Status*, const KernelInfo*, const char*, float*>;
using IntAttribute = Function<86, Status*, const KernelInfo*, const char*, int64_t*>;
using TextAttribute = Function<87, Status*, const KernelInfo*, const char*, char*, size_t*>;
using InputCount = Function<88, Status*, const KernelContext*, size_t*>;
using OutputCount = Function<89, Status*, const KernelContext*, size_t*>;
using Input = Function<90, Status*, const KernelContext*, size_t, const Value**>;
using Output = Function<91, Status*, KernelContext*, size_t, const int64_t*, size_t, Value**>;
using FloatsAttribute = Function<162, Status*, const KernelInfo*, const char*, float*, size_t*>;
using IntsAttribute = Function<163, Status*, const KernelInfo*, const char*, int64_t*, size_t*>;
using HasConfiguration = Function<237, Status*, const SessionOptions*, const char*, int*>;
using Configuration = Function<238, Status*, const SessionOptions*, const char*, char*, size_t*>;
using ParallelFor =
    Function<274, Status*, const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*>;

constexpr int kUsedPlaces[] = {
    CreateStatus::kPlace,     StatusMessage::kPlace,    ReleaseStatus::kPlace,
    CreateDomain::kPlace,     AddOperator::kPlace,      AddDomain::kPlace,
    TensorData::kPlace,       ElementType::kPlace,      Rank::kPlace,
    Sizes::kPlace,            ShapeOf::kPlace,          ReleaseShape::kPlace,
    FloatAttribute::kPlace,   IntAttribute::kPlace,     TextAttribute::kPlace,    InputCount::kPlace,
    OutputCount::kPlace,      Input::kPlace,            Output::kPlace,
    FloatsAttribute::kPlace,  IntsAttribute::kPlace,    HasConfiguration::kPlace,
    Configuration::kPlace,    ParallelFor::kPlace,
};

}  // namespace nnk::ort
