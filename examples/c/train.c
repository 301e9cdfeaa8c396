// Trains a network that nncompile compiled, with onnxruntime's C library alone.
//
//   nncompile compile examples/digits.py --to web -o site
//   cmake -S examples/c -B build -DONNXRUNTIME=... && cmake --build build
//   build/train site 64 440 trained.safetensors
//
// The directory has the training step, the state that it begins with and data, whose rows along the
// first axis are the examples. A step takes the state and a batch; what it gives with a name that
// ends in ".next" is the state that follows. What does not change, such as the seed, has no such
// output, and stays.

#include <inttypes.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kRank = 8, kPath = 4096 };

typedef struct {
  char* name;
  ONNXTensorElementDataType type;
  size_t rank, first, size;  // its first byte behind the header, and how many there are
  int64_t shape[kRank];
} Tensor;

typedef struct {  // of a .safetensors file: a length, a header of that length, the tensors
  char *bytes, *header, *data;
  size_t size, count;
  Tensor* tensors;
} File;

static const OrtApi* ort;

static void fail(const char* problem, const char* name) {
  fprintf(stderr, "%s: %s\n", name, problem);
  exit(1);
}

static void check(OrtStatus* status) {
  if (status) fail(ort->GetErrorMessage(status), "onnxruntime");
}

static char* string_end(char* text) {  // behind the string that begins at `text`
  for (++text; *text && *text != '"'; ++text) text += *text == '\\' && text[1];
  return *text ? text + 1 : text;
}

