"""Groups of images, such as lesions or patients, which may show several classes: they are held out as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltbench.datasets.splits.longtail import lesion_codes, members_by_class
from ltbench.errors import UserError


@dataclass(frozen=True)
class Groups:
    """How many images of each class each of G groups has.

    Attributes
    ----------
    codes : group of each image, int64 [N], from 0
    sizes : images of each group, int64 [G]
    """

    codes: np.ndarray
    sizes: np.ndarray
    _labels: np.ndarray
    _counts: np.ndarray
    _starts: np.ndarray
    _by_class: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, labels: np.ndarray, groups: np.ndarray, num_classes: int) -> Groups:
        """Return the groups of images: class ids, int [N], and names of groups, str [N]."""
        codes, _ = lesion_codes(labels, groups)
        pairs, counts = np.unique(codes * num_classes + labels, return_counts=True)
        owners, own = np.divmod(pairs, num_classes)
        starts = np.searchsorted(owners, np.arange(codes.max() + 2))
        by_class = tuple(owners[members] for members in members_by_class(own, num_classes))
        return cls(codes, np.bincount(codes), own, counts, starts, by_class)

    def classes(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes of a group, and its images of each: int64, as many as it has."""
        own = slice(self._starts[group], self._starts[group + 1])
        return self._labels[own], self._counts[own]

    def count(self, group: int, label: int) -> int:
        """Return the images of a class in a group."""
        classes, counts = self.classes(group)
        return int(counts[classes == label].sum())

    def with_class(self, label: int) -> np.ndarray:
        """Return the groups that show a class, int64."""
        return self._by_class[label]

    def groups_of_classes(self) -> np.ndarray:
        """Return how many groups show each class, int64 [K]."""
        return np.array([len(own) for own in self._by_class], dtype=np.int64)


def draw_groups(
    labels: np.ndarray,
    groups: np.ndarray,
    wanted: np.ndarray,
    rng: np.random.Generator,
    class_names: Sequence[str],
    *,
    part: str = "val",
    kept: int = 1,
    met: bool = False,
    remedy: str = "add images, or use --split paper",
) -> np.ndarray:
    """Return which images are held out in whole groups, bool [N], as near to wanted numbers as groups allow.

    Groups are taken in random order, whatever classes they show, where no class gets more than is wanted by them. Then
    each class that is short, that of fewest groups first, takes those that lead other classes least beyond what is
    wanted, and at last the smallest, where it leads nearer to it or the class has none. Images that are a group each
    give exactly the wanted numbers.

    Parameters
    ----------
    labels, groups : int [N], class ids, and str [N]
    wanted : images of each class, int [K]
    part : that they are for
    kept : groups of each class that are left for other parts
    met : whether a class may rather have more than is wanted than less
    remedy : what to do where a class has no group to give, for the message

    Raises
    ------
    UserError : a class has no group to give; the message names it
    """
    drawn = _Drawn(Groups.of(labels, groups, len(class_names)), wanted, kept)
    drawn.take_fitting(rng)
    for label in np.argsort(drawn.left, kind="stable").tolist():
        drawn.fill(label, rng, met=met)
        if wanted[label] and not drawn.held[label]:
            raise UserError(
                f"class {class_names[label]!r} has too few lesions or groups to give one to {part} and to keep {kept} "
                f"for other parts; {remedy}"
            )
    return drawn.taken[drawn.groups.codes]


class _Drawn:
    """Groups that are taken for a part, one after the other.

    Attributes
    ----------
    taken : which groups, bool [G]
    held : images of each class in them, int64 [K]
    left : groups of each class that are not taken, int64 [K]
    """

    def __init__(self, groups: Groups, wanted: np.ndarray, kept: int) -> None:
        self.groups, self._wanted, self._kept = groups, wanted, kept
        self.taken = np.zeros(len(groups.sizes), dtype=bool)
        self.held, self.left = np.zeros_like(wanted), groups.groups_of_classes()

    def take_fitting(self, rng: np.random.Generator) -> None:
        """Take groups, whatever classes they show, by which no class gets more than is wanted."""
        for group in rng.permutation(len(self.taken)).tolist():
            if self._surplus(group) == 0 and self._is_free(group):
                self._take(group)

    def fill(self, label: int, rng: np.random.Generator, *, met: bool) -> None:
        """Take further groups of a class until it has what is wanted, or as near to it as they allow."""
        members = rng.permutation(self.groups.with_class(label)).tolist() if self._short(label) > 0 else []
        for group in sorted(filter(self._is_free, members), key=self._surplus):
            if self._is_free(group) and self.groups.count(group, label) <= self._short(label):
                self._take(group)
        while (short := self._short(label)) > 0 and (free := list(filter(self._is_free, members))):
            smallest = min(free, key=lambda group: self.groups.count(group, label))
            if self.held[label] and not met and self.groups.count(smallest, label) >= 2 * short:
                return
            self._take(smallest)

    def _short(self, label: int) -> int:
        return int(self._wanted[label] - self.held[label])

    def _is_free(self, group: int) -> bool:
        return not self.taken[group] and bool((self.left[self.groups.classes(group)[0]] > self._kept).all())

    def _surplus(self, group: int) -> float:
        """Return how far a group leads its classes beyond what is wanted, as shares of it, summed up."""
        classes, counts = self.groups.classes(group)
        beyond = np.maximum(self.held[classes] + counts - self._wanted[classes], 0)
        return float((beyond / np.maximum(self._wanted[classes], 1)).sum())

    def _take(self, group: int) -> None:
        classes, counts = self.groups.classes(group)
        self.taken[group] = True
        self.held[classes] += counts
        self.left[classes] -= 1
