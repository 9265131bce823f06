"""The process that talks to Weights & Biases: it mirrors one trial as one run, or registers a sweep.

It reads `config.json`, `metrics.jsonl` and `result.json`, so that a resumed trial and a stage that comes from the cache
are told whole. A line on the standard input says that there may be a new row; its end, that the trial is over.
What went wrong is printed, in one line.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ltbench.benchmarks.training.wandb_mirror import END_SECONDS, PROJECT, SCORE, UNFINISHED_SECONDS
from ltbench.errors import UserError
from ltbench.files import content_digest

_ANSWER_SECONDS, _SYNC_SECONDS = 3.0, 20.0
_GROUP_LENGTH, _TAG_LENGTH = 128, 64  # W&B refuses longer ones
_MOST_CLASSES = 100  # a table of W&B has 10,000 rows at most


def main(action: str, *words: str) -> int:
    """Run `follow FOLDER MODE [artifact]` or `register PROJECT DEFINITION`; return the exit code."""
    try:
        if action == "follow":
            print(_follow(Path(words[0]), words[1], "artifact" in words))
        else:
            import wandb

            print(wandb.sweep(json.loads(words[1]), project=words[0]))
    except (Exception, SystemExit) as error:  # whatever wandb raises becomes one line of the process that waits
        print(_reason(error), flush=True)
        _end_within(END_SECONDS)
        return 1
    return 0


def _end_within(seconds: float) -> None:
    """Let the system end this process, whatever wandb does, also where nobody waits for it any longer."""
    if hasattr(signal, "alarm"):
        signal.alarm(int(seconds) + 1)  # whoever waits as long is the first to stop waiting


def _reason(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _follow(folder: Path, mode: str, artifact: bool) -> str:
    """Mirror a trial until the standard input ends; return what W&B lacks."""
    run: Any = None
    why_offline, logged = "", 0
    for _ in iter(sys.stdin.readline, ""):
        if run is None:
            run, why_offline = _begin(folder, mode)
        logged += _log_rows(run, folder, logged)
    done = (folder / "result.json").exists()
    _end_within(END_SECONDS if done else UNFINISHED_SECONDS)
    if run is None and not done:
        return ""
    if run is None:
        run, why_offline = _begin(folder, mode)
    _log_rows(run, folder, logged)
    lacking = _send_result(run, folder, artifact) if done else ""
    files = Path(run.dir).parent
    try:
        run.finish(exit_code=0 if done else 1)
    except TimeoutError as error:
        return f"{_reason(error)}; `wandb sync {files}` sends the rest"
    if why_offline and not _synced(files):
        return f"{why_offline}; `wandb sync {files}` sends the run"
    return lacking


def _begin(folder: Path, mode: str) -> tuple[Any, str]:
    """Start the W&B run of a trial; return it, and why it is offline where it should be online.

    Under an agent, whose search needs live metrics, the server gets the full time to answer.
    """
    import wandb

    if mode == "offline":
        return _run(folder, "offline"), ""
    server = wandb.setup().settings.base_url
    if not os.environ.get("WANDB_SWEEP_ID") and not _answers(server):
        return _run(folder, "offline"), f"{server} does not answer"
    try:
        return _run(folder, "online"), ""
    except wandb.Error as error:
        wandb.teardown()  # the run that did not start keeps its id
        return _run(folder, "offline"), _reason(error)


def _answers(server: str) -> bool:
    """Return whether a W&B server answers, and with another answer than that it is broken."""
    question = Request(f"{server}/graphql", b'{"query": "{__typename}"}', {"Content-Type": "application/json"})
    try:
        with urlopen(question, timeout=_ANSWER_SECONDS):
            return True
    except HTTPError as error:
        return error.code < 500
    except (OSError, HTTPException) as error:
        return isinstance(error, URLError) and isinstance(error.reason, ssl.SSLError)  # wandb has its own certificates


def _run(folder: Path, mode: Literal["online", "offline"]) -> Any:
    import wandb

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    preset = config["protocol"]["preset"]
    tags = (f"split {config['split_digest'][:12]}", f"code {config['code_version']}", f"preset {preset}")
    identity = run_identity(folder, config)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=identity["id"],
        name=identity["name"],
        group=identity["group"],
        job_type="train",
        tags=[_shortened(tag, _TAG_LENGTH) for tag in tags],
        config=config,
        dir=str(folder.parents[2]),
        mode=mode,
    )
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def run_identity(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return id, name and group of a trial's run; the same trial has the same ones everywhere.

    Parameters
    ----------
    folder : of the trial
    config : its `config.json`
    """
    setting, method, trial = folder.parts[-3:]
    return {
        "id": content_digest(f"{setting}/{method}/{trial}")[:24],
        "name": f"{config['method']}-r{config['ratio']:g}-s{config['trial']}",
        "group": _shortened(f"{setting}/{method}", _GROUP_LENGTH),
    }


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 9]}-{content_digest(text)[:8]}"