static ONNXTensorElementDataType type_of(const char* name) {
  static const char* names[] = {"",    "F32", "U8",   "I8",  "U16", "I16", "I32",
                                "I64", "",    "BOOL", "F16", "F64", "U32", "U64"};
  for (size_t i = 1; i < sizeof names / sizeof *names; ++i)
    if (!strcmp(name, names[i])) return (ONNXTensorElementDataType)i;
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

static char* read_tensor(char* text, Tensor* tensor) {  // NULL for anything else
  char type[8];
  size_t end;
  int length = 0;
  sscanf(text, ":{\"dtype\":\"%7[A-Z0-9]\",\"shape\":[%n", type, &length);
  if (!length) return NULL;
  tensor->type = type_of(type);
  for (text += length; *text != ']'; text += *text == ',') {
    char* number = text;
    if (tensor->rank == kRank) return NULL;
    tensor->shape[tensor->rank++] = strtoll(text, &text, 10);
    if (text == number) return NULL;
  }
  length = 0;
  sscanf(text, "],\"data_offsets\":[%zu,%zu]}%n", &tensor->first, &end, &length);
  if (!length || !tensor->type || end < tensor->first) return NULL;
  tensor->size = end - tensor->first;
  return text + length;
}

static File read_file(const char* directory, const char* name) {
  File file = {0};
  char path[kPath];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE* stream = fopen(path, "rb");
  if (!stream) fail("cannot be read", path);
  uint64_t length = 0;
  fseek(stream, 0, SEEK_END);
  file.size = (size_t)ftell(stream);
  rewind(stream);
  file.bytes = malloc(file.size + 1);
  if (!file.bytes || fread(file.bytes, 1, file.size, stream) != file.size)
    fail("cannot be read", path);
  fclose(stream);
  if (file.size >= 8) memcpy(&length, file.bytes, 8);
  if (!length || length > file.size - 8) fail("is not a complete .safetensors file", path);
  file.header = calloc(length + 1, 1);
  memcpy(file.header, file.bytes + 8, length);
  file.data = file.bytes + 8 + length;
  for (char* text = file.header + 1; text && *text == '"'; text += *text == ',') {
    char* end = string_end(text);
    if (!strncmp(text, "\"__metadata__\"", 14)) {
      for (text = end; *text && *text != '}';) text = *text == '"' ? string_end(text) : text + 1;
      text += *text == '}';
      continue;
    }
    file.tensors = realloc(file.tensors, (file.count + 1) * sizeof(Tensor));
    Tensor* tensor = &file.tensors[file.count++];
    memset(tensor, 0, sizeof *tensor);
    tensor->name = calloc((size_t)(end - text), 1);
    memcpy(tensor->name, text + 1, (size_t)(end - text) - 2);
    text = read_tensor(end, tensor);
    if (!text) fail("is described in a way that this program does not read", tensor->name);
    if (tensor->first + tensor->size > (size_t)(file.bytes + file.size - file.data))
      fail("lies beyond the end of its file", tensor->name);
  }
  return file;
}

static Tensor* tensor_of(const File* file, const char* name) {
  for (size_t i = 0; i < file->count; ++i)
    if (!strcmp(file->tensors[i].name, name)) return &file->tensors[i];
  return NULL;
}

// `rows` of a tensor from row `first` on, where it lies; all of it where there are 0.
static OrtValue* value_of(const File* file, const Tensor* tensor, int64_t first, int64_t rows) {
  static OrtMemoryInfo* memory;
  if (!memory) check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  int64_t shape[kRank];
  memcpy(shape, tensor->shape, sizeof shape);
  char* bytes = file->data + tensor->first;
  size_t size = tensor->size;
  if (rows) {
    const size_t row = tensor->size / (size_t)shape[0];
    bytes += row * (size_t)first;
    size = row * (size_t)rows;
    shape[0] = rows;
  }
  OrtValue* value;
  check(ort->CreateTensorWithDataAsOrtValue(memory, bytes, size, shape, tensor->rank, tensor->type,
                                            &value));
  return value;
}

// Writes the state where it was read from, to another file: at once, by a rename.
static void save(const File* state, char** names, OrtValue** values, size_t count,
                 const char* path) {
  for (size_t i = 0; i < count; ++i) {
    const Tensor* tensor = tensor_of(state, names[i]);
    void* data;
    if (!tensor) continue;
    check(ort->GetTensorMutableData(values[i], &data));
    memmove(state->data + tensor->first, data, tensor->size);  // which may lie there already
  }
  // The checksum is that of the state as it was: blanks in its place leave the header valid.
  char* begin = strstr(state->header, "\"nncompile.checksum\":");
  if (begin) {
    char* end = string_end(string_end(begin) + 1);
    memset(state->bytes + 8 + (begin - state->header), ' ', (size_t)(end - begin) + (*end == ','));
  }
  char beside[kPath];
  snprintf(beside, sizeof beside, "%s.part", path);
  FILE* stream = fopen(beside, "wb");
  if (!stream || fwrite(state->bytes, 1, state->size, stream) != state->size || fclose(stream) ||
      rename(beside, path))
    fail("cannot be written", path);
}

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: %s DIRECTORY BATCH STEPS OUT.safetensors\n", argv[0]);
    return 2;
  }
  const int64_t batch = atoll(argv[2]), steps = atoll(argv[3]);
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!ort) fail("is older than the header of this program", "onnxruntime");
  const File state = read_file(argv[1], "state.safetensors");
  const File data = read_file(argv[1], "data.safetensors");
  const int64_t examples = data.count ? data.tensors[0].shape[0] : 0;
  for (size_t i = 0; i < data.count; ++i)
    if (data.tensors[i].shape[0] != examples)
      fail("has another number of examples", data.tensors[i].name);
  if (batch < 1 || batch > examples) fail("must be from 1 to the number of examples", "BATCH");
  if (steps < 1) fail("must be 1 or more", "STEPS");

  OrtEnv* env;
  OrtSessionOptions* options;
  OrtSession* session;
  OrtAllocator* allocator;
  char path[kPath];
  snprintf(path, sizeof path, "%s/step.onnx", argv[1]);
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "train", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->SetIntraOpNumThreads(options, 1));
  check(ort->CreateSession(env, path, options, &session));
  check(ort->GetAllocatorWithDefaultOptions(&allocator));

  size_t inputs, outputs, loss = 0;
  check(ort->SessionGetInputCount(session, &inputs));
  check(ort->SessionGetOutputCount(session, &outputs));
  char** names = calloc(inputs, sizeof *names);
  char** results = calloc(outputs, sizeof *results);
  OrtValue** values = calloc(inputs, sizeof *values);
  OrtValue** next = calloc(outputs, sizeof *next);
  size_t* follows = calloc(outputs, sizeof *follows);  // the input that goes on with an output
  for (size_t i = 0; i < inputs; ++i) {
    check(ort->SessionGetInputName(session, i, allocator, &names[i]));
    const Tensor* tensor = tensor_of(&state, names[i]);
    if (tensor) values[i] = value_of(&state, tensor, 0, 0);
    else if (!tensor_of(&data, names[i])) fail("is an input that no file has", names[i]);
  }
  for (size_t i = 0; i < outputs; ++i) {
    check(ort->SessionGetOutputName(session, i, allocator, &results[i]));
    if (!strcmp(results[i], "loss")) loss = i;
    const size_t stem = strlen(results[i]) < 5 ? 0 : strlen(results[i]) - 5;
    follows[i] = inputs;
    for (size_t k = 0; k < inputs && !strcmp(results[i] + stem, ".next"); ++k)
      if (strlen(names[k]) == stem && !strncmp(names[k], results[i], stem)) follows[i] = k;
  }

  for (int64_t step = 0; step < steps; ++step) {
    const int64_t first = step * batch % (examples - batch + 1);
    for (size_t i = 0; i < inputs; ++i) {
      const Tensor* tensor = tensor_of(&data, names[i]);
      if (!tensor) continue;
      if (values[i]) ort->ReleaseValue(values[i]);
      values[i] = value_of(&data, tensor, first, batch);
    }
    memset(next, 0, outputs * sizeof *next);
    check(ort->Run(session, NULL, (const char* const*)names, (const OrtValue* const*)values, inputs,
                   (const char* const*)results, outputs, next));
    float* number;
    check(ort->GetTensorMutableData(next[loss], (void**)&number));
    if (steps <= 20 || step % (steps / 10) == 0 || step + 1 == steps)
      printf("step %" PRId64 "  %s %.9g\n", step + 1, results[loss], *number);
    for (size_t i = 0; i < outputs; ++i) {
      OrtValue* old = next[i];
      if (follows[i] < inputs) {
        old = values[follows[i]];
        values[follows[i]] = next[i];
      }
      ort->ReleaseValue(old);
    }
  }
  save(&state, names, values, inputs, argv[4]);
  printf("saved %s after %" PRId64 " steps\n", argv[4], steps);
  ort->ReleaseSession(session);
  return 0;
}
