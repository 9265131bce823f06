"""Predictions: calibrated probabilities of new images by a trained network, with thresholds and sets from validation.

    ltbench predict results/.../trial0 lesion.jpg
    ltbench predict results/.../trial0 images/ --out predictions.csv --montage predictions.png
    ltbench predict results/.../trial0 table.csv --sensitivity melanoma=0.95 --prior melanoma=0.02

Images are files, a folder, or a CSV with a column `image` (paths relative to it) and perhaps `label`. An image that
cannot be read has a row with the reason. Without --out the table goes to stdout, and all else to stderr.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ltbench.benchmarks.cli.arguments import add_trial, load_plugins
from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, named_path, new_file, script
from ltbench.errors import UserError, counted

if TYPE_CHECKING:
    import numpy as np

    from ltbench.benchmarks.serving.decisions import Wanted
    from ltbench.benchmarks.serving.images import ImageList
    from ltbench.benchmarks.serving.model import TrialModel
    from ltbench.benchmarks.serving.predictions import Decisions, Montage, Tally
    from ltbench.benchmarks.serving.predictor import Predictor


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog=invocation("predict"),
        description=about(__doc__, "predict", whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trial(parsed)
    parsed.add_argument("images", type=named_path, nargs="+", metavar="IMAGES", help="files, folders, or one CSV")
    parsed.add_argument("--ensemble", action="store_true", help="the mean probabilities of all trials of the row")
    parsed.add_argument("--out", type=new_file, metavar="FILE.csv", help="default: stdout")
    about_share = "threshold of a class that reaches this {} on validation images"
    for kind in ("sensitivity", "specificity"):
        text = about_share.format(kind)
        parsed.add_argument(f"--{kind}", nargs="+", action="extend", default=[], metavar="CLASS=SHARE", help=text)
    about_prior = (
        "shares of the classes among these images: CLASS=SHARE ..., training or uniform; default: validation's"
    )
    parsed.add_argument("--prior", nargs="+", metavar="CLASS=SHARE", help=about_prior)
    about_coverage = "share of sets that hold the true class, on images like those of validation; default: 0.9"
    parsed.add_argument("--coverage", type=float, default=0.9, metavar="SHARE", help=about_coverage)
    parsed.add_argument(
        "--montage", type=new_file, metavar="FILE.png", help="draw the surest, least sure, wrong images"
    )
    parsed.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at once; default: 64")
    parsed.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict; return the exit code, 0 also where some images cannot be read."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.serving.images import listed
    from ltbench.benchmarks.serving.predictor import Predictor, load_models

    _check(options)
    _check_one_trial(options)
    load_plugins(options)
    models = load_models(options.trial, options.device, ensemble=options.ensemble)
    images, wanted = listed(options.images, models[0].class_names), _wanted(options, models[0].class_names)
    _check_outputs(options, [*options.images, *images.paths])
    predictor = Predictor(models, _prior(options, models[0]))
    said = sys.stderr if options.out is None else sys.stdout
    for line in _about(predictor):
        print(line, file=said)
    decisions = _decisions(wanted, options.coverage, predictor, said)
    tally, montage = _predict(options, predictor, images, decisions)
    for line in tally.lines():
        print(line, file=said)
    if montage is not None:
        _draw(montage, options, predictor)
    if tally.unreadable:
        total = tally.readable + tally.unreadable
        print(f"{tally.unreadable} of {counted(total, 'image')} cannot be read; their rows say why", file=sys.stderr)
    for path in filter(None, (options.out, options.montage)):
        print(path, file=said)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse values out of range before anything is read."""
    if not 0 < options.coverage < 1:
        raise UserError(f"--coverage must be above 0 and below 1, got {options.coverage:g}")
    if not 1 <= options.batch_size <= 2**16:
        raise UserError(f"--batch-size must be 1 to {2**16}, got {options.batch_size}")
    if options.montage is not None and options.montage.suffix.lower() != ".png":
        raise UserError(f"--montage is a PNG file, got {options.montage}; end its name in .png")
    if options.specificity and options.prior is not None:
        raise UserError(
            "--specificity counts the images of other classes in validation's mix, which is not that of --prior; leave "
            "out one of them, or choose the threshold by --sensitivity"
        )


def _check_one_trial(options: argparse.Namespace) -> None:
    """Refuse further trials, as a pattern of the shell may give them, among the images.

    Raises
    ------
    UserError : one of the images is the folder of a trial
    """
    further = [path for path in options.images if (path / "result.json").is_file()]
    if further:
        raise UserError(f"{further[0]} is a trial, and {options.trial} is one; give one (--ensemble: all of its row)")


def _check_outputs(options: argparse.Namespace, inputs: Sequence[Path]) -> None:
    """Refuse to write over what is read.

    Raises
    ------
    UserError : the table or the montage would replace an image, or the table of images
    """
    for name in ("out", "montage"):
        path = getattr(options, name)
        if path is not None and path.exists() and any(path.samefile(each) for each in inputs if each.exists()):
            raise UserError(f"--{name} {path} would replace what is read; give another name")


