// Both headers mean the same places of onnxruntime's table.
#include "../source/onnxruntime.h"
#include "../source/onnxruntime_c_api.h"

#define SAME(name, function) \
  static_assert(offsetof(OrtApi, name) == nnk::ort::function::kPlace * sizeof(void*), #name)

SAME(GetErrorMessage, StatusMessage);
SAME(GetTensorMutableData, TensorData);
SAME(ReleaseStatus, ReleaseStatus);
static_assert(ORT_API_VERSION == nnk::ort::kVersion, "the version");
static_assert(int(ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32) == int(nnk::ort::kUint32), "element types");
