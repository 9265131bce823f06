"""The process is set up for its device."""

import pytest
import torch
from torch.cuda._utils import _get_device_index

from ltbench.benchmarks.training.device import prepare_process


def test_a_gpu_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(_get_device_index(device)))
    for name in ("cuda", "cuda:3"):
        prepare_process(torch.get_num_threads(), torch.device(name))
    assert chosen == [3]
