"""Trials as tasks of a Ray cluster: `ray` starts one on this machine or joins $RAY_ADDRESS, `ray:ADDRESS` joins one."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ltbench.benchmarks.analysis.records import read_result
from ltbench.benchmarks.executors.attempts import STOPS, Elsewhere, Outcome, attempt, checked_done
from ltbench.benchmarks.executors.base import Executor, register
from ltbench.benchmarks.executors.joining import native_lines, quiet, require_answer
from ltbench.benchmarks.executors.packing import GpuShares, Need, store_bytes
from ltbench.benchmarks.executors.producers import producers
from ltbench.benchmarks.executors.versions import installed_versions, require_same_versions
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.errors import Terminated, UserError
from ltbench.processes import available_cores, exit_raises, raise_terminated

try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise UserError("--executor ray needs the package ray; install it by: pip install ray") from error

_RETRIES = 3  # of a trial whose process or machine died
_POLL_SECONDS = 1.0
_END_SECONDS = 10.0  # that trials have to release what they hold
_NODE_SECONDS = 300.0  # that a node has to start Python and import ltbench
_OBJECT_STORE_BYTES = 100 * 2**20  # outcomes are all that is sent

Task = Callable[[TrialSpec, Mapping[str, str]], tuple[Outcome, float]]


def _run(spec: TrialSpec, versions: Mapping[str, str]) -> tuple[Outcome, float]:
    """Run a trial; return how it ended, and the share of its GPU's memory that it used at most, 0 where it has none.

    On SIGTERM the process ends with its claim released, and Ray starts the trial again, elsewhere if need be.

    Parameters
    ----------
    versions : of the driver; on a node with others nothing is run
    """
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        require_same_versions({ray.util.get_node_ip_address(): installed_versions()}, versions)
        with exit_raises():
            outcome = attempt(spec, 0, STOPS)
    except UserError as error:
        outcome = Outcome(spec, "failed", f"{spec.label}: {error}")
    except Terminated:
        os._exit(128 + signal.SIGTERM)
    if outcome.status != "done" or not spec.device.startswith("cuda"):
        return outcome, 0.0
    peak = read_result(spec.folder / "result.json").cost.peak_memory_mib or 0.0
    return outcome, peak * 2**20 / torch.cuda.get_device_properties(spec.device).total_memory


_run_remotely = ray.remote(max_calls=1, max_retries=_RETRIES)(_run)


@ray.remote(num_cpus=0)
def _inspect(file: Path) -> tuple[dict[str, str], bool]:
    """Return the versions that a node runs, and whether it sees a file."""
    return installed_versions(), file.exists()


@register("ray")
class RayExecutor(Executor):
    """Runs trials on all nodes of a cluster."""

    @classmethod
    def check_address(cls, address: str) -> None:
        """Refuse an address at which no cluster answers.

        Raises
        ------
        UserError : there is none, or it is empty
        """
        if not address:
            raise UserError("--executor ray: lacks its address; give ray:HOST:PORT, ray:auto, or ray alone")
        require_answer(address)

    def outcomes(self, specs: Sequence[TrialSpec]) -> Iterator[Outcome]:
        """Run trials on the nodes of the cluster; yield their outcomes as they come.

        Raises
        ------
        UserError : there is no such cluster, a node has other versions than this process or does not see the results
            folder, or no node can hold a trial
        """
        specs = [_anywhere(spec) for spec in specs]
        done, left = checked_done(specs)
        yield from done
        if not left:
            return
        with _connected(self.address, self._cores()):
            _require_gpus_used(self.planned.request.device, left[0])
            require_usable_nodes(left[0])
            yield from Schedule(left, producers(specs), self.planned.request.jobs).outcomes()

    def _cores(self) -> int:
        """Return how many cores a cluster has that is started here."""
        threads, jobs, on_cpu = self.planned.threads, self.planned.request.jobs, self.planned.device.type == "cpu"
        return threads * jobs if jobs and on_cpu else max(threads, available_cores())


class Schedule:
    """Submits trials, at most twice as many as run at once, and collects how they ended.

    Parameters
    ----------
    specs : that are not done
    after : by the folder of a trial, the folder of one that has to end before
    jobs : trials a GPU, without GPUs in all; None: as many as fit
    task : the remote function
    """

    def __init__(
        self, specs: Sequence[TrialSpec], after: Mapping[Path, Path], jobs: int | None, task: Any = _run_remotely
    ) -> None:
        self._waiting = {spec.folder: spec for spec in specs}
        self._running: dict[Any, tuple[TrialSpec, float]] = {}
        self._elsewhere = Elsewhere()
        self._after, self._task = after, task
        on_gpu = specs[0].device.startswith("cuda")
        self._most = None if on_gpu else jobs
        self._shares = GpuShares(jobs)
        self._versions = installed_versions()
        self._memory = min(store_bytes(specs[0].store), int(max(node.get("memory", 0) for node in _totals())))

    def outcomes(self) -> Iterator[Outcome]:
        """Run the trials; yield how they ended. Those that run when the caller stops are cancelled."""
        try:
            while self._waiting or self._running or self._elsewhere.awaited():
                self._waiting |= {spec.folder: spec for spec in self._elsewhere.freed()}
                self._submit()
                if not self._running:
                    time.sleep(_POLL_SECONDS)
                    continue
                ended, _ = ray.wait(list(self._running), num_returns=1, timeout=_POLL_SECONDS)
                for reference in ended:
                    outcome = self._received(reference)
                    if outcome is None:
                        continue
                    yield outcome
                    if outcome.fatal:
                        return
            yield from self._elsewhere.left()
        finally:
            self._cancel()

    def _submit(self) -> None:
        """Submit trials that may start, until the window is full."""
        nodes = _totals()
        for spec in list(self._waiting.values()):
            if not self._may_start(spec):
                continue
            share = self._shares.take(spec)
            if share is None:
                continue
            need = Need(spec.threads, share, self._memory)
            slots = need.slots(nodes)
            if not slots and not self._running:
                raise UserError(_no_place(need, nodes))
            if len(self._running) >= min(2 * slots, self._most or 2 * slots):
                return
            options = {"num_cpus": need.cpus, "num_gpus": need.gpus, "memory": need.memory or None}
            reference = self._task.options(**options).remote(spec, self._versions)
            self._running[reference] = self._waiting.pop(spec.folder), share

    def _may_start(self, spec: TrialSpec) -> bool:
        first = self._after.get(spec.folder)
        return first not in self._waiting and all(first != other.folder for other, _ in self._running.values())

    def _received(self, reference: Any) -> Outcome | None:
        """Return how a trial ended; None where it has to be tried again, or another process has it."""
        spec, share = self._running.pop(reference)
        outcome, used = _result_of(reference, spec)
        self._shares.ended(spec, used)
        again = outcome.out_of_memory and self._shares.raised(spec, share)
        if outcome.status == "busy":
            self._elsewhere.add(spec)
            return None
        if again:
            self._waiting[spec.folder] = spec
        return None if again else outcome

    def _cancel(self) -> None:
        """Interrupt what runs, and wait until it has released its claims; each leaves a checkpoint."""
        running = list(self._running)
        for reference in running:
            ray.cancel(reference, force=False)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_END_SECONDS)


def _result_of(reference: Any, spec: TrialSpec) -> tuple[Outcome, float]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return Outcome(spec, "failed", f"{spec.label}: {_first_line(error.cause)}", str(error)), 0.0
    except ray.exceptions.RayError as error:
        reason = f"its process ended {1 + _RETRIES} times ({_first_line(error)}); run the same command again"
        return Outcome(spec, "failed", f"{spec.label}: {reason}"), 0.0


def _anywhere(spec: TrialSpec) -> TrialSpec:
    """Return a trial whose paths hold in any working folder, and whose GPU is the one that Ray lets its process see."""
    paths = {name: getattr(spec, name).absolute() for name in ("folder", "split_file", "store", "cache")}
    return replace(spec, device=spec.device.partition(":")[0], **paths)


def _totals() -> list[Mapping[str, float]]:
    """Return what each node that is alive has in all: `CPU`, `GPU`, `memory` in bytes."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _no_place(need: Need, nodes: Sequence[Mapping[str, float]]) -> str:
    has = "; ".join(f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes)
    wanted = f"{need.cpus} cores" + (f" and {need.gpus:g} of a GPU" if need.gpus else "")
    return f"no node of the Ray cluster has {wanted}, as a trial needs (nodes: {has}); use fewer --threads or add nodes"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: BaseException) -> str:
    """Return what an error of another process ends with, below its traceback."""
    return str(error).strip().rpartition("\n")[2].strip()


