"""The one training loop: runs the stages that a method yields, and never asks which method it is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltbench.benchmarks.analysis.metrics import class_precision_and_f1, class_recall
from ltbench.benchmarks.training.device import autocast, deciding_threads, place
from ltbench.benchmarks.training.display import Display
from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.journal import Checkpoint, Journal, Selection, Weights, indices_digest
from ltbench.benchmarks.training.method_run import TrialRun
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stage_cache import StageCache
from ltbench.benchmarks.training.stages.backbones import ForwardCounter
from ltbench.benchmarks.training.stages.batches import epoch_batches
from ltbench.benchmarks.training.stages.budget import StepBudget, budget_of, shared_encoder
from ltbench.benchmarks.training.stages.checkpoints import Checkpoints
from ltbench.benchmarks.training.stages.cost import own_settings
from ltbench.benchmarks.training.stages.hooks import StageHooks, describe_hooks, param_groups
from ltbench.benchmarks.training.stages.optimizers import schedule_of, set_rates
from ltbench.benchmarks.training.stages.snapshots import Snapshot
from ltbench.benchmarks.training.stages.states import TrainedState, of_modules, state_digest, tensors_of
from ltbench.benchmarks.training.stages.tuning import keep_frozen
from ltbench.benchmarks.training.streams import numpy_stream, stream_seed
from ltbench.benchmarks.training.validation import predictions_and_losses
from ltbench.datasets.images.part import ImagePart
from ltbench.errors import UserError
from ltbench.methods._pretraining import INITIAL
from ltbench.methods.base import Method
from ltbench.methods.contract import Contract
from ltbench.methods.stages import Batch, EpochReport, Progress, Stage, StageResult


class Trainer:
    """Trains one method in one trial.

    Parameters
    ----------
    method : on `device`
    train, val : the only images it ever sees
    protocol : with precision resolved
    seed : of the trial
    journal : where the state is kept
    cache : of stages that several methods share
    display : of progress
    counter : of the images that go through the trial's backbones
    checkpoint_seconds : the least time between two checkpoints within a stage
    """

    def __init__(
        self,
        method: Method,
        train: ImagePart,
        val: ImagePart,
        protocol: Protocol,
        device: torch.device,
        seed: int,
        journal: Journal,
        cache: StageCache,
        display: Display,
        counter: ForwardCounter,
        checkpoint_seconds: float,
    ) -> None:
        self.method, self.train_part, self.val_part = method, train, val
        self.protocol, self.device, self.seed = protocol, device, seed
        self.journal, self.cache, self.display, self.counter = journal, cache, display, counter
        self.checkpoint_seconds = checkpoint_seconds
        self.schedule = schedule_of(protocol)
        self.num_classes = method.task.num_classes
        self._state = TrainedState(method)
        self.inference = Inference(method, protocol, device)

    def run(self) -> Selection:
        """Run all stages, from wherever the journal stands; return the selected epoch.

        Raises
        ------
        UserError : a loss that is not finite, a method without any selectable epoch or with more stages than the budget
            gives, or a foreign journal
        ContractError : a hook that returns what it must not, at its first call
        """
        self.inference.rehearse(self.val_part)
        parts = (self.train_part, self.val_part, self.num_classes)
        run = TrialRun(self.protocol, self.seed, *parts, self.inference, self.journal, self.counter)
        self.journal.rewrite_metrics()
        contract = Contract.of(self.method)
        budget = budget_of(self.protocol, run)
        plan, result, selection, names = self._stages(run, budget), None, None, set()
        for position in itertools.count():
            torch.manual_seed(stream_seed(self.seed, "between", position))
            try:
                stage = next(plan) if result is None else plan.send(result)
            except StopIteration:
                break
            contract.yielded(stage, len(self.train_part), self.method, asdict(self.protocol.augmentation))
            if stage.name in names:
                raise UserError(f"{self.method.name} yields two stages named {stage.name!r}; rename one")
            names.add(stage.name)
            if budget is not None:
                budget.require(self.method, stage)
            result, selection = self._run_stage(position, stage, selection)
            if budget is not None:
                budget.spend(sum(report.steps for report in result.reports))
        if selection is None:
            raise UserError(f"{self.method.name} has no stage whose epochs may be selected; set select=True on one")
        return selection

    def _stages(self, run: TrialRun, budget: StepBudget | None) -> Generator[Stage, StageResult, None]:
        """Yield the stage of the encoder that all methods of the trial start from, if any, then those of the method."""
        initial = shared_encoder(self.method, run, self.protocol, budget)
        if initial is not None:
            yield initial
        yield from Contract.of(self.method).plan(self.method.stages(run))

    def load_selected(self, selection: Selection) -> None:
        """Put the weights of the selected epoch into the method."""
        self._state.load(self.journal.load(selection.weights, self.device))

    def _run_stage(
        self, position: int, stage: Stage, selection: Selection | None
    ) -> tuple[StageResult, Selection | None]:
        finished = self.journal.finished(position, stage)
        if finished is not None:
            state = self.journal.weights_after(position, self.device)
            if state is not None:
                self._state.load(state)
            return finished
        if stage.recipe is None:
            result, selection = self.fit(position, stage, selection)
            cached = False
        else:
            result, cached = self._shared(position, stage, selection)
            selection = self._select_shared(position, stage, result, selection)
        own = own_settings(self.method, stage, self.protocol)
        lasting = stage.name == INITIAL  # a method may go back to the encoder that it found
        self.journal.commit(position, stage, result, selection, self._state.get(), cached, *own, lasting=lasting)
        self.journal.rewrite_metrics()
        return result, selection

    def _shared(self, position: int, stage: Stage, selection: Selection | None) -> tuple[StageResult, bool]:
        """Run a stage that other methods may have run already; only what it produces is kept.

        What was selected before goes through its checkpoints, which would else drop those weights.
        """
        self.hooks_of(stage)  # refuses a stage that cannot be shared, also where it is in the cache
        self._require_produced(stage)
        before = {name: value.clone() for name, value in tensors_of(self.method).items()}
        with self.cache.entry(stage, self._described(stage, before)) as entry:
            cached = entry.load(self.device)
            if cached is None:
                result, _ = self.fit(position, replace(stage, select=False), selection)
                produced = of_modules(self._state.part_of(tensors_of(self.method)), stage.produces)
                entry.save(produced, result)
            else:
                produced, result = cached
        self.method.load_state_dict({**self.method.state_dict(), **before, **produced})
        return result, cached is not None

    def _require_produced(self, stage: Stage) -> None:
        """Refuse a shared stage that may be reported and trains what it does not hand on: its scores need all of it.

        Raises
        ------
        UserError
        """
        produced = tuple(f"{name}." for name in stage.produces)
        lost = [name for name in self._trained(stage) if not f"{name}.".startswith(produced)]
        if stage.select and lost:
            raise UserError(
                f"shared stage {stage.name!r} of {self.method.name} trains {lost[0]}, which it does not produce; name "
                "its module in produces, or yield the stage with select=False"
            )

    def _select_shared(
        self, position: int, stage: Stage, result: StageResult, selection: Selection | None
    ) -> Selection | None:
        """Select the best epoch of a shared stage, whose weights the method has now, if it may be and is the best."""
        if not stage.select or (selection is not None and result.best <= selection.score):
            return selection
        epoch = next(report.epoch for report in result.reports if report.score == result.best)
        return Selection(result.best, stage.name, epoch, self._weights(f"selected-{position:03d}-{epoch:05d}"))

    def _weights(self, name: str) -> Weights:
        return Weights(name, Snapshot(self._state.get(), self.device))

    def _described(self, stage: Stage, state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            "protocol": self.protocol.digest(),
            "seed": self.seed,
            "stream": stage.name,
            "hooks": describe_hooks(self.method, stage),
            "trained": [sorted(self._names(group)) for group in param_groups(self.method, stage, self.protocol.lr)],
            "weights": state_digest(of_modules(state, stage.produces) | self._trained(stage)),
            "modules": state_digest(tensors_of(stage.modules)) if stage.modules is not None else None,
            "device": self.device.type,
            "threads": deciding_threads(self.device),
            "indices": indices_digest(stage),
        }

    def _names(self, group: Mapping[str, Any]) -> list[str]:
        """Return the names of the method's parameters in a group."""
        members = set(group["params"])
        return [name for name, value in self.method.named_parameters() if value in members]

    def _trained(self, stage: Stage) -> dict[str, Tensor]:
        """Return the parameters of the method that a stage trains, by name."""
        groups = param_groups(self.method, stage, self.protocol.lr)
        moved = {parameter for group in groups for parameter in group["params"]}
        return {name: value.detach() for name, value in self.method.named_parameters() if value in moved}

    def fit(self, position: int, stage: Stage, selection: Selection | None) -> tuple[StageResult, Selection | None]:
        """Train one stage, from its checkpoint if there is one; weights stay in the method."""
        if stage.epochs == 0:
            return self._offer(position, stage, selection)
        reports: list[EpochReport] = []
        kept: Weights | None = None
        hooks, checkpoints = self.hooks_of(stage), Checkpoints(self.journal, position, self.checkpoint_seconds)
        with self.optimizing(stage, hooks) as optimizer, checkpoints:
            rates = [group["lr"] for group in optimizer.param_groups]
            checkpoint = self.journal.checkpoint(position, self.device)
            if checkpoint is not None:
                reports, selection, kept = list(checkpoint.reports), checkpoint.selection, checkpoint.kept
                self._restore(stage, optimizer, checkpoint.tensors.values)
            self.display.stage(stage.name, stage.epochs, len(reports))
            while not _over(stage, hooks, reports):
                report = self._epoch(stage, len(reports), hooks, optimizer, rates)
                selection, kept = self._keep_best(position, stage, report, reports, selection, kept)
                if stage.recipe is None:  # where a shared stage comes from the cache, there are no epochs to see
                    self.method.on_epoch_end(report)
                reports.append(report)
                self.journal.log(report)
                states = Snapshot(self._states(stage, optimizer), self.device)
                checkpoints.keep(Checkpoint(tuple(reports), selection, kept, states))
                self.display.epoch(report)
        if kept is not None:
            self._state.load(self.journal.load(kept, self.device))
        return StageResult(stage.name, len(reports) < stage.epochs, tuple(reports)), selection

    def _offer(self, position: int, stage: Stage, selection: Selection | None) -> tuple[StageResult, Selection | None]:
        """Evaluate the method as it stands, for selection."""
        before, started, cpu_before = self.counter.images, time.perf_counter(), time.process_time()
        report = self._validated(
            stage, EpochReport(stage.name, 0, {}, 0, 0, 0.0, metric=self.protocol.selection_metric)
        )
        report = replace(
            report,
            forward_images=self.counter.images - before,
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu_before,
        )
        selection, _ = self._keep_best(position, stage, report, [], selection, None)
        return StageResult(stage.name, False, (report,)), selection

    def hooks_of(self, stage: Stage) -> StageHooks:
        """Return what a stage is trained with.

        Raises
        ------
        UserError : a shared stage that leaves a hook to the method which that overrides
        """
        return StageHooks.of(self.method, stage, self.schedule)

    def train_epoch(
        self, stage: Stage, epoch: int, hooks: StageHooks, optimizer: torch.optim.Optimizer, rates: Sequence[float]
    ) -> tuple[dict[str, float], int, int]:
        """Train one epoch; return the mean of the logged terms, optimizer steps and images seen.

        Parameters
        ----------
        rates : learning rate of each of the optimizer's groups, before the schedule
        """
        names = (self.seed, stage.name, epoch)
        torch.manual_seed(stream_seed(*names, "network"))
        rng, progress = numpy_stream(*names, "transform"), Progress(epoch, stage.epochs)
        self._set_modes(stage)
        totals: dict[str, tuple[Tensor | float, int]] = {}
        batches = epoch_batches(self.train_part, self.protocol, stage, hooks, progress, names)
        if not batches:
            where = f"{self.method.name}, stage {stage.name!r}, epoch {epoch}"
            raise UserError(f"{where}: the sampler gave no batch of two images or more")
        for step, batch in enumerate(batches):
            set_rates(optimizer, rates, hooks.schedule((epoch + (step + 0.5) / len(batches)) / stage.epochs))
            terms = self._step(optimizer, hooks, batch, rng, progress)
            for name, value in terms.items():
                total, count = totals.get(name, (0.0, 0))
                totals[name] = total + (value.detach().float() if isinstance(value, Tensor) else value), count + 1
        means = {name: float(total) / count for name, (total, count) in totals.items()}
        self._require_finite(stage, epoch, means.get("loss", 0.0), "loss")
        return means, len(batches), batches.images

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        hooks: StageHooks,
        batch: Batch,
        rng: np.random.Generator,
        progress: Progress,
    ) -> Mapping[str, Tensor]:
        """Take one optimizer step; nothing in it may wait for the device.

        A closure, so that an optimizer that evaluates twice needs nothing else.
        """
        batch = hooks.transform(batch, rng)
        terms: Mapping[str, Tensor] = {}

        def closure() -> Tensor:
            nonlocal terms
            optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, self.protocol.precision):
                terms = hooks.loss(batch, progress)
            terms["loss"].backward()
            return terms["loss"]

        optimizer.step(closure)  # type: ignore[arg-type]  # a tensor is as good as the float
        return terms

    def _epoch(
        self, stage: Stage, epoch: int, hooks: StageHooks, optimizer: torch.optim.Optimizer, rates: Sequence[float]
    ) -> EpochReport:
        started, cpu_before, before = time.perf_counter(), time.process_time(), self.counter.images
        terms, steps, images = self.train_epoch(stage, epoch, hooks, optimizer, rates)
        metric, lr = self.protocol.selection_metric, max(float(group["lr"]) for group in optimizer.param_groups)
        report = EpochReport(stage.name, epoch, terms, steps, images, 0.0, metric=metric, lr=lr)
        if stage.validate:
            report = self._validated(stage, report)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_before
        return replace(report, seconds=seconds, cpu_seconds=cpu_seconds, forward_images=self.counter.images - before)

    def _validated(self, stage: Stage, report: EpochReport) -> EpochReport:
        labels, blocks = self.val_part.labels, self.inference.logit_blocks(self.val_part, predict=stage.predict)
        predicted, losses = predictions_and_losses(labels, self._finite(stage, report.epoch, blocks))
        precision, f1 = class_precision_and_f1(labels, predicted, self.num_classes)
        return replace(
            report,
            val_recall=tuple(class_recall(labels, predicted, self.num_classes).tolist()),
            val_precision=tuple(precision.tolist()),
            val_f1=tuple(f1.tolist()),
            val_loss=float(losses.mean()),
            val_top1=float((predicted == labels).mean()),
        )

    def _keep_best(
        self,
        position: int,
        stage: Stage,
        report: EpochReport,
        earlier: Sequence[EpochReport],
        selection: Selection | None,
        kept: Weights | None,
    ) -> tuple[Selection | None, Weights | None]:
        """Keep the weights where the epoch is the best so far; they are stored with the next checkpoint."""
        tag = f"{position:03d}-{report.epoch:05d}"
        if stage.select and (selection is None or report.score > selection.score):
            selection = Selection(report.score, stage.name, report.epoch, self._weights(f"selected-{tag}"))
        if stage.keep == "best" and all(report.score > other.score for other in earlier):
            kept = self._weights(f"kept-{tag}")
        return selection, kept

    @contextmanager
    def optimizing(self, stage: Stage, hooks: StageHooks) -> Iterator[torch.optim.Optimizer]:
        """Yield a fresh optimizer of the stage's parameters; inside, only these take gradients."""
        self.counter.watch_all(self.method)
        if stage.modules is not None:
            place(stage.modules, self.device)
            self.counter.watch_all(stage.modules)
        groups = param_groups(self.method, stage, self.protocol.lr)
        moved = {parameter for group in groups for parameter in group["params"]}
        if not moved:
            raise UserError(f"stage {stage.name!r} of {self.method.name} has no parameter to train")
        required = {parameter: parameter.requires_grad for parameter in self.method.parameters()}
        for parameter in required:
            parameter.requires_grad_(parameter in moved)
        try:
            yield hooks.optimizer(groups, stage)
        finally:
            for parameter, flag in required.items():
                parameter.requires_grad_(flag)
                parameter.grad = None

    def _set_modes(self, stage: Stage) -> None:
        for trained in (self.method, *([] if stage.modules is None else [stage.modules])):
            trained.train()
            keep_frozen(trained)
        for module in stage.frozen:
            module.eval()

    def _states(self, stage: Stage, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return {
            "method": self._state.get(),
            "modules": stage.modules.state_dict() if stage.modules is not None else None,
            "optimizer": optimizer.state_dict(),
        }

    def _restore(self, stage: Stage, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Any]) -> None:
        self._state.load(tensors["method"])
        if stage.modules is not None:
            stage.modules.load_state_dict(tensors["modules"])
        optimizer.load_state_dict(tensors["optimizer"])

    def _finite(self, stage: Stage, epoch: int, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield blocks of validation logits, after a check."""
        for logits in blocks:
            self._require_finite(stage, epoch, logits, "a validation logit")
            yield logits

    def _require_finite(self, stage: Stage, epoch: int, values: Any, what: str) -> None:
        if not np.isfinite(values).all():
            where = f"{self.method.name}, stage {stage.name!r}, epoch {epoch}"
            raise UserError(f"{where}: {what} is not finite; try a smaller --lr or --precision fp32")


def _over(stage: Stage, hooks: StageHooks, reports: Sequence[EpochReport]) -> bool:
    if len(reports) >= stage.epochs:
        return True
    return bool(reports) and hooks.stop is not None and hooks.stop(reports)
