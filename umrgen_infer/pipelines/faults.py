"""Which errors of torch mean that memory is short, and which that the device is lost."""

from __future__ import annotations

import gc
import re

import torch

SHORTAGE = re.compile(r"alloc_failed|out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
"""In messages of the libraries below torch, which have no exception of their own."""
LOSS = re.compile(
    # What cuBLAS was asked wrongly it refuses and goes on; after any other error of CUDA every call fails.
    r"(cuda|hip) error: (?!cublas_status_(not_supported|invalid_value|arch_mismatch))"
    r"|status_(execution_failed|internal_error|mapping_error)|device-side assert",
    re.IGNORECASE,
)


def is_shortage(error: BaseException) -> bool:
    """Whether less work would have gone well."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and SHORTAGE.search(str(error)) is not None


def is_loss(error: BaseException) -> bool:
    """Whether all that this process does on the device from now on fails as well."""
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and LOSS.search(str(error)) is not None


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
