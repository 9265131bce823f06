"""Which device and precision a run uses, and how the process is set up for it."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ltbench.errors import UserError
from ltbench.registry import unknown

_MALLOC_TRIM_THRESHOLD, _MALLOC_TOP_PAD, _MALLOC_MMAP_MAX = -1, -2, -4


def resolve_device(name: str, *, elsewhere: bool = False) -> torch.device:
    """Return the device of a name: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.

    Parameters
    ----------
    elsewhere : whether trials run on other machines: then `cuda` may be meant where this one has no GPU

    Raises
    ------
    UserError : unknown name, or CUDA asked for where there is none
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", name):
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:0"))
    kind, _, number = name.partition(":")
    if kind == "cuda" and not (elsewhere and name == "cuda"):
        if not torch.cuda.is_available():
            raise UserError("--device cuda: no CUDA device is available here; use --device cpu")
        if int(number or 0) >= torch.cuda.device_count():
            raise UserError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return torch.device(name)


def resolve_devices(
    name: str, gpus: Sequence[int] | Literal["all"] | None, *, elsewhere: bool = False
) -> list[torch.device]:
    """Return the devices of a command: that of a name, or GPUs of this machine by their numbers.

    Parameters
    ----------
    elsewhere : as for `resolve_device`

    Raises
    ------
    UserError : as `resolve_device`; GPUs that are not there, or of different models, whose results would differ
    """
    if gpus is None:
        return [resolve_device(name, elsewhere=elsewhere)]
    if elsewhere:
        raise UserError("--gpus names GPUs of this machine, and the executor runs trials on others; leave it out")
    if name not in ("auto", "cuda"):
        raise UserError(f"--gpus and --device {name} exclude each other; leave one of them out")
    if not torch.cuda.is_available():
        raise UserError("--gpus: no CUDA device is available here; leave it out or use --device cpu")
    count = torch.cuda.device_count()
    numbers = range(count) if gpus == "all" else gpus
    if any(number >= count for number in numbers):
        raise UserError(f"--gpus {','.join(map(str, numbers))}: there are {count} CUDA devices, counted from 0")
    devices = [torch.device("cuda", number) for number in numbers]
    models = list(dict.fromkeys(map(describe_device, devices)))
    if len(models) > 1:
        raise UserError(f"--gpus names different models ({', '.join(models)}), whose results differ; give those of one")
    return devices


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return `bf16` or `fp32`; `auto` is bf16 on a GPU that multiplies it natively, and fp32 elsewhere.

    On the CPU bf16 must be asked for: gradients of its convolutions over maps of one position, which small images have
    in the last stage, were seen to read memory that nobody wrote (torch 2.14, AMX), so that the same seed gave other
    numbers, or none.

    Raises
    ------
    UserError : bf16 asked for on a GPU without it, or `auto` for GPUs that only other machines have
    """
    if device.type == "cuda" and not torch.cuda.is_available():  # the GPUs are other machines'
        if precision == "auto":
            raise UserError("--precision auto depends on the GPU, and this machine has none; give bf16 or fp32")
        return precision
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cuda" and precision == "bf16" and not native:
        raise UserError("--precision bf16: this GPU has no bfloat16; use --precision fp32")
    return ("bf16" if native else "fp32") if precision == "auto" else precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context in which networks run."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def place(network: nn.Module, device: torch.device) -> None:
    """Move a network to a device, its maps' weights in the order in which convolutions are fastest."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def compute_dtype(precision: str) -> torch.dtype:
    """Return the type of images under a precision."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def prepare_process(threads: int, device: torch.device) -> None:
    """Set the number of CPU threads, the GPU and deterministic kernels on it, and an allocator that keeps its memory.

    Training allocates and frees the same large blocks at every step; glibc would return them to the kernel each
    time and pay for fresh pages (10 to 15 % of a step at 224 pixels).
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean fp32
    if device.type == "cuda":
        torch.cuda.init()
        if device.index is not None:  # `cuda` is the current one; `set_device` refuses it
            torch.cuda.set_device(device)
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MALLOC_MMAP_MAX, 0)
            mallopt(_MALLOC_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(_MALLOC_TOP_PAD, 2**26)


def deciding_threads(device: torch.device) -> int:
    """Return the CPU threads of this process where numbers depend on them; 1 on a GPU, where they do not."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def describe_device(device: torch.device) -> str:
    """Return the device's name as records keep it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_model() or platform.processor() or platform.machine()


def _cpu_model() -> str:
    """Return the name of the CPU's model; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
