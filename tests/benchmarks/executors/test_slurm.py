"""The job array that `--executor slurm` writes, its elements run without SLURM; and which trials go first."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ltbench
from ltbench.benchmarks import run
from ltbench.benchmarks.executors.producers import producers
from ltbench.benchmarks.training.planning.plan import plan, prepare
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.request import Request
from ltbench.benchmarks.training.trial_spec import TrialSpec

TINY: dict[str, Any] = {
    **{"dataset": "synthetic", "ratios": [20], "n_max": 60, "val_per_class": 4, "test_per_class": 5, "trials": 1},
    "protocol": {"image_size": 16, "epochs": 1},
}


def test_the_elements_of_an_array_do_what_a_run_does(
    tmp_path: Path,
    numbers_of: Callable[[TrialSpec], Mapping[str, Any]],
    capsys: pytest.CaptureFixture[str],
    refuses: Any,
) -> None:
    serial, array = (Request(["crt", "ce"], **TINY, jobs=1, out=tmp_path / name) for name in ("serial", "array"))
    ltbench.run(serial)
    later = Request(**{**array.as_dict(), "executor": "slurm"})
    ltbench.run(later)
    program, script = capsys.readouterr().out.split()
    assert program == "sbatch" and not list(tmp_path.glob("array/**/result.json"))
    (trials,) = tmp_path.glob("array/slurm/*.jsonl")
    assert [json.loads(line)["request"]["methods"] for line in trials.read_text().splitlines()] == [["crt"], ["ce"]]
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "0"}
    subprocess.run(["bash", script], env=environment, check=True, capture_output=True, timeout=120)
    ltbench.run(later)  # what is done is not written again
    trials = Path(capsys.readouterr().out.split()[1]).with_suffix(".jsonl")
    element = ["--trials-of", str(trials), "--element", "0"]
    refuses(run.main, [*element, "--dry-run"], "no other option")
    assert run.main(element) == 0
    expected, found = (prepare(plan(each)) for each in (serial, array))
    assert [numbers_of(spec) for spec in found] == [numbers_of(spec) for spec in expected]
    trials.write_text(f"{trials.read_text()}{{}}\n")
    capsys.readouterr()
    refuses(run.main, element, f"{trials}, line 2")
    first = json.loads(trials.read_text().splitlines()[0])
    for changed, why in [({"versions": {"torch": "0"}}, "torch"), ({"request": {"executor": "slurm"}}, "line 1")]:
        trials.write_text(json.dumps(first | {**changed, "request": first["request"] | changed.get("request", {})}))
        refuses(run.main, element, why)


def test_gpus_of_other_machines_are_planned_for_without_one_here(tmp_path: Path) -> None:
    protocol = {"precision": "fp32", "epochs": 1, "image_size": 16}
    few: dict[str, Any] = {"dataset": "synthetic", "ratios": [5], "n_max": 30, "val_per_class": 3, "test_per_class": 4}
    planned = plan(Request(["ce"], executor="slurm", device="cuda", protocol=protocol, out=tmp_path, **few))
    assert planned.device.type == "cuda"


def test_who_computes_a_shared_stage_goes_before_who_uses_it(make_spec: Callable[..., TrialSpec]) -> None:
    ce, crt, rs, flex = map(make_spec, ("ce", "crt", "rs", "flex"))
    later, variant = make_spec("crt", trial=1), make_spec("flex", query="random")
    assert producers([rs, ce, flex, crt, later, variant]) == {crt.folder: ce.folder, variant.folder: flex.folder}
    (ce.folder / "result.json").touch()
    assert not producers([ce, crt])


def test_with_a_total_budget_only_stages_of_the_same_length_are_shared(
    make_spec: Callable[..., TrialSpec], tiny_protocol: Protocol
) -> None:
    budget = replace(tiny_protocol, budget="total", epochs=12)
    ce, ncm, crt, lws, oltr = (make_spec(name, protocol=budget) for name in ("ce", "ncm", "crt", "lws", "oltr"))
    assert producers([ce, ncm, crt, lws, oltr]) == {ncm.folder: ce.folder, lws.folder: crt.folder}
