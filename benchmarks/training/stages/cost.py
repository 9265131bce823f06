"""What a trial has cost, shared stages included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ltbench.benchmarks.analysis.records import Cost, StageCost
from ltbench.benchmarks.training.journal import Journal
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.hooks import param_groups
from ltbench.methods._pretraining import INITIAL
from ltbench.methods.base import Method
from ltbench.methods.stages import Plateau, Stage
from ltbench.processes import peak_memory


def cost_of(journal: Journal, method: Method, device: torch.device) -> Cost:
    """Return the full cost of a trial, that of shared stages included.

    Parameters
    ----------
    journal, method : of the trial
    device : whose memory is meant; on the CPU the process's, which may have run earlier trials
    """
    stages = tuple(_stage_cost(stage) for stage in journal.stages())
    memos = [memo["cost"] for memo in journal.memos().values()]
    reports = [report for stage in journal.stages() for report in stage["reports"]]
    cpu_seconds = [part.get("cpu_seconds") for part in (*reports, *memos)]
    on_gpu = device.type == "cuda"
    return Cost(
        train_seconds=sum(stage.seconds for stage in stages) + sum(memo["seconds"] for memo in memos),
        images_seen=sum(stage.images for stage in stages),
        forward_images=sum(stage.forward_images for stage in stages) + sum(memo["forward_images"] for memo in memos),
        parameters=sum(parameter.numel() for parameter in method.parameters()),
        peak_memory_mib=torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else peak_memory(),
        stages=stages,
        cpu_seconds=None if None in cpu_seconds else sum(cpu_seconds),
        trained_parameters=sum(each.numel() for each in method.parameters() if each.requires_grad),
    )


def _stage_cost(stage: Mapping[str, Any]) -> StageCost:
    """Return what a stage of the journal took."""
    reports = stage["reports"]
    return StageCost(
        name=stage["name"],
        cached=stage["cached"],
        epochs=sum(report["steps"] > 0 for report in reports),
        steps=sum(report["steps"] for report in reports),
        images=sum(report["images"] for report in reports),
        forward_images=sum(report["forward_images"] for report in reports),
        seconds=sum(report["seconds"] for report in reports),
        rates=tuple(stage["rates"]),
        stopping=stage["stopping"],
    )


def own_settings(method: Method, stage: Stage, protocol: Protocol) -> tuple[list[float], str]:
    """Return in what the training of a stage differs from the protocol's: its learning rates, and its stop rule.

    The encoder of `--init` is the protocol's and differs in nothing; a stage without epochs trains nothing.

    Returns
    -------
    the rates of its parameter groups, each once, as multiples of the protocol's, and words, as `StageCost` has them
    """
    if stage.epochs == 0 or stage.name == INITIAL:
        return [], ""
    rates = {round(group["lr"] / protocol.lr, 9) for group in param_groups(method, stage, protocol.lr)}
    return sorted(rates), _own_stopping(stage, protocol.patience)


def _own_stopping(stage: Stage, patience: int) -> str:
    if stage.stop is None:
        return "none"
    if not isinstance(stage.stop, Plateau) or stage.stop.patience != patience:
        return "its own"
    return f"from epoch {stage.stop.after}" if stage.stop.after else ""