def _prior(options: argparse.Namespace, model: TrialModel) -> np.ndarray | None:
    from ltbench.benchmarks.serving.priors import stated_prior

    if options.prior is None:
        return None
    values = _shares("--prior", options.prior) if any("=" in text for text in options.prior) else {}
    return stated_prior(options.prior, values, model.class_names, model.record.result.data.class_counts)


def _shares(option: str, texts: Sequence[str]) -> dict[str, float]:
    """Return the numbers that texts `CLASS=SHARE` give to classes."""
    from ltbench.benchmarks.cli.arguments import assignments

    shares = {}
    for name, text in assignments(option, texts).items():
        try:
            shares[name] = float(text)
        except ValueError:
            raise UserError(f"{option} {name}={text}: a share is a number from 0 to 1") from None
    return shares


def _wanted(options: argparse.Namespace, class_names: Sequence[str]) -> list[Wanted]:
    from ltbench.benchmarks.serving.decisions import KINDS, Wanted
    from ltbench.registry import unknown

    wanted = []
    for kind in KINDS:
        for name, share in _shares(f"--{kind}", getattr(options, kind)).items():
            if name not in class_names:
                raise unknown("class", name, class_names)
            if not 0 < share <= 1:
                raise UserError(f"--{kind} {name}={share:g}: a share is above 0 and at most 1")
            wanted.append(Wanted(name, kind, share))
    return wanted


def _about(predictor: Predictor) -> Iterator[str]:
    """Yield what the probabilities are of."""
    from ltbench.benchmarks.analysis.reliability.calibration import AT_BOUND, at_bound

    data = predictor.models[0].record.result.data
    name = predictor.models[0].record.folder.absolute().parent.name
    temperatures = ", ".join(f"{own.temperature:.3g}" for own in predictor.calibrations)
    yield f"{name}, {counted(len(predictor.models), 'trial')}, trained on {data.title}; temperature {temperatures}"
    if any(at_bound(own.temperature, own.losses[own.name]) for own in predictor.sources):
        yield AT_BOUND
    if predictor.prior is None:
        yield "probabilities are for classes as frequent as in validation; --prior states others"
    for source in predictor.sources:
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in source.losses.items())
        yield f"scores stand for the {source.name} prior (cross-entropy on validation: {losses})"
    yield "for research only, not a medical device"


def _decisions(asked: Sequence[Wanted], coverage: float, predictor: Predictor, said: TextIO) -> Decisions:
    """Return what validation images decide, and print what it reaches there and on test images."""
    from ltbench.benchmarks.serving.decisions import SENSITIVITY, reached, threshold
    from ltbench.benchmarks.serving.predictions import Decisions

    thresholds = []
    for wanted in asked:
        label = predictor.class_names.index(wanted.class_name)
        value = threshold(wanted, label, *predictor.validation)
        thresholds.append((wanted, value))
        print(f"{wanted.title}: called at a probability of {value:.4g} or more", file=said)
        parts = (("val", "validation, where it was chosen", predictor.validation), ("test", "test", predictor.test))
        for part, named, own in parts:
            found = reached(value, label, *own, predictor.lesions(part))
            # Negatives are of the other classes in validation's mix, which is not the stated one.
            text = found.text() if predictor.prior is None else f"{SENSITIVITY} {found.sensitivity.text()}"
            print(f"  {named}: {text}", file=said)
    limits = predictor.limits(coverage)
    if limits is None:
        few = f"too few validation images for a coverage of {coverage:g}"
        reason = few if predictor.shares_validation else "each trial has a split of its own"
        print(f"sets n/a: {reason}", file=said)
    elif len(always := [name for name, limit in zip(predictor.class_names, limits, strict=True) if limit == 0]):
        print(f"sets always hold {', '.join(always)}: too few validation images for its prior", file=said)
    return Decisions(thresholds, limits)


def _predict(
    options: argparse.Namespace, predictor: Predictor, images: ImageList, decisions: Decisions
) -> tuple[Tally, Montage | None]:
    """Write a row for each image as it comes."""
    from ltbench.benchmarks.serving.predictions import Montage, Tally, Writer, predictions

    tally = Tally(predictor.class_names)
    montage = None if options.montage is None else Montage(predictor.class_names)
    with _output(options.out) as file:
        writer = Writer(file, images, predictor.class_names, decisions)
        for prediction in predictions(predictor, images, options.batch_size):
            writer.write(prediction)
            tally.add(prediction)
            if montage is not None:
                montage.add(prediction)
        if not tally.readable:
            raise UserError(f"none of {counted(tally.unreadable, 'image')} can be read: {tally.first_reason}")
    return tally, montage


@contextmanager
def _output(out: Path | None) -> Iterator[TextIO]:
    """Open the table: stdout, or a file that takes its name when it is whole."""
    from ltbench.files import replacing

    if out is None:
        yield sys.stdout
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        yield text
        text.detach()


def _draw(montage: Montage, options: argparse.Namespace, predictor: Predictor) -> None:
    from ltbench.benchmarks.plots.montage import montage as drawn
    from ltbench.benchmarks.plots.style import png_of
    from ltbench.files import write_bytes

    title = f"{predictor.models[0].record.result.method} on {options.images[0].name}"
    write_bytes(options.montage, png_of(drawn(montage.rows(), title)))


if __name__ == "__main__":
    script(__file__)
