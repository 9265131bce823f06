"""Random streams: a name, a stream."""

import subprocess
import sys

import numpy as np
import torch

from ltbench.benchmarks.training.streams import numpy_stream, stream_seed, torch_stream

NAMES = [("a",), ("b",), ("a/b",), ("a", "b"), ("b", "a"), ("a", 0), ("a", 1), ("a", 10), ("a", 1, 0), ()]


def test_streams_and_seeds_depend_on_names_alone() -> None:
    first, again, other = (numpy_stream(3, name).random(5) for name in "aab")
    assert (first == again).all() and (first != other).all()
    first, again, other = (torch.rand(5, generator=torch_stream(3, name)) for name in "aab")
    assert torch.equal(first, again) and not torch.equal(first, other)
    before = torch.get_rng_state()
    torch_stream(0, "a")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch_stream(0, "a").device.type == "cpu"
    seeds = [stream_seed(seed, *names) for seed in (0, 1, 2, 12) for names in NAMES]
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    seeds = np.array([stream_seed(0, "epoch", epoch) for epoch in range(4000)], dtype=np.float64) / 2**63
    assert len(np.unique(seeds)) == 4000 and abs(seeds.mean() - 0.5) < 0.02 and seeds.max() > 0.99


def test_streams_are_the_same_in_every_process() -> None:
    program = "from ltbench.benchmarks.training import streams; print(streams.stream_seed(7, 'stage', 3, 'sampler'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == stream_seed(7, "stage", 3, "sampler")
