"""What an audit found, as text: tables of classes and overlaps, and the images of which something is to be said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltbench.benchmarks.cli.markdown import github_table
from ltbench.datasets.checks.audit import Audit, Finding, PairAudit, imbalance
from ltbench.datasets.splits.longtail import PARTS
from ltbench.errors import counted

_EXAMPLES = 10
_UNKNOWN = "n/a"
_ALIGNED = ("left", *["right"] * 4)


def audit_text(found: Audit, heading: str) -> str:
    """Return the report of an audit."""
    source = found.source
    lines = [f"### {heading}", "", _classes(found), "", _overlaps(found), ""]
    lines += [_verdict(pair, source.group_name) for pair in found.pairs]
    unknown = int((found.manifest.lesions == found.manifest.ids).sum())
    if source.has_lesion_ids and unknown:
        group = source.group_name
        lines.append(
            f"{group} unknown for {counted(unknown, 'image')} of the split; each counts as a {group} by itself"
        )
    without_patient = 0 if source.patients is None else int((source.patients == "").sum())
    if without_patient:
        lines.append(f"patient unknown for {without_patient} of {len(source.ids)} images")
    lines += [*source.notes, "", *_images(found)]
    lines += _listed("different labels", found.conflicts, found)
    if found.facts is not None:
        lines += _listed("unreadable", found.unreadable, found)
        lines += _listed("odd size, shape or mode", found.odd, found)
    return "\n".join(lines)


def _classes(found: Audit) -> str:
    counts = found.class_counts()
    rows = [
        [name, *(int(counts[part][label]) for part in (*PARTS, "all"))]
        for label, name in enumerate(found.source.class_names)
    ]
    ratios = [imbalance(counts[part]) for part in (*PARTS, "all")]
    rows.append(["all classes", *(int(counts[part].sum()) for part in (*PARTS, "all"))])
    rows.append(["imbalance ratio", *(_UNKNOWN if ratio is None else f"{ratio:.4g}" for ratio in ratios)])
    return github_table(rows, ["class", *PARTS, "all labelled"], _ALIGNED)


def _overlaps(found: Audit) -> str:
    group = found.source.group_name
    same = {"id": "same image", "lesion": f"same {group}"}
    if group != "patient":
        same["patient"] = "same patient"
    headers = ["images of", "known from", "images", *same.values()]
    headers += ["same pixels", "near-duplicate", f"alike, {group} id unknown", "in any way"]
    rows = []
    for pair in found.pairs:
        said = [_counted(pair.leaked.get(kind), pair.total, pair.total) for kind in same]
        looks = (pair.leaked.get("content"), pair.leaked.get("near"), pair.beyond_lesions)
        shown = [_counted(positions, pair.examined, pair.total) for positions in looks]
        rows.append([pair.second, pair.first, pair.total, *said, *shown, len(pair.any)])
    return github_table(rows, headers, ["left"] * 2 + ["right"] * (len(headers) - 2))


def _counted(positions: np.ndarray | None, examined: int, total: int) -> str:
    """Return a number of images, and of how many where not all were examined."""
    if positions is None:
        return _UNKNOWN
    return str(len(positions)) if examined == total else f"{len(positions)} of {examined}"


def _verdict(pair: PairAudit, group: str) -> str:
    count = len(pair.any)
    share = f" ({100 * count / pair.total:.1f} %)" if count else ""
    lesions = "" if "lesion" in pair.leaked else f"; {group}s are not known"
    return f"leaks {pair.first}/{pair.second}: {count} of {pair.total} {pair.second} images{share}{lesions}"


def _images(found: Audit) -> list[str]:
    labelled, present = len(found.source.ids), int(found.source.present.sum())
    if found.facts is None:
        return [f"images: not examined; {present} of {labelled} are there"]
    same = [len(finding.positions) for finding in found.duplicates if finding.what == "same pixels"]
    near = len(found.duplicates) - len(same)
    return [
        f"images: {len(found.facts.positions)} of {labelled} examined, the others are missing"
        if present < labelled
        else f"images: all {labelled} examined",
        f"duplicates: {sum(same)} images in {len(same)} groups of the same pixels, {near} pairs of near-duplicates",
    ]


def _listed(title: str, findings: Sequence[Finding], found: Audit) -> list[str]:
    """Return how many findings there are, and the first of them."""
    lines = [f"{title}: {len(findings)}"]
    for finding in findings[:_EXAMPLES]:
        source = found.source
        named = ", ".join(
            f"{source.ids[position]} {source.class_names[source.labels[position]]}"
            for position in finding.positions[:_EXAMPLES]
        )
        lines.append(f"  {named}: {finding.what}")
    if len(findings) > _EXAMPLES:
        lines.append(f"  and {len(findings) - _EXAMPLES} more; --json FILE lists all")
    return lines
