"""Claims: who waits is told for whom; one process at a time holds one, and a stale one is taken over exactly once."""

import json
import multiprocessing
import os
import platform
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import ltbench.locks
from ltbench.locks import ClaimLostError, claimed, in_use, locked

_FORK: Any = multiprocessing.get_context("fork")


def test_who_waits_for_a_claim_says_for_whom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lock"
    with locked(path, "building it") as claim:
        assert capsys.readouterr().err == ""
        assert claim.held
        waiting = threading.Thread(target=lambda: locked(path, "building it").__enter__(), daemon=True)
        waiting.start()
        time.sleep(0.2)
    waiting.join(5)
    said = f"process {os.getpid()} on {platform.node()} (since 20"
    assert said in (line := capsys.readouterr().err)
    assert "is building it; waiting for it" in line
    assert not claim.held


@pytest.mark.parametrize(
    ("changes", "age", "stale"),
    [
        ({"pid": 2**22 + 1}, 0, True),
        ({"start": 1}, 0, True),  # the number is another process's by now
        ({}, 900, False),  # suspended, or its machine was
        ({"system": "another"}, 900, True),
        ({"system": "another"}, 5, False),
        ({"system": None}, 900, True),
        ({"pid": "none"}, 900, True),
        (None, 900, True),  # the process ended before it had signed
        (None, 5, False),
    ],
)
def test_a_claim_is_stale_without_its_process_or_its_heartbeat(
    tmp_path: Path, changes: dict[str, Any] | None, age: float, stale: bool
) -> None:
    path = tmp_path / "lock"
    with claimed(path):
        text = path.read_text()
    path.write_text("" if changes is None else json.dumps(json.loads(text) | changes))
    os.utime(path, (time.time() - age,) * 2)
    assert in_use(path) != stale
    with claimed(path) as taken:
        assert (taken is not None) == stale
    assert sorted(tmp_path.iterdir()) == ([] if stale else [path])


def _compete(path: Path, barrier: Any, wins: Any) -> None:
    for _ in range(200):
        barrier.wait()
        with claimed(path) as claim:
            barrier.wait()
            if claim is not None:
                with wins:
                    wins.value += 1
                claim.require()
                path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 2**22 + 1}))


def test_of_several_processes_that_see_a_stale_claim_one_takes_it_over(tmp_path: Path) -> None:
    path, barrier, wins = tmp_path / "lock", _FORK.Barrier(4), _FORK.Value("i")
    path.write_text("")
    os.utime(path, (0, 0))
    processes = [_FORK.Process(target=_compete, args=(path, barrier, wins)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert wins.value == 200


def _hold(path: Path, held: Any, again: Any) -> None:
    with locked(path, "held") as claim:
        held.set()
        again.wait()
        try:
            claim.require()
        except ClaimLostError:
            os._exit(7)


def test_a_suspended_holder_notices_its_loss_and_a_killed_one_is_replaced_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ltbench.locks, "_HEARTBEAT", 0.05)
    path, held, again = tmp_path / "lock", _FORK.Event(), _FORK.Event()
    process = _FORK.Process(target=_hold, args=(path, held, again))
    process.start()
    assert held.wait(10)
    monkeypatch.setattr(ltbench.locks, "_system", lambda: "another machine")
    time.sleep(0.3)
    assert in_use(path)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.3)
    with claimed(path) as taken:
        assert taken is not None
        os.kill(process.pid, signal.SIGCONT)
        again.set()
        process.join()
        assert process.exitcode == 7
        assert taken.held
    monkeypatch.undo()
    process = _FORK.Process(target=_hold, args=(path, held := _FORK.Event(), _FORK.Event()))
    process.start()
    assert held.wait(10)
    os.kill(process.pid, signal.SIGKILL)
    while in_use(path):  # until the kernel has ended it; it is not waited for, a zombie
        time.sleep(0.01)
    with claimed(path) as taken:
        assert taken is not None
    process.join()


def test_who_finds_a_stale_claim_gone_leaves_that_of_its_successor(tmp_path: Path, monkeypatch: Any) -> None:
    """Between the second look, which finds nothing, and the deletion another process may have made its claim."""
    path, read = tmp_path / "lock", ltbench.locks._read
    with claimed(path) as successor:
        assert successor is not None
        monkeypatch.setattr(ltbench.locks, "_read", lambda place: None if place == path else read(place))
        ltbench.locks._removed(path, ltbench.locks._Seen("of a process that has ended", 0.0))
        monkeypatch.undo()
        assert successor.held
