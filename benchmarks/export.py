"""Exports: a trained network with preprocessing, class names, temperature, licence and a model card.

    ltbench export results/.../trial0 --format onnx --out melanoma-onnx

The folder is compared with the trained network, on validation images where they are at hand, before it takes its name.
ONNX needs `pip install -e '.[export]'` in the clone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ltbench.benchmarks.cli.arguments import add_trial, load_plugins
from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, named_path, script
from ltbench.errors import UserError

_KINDS = ("safetensors", "onnx", "torchscript", "timm-folder")
_OPSETS = (18, 30)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog=invocation("export"),
        description=about(__doc__, "export", whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_trial(parsed)
    parsed.add_argument("--format", required=True, metavar="NAME", help=", ".join(_KINDS))
    parsed.add_argument("--out", type=named_path, required=True, metavar="FOLDER", help="a new one")
    parsed.add_argument("--opset", type=int, metavar="N", help="of ONNX; default: torch's")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    _check(options)
    from ltbench.benchmarks.serving.exporting import export
    from ltbench.benchmarks.serving.model import load_model

    load_plugins(options)
    compared = export(load_model(options.trial), options.format, options.out, options.opset)
    found = f"logits differ from those of the trained network by at most {compared.difference:.2g}"
    print(f"{options.out}: on {compared.images} {found}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be written before anything is read."""
    from ltbench.benchmarks.cli.command import require_writable
    from ltbench.registry import unknown

    if options.format not in _KINDS:
        raise unknown("format", options.format, _KINDS)
    if options.opset is not None and options.format != "onnx":
        raise UserError(f"--opset is of ONNX and would have no effect on {options.format}; leave it out")
    low, high = _OPSETS
    if options.opset is not None and not low <= options.opset <= high:
        raise UserError(f"--opset must be {low} to {high}, got {options.opset}")
    require_writable(options.out / "README.md")


if __name__ == "__main__":
    script(__file__)
