/* What onnxruntime's CUDA provider asks of the driver, the CUDA runtime, cuBLAS, cuDNN and TensorRT
 * while a session is made, answered as by a machine with one GPU: nothing can be computed, but the
 * provider loads, and says which nodes it takes. Built by tests/cuda/kernel_table.py. */

#include <stdlib.h>
#include <string.h>

#define DONE(name) int name(void) { return 0; }
DONE(cudaSetDevice) DONE(cudaGetLastError) DONE(cudaPeekAtLastError) DONE(cudaDeviceSynchronize)
DONE(cudaEventDestroy) DONE(cudaEventRecord) DONE(cudaEventRecordWithFlags)
DONE(cudaEventSynchronize) DONE(cudaStreamDestroy) DONE(cudaStreamSynchronize)
DONE(cudaStreamWaitEvent) DONE(cudaLaunchKernel) DONE(cudaLaunchKernelExC)
DONE(cudaLaunchHostFunc) DONE(cudaFuncSetAttribute) DONE(cuTensorMapEncodeTiled)
DONE(cublasDestroy_v2) DONE(cublasLtDestroy) DONE(cublasSetStream_v2) DONE(cublasSetMathMode)
DONE(cudnnDestroy) DONE(cudnnSetStream)

static int made(void **handle) { *handle = calloc(1, 4096); return 0; }
int cudaEventCreate(void **x) { return made(x); }
int cudaEventCreateWithFlags(void **x, unsigned flags) { return made(x); }
int cudaStreamCreate(void **x) { return made(x); }
int cudaStreamCreateWithFlags(void **x, unsigned flags) { return made(x); }
int cublasCreate_v2(void **x) { return made(x); }
int cublasLtCreate(void **x) { return made(x); }
int cudnnCreate(void **x) { return made(x); }

static int number(int *to, int n) { *to = n; return 0; }
int cudaGetDevice(int *x) { return number(x, 0); }
int cudaGetDeviceCount(int *x) { return number(x, 1); }
int cudaDriverGetVersion(int *x) { return number(x, 13000); }
int cudaRuntimeGetVersion(int *x) { return number(x, 13000); }
int cudaDeviceGetAttribute(int *x, int attribute, int device) {
    return number(x, attribute == 75 ? 9 : attribute == 76 ? 0 : 1024); /* capability 9.0 */
}
size_t cudnnGetVersion(void) { return 91000; }
int getInferLibVersion(void) { return 101400; }

/* The beginning of CUDA 13's cudaDeviceProp, which has 900 bytes and more. */
struct properties {
    char name[256], uuid[16], luid[8];
    unsigned mask;
    size_t memory, shared;
    int registers, warp;
    size_t pitch;
    int threads, block[3], grid[3];
    size_t constant;
    int major, minor;
    size_t alignment[2];
    int processors;
};

int cudaGetDeviceProperties(struct properties *x, int device) {
    memset(x, 0, 900);
    strcpy(x->name, "none");
    x->memory = (size_t)8 << 30;
    x->shared = 49152;
    x->registers = 65536;
    x->warp = 32;
    x->threads = 1024;
    x->major = 9;
    x->processors = 100;
    return 0;
}

int cudaMemGetInfo(size_t *unused, size_t *all) { *unused = *all = (size_t)8 << 30; return 0; }
int cudaMalloc(void **x, size_t n) { *x = malloc(n ? n : 1); return 0; }
int cudaMallocHost(void **x, size_t n) { return cudaMalloc(x, n); }
int cudaHostAlloc(void **x, size_t n, unsigned flags) { return cudaMalloc(x, n); }
int cudaFree(void *x) { free(x); return 0; }
int cudaFreeHost(void *x) { free(x); return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memcpy(to, from, n); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) {
    memcpy(to, from, n);
    return 0;
}
int cudaMemset(void *x, int byte, size_t n) { memset(x, byte, n); return 0; }
int cudaMemsetAsync(void *x, int byte, size_t n, void *stream) { memset(x, byte, n); return 0; }

/* An object of C++ all of whose methods give 0. */
static void *nothing(void) { return 0; }
static void *methods[512];
static void **object = methods;
static void *any(void) {
    for (int i = 0; i < 512; i++) methods[i] = (void *)nothing;
    return &object;
}
void *createInferBuilder_INTERNAL(void) { return any(); }
void *createInferRefitter_INTERNAL(void) { return any(); }
void *createInferRuntime_INTERNAL(void) { return any(); }
void *createNvOnnxParserRefitter_INTERNAL(void) { return any(); }
void *createNvOnnxParser_INTERNAL(void) { return any(); }
void *getPluginRegistry(void) { return any(); }
