"""A board: one folder of published records, with what is admitted to it and what has become of it.

<boards>/<name>/
    board.yaml        what belongs to it: settings with digests, metrics, number of trials
    splits/           manifests (ids and labels, never images), by the first digits of their SHA-256
    records/          <setting>/<row>/trial<k>/ with result.json, predictions.npz and metrics.jsonl, unchanged
    plugins/          files of methods from outside the package, by the first digits of their SHA-256
    reproduced.yaml   trials that were trained again: when, where, how far apart
    board.md .csv .html   the tables, generated
    CHANGELOG.md      one line a change
    SHA256SUMS        of every other file
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

from ltbench.benchmarks.analysis.metrics import METRICS
from ltbench.benchmarks.analysis.records import Record, find_records
from ltbench.benchmarks.analysis.rendering import HEADINGS
from ltbench.benchmarks.analysis.standings import key_of
from ltbench.benchmarks.training.planning.plan import row_folder_name
from ltbench.datasets import registry as dataset_registry
from ltbench.errors import UserError, in_one_line
from ltbench.files import require_regular
from ltbench.registry import unknown

DESCRIPTION, SUMS, CHANGES, REPRODUCED = "board.yaml", "SHA256SUMS", "CHANGELOG.md", "reproduced.yaml"
TRIAL_FILES = ("result.json", "predictions.npz", "metrics.jsonl")
"""What a board keeps of a trial; weights are too large, and `config.json` names folders of one machine."""
BRING_BACK = "bring the published file back, for example from git"
"""What to do where a file of a board is not what it was; nobody trains it again in its place."""
FOLDER = Path(__file__).parents[1] / "boards"
"""Where the boards of this repository are; an installed package has none."""
GENERATED = ("board.md", "board.csv", "board.html")
"""Tables, made from the records."""
BEFORE = "before"
"""Where a board lies, in the folder of a change, between the two renames that put the changed one in its place."""
_DIGITS = 16
_DESCRIBED = ("name", "about", "trials", "request", "expected", "methods", "variants", "tables")
"""Fields of a setting that no record has."""

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Described = TypeVar("Described", bound="DataclassInstance")


@dataclass(frozen=True)
class BoardSetting:
    """Data, split and protocol under which results of a board may be compared.

    Attributes
    ----------
    name : in one word
    about : what it is for, in one line
    trials : of each row
    request : fields of the request that, with a method, makes its trials
    expected : names of the rows that it is to have, as tables show them
    dataset, variant, revision, split, ratio, split_digest, varied_from, protocol_digest, threads, pixels : of its
        results
    groups, special_classes : of classes, which its metrics are of
    methods : whose rows belong to it; none named: those of all
    variants : whether rows whose hyper-parameters differ from a method's defaults belong to it
    tables : kinds of table that it shows below its leaderboard
    """

    name: str
    about: str
    trials: int
    request: Mapping[str, Any]
    dataset: str
    variant: str
    split: str
    ratio: float
    split_digest: str
    protocol_digest: str
    pixels: str
    revision: int
    groups: Mapping[str, Sequence[int]]
    special_classes: Sequence[str]
    expected: Sequence[str] = ()
    threads: int = 1
    varied_from: str | None = None
    methods: Sequence[str] = ()
    variants: bool = True
    tables: Sequence[str] = ("reliability",)

    @classmethod
    def of(cls, record: Record, **described: Any) -> BoardSetting:
        """Return the setting of a record; what no record says is `described`."""
        result, data = record.result, record.result.data
        return cls(
            **described,
            dataset=data.dataset,
            variant=data.variant,
            split=data.split,
            ratio=data.ratio,
            split_digest=data.varied_from or result.split_digest,
            protocol_digest=result.protocol_digest,
            pixels="" if data.varied_from else data.pixels,
            revision=dataset_registry.get(data.dataset).revision,
            groups={name: list(members) for name, members in data.groups.items()},
            special_classes=list(data.special_classes),
            threads=result.deciding_threads,
            varied_from=data.varied_from,
        )

    def differences(self, record: Record) -> list[str]:
        """Return in what a record does not belong to the setting."""
        described = {name: getattr(self, name) for name in _DESCRIBED}
        other = replace(BoardSetting.of(record, **described), revision=self.revision)  # no record says which it was
        differing = [each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)]
        if self.methods and record.result.method not in self.methods:
            differing.append("method")
        if record.result.changed and not self.variants:
            differing.append("hyperparameters")
        return differing

    def among(self, records: Iterable[Record]) -> list[Record]:
        """Return those of some records that the setting shows: of settings that share a row, each its own trials."""
        return [record for record in records if record.result.trial < self.trials and not self.differences(record)]

    def row_folder(self, record: Record) -> str:
        """Return the folder of a record's row, from that of the records: where a run would look for it."""
        result, data = record.result, record.result.data
        row = row_folder_name(
            result.method,
            result.hyperparameters,
            result.plugin,
            result.protocol_digest,
            self.split_digest,
            (data.dataset, data.variant, self.revision),
            result.deciding_threads,
        )
        return f"{data.dataset}-{data.split}-r{data.ratio:g}/{row}"


