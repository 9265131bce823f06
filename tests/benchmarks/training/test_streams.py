"""Random streams: a name, a stream."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from ltbench.benchmarks.training.streams import numpy_stream, stream_seed, torch_stream

NAMES = [("a",), ("b",), ("a", "b"), ("b", "a"), ("a", 0), ("a", 1), ("a", 10), ("a", 1, 0), ()]


def test_seeds_are_in_range_and_differ() -> None:
    seeds = [stream_seed(seed, *names) for seed in (0, 1, 2, 12) for names in NAMES]
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_seeds_spread_over_the_whole_range() -> None:
    seeds = np.array([stream_seed(0, "epoch", epoch) for epoch in range(4000)], dtype=np.float64) / 2**63
    assert len(np.unique(seeds)) == 4000 and abs(seeds.mean() - 0.5) < 0.02 and seeds.max() > 0.99


def test_the_same_names_give_the_same_stream() -> None:
    np.testing.assert_array_equal(numpy_stream(3, "a", 1).random(5), numpy_stream(3, "a", 1).random(5))
    assert torch.equal(*(torch.rand(5, generator=torch_stream(3, "a", 1)) for _ in range(2)))


def test_other_names_give_other_streams() -> None:
    assert not np.array_equal(numpy_stream(3, "a").random(5), numpy_stream(3, "b").random(5))
    first, second = (torch.rand(5, generator=torch_stream(seed, "a")) for seed in (3, 4))
    assert not torch.equal(first, second)


def test_streams_are_the_same_in_every_process() -> None:
    program = (
        "from ltbench.benchmarks.training.streams import stream_seed; print(stream_seed(7, 'stage', 3, 'sampler'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == stream_seed(7, "stage", 3, "sampler")


def test_making_a_stream_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    torch_stream(0, "a")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch_stream(0, "a").device.type == "cpu"


def test_names_do_not_run_into_each_other() -> None:
    assert stream_seed(0, "a/b") != stream_seed(0, "a", "b")
