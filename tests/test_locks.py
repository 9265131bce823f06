"""Locks: who waits is told for whom, and one that nobody holds is taken over."""

import errno
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ltbench.locks import locked


def test_who_waits_for_a_lock_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / "lock", "building it"):
        pass
    assert capsys.readouterr().err == ""
    held = threading.Event()

    def other() -> None:
        with FileLock(tmp_path / "lock"):
            held.set()
            time.sleep(0.1)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(5)
    with locked(tmp_path / "lock", "building it"):
        thread.join(5)
    assert capsys.readouterr().err.startswith("another process is building it; waiting for it")


def test_a_lock_says_who_holds_it_and_is_taken_over_where_nobody_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    with locked(path, "building it"):
        waiting = threading.Thread(target=lambda: locked(path, "building it").__enter__(), daemon=True)
        waiting.start()
        time.sleep(0.2)
    waiting.join(5)
    assert f"process {os.getpid()} on {platform.node()} (since 20" in capsys.readouterr().err

    def missing(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr("fcntl.flock", missing)
    for name, content in (("empty", ""), ("dead", f"{2**22 + 1}\n{platform.node()}\n")):
        (tmp_path / name).write_text(content)
        os.utime(tmp_path / name, (0, 0))
        with locked(tmp_path / name, "building it"):
            assert str(os.getpid()) in (tmp_path / name).read_text()