@dataclass(frozen=True)
class Board:
    """A board as its folder describes it.

    Attributes
    ----------
    folder : of the board
    title : in one line
    about : paragraphs of what it is, what it is not, and what it says
    metrics : exact names of the metrics that its records have
    settings : the first is the main one
    """

    folder: Path
    title: str
    about: Sequence[str]
    settings: Sequence[BoardSetting]
    metrics: Sequence[str] = field(default_factory=lambda: tuple(METRICS))

    @property
    def name(self) -> str:
        """Its name, that of the folder."""
        return self.folder.name

    @property
    def records_folder(self) -> Path:
        """The folder of its records, laid out as a results folder is."""
        return self.folder / "records"

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """Return all records.

        Raises
        ------
        UserError : one is corrupt or was altered
        """
        return tuple(find_records(self.records_folder)) if self.records_folder.is_dir() else ()

    def setting_of(self, record: Record) -> BoardSetting:
        """Return the setting that a record belongs to.

        Raises
        ------
        UserError : none; names in what it differs from the nearest
        """
        differing = {setting.name: setting.differences(record) for setting in self.settings}
        name, least = min(differing.items(), key=lambda item: len(item[1]))
        if least:
            raise UserError(
                f"{record.folder} does not belong to board {self.name}: it differs from setting {name!r} in "
                f"{', '.join(least)}; select others by --method, --ratio or --protocol"
            )
        return next(setting for setting in self.settings if setting.name == name)

    def require_own_place(self, record: Record) -> None:
        """Check that a record lies where a run would look for it; elsewhere it would be counted as another.

        Raises
        ------
        UserError : it does not, or belongs to no setting
        """
        own = self.records_folder / self.setting_of(record).row_folder(record) / f"trial{record.result.trial}"
        if record.folder != own:
            raise UserError(f"{record.folder} lies in the place of another result; its own is {own}")

    def split_path(self, digest: str) -> Path:
        """Return where the manifest with a SHA-256 lies."""
        return self.folder / "splits" / f"{digest[:_DIGITS]}.csv"

    def plugin_path(self, digest: str) -> Path:
        """Return where the file of a plug-in with a SHA-256 lies."""
        return self.folder / "plugins" / f"{digest[:_DIGITS]}.py"

    def text(self) -> str:
        """Return the description as its file holds it."""
        import yaml

        held = {"title": self.title, "about": list(self.about), "metrics": list(self.metrics)}
        settings = [
            {name: value for name, value in asdict(each).items() if value is not None} for each in self.settings
        ]
        return yaml.safe_dump({**held, "settings": settings}, sort_keys=False, allow_unicode=True, width=110)

    @classmethod
    def read(cls, folder: Path) -> Board:
        """Return the board in a folder.

        Raises
        ------
        UserError : there is none, or its description is not of the form
        """
        import yaml

        path = folder / DESCRIPTION
        try:
            held = yaml.safe_load(require_regular(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{path} is not readable ({error})") from error
        try:
            settings = read_as(BoardSetting, held.pop("settings"))
            (board,) = read_as(cls, [{**held, "folder": str(folder), "settings": []}])
            _check_settings(settings)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # of pydantic, too
            raise UserError(f"{path} is no description of a board ({in_one_line(str(error))})") from error
        return replace(board, folder=folder, settings=settings)


def read_as(kind: type[Described], held: Any) -> list[Described]:
    """Return instances of a dataclass that a list from a YAML file describes, each value of its field's type.

    Raises
    ------
    TypeError, ValueError
    """
    names = {each.name for each in fields(kind)}
    other = {str(name) for each in held for name in each if name not in names}
    if other:
        raise ValueError(f"unknown {', '.join(sorted(other))}")
    return TypeAdapter(list[kind]).validate_json(json.dumps(held), strict=True)  # type: ignore[valid-type]


def _check_settings(settings: Sequence[BoardSetting]) -> None:
    """Refuse settings that cannot be shown.

    Raises
    ------
    UserError, ValueError
    """
    names = [setting.name for setting in settings]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"settings need names of their own, got {', '.join(names) or 'none'}")
    for setting in settings:
        if setting.trials < 1:
            raise ValueError(f"setting {setting.name!r} has {setting.trials} trials")
        for kind in setting.tables:
            if kind not in HEADINGS:
                raise unknown("kind of table", kind, HEADINGS)


def draft_prefix(name: str) -> str:
    """Return what the folders begin with in which a board is changed."""
    return f".{name}-"


def drafts_of(folder: Path) -> list[Path]:
    """Return the folders in which a board is being changed, or was when its process was killed."""
    return sorted(path for path in folder.parent.glob(f"{draft_prefix(folder.name)}????????") if path.is_dir())


def boards_in(folder: Path) -> list[str]:
    """Return the names of the boards in a folder."""
    return sorted(path.parent.name for path in folder.glob(f"*/{DESCRIPTION}"))


def read_board(name: str, folder: Path = FOLDER) -> Board:
    """Return a board by its name.

    Raises
    ------
    UserError : there is no board of that name
    """
    known = boards_in(folder)
    if name not in known:
        for draft in drafts_of(folder / name):
            if (draft / BEFORE).exists():
                raise UserError(f"a change of board {name} was interrupted; rename {draft / BEFORE} to {folder / name}")
    if not known:
        where = "they come with the repository, of which you need a clone"
        if folder != FOLDER:
            where = "give the folder that the folders of boards lie in"
        raise UserError(f"{folder} holds no boards; {where}")
    if name not in known:
        raise unknown("board", name, known)
    return Board.read(folder / name)


def row_key(record: Record) -> tuple[Any, ...]:
    """Return what the trials of one row share."""
    result = record.result
    hyperparameters = tuple(sorted((name, repr(value)) for name, value in result.hyperparameters.items()))
    return (*key_of(result), result.method, result.plugin, hyperparameters)


def rows_in(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Yield the trials of each row."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        found.setdefault(row_key(record), []).append(record)
    yield from found.values()
