"""Worker processes: to whom Ctrl-C is left, and what one leaves behind that dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dying_worker
import pytest

from ltbench.benchmarks.executors import local
from ltbench.locks import Claim, lock_of
from ltbench.processes import ctrl_c_ignored


@pytest.mark.parametrize(
    ("work", "code"), [(dying_worker.before_reading, 7), (dying_worker.after_reading, 0), (dying_worker.killed, -9)]
)
def test_a_worker_that_dies_fails_its_trial_alone(work: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_work", work)
    specs: Any = [dying_worker.Spec(f"trial {number}", Path(str(number))) for number in range(3)]
    outcomes = list(local.run_trials(specs, ["cpu", "cpu"]))
    assert sorted(outcome.spec.label for outcome in outcomes) == ["trial 0", "trial 1", "trial 2"]
    assert all(f"ended with code {code}" in outcome.message and not outcome.fatal for outcome in outcomes)
    assert all(("out of memory" in outcome.message) == (code < 0) for outcome in outcomes)


@pytest.mark.parametrize("here", [True, False])
def test_a_trial_is_left_to_a_process_that_gives_a_sign_and_taken_over_from_one_that_does_not(
    here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_work", dying_worker.ending)
    monkeypatch.setattr(local, "_RETRY_SECONDS", 0.01)
    specs: Any = [dying_worker.Spec(f"trial {number}", tmp_path / str(number)) for number in range(2)]
    path = lock_of(specs[0].folder)
    claim = Claim(path)
    assert claim.acquire()
    if not here:  # the claim is of another machine, whose process cannot be looked at
        path.write_text(path.read_text().replace('"system": "', '"system": "another '))
    outcomes = local.run_trials(specs, ["cpu", "cuda:1"])
    assert (first := next(outcomes)).spec.label == "trial 1" and first.spec.device == "cuda:1"
    ended = threading.Event()
    sign = threading.Thread(target=lambda: [os.utime(path) for _ in iter(lambda: ended.wait(0.05), True)])
    sign.start()
    try:
        assert [(each.spec.label, each.status) for each in outcomes] == [("trial 0", "busy")]
    finally:
        ended.set()
        sign.join()
    assert not multiprocessing.active_children()
    os.utime(path, (0, 0))
    if not here:
        taken = sorted((each.spec.label, each.status) for each in local.run_trials(specs, ["cpu", "cuda:1"]))
        assert [label for label, _ in taken] == ["trial 0", "trial 1"] and "busy" not in dict(taken).values()


def test_workers_start_where_the_path_of_temporary_files_is_long(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    program = (
        "from ltbench.processes import preload, worker_context\npreload([])\n"
        "process = worker_context().Process(target=abs, args=(1,))\nprocess.start()\nprocess.join()\n"
        "raise SystemExit(process.exitcode)"
    )
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=True)


def test_ctrl_c_is_ignored_only_while_processes_start() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ctrl_c_ignored():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_stays_as_it_is_in_other_threads() -> None:
    before = signal.getsignal(signal.SIGINT)

    def inside() -> Any:
        with ctrl_c_ignored():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() is before


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no server of processes")
def test_the_server_that_imports_modules_leaves_ctrl_c_to_its_parent(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import os, signal\n"
        "from pathlib import Path\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "Path(__file__).with_name('imported').touch()\n"
    )
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom ltbench.processes import preload\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "if __name__ == '__main__':\n"
        "    preload(['slow_module'])\n"
        "    end = time.monotonic() + 20\n"
        f"    while not Path({str(tmp_path / 'imported')!r}).exists() and time.monotonic() < end:\n"
        "        time.sleep(0.05)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "imported").exists()
