"""The image store: every image decoded once, whatever happens in between.

`Drawn` and the functions of other processes are pickled by reference, so those processes must be able to import
this file: `importable` puts the repository on the path that they inherit.
"""

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ltbench
from ltbench.datasets.base import Source
from ltbench.datasets.images.decoding_workers import decoded
from ltbench.datasets.images.store import ImageStore, StoreBuilder
from ltbench.errors import UserError

COUNT, SIZE = 100, 6
EVERY = np.arange(COUNT)
ROOT = Path(ltbench.__file__).parent


class Drawn(Source):
    """Gradients; every read is a line of a log, and some reads fail or take their time."""

    name = "drawn"
    title = "drawn"

    def __init__(
        self, log: Path, *, version: int = 1, stamp: int = 0, broken: tuple[Any, ...] = (), delay: float = 0.0
    ) -> None:
        super().__init__()
        self.log, self.version, self.broken, self.delay = log, version, broken, delay
        self.stamp = stamp or version
        self.ids = np.array([f"image{index:03d}" for index in range(COUNT)])

    def read(self, position: int, size: int) -> np.ndarray:
        time.sleep(self.delay)
        if self.broken == ("killed",):
            os.kill(os.getpid(), signal.SIGKILL)
        if position in self.broken:
            raise UserError(f"image{position:03d}.png is corrupt")
        with self.log.open("a") as file:
            file.write(f"{position}\n")
        return drawing(position, self.version, size)

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        return np.where(np.asarray(positions) % 10 == 0, self.stamp, 1).astype(np.int64)

    def contents(self, positions: np.ndarray) -> np.ndarray:
        return np.where(np.asarray(positions) % 10 == 0, self.version, 1).astype(np.int64)


def drawing(position: int, version: int, size: int) -> np.ndarray:
    """Return the pixels of an image; a tenth of the images differ between versions."""
    shift = 100 * (version - 1) if position % 10 == 0 else 0
    return ((np.arange(3 * size * size) * 7 + position * 13 + shift) % 256).astype(np.uint8).reshape(3, size, size)


def assert_holds(store: ImageStore, positions: np.ndarray, version: int = 1) -> None:
    expected = np.stack([drawing(int(position), version, SIZE) for position in positions])
    np.testing.assert_array_equal(store.pixels[positions], expected)


def build(source: Drawn, positions: np.ndarray, size: int, cache: Path, **options: Any) -> ImageStore:
    return StoreBuilder(source, size, cache).build(positions, **options)


def build_here(source: Drawn, cache: Path) -> None:
    StoreBuilder(source, SIZE, cache, sync_seconds=0.0).build(EVERY, quiet=True)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "reads.log"
    path.touch()
    return path


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def reads(log: Path) -> list[int]:
    return sorted(map(int, log.read_text().split()))


def test_build_decodes_every_image(tmp_path: Path, log: Path) -> None:
    source = Drawn(log)
    store = build(source, EVERY, SIZE, tmp_path, quiet=True)
    assert store.size == SIZE and store.folder == StoreBuilder(source, SIZE, tmp_path).folder
    assert store.pixels.shape == (COUNT, 3, SIZE, SIZE) and store.pixels.dtype == np.uint8
    assert not store.pixels.flags.writeable
    assert_holds(store, EVERY)
    assert reads(log) == EVERY.tolist()


def test_only_new_images_are_read(tmp_path: Path, log: Path) -> None:
    first = np.array([3, 50, 7])
    store = build(Drawn(log), first, SIZE, tmp_path, quiet=True)
    assert_holds(store, first)
    assert store.pixels[4].max() == 0
    rows = store.rows(np.array(["image007", "image003"]))
    assert rows.dtype == np.int64 and rows.tolist() == [7, 3]
    with pytest.raises(UserError, match="image100"):
        store.rows(np.array(["image100"]))
    more = np.array([7, 8, 3, 99])
    assert_holds(build(Drawn(log), more, SIZE, tmp_path, quiet=True), np.array([3, 7, 8, 50, 99]))
    assert reads(log) == [3, 7, 8, 50, 99]


