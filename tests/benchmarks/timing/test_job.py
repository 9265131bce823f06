"""The parts of a job."""

import time
from pathlib import Path

import torch

from ltbench.benchmarks.timing.job import by_part


def test_the_parts_of_a_job_make_up_its_time(tmp_path: Path) -> None:
    small = {"methods": "crt", "n_max": 30, "val_per_class": 4, "test_per_class": 5, "ratios": 5}
    began = time.perf_counter()
    seconds = by_part(tmp_path, torch.device("cpu"), **small, protocol={"epochs": 1, "image_size": 16})
    elapsed = time.perf_counter() - began
    assert 0.9 * elapsed < sum(seconds.values()) <= elapsed
    assert {"plan", "images", "training: classifier", "validation", "checkpoints", "evaluation", "tables"} <= {*seconds}
