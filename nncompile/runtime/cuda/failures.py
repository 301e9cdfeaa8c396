"""What onnxruntime says where CUDA fails or memory ends, in a line."""

from __future__ import annotations

import re

# The library, the number of the failure and what the library calls it.
_FAILURE = re.compile(r"(CUDA|CUDNN|CUDNN_FE|CUBLAS|CUFFT) failure (\d+): (.+?)\s*;")
# What a kernel that was launched says: the name of the failure, and what CUDA calls it.
_LAUNCH = re.compile(r"CUDA error (cudaError\w+): ?([\w '-]+)")
_NO_MEMORY = re.compile(
    r"Failed to allocate memory for requested buffer of size (\d+)"
    r"|smaller than requested bytes of (\d+)|out of memory|_ALLOC_FAILED|cudaErrorMemoryAllocation"
)
_DRIVER = "update the driver: nvidia-smi prints its version, and for which CUDA it is"
_NO_KERNELS = (
    "this onnxruntime was built for other GPUs: a newer onnxruntime-gpu knows newer ones, and an "
    "older one those that CUDA has dropped; nvidia-smi prints which GPU it is"
)
_WAYS_OUT = {
    **dict.fromkeys((("CUDA", "35"), ("CUDA", "222")), _DRIVER),
    **dict.fromkeys((("CUDA", "803"), ("CUDA", "804")), f"{_DRIVER}, then restart the machine"),
    **dict.fromkeys((("CUDA", "209"), ("CUDA", "cudaErrorNoKernelImageForDevice")), _NO_KERNELS),
    ("CUDA", "100"): "nvidia-smi lists the GPUs of this machine, CUDA_VISIBLE_DEVICES hides them; "
    'or choose the provider "cpu"',
    ("CUDA", "101"): 'device_id counts from 0: ("cuda", {"device_id": 0})',
}
_MEMORY = (
    "a smaller batch_size takes less; nvidia-smi lists the processes that use the GPU, and "
    '("cuda", {"gpu_mem_limit": BYTES}) keeps this one below a limit'
)
_LIBRARIES = (
    "nncompile doctor tells what is installed; pip install 'nncompile[cuda]' brings the libraries "
    "of CUDA and cuDNN"
)


def cuda_failure(text: str) -> tuple[str, str] | None:
    """What failed, and a way out, where `text` is of a failure of CUDA.

    >>> cuda_failure("cuda_call.cc:9 CUDA failure 101: invalid device ordinal ; GPU=7 ; ...")[0]
    'CUDA failure 101: invalid device ordinal'
    """
    if memory := no_memory(text, " on the GPU"):
        return memory, _MEMORY
    if found := _FAILURE.search(text):
        library, number, what = found.groups()
        way_out = _WAYS_OUT.get((library, number), _LIBRARIES)
        return f"{library} failure {number}: {what}", way_out
    if found := _LAUNCH.search(text):
        return f"CUDA failure: {found[2].strip()}", _WAYS_OUT.get(("CUDA", found[1]), _LIBRARIES)
    return None


def no_memory(text: str, where: str = "") -> str | None:
    """What there is not enough memory for, where `text` is of such a failure."""
    found = _NO_MEMORY.search(text)
    if found is None:
        return None
    asked = found[1] or found[2]
    size = f" for a tensor of {int(asked):,} bytes" if asked else ""
    return f"there is not enough memory{where}{size}"