@pytest.mark.parametrize(
    ("version", "stamp", "trust", "read"),
    [(1, 2, True, 0), (1, 1, False, 0), (2, 1, False, 10), (2, 2, False, 10), (2, 1, True, 0)],
)
def test_where_the_stamp_does_not_decide_the_content_does(
    tmp_path: Path, log: Path, version: int, stamp: int, trust: bool, read: int
) -> None:
    build(Drawn(log), EVERY, SIZE, tmp_path, quiet=True)
    log.write_text("")
    changed = Drawn(log, version=version, stamp=stamp)
    store = build(changed, EVERY, SIZE, tmp_path, quiet=True, trust=trust)
    assert_holds(store, EVERY, version if read else 1)
    assert reads(log) == list(range(0, COUNT, 10))[:read]


def swapped(path: Path, first: bytes, second: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(first, b"?").replace(second, first).replace(b"?", second))


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda folder: flipped(folder / "pixels.u8", 5 * 3 * SIZE**2 + 7), [5]),
        (lambda folder: flipped(folder / "digests.i64", 8 * 6), [6]),
        (lambda folder: os.truncate(folder / "pixels.u8", 97 * 3 * SIZE**2), [97, 98, 99]),
        (lambda folder: os.truncate(folder / "digests.i64", 8 * 98), [98, 99]),
        (lambda folder: swapped(folder / "index.json", b"image003", b"image004"), []),
        (lambda folder: swapped(folder / "index.json", b'"size": 6', b'"size": 5'), []),
    ],
)
def test_a_damaged_row_is_refused_and_decoded_again(
    tmp_path: Path, log: Path, damage: Callable[[Path], None], again: list[int], capsys: Any
) -> None:
    whole = build(Drawn(log), EVERY, SIZE, tmp_path, quiet=True)
    digest = whole.digest(Drawn(log).ids)
    damage(whole.folder)
    log.write_text("")
    with pytest.raises(UserError, match=str(whole.folder)):
        ImageStore(whole.folder).rows(Drawn(log).ids)
    store = build(Drawn(log), EVERY, SIZE, tmp_path, quiet=True)
    assert_holds(store, EVERY)
    assert store.digest(Drawn(log).ids) == digest and reads(log) == again
    assert capsys.readouterr().err.count("\n") == bool(again)


def test_a_disk_that_takes_what_is_written_in_pieces(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InPieces(FileIO):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[:5])

    opened = Path.open

    def open_raw(path: Path, mode: str = "r", *rest: Any, **how: Any) -> Any:
        return InPieces(path, mode.replace("b", "")) if how.get("buffering") == 0 else opened(path, mode, *rest, **how)

    monkeypatch.setattr(Path, "open", open_raw)
    assert_holds(build(Drawn(log), EVERY, SIZE, tmp_path, quiet=True), EVERY)
    build(Drawn(log, stamp=3), EVERY, SIZE, tmp_path, quiet=True)
    assert (np.fromfile(next(tmp_path.rglob("stamps.i64")), "<i8") == Drawn(log, stamp=3).fingerprints(EVERY)).all()


def test_sizes_and_variants_have_stores_of_their_own(tmp_path: Path, log: Path) -> None:
    source, other, moved = Drawn(log), Drawn(log), Drawn(log)
    other.variant, moved.root = "other", tmp_path
    folders = {StoreBuilder(source, SIZE, tmp_path).folder, StoreBuilder(source, SIZE + 1, tmp_path).folder}
    folders |= {StoreBuilder(other, SIZE, tmp_path).folder, StoreBuilder(moved, SIZE, tmp_path).folder}
    assert len(folders) == 4 and StoreBuilder(Drawn(log), SIZE, tmp_path).folder in folders


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_fails_is_named_and_the_rest_is_kept(
    tmp_path: Path, log: Path, importable: None, workers: int
) -> None:
    with pytest.raises(UserError, match=r"image090\.png is corrupt"):
        build(Drawn(log, broken=(90,)), EVERY, SIZE, tmp_path, workers=workers, quiet=True)
    kept = set(reads(log))
    log.write_text("")
    assert_holds(build(Drawn(log), EVERY, SIZE, tmp_path, quiet=True), EVERY)
    again = reads(log)
    assert set(again) | kept == set(EVERY.tolist())
    assert len(again) < COUNT / 2 if workers == 1 else len(again) < COUNT