def _log_rows(run: Any, folder: Path, logged: int) -> int:
    """Log the epochs that `metrics.jsonl` has and W&B has not; return their number."""
    path, classes = folder / "metrics.jsonl", run.config["class_names"]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines[logged:] if line.endswith("\n")]
    for number, row in enumerate(rows, logged):
        run.log(history_row(row, number, classes))
    return len(rows)


def history_row(row: Mapping[str, Any], number: int, classes: Sequence[str]) -> dict[str, Any]:
    """Return what W&B gets of a line of `metrics.jsonl`: `epoch` counts over all stages, None and NaN are left out.

    `val/score` is the metric that selects epochs under the trial's protocol.

    Parameters
    ----------
    row : the line
    number : of the line, from 0
    classes : their names
    """
    sent: dict[str, Any] = {"epoch": number, "stage": row["stage"], "stage_epoch": row["epoch"]}
    sent |= {name: row[name] for name in ("steps", "images", "seconds")}
    sent |= {f"train/{name}": value for name, value in row["terms"].items()}
    # A stage that an earlier version has stored for other methods does not tell its learning rate.
    sent |= {"lr": row.get("lr"), "val/loss": row["val_loss"], "val/top1": row["val_top1"]}
    recall = dict(zip(classes, row["val_recall"] or (), strict=False))
    sent |= {f"val/recall/{name}": value for name, value in recall.items()}
    sent[SCORE] = _score(row)
    return {name: value for name, value in sent.items() if value is not None}


def _score(row: Mapping[str, Any]) -> float | None:
    """Return `EpochReport.score` of a line of `metrics.jsonl`, None without validation; torch is not imported here."""
    if row["metric"] == "top1":
        return row["val_top1"]
    by_class = row["val_f1" if row["metric"] == "macro_f1" else "val_recall"] or ()
    present = [value for value in by_class if value is not None]
    return sum(present) / len(present) if present else None


def _send_result(run: Any, folder: Path, artifact: bool) -> str:
    """Send the summary, the confusion chart and, if asked for, the artifact; return what W&B lacks of them."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    run.summary.update(summary_of(result))
    lacking = _send_chart(run, folder, result["class_names"])
    if artifact:
        pictures, failures = _pictures(folder)
        run.log_artifact(_artifact(folder, run.id, run.config["class_names"], pictures))
        lacking += [f"the artifact is without {', '.join(failures)}"] if failures else []
    return "; ".join(lacking)


def _send_chart(run: Any, folder: Path, classes: Sequence[str]) -> list[str]:
    """Send the confusion chart; return why there is none, if it fails: its table asks more of a server than numbers."""
    if len(classes) > _MOST_CLASSES:
        return []
    try:
        run.log({"test/confusion": _confusion_chart(folder, classes)})
    except Exception as error:  # a chart that fails costs the run no more than itself
        return [f"the run is without its confusion chart ({_reason(error)})"]
    return []


def _confusion_chart(folder: Path, classes: Sequence[str]) -> Any:
    """Return W&B's chart of a confusion matrix: a trial's test images by true and predicted class."""
    import wandb

    from ltbench.benchmarks.analysis.metrics import confusion_matrix
    from ltbench.benchmarks.analysis.record_files.predictions import read_predictions

    arrays, columns = read_predictions(folder / "predictions.npz"), ["Actual", "Predicted", "nPredictions"]
    counts = confusion_matrix(arrays["test_labels"], arrays["test_logits"].argmax(axis=1), len(classes))
    data: list[Iterable[Any]] = [
        [classes[true], classes[predicted], count]
        for true, of_class in enumerate(counts.tolist())
        for predicted, count in enumerate(of_class)
    ]
    table = wandb.Table(columns=[*columns], data=data)
    title = {"title": "Test images by true and predicted class"}
    return wandb.plot_table("wandb/confusion_matrix/v1", table, dict(zip(columns, columns, strict=True)), title)


def summary_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the W&B summary of a `result.json`: test metrics, selection, cost; `val/score` is the selected epoch's.

    The confusions that records of earlier versions hold are a chart of their own.
    """
    flat: dict[str, Any] = {SCORE: result["selection"]["score"]}
    for part in ("test", "selection", "cost"):
        values = {name: value for name, value in result[part].items() if name != "confusion"}
        flat |= dict(_flat(part, values, result["class_names"]))
    return flat


