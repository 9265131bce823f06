"""Which lesions of a class go to val and to test as a whole, so that both parts are filled to the image."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ltbench.errors import UserError

_EXACT = 4096
"""Images of val and test together up to which the best choice of all is searched: time grows with the third power."""

Chosen = tuple[list[int], list[int]]
"""Positions of the lesions of val and of those of test."""


def choose_lesions(sizes: np.ndarray, val: int, test: int, name: str) -> Chosen:
    """Return which lesions go to val and to test: exactly filled where possible, else with few surplus images.

    The surplus is the least that there is where val and test are of at most 4096 images together. Of more, the
    images beyond that number come from lesions of each size alike, and the last 4096 are filled as well as can be.

    Parameters
    ----------
    sizes : int [L], images of each lesion; lesions are taken in this order where any will do
    val, test : images of the class in either part
    name : of the class

    Raises
    ------
    UserError : the lesions cannot fill both parts
    """
    chosen = _fill_in_order(sizes, val, test) or _fill_last_exactly(sizes, val, test)
    if chosen is None:
        lack = max(1, val + test - int(sizes.sum()))
        raise UserError(
            f"{name} lacks at least {lack} images: its {len(sizes)} lesions or groups that show no other class, with "
            f"{sizes.sum()} images, cannot fill val ({val}) and test ({test}) without sharing one"
        )
    return chosen


def _fill_in_order(sizes: np.ndarray, val: int, test: int) -> Chosen | None:
    """Take each lesion in turn where it still fits; None where that does not fill both parts to the image."""
    left = [val, test]
    chosen: Chosen = ([], [])
    for index, size in enumerate(sizes.tolist()):
        if not any(left):
            break
        for part in (1, 0):
            if size <= left[part]:
                left[part] -= size
                chosen[part].append(index)
                break
    return None if any(left) else chosen


def _fill_last_exactly(sizes: np.ndarray, val: int, test: int) -> Chosen | None:
    """Take a share of the lesions of each size, so that `_EXACT` images are left to fill, then these exactly."""
    share = max(0.0, 1 - _EXACT / max(1, val + test)) / max(1, int(sizes.sum()))
    chosen: Chosen = ([], [])
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        to_val, to_test = int(count * share * val), int(count * share * test)
        same = np.flatnonzero(sizes == size)[: to_val + to_test].tolist()
        chosen[0].extend(same[:to_val])
        chosen[1].extend(same[to_val:])
    others = np.setdiff1d(np.arange(len(sizes)), np.array(chosen[0] + chosen[1], dtype=np.int64))
    val_left, test_left = (wanted - int(sizes[part].sum()) for wanted, part in zip((val, test), chosen, strict=True))
    last = _fill_exactly(sizes[others], val_left, test_left)
    if last is None:
        return None
    return chosen[0] + others[last[0]].tolist(), chosen[1] + others[last[1]].tolist()


def _fill_exactly(sizes: np.ndarray, val: int, test: int) -> Chosen | None:
    """Solve the two-fold subset sum: the fewest images in lesions that fill val and test; None where none do.

    `taken[v, t]` is the first lesion by which v val images and t test images can be had. The cell it was reached
    from was reached by an earlier lesion, so one table is enough to trace a solution back.
    """
    largest = int(sizes.max(initial=1))  # the least surplus is below one lesion
    reached = np.zeros((val + largest, test + largest), dtype=bool)
    reached[0, 0] = True
    taken = np.full(reached.shape, -1, dtype=np.int32)
    to_test = np.zeros(reached.shape, dtype=bool)
    seen: Counter[int] = Counter()
    for index, size in enumerate(sizes.tolist()):
        seen[size] += 1
        if seen[size] > -(-val // size) - (-test // size):
            continue  # more lesions of this size than both parts could ever hold
        by_test = _new_cells(reached, size, axis=1)
        for cells, is_test in ((_new_cells(reached, size, axis=0), False), (by_test, True)):
            cells = cells[~reached.flat[cells]]
            reached.flat[cells], taken.flat[cells], to_test.flat[cells] = True, index, is_test
        if reached[val, test]:
            break
    goals = np.argwhere(reached[val:, test:])
    if not len(goals):
        return None
    v, t = goals[goals.sum(axis=1).argmin()] + (val, test)
    chosen: Chosen = ([], [])
    while v or t:
        index, is_test = int(taken[v, t]), bool(to_test[v, t])
        chosen[is_test].append(index)
        v, t = (v, t - sizes[index]) if is_test else (v - sizes[index], t)
    return chosen


def _new_cells(reached: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Return the cells of a table, bool [V, T], `size` behind a reached one along an axis and not reached: flat."""
    rows, columns = reached.shape
    if axis == 0:
        return np.flatnonzero(reached[: rows - size] > reached[size:]) + size * columns
    row, column = np.divmod(np.flatnonzero(reached[:, : columns - size] > reached[:, size:]), columns - size)
    return row * columns + column + size