@pytest.mark.parametrize("module", [Drawn.__module__, "__main__"])
def test_two_workers_build_the_same_store(
    module: str, tmp_path: Path, log: Path, importable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a source that no other process can import: one of the main program."""
    monkeypatch.setattr(Drawn, "__module__", module)
    one = build(Drawn(log), EVERY, SIZE, tmp_path / "one", quiet=True)
    log.write_text("")
    two = build(Drawn(log), EVERY, SIZE, tmp_path / "two", workers=2, quiet=True)
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert sorted(reads(log)) == EVERY.tolist()


def test_a_killed_worker_is_one_error(tmp_path: Path, log: Path, importable: None) -> None:
    with pytest.raises(UserError, match="was killed"):
        build(Drawn(log, broken=("killed",)), EVERY, SIZE, tmp_path, workers=2, quiet=True)


@pytest.mark.parametrize("module", [Drawn.__module__, "__main__"])
def test_workers_end_within_an_image(module: str, log: Path, importable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they must at Ctrl-C, in processes and in threads."""
    monkeypatch.setattr(Drawn, "__module__", module)
    images = decoded(Drawn(log, delay=0.1), [EVERY[:1], EVERY[1:40], EVERY[40:80]], SIZE, workers=2)
    assert next(images).positions.tolist() == [0]
    began = time.monotonic()
    images.close()
    assert time.monotonic() - began < 1.5 and len(reads(log)) < 20


def test_two_builders_at_once_decode_every_image_once(tmp_path: Path, log: Path, importable: None) -> None:
    context = multiprocessing.get_context("spawn")
    source = Drawn(log, delay=0.005)
    builders = [context.Process(target=build_here, args=(source, tmp_path)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(timeout=60)
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert set(Counter(reads(log)).values()) == {1} and len(reads(log)) == COUNT
    assert_holds(ImageStore(StoreBuilder(source, SIZE, tmp_path).folder), EVERY)


def test_a_killed_build_is_finished_by_the_next(tmp_path: Path, log: Path, importable: None) -> None:
    source = Drawn(log, delay=0.01)
    builder = multiprocessing.get_context("spawn").Process(target=build_here, args=(source, tmp_path))
    builder.start()
    deadline = time.monotonic() + 60
    while len(reads(log)) < 45 and time.monotonic() < deadline:
        time.sleep(0.01)
    builder.kill()
    builder.join(timeout=60)
    assert builder.exitcode == -9
    killed_after = len(reads(log))
    assert 45 <= killed_after < COUNT
    log.write_text("")
    assert_holds(build(Drawn(log), EVERY, SIZE, tmp_path, quiet=True), EVERY)
    assert COUNT - killed_after <= len(reads(log)) <= COUNT - 32


def test_a_build_says_what_it_does_unless_asked_not_to(tmp_path: Path, log: Path, capsys: Any) -> None:
    build(Drawn(log), EVERY[:3], SIZE, tmp_path, quiet=True)
    assert capsys.readouterr() == ("", "")
    build(Drawn(log), EVERY[:5], SIZE, tmp_path)
    assert "drawn" in capsys.readouterr().err
    build(Drawn(log), EVERY[:5], SIZE, tmp_path)
    assert capsys.readouterr() == ("", "")
    assert reads(log) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_an_unreadable_index_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        ImageStore(tmp_path)


def test_a_full_disk_is_refused_before_decoding(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(UserError, match="free"):
        build(Drawn(log), EVERY, SIZE, tmp_path, quiet=True)
    assert reads(log) == []


def test_a_part_gathers_its_own_images(tmp_path: Path, log: Path) -> None:
    import torch

    from ltbench.datasets.images.part import ImagePart
    from ltbench.datasets.images.prefetch import prefetched

    store, chosen = build(Drawn(log), EVERY, SIZE, tmp_path, quiet=True), np.array([70, 3, 41, 12])
    labels = np.array([2, 0, 1, 2], dtype=np.int64)
    part = ImagePart(store, Drawn(log).ids[chosen], labels, torch.device("cpu"))
    wanted = np.array([3, 0, 0], dtype=np.int64)
    pixels, targets = part.gather(wanted), part.targets(wanted)
    assert len(part) == 4 and part.ids.tolist() == ["image070", "image003", "image041", "image012"]
    assert pixels.dtype == torch.uint8 and targets.dtype == torch.int64
    np.testing.assert_array_equal(pixels.numpy(), np.stack([drawing(int(chosen[row]), 1, SIZE) for row in wanted]))
    assert targets.tolist() == [2, 2, 2]
    chunks = [np.array([row, 3 - row]) for row in range(4)] * 3
    for batches in (part.batches(chunks), prefetched(part._read, chunks, part.device)):
        assert all(torch.equal(own, part.gather(chunk)) for own, chunk in zip(batches, chunks, strict=True))
    pixels.zero_()
    assert_holds(store, EVERY)