def _flat(prefix: str, value: Any, classes: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield numbers and texts by path; lists of one value a class by class name, stages by theirs."""
    if isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value):
        value = {item["name"]: {key: own for key, own in item.items() if key != "name"} for item in value}
    elif isinstance(value, list) and len(value) == len(classes):
        value = dict(zip(classes, value, strict=True))
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for name, item in value.items():
        yield from _flat(f"{prefix}/{name}", item, classes)


def _pictures(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return a finished trial's pictures (PNG) by kind, and which could not be drawn and why."""
    from ltbench.benchmarks.analysis.records import Record
    from ltbench.benchmarks.plots.pictures import trial_pictures
    from ltbench.benchmarks.plots.style import png_of

    drawn: dict[str, bytes] = {}
    failures = []
    try:
        wanted = list(trial_pictures(Record.read(folder)))
    except UserError as error:
        return {}, [f"pictures ({_reason(error)})"]
    for picture in wanted:
        try:
            figure = picture.draw()
            if isinstance(figure, str):
                failures.append(f"{picture.kind} ({figure})")
            else:
                drawn[picture.kind] = png_of(figure)
        except Exception as error:  # a picture that fails costs the artifact no more than itself
            failures.append(f"{picture.kind} ({_reason(error)})")
    return drawn, failures


def _artifact(folder: Path, run_id: str, classes: Sequence[str], pictures: Mapping[str, bytes]) -> Any:
    """Return an artifact with result and predictions of a trial, its pictures, and a table of test predictions."""
    import wandb

    from ltbench.benchmarks.analysis.record_files.predictions import read_predictions

    artifact = wandb.Artifact(f"predictions-{run_id}", type="predictions")
    for name in ("result.json", "predictions.npz"):
        artifact.add_file(str(folder / name), name=name)
    for name, png in pictures.items():
        with artifact.new_file(f"pictures/{name}.png", mode="wb") as file:
            file.write(png)
    arrays = read_predictions(folder / "predictions.npz")
    ids, labels, logits = (arrays[f"test_{name}"] for name in ("ids", "labels", "logits"))
    columns: list[str | int] = ["id", "label", "predicted", *(f"logit/{name}" for name in classes)]
    data: list[Iterable[Any]] = [
        [str(name), classes[label], classes[int(row.argmax())], *row.tolist()]
        for name, label, row in zip(ids, labels, logits, strict=True)
    ]
    artifact.add(wandb.Table(columns=columns, data=data), "test")
    return artifact


def _synced(files: Path) -> bool:
    """Return whether the files of an offline run could be sent after all; waits a limited time."""
    import wandb

    if not _answers(wandb.setup().settings.base_url):
        return False
    wandb.teardown()  # until it has ended, its files are not whole
    command = [sys.executable, "-m", "wandb", "sync", str(files)]
    try:
        subprocess.run(command, cwd=files.parents[1], timeout=_SYNC_SECONDS, capture_output=True)
    except subprocess.TimeoutExpired:
        return False
    return any(files.glob("*.synced"))  # the exit code is 0 in any case


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