def _require_gpus_used(asked: str, spec: TrialSpec) -> None:
    """Refuse to leave the GPUs of a cluster idle only because this machine has none."""
    if asked == "auto" and spec.device == "cpu" and any(node.get("GPU") for node in _totals()):
        raise UserError(
            "the Ray cluster has GPUs, this machine has none; give --device cuda and --precision bf16 or fp32, "
            "or --device cpu"
        )


def require_usable_nodes(spec: TrialSpec) -> None:
    """Refuse a cluster of which a node has other versions, or does not see the folder of a trial's results.

    Raises
    ------
    UserError : naming the node
    """
    nodes = {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in ray.nodes()
        if node["Alive"]
    }
    asked = {
        _inspect.options(scheduling_strategy=NodeAffinitySchedulingStrategy(number, soft=False)).remote(
            spec.split_file
        ): name
        for number, name in nodes.items()
    }
    for reference, name in asked.items():
        try:
            versions, seen = ray.get(reference, timeout=_NODE_SECONDS)
        except (ray.exceptions.RayError, RuntimeError, ImportError) as error:
            reason = _last_line(error)
            raise UserError(f"ltbench cannot be run on node {name} of the Ray cluster: {reason}") from error
        require_same_versions({name: versions}, installed_versions())
        if not seen:
            raise UserError(
                f"node {name} of the Ray cluster does not see {spec.split_file}; give an --out that all share"
            )


