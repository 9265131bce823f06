"""Does a split keep what it promises: nothing that test shows is known from training, and no image lies.

Ids, lesions, patients and classes need the tables alone; `audit` looks into images too where it is given their facts.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.checks.image_facts import ImageFacts
from ltbench.datasets.checks.near_duplicates import DISTANCE, near_pairs
from ltbench.datasets.splits.draw import make_split, published_manifest
from ltbench.datasets.splits.longtail import PARTS
from ltbench.datasets.splits.manifest import Manifest
from ltbench.datasets.splits.present_classes import renumbered, without_absent_classes

PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))
KINDS = ("id", "lesion", "patient", "content", "near")
"""How an image of one part may be known from another: itself, its lesion, its patient, its pixels, its looks."""

_ODD_ASPECT = 2.0  # times the median
_ODD_SIDE = 4.0
_DARK_PEAK = 1 << 12  # of 16 bits


@dataclass(frozen=True)
class PairAudit:
    """What the images of part `second` share with part `first`.

    Attributes
    ----------
    total : images of `second`
    examined : those of them whose pixels were compared
    leaked : positions in the source of the images of `second`, int64, by kind; without the kinds that are not known
    """

    first: str
    second: str
    total: int
    examined: int
    leaked: Mapping[str, np.ndarray]

    @property
    def beyond_lesions(self) -> np.ndarray | None:
        """Images that look like one of `first` although no lesion id says so: int64; None where one is not known."""
        if not {"lesion", "content", "near"} <= self.leaked.keys():
            return None
        looks = np.union1d(self.leaked["content"], self.leaked["near"])
        return np.setdiff1d(looks, self.leaked["lesion"]).astype(np.int64)

    @property
    def any(self) -> np.ndarray:
        """Images of `second` that are known from `first` in any way: int64."""
        return np.unique(np.concatenate(list(self.leaked.values())))


@dataclass(frozen=True)
class Finding:
    """Images of which something is to be said: positions in the source, and what."""

    positions: tuple[int, ...]
    what: str


@dataclass(frozen=True)
class Audit:
    """What was found in a split of a source.

    Attributes
    ----------
    source, manifest : what was looked at
    facts : of the images that were examined, None where none were
    pairs : train/test, train/val, val/test
    conflicts : images of one lesion, or the same to the eye, with different labels
    duplicates : images with the same pixels, and near-duplicates, in pairs or groups
    unreadable, odd : single images
    """

    source: Source
    manifest: Manifest
    facts: ImageFacts | None
    pairs: tuple[PairAudit, ...]
    conflicts: tuple[Finding, ...]
    duplicates: tuple[Finding, ...]
    unreadable: tuple[Finding, ...]
    odd: tuple[Finding, ...]

    @property
    def leaks(self) -> bool:
        """Whether any two parts share anything."""
        return any(len(pair.any) for pair in self.pairs)

    def class_counts(self) -> dict[str, np.ndarray]:
        """Return the images of each class, int64 [K], in each part and in `all`."""
        number = len(self.source.class_names)
        counts = {part: self.manifest.class_counts(part, number) for part in PARTS}
        return {**counts, "all": np.bincount(self.source.labels, minlength=number)}

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; images are named by id, and what is not known is absent."""
        ids, names = self.source.ids, self.source.class_names
        part_of = dict(zip(self.manifest.ids.tolist(), self.manifest.parts.tolist(), strict=True))
        return {
            "dataset": self.source.name,
            "title": self.source.title,
            "split_digest": self.manifest.digest,
            "images": {
                "labelled": len(ids),
                "present": int(self.source.present.sum()),
                "examined": 0 if self.facts is None else len(self.facts.positions),
            },
            "class_counts": {
                part: dict(zip(names, counts.tolist(), strict=True)) for part, counts in self.class_counts().items()
            },
            "imbalance_ratio": {part: imbalance(counts) for part, counts in self.class_counts().items()},
            "overlap": {f"{pair.first}/{pair.second}": self._pair(pair) for pair in self.pairs},
            "modes": {} if self.facts is None else dict(Counter(self.facts.modes.tolist())),
            "sizes": {} if self.facts is None else dict(Counter(f"{w}x{h}" for w, h in self.facts.sizes.tolist())),
            **{
                kind: [self._finding(finding, part_of) for finding in getattr(self, kind)]
                for kind in ("conflicts", "duplicates", "unreadable", "odd")
            },
        }

    def _pair(self, pair: PairAudit) -> dict[str, Any]:
        beyond = {} if pair.beyond_lesions is None else {"beyond_lesions": pair.beyond_lesions}
        groups = {**pair.leaked, **beyond, "any": pair.any}
        return {
            "total": pair.total,
            "examined": pair.examined,
            "leaked": {kind: len(positions) for kind, positions in groups.items()},
            "images": {kind: self.source.ids[positions].tolist() for kind, positions in pair.leaked.items()},
        }

    def _finding(self, finding: Finding, part_of: Mapping[str, str]) -> dict[str, Any]:
        positions = list(finding.positions)
        ids = self.source.ids[positions].tolist()
        return {
            "what": finding.what,
            "ids": ids,
            "labels": [self.source.class_names[label] for label in self.source.labels[positions]],
            "lesions": self.source.lesions[positions].tolist(),
            "parts": [part_of.get(image, "") for image in ids],
        }


