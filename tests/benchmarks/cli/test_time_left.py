"""The time left of a command: from results of the same kind, of others, or from a measured step and all stages."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ltbench.benchmarks.cli.time_left import Estimates, TimeLeft
from ltbench.benchmarks.training.device import describe_device
from ltbench.benchmarks.training.planning.plan import plan
from ltbench.benchmarks.training.request import Request

TINY: dict[str, Any] = {"n_max": 60, "val_per_class": 3, "test_per_class": 4, "ratios": [10], "dataset": "synthetic"}


def test_time_left_follows_stages_and_then_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = ["ce", "crt", "flex"]
    planned = plan(
        Request(methods, trials=2, out=Path("relative"), device="cpu", jobs=2, protocol={"epochs": 4}, **TINY)
    )
    images = 4 * int(planned.datasets[0].class_counts.sum())
    measured = Estimates(planned, [], lambda: 10.0)
    ce, crt, flex = (measured.seconds(row)[0] for row in planned.rows)
    assert ce == images / 10 and crt and crt > ce and flex and flex > ce
    left = TimeLeft([Estimates(planned, [])])
    assert left.seconds is None and left.text() == "0 of 6 trials done"

    def result(device: str, seconds: float) -> Any:
        data = SimpleNamespace(ratio=10, class_counts=planned.datasets[0].class_counts)
        cost = SimpleNamespace(train_seconds=seconds, images_seen=images)
        row = planned.rows[0].method
        kind = {"device": device, "method": row.name, "hyperparameters": row.hyperparameters}
        return SimpleNamespace(data=data, cost=cost, **kind)

    left.ended(planned.rows[0].trial_folder(0).absolute(), result(describe_device(planned.device), 7.0))
    assert left.missing == 5 and left.seconds == 7 / 2 + (crt + flex) * 10 * 7 / images
    assert Estimates(planned, [result("a GPU", 1.0)]).seconds(planned.rows[0]) == (None, "")
