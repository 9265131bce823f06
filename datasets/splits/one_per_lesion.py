"""Validation and test of one image a lesion, so that every image there is a case of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltbench.datasets.splits.longtail import lesion_codes, members_by_class
from ltbench.errors import UserError


@dataclass(frozen=True)
class HeldOut:
    """What is held out, and what that leaves.

    Attributes
    ----------
    val, test : int64 positions, sorted
    rest : of each class, the positions that may be trained on, in the order in which they are taken
    """

    val: np.ndarray
    test: np.ndarray
    rest: tuple[np.ndarray, ...]

    @property
    def capacity(self) -> np.ndarray:
        """Images of each class that may be trained on, int64 [K]."""
        return np.array([len(own) for own in self.rest], dtype=np.int64)

    def with_train(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return the positions of the three parts, with so many train images of each class, int [K]."""
        train = np.concatenate([own[:count] for own, count in zip(self.rest, counts, strict=True)])
        return {"train": np.sort(train), "val": self.val, "test": self.test}


def hold_out(
    labels: np.ndarray,
    lesions: np.ndarray,
    held_out: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    class_names: Sequence[str],
    *,
    whole: bool,
) -> HeldOut:
    """Draw lesions at random, and one image of each: first those of test, then those of val.

    A lesion whose images have two classes is not drawn.

    Parameters
    ----------
    labels, lesions : int [N], class ids, and str [N]
    held_out : val and test images of each class, int [K] each
    whole : whether the other images of those lesions are in no part; else they may be trained on

    Raises
    ------
    UserError : a class has too few lesions; the message names it
    """
    codes, mixed = lesion_codes(labels, lesions)
    vals, tests, rest = [], [], []
    members_of = members_by_class(labels, len(held_out[0]))
    for class_id, (val, test) in enumerate(zip(*held_out, strict=True)):
        members = rng.permutation(members_of[class_id])
        pure = members[~mixed[codes[members]]]
        first = pure[np.sort(np.unique(codes[pure], return_index=True)[1])]
        if len(first) < val + test:
            raise UserError(
                f"class {class_names[class_id]!r} lacks {val + test - len(first)} lesions: --per-lesion one takes an "
                f"image of each of {val} for val and {test} for test, and it has {len(first)}; ask for fewer"
            )
        drawn = first[: val + test]
        kept = np.isin(codes[members], codes[drawn]) if whole else np.isin(members, drawn)
        tests.append(drawn[:test])
        vals.append(drawn[test:])
        rest.append(members[~kept])
    return HeldOut(np.sort(np.concatenate(vals)), np.sort(np.concatenate(tests)), tuple(rest))