def declared_split(
    source: Source,
    *,
    split: str,
    split_dir: Path | None,
    ratio: float | Literal["natural"],
    allow_missing: bool = False,
    **numbers: Any,
) -> Manifest:
    """Return the split of all images that the tables list, whether present or not.

    That of published files is returned even where it has one image in two parts.

    Parameters
    ----------
    allow_missing : draw from the images that are there alone, as a run with `--allow-missing` does
    numbers : further arguments of `make_split`
    """
    if split_dir is not None:
        return published_manifest(source, split_dir, ratio)
    if allow_missing:
        there = without_absent_classes(source)
        drawn = make_split(there, split=split, split_dir=None, ratio=ratio, allow_missing=True, **numbers)
        return renumbered(drawn, source.class_names)
    whole = copy.copy(source)
    whole.present = np.ones_like(source.present)
    return make_split(whole, split=split, split_dir=None, ratio=ratio, allow_missing=False, **numbers)


def audit(source: Source, manifest: Manifest, facts: ImageFacts | None = None, *, distance: int = DISTANCE) -> Audit:
    """Compare the parts of a split, and look for images that cannot be what they are said to be.

    Parameters
    ----------
    facts : of images of the source, within the split or not; None: nothing is said of images
    distance : of perceptual hashes, for near-duplicates
    """
    contents, near = None, np.empty((0, 2), dtype=np.int64)
    duplicates: tuple[Finding, ...] = ()
    if facts is not None:
        groups, near = _alike(facts, distance)
        contents = np.full(len(source.ids), -1, dtype=np.int64)
        contents[facts.positions] = groups
        duplicates = _duplicates(facts, groups, near)
    position = {image: row for row, image in enumerate(source.ids.tolist())}
    rows = np.array([position[image] for image in manifest.ids.tolist()], dtype=np.int64)
    pairs = tuple(_compare(source, manifest, rows, contents, near, first, second) for first, second in PAIRS)
    conflicts = [found for found in duplicates if len(set(source.labels[list(found.positions)].tolist())) > 1]
    return Audit(
        source=source,
        manifest=manifest,
        facts=facts,
        pairs=pairs,
        conflicts=(*_mixed_lesions(source), *conflicts),
        duplicates=duplicates,
        unreadable=() if facts is None else _unreadable(facts),
        odd=() if facts is None else _odd(facts),
    )


def imbalance(counts: np.ndarray) -> float | None:
    """Return the largest count over the smallest that is not 0; None where all are."""
    return float(counts.max() / counts[counts > 0].min()) if counts.any() else None