@contextmanager
def _connected(address: str, cores: int) -> Iterator[None]:
    """Be the driver of a cluster; of the one that this process has joined before, if there is one.

    Raises
    ------
    UserError : there is none at the address
    """
    if ray.is_initialized():
        yield
        return
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    size: dict[str, Any] = {"num_cpus": cores, "object_store_memory": _OBJECT_STORE_BYTES} if wanted == "local" else {}
    handler = signal.getsignal(signal.SIGTERM)
    require_answer(wanted)
    options: dict[str, Any] = {
        "include_dashboard": False if size else None,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    print("starting Ray" if size else f"joining the Ray cluster at {wanted}", file=sys.stderr, flush=True)
    with quiet():
        with native_lines() as lines:
            try:
                ray.init(wanted, **options, **size)
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                raise UserError(
                    f"no Ray cluster can be used at {wanted!r}: {_advice(wanted, lines(), error)}"
                ) from error
        try:
            signal.signal(signal.SIGTERM, handler)  # which Ray has replaced
            yield
        finally:
            ray.shutdown()


def _advice(address: str, lines: str, error: BaseException) -> str:
    """Return why a cluster could not be joined, and what to do; `lines` are those of Ray's native part."""
    if "InvalidAuthToken" in lines or "token" in str(error):
        return (
            "it asks for a token, and none or another one was given; set RAY_AUTH_MODE=token here, and copy "
            "~/.ray/auth_token from its machines"
        )
    if address == "auto":
        return "none runs on this machine; start one by `ray start --head`, or use --executor ray"
    return f"{_first_line(error).rstrip(':')}; see `ray status`"
