"""`ltbench predict`: tables of files, folders and CSVs, and one line for what the user can fix."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ltbench
from ltbench.benchmarks.predict import _about, main
from ltbench.benchmarks.serving.card import model_card
from ltbench.benchmarks.serving.predictor import Predictor, load_models
from ltbench.datasets.loading import SplitDataset


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: SplitDataset) -> Path:
    """Return a folder of the test images, one that cannot be read, and a table of them."""
    where = tmp_path_factory.mktemp("images")
    store, (ids, labels) = tiny_dataset.store(), tiny_dataset.manifest.part("test")
    lines = ["image,label"]
    (where / "below").mkdir()
    for number, (row, label) in enumerate(zip(store.rows(ids), labels, strict=True)):
        name = f"below/{number:02d}.png"
        Image.fromarray(store.pixels[row].transpose(1, 2, 0)).save(where / name)
        lines.append(f"{name},{tiny_dataset.source.class_names[label]}")
    (where / "broken.jpg").write_bytes(b"no image")
    (where / "table.csv").write_text("\n".join([*lines, "broken.jpg,", "below/00.png,"]))
    return where


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def probabilities_in(rows: list[dict[str, str]], names: tuple[str, ...]) -> np.ndarray:
    return np.array([[float(row[name]) for name in names] for row in rows if not row["error"]])


def test_a_table_of_a_folder(trained: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial, out = trained(), tmp_path / "new" / "out.csv"
    options = ["--sensitivity", "cobbled=0.75", "--batch-size", "7", "--device", "cpu", "--montage", "montage.png"]
    assert main([str(trial), str(folder), "--out", str(out), *options[:-2]]) == 0
    rows, printed = rows_of(out.read_text()), capsys.readouterr()
    assert [Path(row["image"]).name for row in rows] == [*(f"{number:02d}.png" for number in range(40)), "broken.jpg"]
    model = ltbench.load_model(trial)
    expected = Predictor([model]).test[1]
    np.testing.assert_allclose(probabilities_in(rows, model.class_names), expected, atol=1e-5)
    assert [row["predicted"] for row in rows[:40]] == [model.class_names[best] for best in expected.argmax(1)]
    assert rows[40]["error"].startswith("cannot read the image") and rows[40]["predicted"] == rows[40]["set"] == ""
    assert printed.err.endswith("1 of 41 images cannot be read; their rows say why\n")
    assert "cobbled at sensitivity 0.75: called at a probability of" in printed.out
    assert (
        "  validation, where it was chosen: sensitivity 75.0 % [" in printed.out
        and "  test: sensitivity" in printed.out
    )
    asked = {row["cobbled at sensitivity 0.75"] for row in rows[:40]}
    assert asked <= {"yes", "no"} and all(set(row["set"].split("; ")) <= {*model.class_names, ""} for row in rows[:40])
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_table_with_labels_gives_accuracies_and_a_montage(
    trained: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial, montage = trained(), tmp_path / "montage.png"
    command = [str(trial), str(folder / "table.csv"), "--montage", str(montage), "--device", "cpu"]
    assert main(command) == 0
    printed = capsys.readouterr()
    rows, (labels, probabilities) = rows_of(printed.out), Predictor([ltbench.load_model(trial)]).test
    assert len(rows) == 42 and rows[0]["image"] == "below/00.png" and rows[41]["label"] == ""
    right = sum(row["label"] == row["predicted"] for row in rows if row["label"])
    assert right == (probabilities.argmax(1) == labels).sum()
    assert f"accuracy of 40 images with a label: {100 * right / 40:.1f} % [" in printed.err
    assert "mean of 8 classes: " in printed.err
    with Image.open(montage) as image:
        assert image.format == "PNG" and min(image.size) > 300


def test_an_ensemble_is_the_mean_of_the_trials_of_the_row(
    trained: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [trained("rs", trial=trial) for trial in (0, 1)]
    image = str(folder / "below" / "03.png")
    assert main([str(trials[1]), image, "--ensemble", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "2 trials" in printed.err
    models = [ltbench.load_model(trial) for trial in trials]
    expected = np.mean([Predictor([model]).probabilities(model.decode(image)[None]) for model in models], axis=0)
    np.testing.assert_allclose(probabilities_in(rows_of(printed.out), models[0].class_names), expected, atol=1e-6)


def test_a_stated_prior_moves_probabilities_and_says_what_scores_stand_for(
    trained: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial, found = trained(), {}
    for prior in ("cobbled=0.9", "cobbled=0.01"):
        assert main([str(trial), str(folder / "below"), "--prior", prior, "--device", "cpu"]) == 0
        printed = capsys.readouterr()
        assert "prior (cross-entropy on validation: training" in printed.err
        found[prior] = np.array([float(row["cobbled"]) for row in rows_of(printed.out)])
    odds = {prior: values / (1 - values) for prior, values in found.items()}
    ratio = odds["cobbled=0.9"] / odds["cobbled=0.01"]
    np.testing.assert_allclose(ratio, (0.9 / 0.1) / (0.01 / 0.99), rtol=1e-3)
    asked = ["--sensitivity", "cobbled=0.75", "--prior", "cobbled=0.01"]
    assert main([str(trial), str(folder / "below" / "00.png"), *asked, "--device", "cpu"]) == 0
    printed = capsys.readouterr().err
    assert "  test: sensitivity" in printed and "specificity" not in printed


def test_without_a_prior_probabilities_are_for_validation_s_shares(trained: Any) -> None:
    model = ltbench.load_model(trained())
    ids, labels, _ = model.validation
    counts = np.array(model.record.result.data.class_counts)
    rng = np.random.default_rng(0)
    scores = 2 * np.eye(8)[labels] + rng.normal(size=(len(labels), 8)) + np.log(counts / counts.sum())
    model.validation = ids, labels, scores
    predictor, shares = Predictor([model]), np.bincount(labels, minlength=8) / len(labels)
    assert predictor.sources[0].name == "training"
    stated = Predictor([model], shares).calibrations[0]
    np.testing.assert_allclose(predictor.calibrations[0].probabilities(scores), stated.probabilities(scores))
    model.validation = ids, np.where(labels == 7, 0, labels), scores
    assert (Predictor([model]).calibrations[0].probabilities(scores)[:, 7] > 0).all()


def test_a_temperature_at_its_bound_is_said(trained: Any) -> None:
    model = ltbench.load_model(trained())
    ids, labels, _ = model.validation
    assert "the temperature is at its bound" not in " ".join(_about(Predictor([model])))
    assert "the temperature is at its bound" not in model_card(model, "onnx", "images", 0.0)
    for sign in (1, -1):  # always right, always wrong
        model = ltbench.load_model(trained())
        model.validation = ids, labels, 10 * sign * np.eye(8)[labels]
        assert "the temperature is at its bound: too few" in " ".join(_about(Predictor([model])))
        assert "The temperature is at its bound: too few" in model_card(model, "onnx", "images", 0.0)


def test_trials_of_other_splits_have_no_shared_sets(trained: Any) -> None:
    models = [ltbench.load_model(trained("rs", trial=trial)) for trial in (0, 1)]
    ids, labels, logits = models[1].validation
    models[1].validation = np.roll(ids, 1), labels, logits
    predictor = Predictor(models)
    assert predictor.limits(0.9) is None
    with pytest.raises(ltbench.UserError, match="splits of their own"):
        _ = predictor.validation
    assert len(load_models(models[0].record.folder, "cpu", ensemble=True)) == 2


BAD: list[tuple[list[str], str]] = [
    (["nowhere", "{images}"], "nowhere is no folder of a finished trial"),
    (["{images}", "{images}"], "is no folder of a finished trial"),
    (["{trial}", "{trial}", "{images}"], "give one (--ensemble: all of its row)"),
    (["{trial}", "nothing.png"], "there is no image nothing.png"),
    (["{trial}", "{images}/broken.jpg"], "none of 1 image can be read: cannot read the image"),
    (["{trial}", "empty"], "empty holds no image"),
    (["{trial}", "no_image.csv"], "lacks the column(s) image"),
    (["{trial}", "wrong.csv"], "unknown class 'moon'"),
    (["{trial}", "{images}", "--sensitivity", "moon=0.9"], "unknown class 'moon'"),
    (["{trial}", "{images}", "--sensitivity", "cobbled"], "--sensitivity takes NAME=VALUE"),
    (["{trial}", "{images}", "--specificity", "cobbled=much"], "a share is a number from 0 to 1"),
    (["{trial}", "{images}", "--specificity", "cobbled=95"], "a share is above 0 and at most 1"),
    (["{trial}", "{images}", "--prior", "equal"], "--prior takes CLASS=SHARE"),
    (["{trial}", "{images}", "--specificity", "cobbled=0.9", "--prior", "uniform"], "in validation's mix"),
    (["{trial}", "{images}", "--coverage", "1"], "--coverage must be above 0 and below 1"),
    (["{trial}", "{images}", "--batch-size", "0"], "--batch-size must be 1"),
    (["{trial}", "{images}", "--montage", "picture.pdf"], "--montage is a PNG file"),
    (["{trial}", "{images}", "--device", "gpu"], "unknown device 'gpu'"),
    (["{trial}", "{images}", "--out", "empty"], "cannot write empty"),
    (["{trial}", "wrong.csv", "--out", "wrong.csv"], "unknown class 'moon'"),
    (["{trial}", "own.csv", "--out", "own.csv"], "--out own.csv would replace what is read"),
    (["{trial}", "own.csv", "--montage", "own.png"], "--montage own.png would replace what is read"),
    (["{trial}", "{images}", "--plugin", "none.py"], "none.py does not exist"),
    (["unvalidated/trial0", "{images}"], "predictions.npz is not readable"),
    (["unweighted/trial0", "{images}"], "model.pt is not readable"),
]


@pytest.mark.parametrize(("words", "reason"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_is_one_line(
    words: list[str], reason: str, trained: Any, folder: Path, tmp_path: Path, refuses: Any
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_image.csv").write_text("file\na.png\n")
    shutil.copy(folder / "below" / "00.png", tmp_path / "own.png")
    (tmp_path / "own.csv").write_text("image\nown.png\n")
    (tmp_path / "wrong.csv").write_text(f"image,label\n{folder}/below/00.png,moon\n")
    for name, file in (("unvalidated", "predictions.npz"), ("unweighted", "model.pt")):
        shutil.copytree(trained().parent, tmp_path / name)
        (tmp_path / name / "trial0" / file).unlink()
    out = [] if "--out" in words else ["--out", "out.csv"]
    refuses(main, [word.format(trial=trained(), images=folder) for word in words] + out, reason)