def _alike(facts: ImageFacts, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the contents of images, int64 [n], -1 where unreadable; pair the near-duplicates, int64 [P, 2]."""
    readable = facts.errors == ""
    _, first, codes = np.unique(facts.contents[readable], return_index=True, return_inverse=True)
    numbers = np.full(len(facts.positions), -1, dtype=np.int64)
    numbers[readable] = codes
    return numbers, near_pairs(facts.hashes[readable][first], facts.thumbs[readable][first], distance)


def _compare(
    source: Source,
    manifest: Manifest,
    rows: np.ndarray,
    contents: np.ndarray | None,
    near: np.ndarray,
    first: str,
    second: str,
) -> PairAudit:
    one, other = rows[manifest.parts == first], rows[manifest.parts == second]
    leaked = {"id": np.isin(other, one)}
    examined = 0
    if source.has_lesion_ids:
        leaked["lesion"] = np.isin(source.lesions[other], source.lesions[one])
    if source.patients is not None:
        named = source.patients[other] != ""
        leaked["patient"] = named & np.isin(source.patients[other], source.patients[one])
    if contents is not None:
        seen = contents[other] >= 0
        examined = int(seen.sum())
        leaked["content"] = seen & np.isin(contents[other], contents[one])
        leaked["near"] = seen & ~leaked["content"] & np.isin(contents[other], _neighbours(contents[one], near))
    found = {kind: np.unique(other[leaked[kind]]) for kind in KINDS if kind in leaked}
    return PairAudit(first, second, len(other), examined, found)


def _neighbours(contents: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the contents that are near-duplicates of given ones."""
    forwards, backwards = np.isin(near[:, 0], contents), np.isin(near[:, 1], contents)
    return np.concatenate([near[forwards, 1], near[backwards, 0]])


def _duplicates(facts: ImageFacts, groups: np.ndarray, near: np.ndarray) -> tuple[Finding, ...]:
    """Return the groups of images with the same pixels, and pairs of near-duplicates, one image for each content."""
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    members = [facts.positions[group].tolist() for group in np.split(order, starts[1:])] if len(order) else []
    same = [Finding(tuple(group), "same pixels") for group in members if len(group) > 1]
    return (*same, *(Finding((members[a][0], members[b][0]), "near-duplicates") for a, b in near.tolist()))


def _mixed_lesions(source: Source) -> list[Finding]:
    """Return the lesions whose images have different labels."""
    _, codes = np.unique(source.lesions, return_inverse=True)
    low = np.full(codes.max(initial=-1) + 1, len(source.class_names))
    high = np.full(len(low), -1)
    np.minimum.at(low, codes, source.labels)
    np.maximum.at(high, codes, source.labels)
    members = np.flatnonzero((low < high)[codes])
    members = members[np.argsort(codes[members], kind="stable")]
    groups = np.split(members, np.flatnonzero(np.diff(codes[members])) + 1) if len(members) else []
    return [Finding(tuple(group.tolist()), "same lesion") for group in groups]


def _unreadable(facts: ImageFacts) -> tuple[Finding, ...]:
    broken = np.flatnonzero(facts.errors != "")
    return tuple(
        Finding((int(facts.positions[row]),), " ".join([facts.files[row], facts.errors[row]]).strip()) for row in broken
    )


def _odd(facts: ImageFacts) -> tuple[Finding, ...]:
    """Return images whose size, aspect ratio or mode is far from that of the others."""
    known = np.flatnonzero((facts.sizes > 0).all(axis=1))
    if not len(known):
        return ()
    width, height = facts.sizes[known].T.astype(np.float64)
    aspects, sides = width / height, np.sqrt(width * height)
    aspect, side = float(np.median(aspects)), float(np.median(sides))
    usual = Counter(facts.modes[known].tolist()).most_common(1)[0][0]
    found = []
    for row, own_aspect, own_side in zip(known.tolist(), aspects.tolist(), sides.tolist(), strict=True):
        reasons = _reasons(own_aspect / aspect, own_side / side, str(facts.modes[row]), usual)
        peak = int(facts.peaks[row])
        if 0 < peak < _DARK_PEAK:
            reasons.append(f"nearly black: {peak.bit_length()} of 16 bits used; stretch it to the whole range")
        if reasons:
            size = f"{facts.sizes[row, 0]} x {facts.sizes[row, 1]} {facts.modes[row]}"
            found.append(Finding((int(facts.positions[row]),), f"{size}: {', '.join(reasons)}"))
    return tuple(found)


def _reasons(aspect: float, side: float, mode: str, usual: str) -> list[str]:
    reasons = []
    if abs(math.log(aspect)) > math.log(_ODD_ASPECT):
        reasons.append(f"aspect ratio {aspect:.2g} times the median")
    if abs(math.log(side)) > math.log(_ODD_SIDE):
        reasons.append(f"side {side:.2g} times the median")
    if mode != usual:
        reasons.append(f"mode {mode}, most are {usual}")
    return reasons
