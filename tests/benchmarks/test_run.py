"""The command line: bad input is one line and code 2; signals; two processes at once."""

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ltbench
from ltbench import files
from ltbench.benchmarks import leaderboard, run
from ltbench.benchmarks.analysis import records
from ltbench.benchmarks.cli.arguments import assignments
from ltbench.benchmarks.training.planning import plan

ROOT = Path(ltbench.__file__).parent
SETTINGS = {"ratio": 5, "epochs": 2, "image-size": 16, "n-max": 30, "val-per-class": 3, "test-per-class": 4}
TINY = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
TINY += ["--batch-size", "16", "--jobs", "1", "--precision", "fp32"]


def _one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


BAD = {
    "--method lda": "unknown method 'lda'",
    "--method flx": "did you mean 'flex'",
    "--method CE": "did you mean 'ce'",
    "--dataset isic2018": "did you mean 'isic2019'",
    "--preset papr": "did you mean 'paper'",
    "--split lesions": "did you mean 'lesion'",
    "--backbone resnet19": "unknown backbone 'resnet19'; did you mean 'resnet1",
    **{f"--device {name}": f"unknown device '{name}'" for name in ("gpu", "cpu:1", "cuda:", "cuda:\u0663")},
    "--format html5": "unknown format",
    "--executor slurm:here": "takes no address",
    "--precision fp17": "unknown precision 'fp17'",
    "--epoch-length step": "did you mean 'steps'",
    "--ratio 0.5": "--ratio must be at least 1",
    "--ratio many": "--ratio must be a number",
    "--ratio nan": "--ratio must be at least 1",
    "--ratio naturl": "--ratio must be a number or natural",
    "--ratio natural --n-max 30": "--n-max would have no effect at --ratio natural",
    "--split official": "--test-per-class and --val-per-class would have no effect at --split official",
    "--ratio 1e9": "ratio",
    "--trials 0": "--trials must be from 1",
    "--trial -1": "--trial must be from 0",
    "--trial 1 --trials 2": "not allowed with",
    "--trials two": "--trials",
    "--jobs 0": "--jobs must be",
    "--seed -1": "--seed must be",
    "--epochs 0": "--epochs must be at least 1",
    "--batch-size 1": "--batch-size must be at least 2",
    "--image-size 15": "--image-size must be at least 16",
    "--lr 0": "--lr must be a number above 0",
    "--lr nan": "--lr must be a number above 0",
    "--preset=": "unknown preset ''",
    "--patience 0": "--patience must be at least 1",
    "--n-max 99999": "--n-max auto",
    "--n-max -3": "--n-max must be a whole number",
    "--val-per-class 5000": "lacks",
    "--test-per-class 0": "--test-per-class must be at least 1",
    "--method rs --set beta": "--set takes NAME=VALUE",
    "--method rs --set bta=0.9": "did you mean 'beta'",
    "--method ce --set beta=0.9": "ce has no hyper-parameters",
    "--method ce --set beta=0.9 --backbone resnet19": "ce has no hyper-parameters",
    "--method rs --set beta=much": "beta must be a number",
    "--method rs --set beta=1.5": "beta must be at least 0 and at most",
    "--method rs --set scheme=sqrt": "scheme must be one of",
    "--method flex --ratio 3": "use a scale of at least",
    "--plugin nowhere.py": "nowhere.py does not exist",
    "--data-root nowhere": "nowhere is not a folder",
    "--dataset-option hair=1": "unknown option of dataset synthetic 'hair'",
    "--dataset-option difficulty=no": "synthetic: difficulty must be one of frequent-hard, rare-hard, equal, got 'no'",
    "--dataset-option hair=1 --dataset-option difficulty=equal": "unknown option of dataset synthetic 'hair'",
    "--dataset-option difficulty=equal difficulty=rare-hard": "--dataset-option gives difficulty two values",
    "--method rs --set beta=0.9 --set beta=0.5": "--set gives beta two values, '0.9' and '0.5'; give one",
    "--split-dir .": "--n-max and --test-per-class and --val-per-class would have no effect with --split-dir",
    "--unknown": "unrecognized arguments",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_one_line(arguments: str, refuses: Any) -> None:
    refuses(run.main, [*TINY, *arguments.split(), "--out", "results"], BAD[arguments])


def test_a_value_said_twice_is_one_value() -> None:
    assert assignments("--set", ["a=1", "b=2", "a=1"]) == {"a": "1", "b": "2"}


def test_the_data_folder_of_the_environment(isic: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*TINY, *ISIC, "--dry-run"]
    monkeypatch.setenv("LTBENCH_DATA", str(isic))
    assert run.main(arguments) == 0
    assert capsys.readouterr().out.startswith("data: ISIC-2019-LT\n")
    monkeypatch.setenv("LTBENCH_DATA", str(isic / "nowhere"))
    assert run.main(arguments) == 2
    assert "nowhere, which is not a folder; correct it, unset it, or give --data-root" in _one_line(capsys)
    assert run.main([*arguments, "--dataset", "synthetic"]) == run.main([*arguments, "--data-root", str(isic)]) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("asked", ["--device cuda", "--gpus all", "--gpus 0,1 --device cuda"])
def test_cuda_where_there_is_none(asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([*TINY, *asked.split(), "--out", str(tmp_path / "results")]) == 2
    assert "no CUDA device is available" in _one_line(capsys)


def test_where_and_on_what_trials_would_run_is_refused_before_data_is_read(
    refuses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [*TINY, "--dataset", "imagefolder", "--data-root", str(tmp_path / "empty")]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    refuses(run.main, [*own, "--out", "file"], "is a file")
    if not torch.cuda.is_available():
        refuses(run.main, [*own, "--gpus", "0"], "no CUDA device")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ltbench.benchmarks.executors.ray", raising=False)
    refuses(run.main, [*own, "--executor", "ray"], "needs the package ray")


BREAKS = """
import multiprocessing, os
from ltbench.methods import Method, register
@register("{name}")
class Breaks(Method):
    def stages(self, run):
        process = multiprocessing.Process(target=abs, args=(1,))
        process.start()
        process.join()
        {ends}
        yield
"""


@pytest.mark.parametrize(
    ("jobs", "ends", "said"),
    [
        *[(jobs, "raise KeyError('sick')", "KeyError") for jobs in "12"],
        *[("1", "raise SystemExit", "code None"), ("1", "os._exit(3)", "code 3"), ("1", "raise GeneratorExit", "")],
        ("2", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_a_plugin_that_raises_in_training(jobs: str, ends: str, said: str, tmp_path: Path, capsys: Any) -> None:
    name = f"breaks{hash(ends) % 10**9}"
    (tmp_path / "breaks.py").write_text(BREAKS.format(name=name, ends=ends))
    arguments = ["--method", name, "--plugin", str(tmp_path / "breaks.py"), "--trials", "2", "--jobs", jobs]
    assert run.main([*TINY, *arguments, "--out", str(tmp_path / "results")]) == 2
    errors = capsys.readouterr().err
    kept = sorted((tmp_path / "results").glob("*/*/trial*/error.txt"))
    lines = sorted(line for line in errors.splitlines() if line.startswith("error:"))
    assert len(lines) == len(kept) == 2 and "Traceback" not in errors
    assert "--fresh" not in errors
    for line, file in zip(lines, kept, strict=True):
        assert said in line and "breaks.py:10" in line and str(file) in line and "Traceback" in file.read_text()


@pytest.fixture
def isic(tmp_path: Path) -> Path:
    folder = tmp_path / "isic"
    images = folder / "ISIC_2019_Training_Input"
    images.mkdir(parents=True)
    classes = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    labels, meta = ["image," + ",".join(classes)], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    rng = np.random.default_rng(0)
    for number in range(96):
        name = f"ISIC_{number:07d}"
        labels.append(name + "," + ",".join(str(float(number % 8 == column)) for column in range(9)))
        meta.append(f"{name},50.0,torso,L{number // 2},female")
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(images / f"{name}.jpg")
    (folder / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(labels) + "\n")
    (folder / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(meta) + "\n")
    return folder


ISIC_SETTINGS = {"method": "ce", "trials": 1, "ratio": 2, "n-max": 4, "val-per-class": 2, "test-per-class": 3}
ISIC_SETTINGS |= {"backbone": "test_resnet"}
ISIC = [word for name, value in ISIC_SETTINGS.items() for word in (f"--{name}", str(value))]


def _isic_run(folder: Path, out: Path) -> int:
    return run.main([*TINY, *ISIC, "--data-root", str(folder), "--out", str(out)])


def test_isic_folder_is_found_and_trains(isic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _isic_run(isic, tmp_path / "results") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "data: ISIC-2019-LT"
    assert "### ISIC-2019-LT, ratio 2" in printed


def test_spoilt_isic_folder(isic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(message: str) -> None:
        assert _isic_run(isic, tmp_path / "results") == 2
        error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("decoding")]
        assert len(error) == 1 and error[0].startswith("error: ") and message in error[0]

    for path in isic.glob("*/*.jpg"):
        path.write_bytes(path.read_bytes()[:300])
    refused(".jpg")
    path.unlink()
    refused("1 of 96 images missing")
    (isic / "ISIC_2019_Training_Metadata.csv").unlink()
    refused("ISIC_2019_Training_Metadata.csv")


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    arguments = [*TINY, "--method", "ce", "--trials", "1", "--out", str(tmp_path / "results")]
    write = files.write_bytes

    def full(path: Path, data: bytes, *, durable: bool = False) -> None:
        if path.name == "predictions.npz":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data, durable=durable)

    monkeypatch.setattr(files, "write_bytes", full)
    assert run.main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "No space left on device" in errors[0]
    monkeypatch.undo()
    assert run.main(arguments) == 0


def test_the_command_twice_skips_what_is_done_and_fresh_does_it_again(tmp_path: Path, capsys: Any) -> None:
    arguments = [*TINY, "--method", "ce", "rw", "--trials", "2", "--out", str(tmp_path / "results")]
    assert run.main(arguments) == 0
    first = capsys.readouterr().out
    assert first.splitlines()[0].startswith("data: synthetic")
    assert "### synthetic" in first and "4 trials; cpu" in first
    files = sorted((tmp_path / "results").glob("*/*/trial*/result.json"))
    stamps = [path.stat().st_mtime_ns for path in files]
    assert len(files) == 4
    assert run.main(arguments) == 0
    again = capsys.readouterr().out
    assert "4 trials, 4 done" in again
    assert again[again.index("###") :] == first[first.index("###") :]
    assert [path.stat().st_mtime_ns for path in files] == stamps
    assert run.main([*arguments, "--fresh"]) == 0
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in zip(files, stamps, strict=True))


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_fresh_repairs_what_errors_say_it_repairs(name: str, content: str, tmp_path: Path, capsys: Any) -> None:
    arguments = [*TINY, "--method", "ce", "--trials", "1", "--out", str(tmp_path / "results")]
    assert run.main(arguments) == 0
    (result,) = (tmp_path / "results").glob("*/*/trial0/result.json")
    if name == "config.json":
        result.unlink()
    result.with_name(name).write_text(content)
    capsys.readouterr()
    assert run.main(arguments) == 2
    assert "--fresh" in _one_line(capsys)
    assert run.main([*arguments, "--fresh"]) == 0


def test_a_damaged_record_is_not_done_and_the_others_are_shown(tmp_path: Path, capsys: Any) -> None:
    arguments = [*TINY, "--method", "ce", "rs", "--trial", "0", "--out", str(tmp_path / "results")]
    assert run.main(arguments) == 0
    (predictions,) = (tmp_path / "results").glob("*/ce-*/trial0/predictions.npz")
    predictions.write_bytes(predictions.read_bytes() + b"x")
    capsys.readouterr()
    assert run.main(arguments) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and "damaged" in err and "--fresh --trial 0 --method ce" in err
    assert "2 trials, 1 done, 1 damaged" in out and "| rs " in out and "| ce " not in out
    assert run.main([*arguments, "--fresh", "--method", "ce"]) == 0


def test_a_hyperparameter_of_one_method_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--trials", "1", "--out", str(tmp_path / "results")]
    assert run.main([*TINY, "--method", "rs", "rw", "--set", "rs.scheme=class_aware", "rw.scheme=sqrt", *out]) == 0
    printed = capsys.readouterr().out
    assert "rs (scheme=class_aware)" in printed and "rw (scheme=sqrt)" in printed


def test_dry_runs_write_nothing_and_results_need_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([*TINY, "--dry-run", "--method", "ce", "--out", str(tmp_path / "results")]) == 0
    assert "overlap train/test" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "results").write_text("")
    assert run.main([*TINY, "--method", "ce", "--out", str(tmp_path / "results")]) == 2
    assert "is a file" in _one_line(capsys) or "Not a directory" in _one_line(capsys)


def test_other_protocols_are_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--trials", "1", "--out", str(tmp_path / "results")]
    assert run.main([*TINY, "--method", "ce", *out]) == 0
    assert run.main([*TINY, "--method", "rw", "--lr", "0.01", *out]) == 0
    printed = capsys.readouterr().out
    assert "1 results of other protocols or splits are not mixed in" in printed
    for style in ("github", "latex", "csv"):
        assert leaderboard.main(["--results", str(tmp_path / "results"), "--format", style]) == 0
        assert capsys.readouterr().out.count("protocol") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code", "jobs"), [(signal.SIGINT, 130, "2"), (signal.SIGTERM, 143, "1")])
def test_interrupted_runs_say_how_to_resume(number: int, code: int, jobs: str, tmp_path: Path) -> None:
    out = tmp_path / "results"
    arguments = [*TINY, "--method", "ce", "--epochs", "500", "--patience", "500", "--trials", "2", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments, "--fresh", "--jobs", jobs]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore Ctrl-C, and with it all that this starts in turn.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # No checkpoint is due for half a minute: the one that is there in the end was written at the signal. The state of
    # an epoch is kept after its line is written, so one epoch more is awaited.
    while process.poll() is None and not any(
        path.read_text().count("\n") > 1 for path in out.glob("*/*/trial0/metrics.jsonl")
    ):
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "resume with: python " in errors and "/benchmarks/run.py " in errors and "Traceback" not in errors
    assert "--fresh" not in errors
    assert list(out.glob("*/*/trial0/journal/checkpoint.pt"))


def test_two_processes_share_a_results_folder(tmp_path: Path) -> None:
    arguments = [*TINY, "--method", "ce", "rw", "--epochs", "1", "--trials", "2", "--out", str(tmp_path / "results")]
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    done = [line for _, errors in outputs for line in errors.splitlines() if "test mean per-class accuracy" in line]
    assert len(done) == len({line.partition(":")[0] for line in done}) == 4
    tables = [text[text.index("###") :] for text, _ in outputs]
    assert tables[0] == tables[1]
    for path in (tmp_path / "results").glob("*/*/trial*/result.json"):
        assert json.loads(path.read_text())["schema"] == records.SCHEMA


def test_only_the_trials_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available_cores", lambda: 1)  # no processes for decoding
    arguments = [*TINY, "--method", "ce", "--trial", "2", "0", "--epochs", "1", "--out", str(tmp_path / "results")]
    assert run.main(arguments) == 0
    assert sorted(path.parent.name for path in tmp_path.rglob("result.json")) == ["trial0", "trial2"]
