"""Named random streams: every draw comes from (seed, names), so that no generator state is ever saved."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch


def stream_seed(seed: int, *names: object) -> int:
    """Return a seed in [0, 2**63) for the stream of these names; other names give an independent one."""
    text = json.dumps([seed, *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: object) -> np.random.Generator:
    """Return a NumPy generator at the start of the named stream."""
    return np.random.default_rng(stream_seed(seed, *names))


def torch_stream(seed: int, *names: object) -> torch.Generator:
    """Return a CPU torch generator at the start of the named stream."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))
