"""The images that a split leaves in no part, and why."""

from __future__ import annotations

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.splits.manifest import Manifest


def unused_line(source: Source, manifest: Manifest, split: str, per_lesion: str = "all") -> str | None:
    """Return how many present images of a source are in no part of its split, and why; None where all are in one.

    Parameters
    ----------
    split : `paper`, `lesion`, `official` or `published`
    per_lesion : `all` images of a lesion may be in val and test, or `one`
    """
    unused = source.present & ~np.isin(source.ids, manifest.ids)
    held_out = (split == "lesion") & np.isin(source.lesions, manifest.lesions[manifest.parts != "train"])
    unassigned = (source.parts == "") if split == "official" and source.parts is not None else ~source.present
    surplus = held_out & ~unassigned
    group = source.group_name
    by_lesion = {
        "all": f"left over from a {group} in val or test, whose size was given",
        "one": f"other images of {group}s of which one is in val or test",
    }
    counts = {
        "without a part": int((unused & unassigned).sum()),
        by_lesion[per_lesion]: int((unused & surplus).sum()),
        "not in the split files" if split == "published" else "above the long-tailed counts": int(
            (unused & ~unassigned & ~surplus).sum()
        ),
    }
    reasons = {reason: count for reason, count in counts.items() if count}
    if not reasons:
        return None
    texts = reasons if len(reasons) == 1 else [f"{count} {reason}" for reason, count in reasons.items()]
    return f"in no part: {int(unused.sum())} of {int(source.present.sum())} images ({', '.join(texts)})"
