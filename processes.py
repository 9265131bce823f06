"""Worker processes and threads: how many there may be, and that none outlives the process that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import FrameType, ModuleType
from typing import Any, NoReturn, TypeVar

from ltbench.errors import Terminated
from ltbench.files import ProgressLine

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 16  # items a thread that are begun before the first of them is asked for

_END_SECONDS = 10.0


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> float | None:
    """Return the most memory that this process has held, MiB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


_SOCKET = 107 - len("/pymp-12345678/listener-12345678")  # bytes of a folder in which the server's socket has a place


def _start_method() -> str:
    longest = max(len(os.fsencode(os.environ.get(name, ""))) for name in ("TMPDIR", "TEMP", "TMP"))
    served = "forkserver" in multiprocessing.get_all_start_methods() and longest <= _SOCKET
    return "forkserver" if served else "spawn"


_START_METHOD = _start_method()
_Context: Any = type(multiprocessing.get_context(_START_METHOD))


class _Worker(_Context.Process):
    """A process that does not import the user's main program again.

    A script without `if __name__ == "__main__"` would otherwise begin anew in each of its workers.
    """

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        with _starting, _main_program_hidden():
            return _Context.Process._Popen(process_obj)


class _WorkerContext(_Context):
    Process = _Worker


_starting = threading.Lock()


@contextmanager
def _main_program_hidden() -> Iterator[None]:
    """Let `multiprocessing` find an empty main program, of which it then imports nothing."""
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def worker_context() -> BaseContext:
    """Return the way in which worker processes are started: a server that forks them, where there is one.

    The server imports heavy modules once; see `preload`. Where the system cannot fork, each worker starts anew. No
    worker imports the main program: what is sent to it must be defined elsewhere.
    """
    return _WorkerContext()


def importable(cls: type) -> bool:
    """Return whether a worker can import the module of a class; not the main program's, nor a file's of a user."""
    package = cls.__module__.partition(".")[0]
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return package != "__main__" and any(finder.find_spec(package, None) is not None for finder in finders)


def preload(modules: Sequence[str]) -> None:
    """Let the server of worker processes import modules now, beside what this process does meanwhile."""
    if _START_METHOD == "forkserver":
        from multiprocessing.forkserver import ensure_running, set_forkserver_preload

        set_forkserver_preload(list(modules))
        with ctrl_c_ignored():
            ensure_running()


@contextmanager
def ctrl_c_ignored() -> Iterator[None]:
    """Start processes that leave Ctrl-C to their parent from their first moment on.

    Does nothing outside the main thread, which alone may say what a signal does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def prepare_worker(*, raises: bool = False) -> None:
    """Make this worker process leave Ctrl-C to its parent, and end at once on SIGTERM or when its parent is gone.

    A parent killed with SIGKILL cannot stop its workers; without this they would go on writing. Processes that the
    worker itself has started, for a method that uses `multiprocessing`, end with it.

    Parameters
    ----------
    raises : on SIGTERM raise `Terminated` in the main thread, so that its state can be stored first
    """
    multiprocessing.current_process().daemon = False  # for its parent it stays one; daemons may start no processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, raise_terminated if raises else lambda number, frame: exit_worker(128 + number))
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


@contextmanager
def exit_raises() -> Iterator[None]:
    """Let `os._exit` raise `SystemExit` in this process, not in those that it forks.

    What runs inside could otherwise end the program with code 0, without a result and without a word.
    """
    process, end = os.getpid(), os._exit

    def raise_here(status: int) -> NoReturn:
        if os.getpid() == process:
            raise SystemExit(status)
        end(status)

    os._exit = raise_here
    try:
        yield
    finally:
        os._exit = end


def end_workers(processes: Sequence[BaseProcess]) -> None:
    """End workers, with SIGTERM and where they take longer than some seconds with SIGKILL, and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    """Raise `Terminated`: the handler of a signal."""
    raise Terminated


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    exit_worker(1)


def exit_worker(code: int) -> NoReturn:
    """End this worker process at once, and the processes that it has started."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    label: str,
    unit: str,
    quiet: bool = False,
) -> Generator[Result, None, None]:
    """Yield what a function returns for each item, in the items' order.

    Parameters
    ----------
    workers : threads; 1: none but the caller's
    label : what is done, e.g. `hashing`; shown as `Progress` shows it
    unit : what an item is, in the plural
    quiet : show nothing
    """
    with ProgressLine(label, len(items), unit=unit, quiet=quiet) as progress:
        begun = map(function, items) if workers <= 1 else in_order(function, items, workers, _AHEAD * workers)
        for result in begun:
            progress.update()
            yield result


def in_order(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield what a function returns for each item, in the items' order, called in threads.

    Parameters
    ----------
    ahead : items that are begun before the first of them is asked for
    """
    pool = ThreadPoolExecutor(workers)
    begun: deque[Future[Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
