"""Trials on a Ray cluster of several nodes on this machine, of which drivers, workers and nodes die."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ltbench
from ltbench.benchmarks import run
from ltbench.benchmarks.executors.attempts import Outcome
from ltbench.benchmarks.training.planning.plan import plan, prepare
from ltbench.benchmarks.training.request import Request, write_request
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.errors import UserError

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from ltbench.benchmarks.executors.ray import Schedule  # noqa: E402
from ltbench.benchmarks.executors.versions import installed_versions, require_same_versions  # noqa: E402

TINY: dict[str, Any] = {
    **{"dataset": "synthetic", "ratios": [20], "n_max": 60, "val_per_class": 4, "test_per_class": 5},
    "protocol": {"image_size": 16, "epochs": 8, "patience": 8, "batch_size": 16},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of three nodes of one core, of which the test may remove two."""
    folder = tempfile.mkdtemp(prefix="r")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_worker_niceness", "0")  # else 15: on a busy machine trials would hardly run
        started = Cluster(initialize_head=True, head_node_args=node)
        for _ in range(2):
            started.add_node(**node)
        yield started
        started.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def until(found: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Return what a function finds, as soon as it finds anything."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return value


def trials_on(node: Any) -> list[int]:
    """Return the processes that run trials on a node."""
    (raylet,) = (each.process.pid for each in node.all_processes["raylet"])
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    return [int(pid) for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_run")]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of a node in /proc")
def test_what_dies_loses_nothing(
    cluster: Cluster, tmp_path: Path, numbers_of: Callable[[TrialSpec], Mapping[str, Any]]
) -> None:
    request = Request(["ce", "rs", "crt"], trials=4, **TINY, out=tmp_path / "ray")
    request_file = tmp_path / "request.json"
    write_request(request_file, request)
    command = [
        sys.executable,
        "-m",
        "ltbench",
        "run",
        "--config",
        str(request_file),
        "--executor",
        f"ray:{cluster.address}",
    ]

    def start() -> subprocess.Popen:
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def results() -> list[Path]:
        return list(tmp_path.glob("ray/*/*/*/result.json"))

    killed = start()
    until(lambda: len(results()) >= 2)
    killed.kill()
    killed.communicate()
    resumed = start()
    until(lambda: len(results()) >= 4)
    _, second, third = cluster.list_all_nodes()
    os.kill(until(lambda: trials_on(second))[0], signal.SIGKILL)
    until(lambda: trials_on(third))
    cluster.remove_node(third, allow_graceful=False)
    _, lines = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, lines
    serial = Request(["ce", "rs", "crt"], trials=4, **TINY, jobs=1, out=tmp_path / "serial")
    ltbench.run(serial)
    expected, found = (prepare(plan(each)) for each in (serial, request))
    assert [numbers_of(spec) for spec in found] == [numbers_of(spec) for spec in expected]
    assert len(results()) == 12


def test_trials_are_packed_on_gpus(cluster: Cluster, make_spec: Callable[..., TrialSpec]) -> None:
    """The first trial is measured by itself; then two share each GPU, and one that runs out of memory gets more."""
    specs = [replace(make_spec(trial=trial), device="cuda") for trial in range(7)]
    log = specs[0].folder.parent

    def fake(spec: TrialSpec, versions: Mapping[str, str]) -> tuple[Outcome, float]:
        end, attempts = time.time() + 60, log / f"attempts-{spec.trial}"
        failed = spec.trial == 5 or (spec.trial == 6 and not attempts.exists())
        with attempts.open("a") as file:
            file.write(os.environ["CUDA_VISIBLE_DEVICES"])
        while spec.trial in range(1, 5) and len(list(log.glob("attempts-[1-4]"))) < 4 and time.time() < end:
            time.sleep(0.1)
        others = len(list(log.glob("attempts-*")))
        return Outcome(spec, "failed" if failed else "done", str(others), out_of_memory=failed), 0.0 if failed else 0.4

    node = cluster.add_node(num_cpus=4, num_gpus=2, object_store_memory=80 * 2**20)
    ray.init(cluster.address, log_to_driver=False)
    try:
        ended = {each.spec.trial: each for each in Schedule(specs, {}, None, ray.remote(fake)).outcomes()}
    finally:
        ray.shutdown()
        cluster.remove_node(node)
    assert [ended[trial].status for trial in range(7)] == ["done"] * 5 + ["failed", "done"]
    devices = [(log / f"attempts-{trial}").read_text() for trial in range(7)]
    assert ended[0].message == "1" and sorted(devices[1:5]) == ["0", "0", "1", "1"]
    assert [len(each) for each in devices] == [1, 1, 1, 1, 1, 2, 2]


def test_nodes_of_other_versions_are_refused_and_a_wrong_address_before_planning(refuses: Any) -> None:
    refuses(
        run.main, ["--method", "unplanned", "--executor", "ray:localhost:1"], "no Ray cluster answers at localhost:1"
    )
    here = installed_versions()
    require_same_versions({"a": here}, here)
    for package in ("ltbench", "torch", "python"):
        with pytest.raises(UserError, match=rf"machine b has {package} 0\.1"):
            require_same_versions({"a": here, "b": {**here, package: "0.1"}}, here)
