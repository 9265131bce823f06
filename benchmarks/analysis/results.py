"""Finished trials for Python programs: tables, predictions and stories as pandas and plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
from ltbench.benchmarks.analysis.records import Record, find_records
from ltbench.benchmarks.analysis.rendering import KINDS
from ltbench.errors import UserError
from ltbench.registry import unknown

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from ltbench.benchmarks.analysis.standings import Setting


@dataclass(frozen=True)
class Results:
    """Finished trials.

    Attributes
    ----------
    records : one a trial
    """

    records: tuple[Record, ...]

    @classmethod
    def load(cls, folder: Path | str, *, folders: Iterable[str] = ("*",)) -> Results:
        """Return all finished trials under a results folder.

        Parameters
        ----------
        folders : names of folders in it, one a dataset, split and ratio, to look at

        Raises
        ------
        UserError : the folder is missing, or a result is corrupt
        """
        results = Path(folder)
        derived, patterns = DerivedFiles.under(results), [f"{name}/*/trial*/result.json" for name in folders]
        return cls(tuple(each for pattern in patterns for each in find_records(results, pattern, derived)))

    @classmethod
    def of_trials(cls, folders: Iterable[Path]) -> Results:
        """Return those of the trials in some folders that are finished."""
        return cls(tuple(Record.read(folder) for folder in folders if (folder / "result.json").exists()))

    def where(self, **wanted: Any) -> Results:
        """Return the trials whose result has the given values, e.g. `where(method="ce", ratio=100, trial=0)`."""
        return Results(
            tuple(each for each in self.records if all(_value(each, name) == value for name, value in wanted.items()))
        )

    def table(self, kind: str = "overview") -> pd.DataFrame:
        """Return the numbers of a table, unrounded; those of several settings stand below each other.

        Parameters
        ----------
        kind : of `KINDS`: `overview`, `ratios`, `ranks`, `groups`, `ablation`, `per-class`, `cost`, `metrics`,
            `reliability`, `conformal`

        Raises
        ------
        UserError : an unknown kind, or there is no such table of these trials
        """
        import pandas as pd

        from ltbench.benchmarks.analysis.standings import settings_of
        from ltbench.benchmarks.analysis.tables import tables_of

        if kind not in KINDS:
            raise unknown("table", kind, KINDS)
        # Ranks span all settings and say which, a table of ratios those that differ in the ratio alone; any other table
        # is of one, whose ratio becomes a column too.
        told_of = {"ranks": 0, "ratios": 4}.get(kind, 5)
        told: dict[tuple[Any, ...], list[Setting]] = {}
        for setting in settings_of(self.records):
            data, result = setting.data, setting.result
            values = (data.dataset, data.split, result.protocol_digest[:8], result.deciding_threads, data.ratio)
            told.setdefault(values[:told_of], []).append(setting)
        names = ("dataset", "split", "protocol", "threads", "ratio")
        frames = [
            table.frame.assign(**dict(zip(names, values, strict=False)))
            for values, settings in told.items()
            for table in tables_of(kind, settings)
        ]
        if not frames:
            raise UserError(f"these {len(self.records)} trials give no table {kind!r}")
        return pd.concat(frames, ignore_index=True)

    def predictions(self, part: Literal["val", "test"] = "test") -> pd.DataFrame:
        """Return one row an image and trial: its label, the class predicted, and the logit of each class by its name.

        Raises
        ------
        UserError : saved predictions are missing or corrupt
        """
        import pandas as pd

        frames = []
        for record in self.records:
            arrays, names = record.predictions(), list(_value(record, "class_names"))
            logits = arrays[f"{part}_logits"]
            told = {name: _value(record, name) for name in ("dataset", "ratio", "method", "trial")}
            labels = {"label": arrays[f"{part}_labels"], "predicted": logits.argmax(axis=1)}
            named = {name: [names[index] for index in indices.tolist()] for name, indices in labels.items()}
            by_class = dict(zip(names, logits.T, strict=True))
            frames.append(pd.DataFrame({**told, "id": arrays[f"{part}_ids"], **named, **by_class}))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def story(self) -> Mapping[str, Any]:
        """Return what the method of a single trial recorded on its way, by name: of `flex`, for example, its queries.

        Raises
        ------
        UserError : there is not exactly one trial; choose it by `where`
        """
        return self._single("a story").result.story

    def model(self, device: str = "cpu") -> Mapping[str, Tensor]:
        """Return the weights of a single trial, of the epoch that it reports, by the names of its method's modules.

        Raises
        ------
        UserError : there is not exactly one trial, or its weights are missing, corrupt or altered
        """
        return self._single("a model").model(device)

    def _single(self, what: str) -> Record:
        if len(self.records) != 1:
            raise UserError(f"{what} is of one trial, and these are {len(self.records)}; choose one by where(...)")
        return self.records[0]


def _value(record: Record, name: str) -> Any:
    """Return an attribute of a result or of its data."""
    return getattr(record.result if hasattr(record.result, name) else record.result.data, name)
