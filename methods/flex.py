"""Flexible Sampling: anchor points first, then queries by class difficulty and uncertainty.

1. Pre-train the backbone without labels on the long-tailed training set (`pretrain=ssl`: InfoNCE, eq. 1, by momentum
   contrast; `ssl:simclr`, `ssl:byol`, `ssl:simsiam`, `ssl:barlow` and, with labels, `ssl:kcl` are outside the paper).
2. Features, class prototypes (eq. 2), and of each class the images nearest to its prototype (eq. 3) as anchor
   points: a smaller, less imbalanced set (`samplers.anchor_counts`).
3. Train on the anchors with cross-entropy; the first 30 % of the budget are warm-up, without any stop rule.
4. Whenever validation has not risen for 10 % of the budget and the pool is not empty: difficulty
   p-hat_c = K (1 - a_c) / sum(1 - a) of each class (eq. 4), mutual information of each pool image from MC dropout
   (eq. 5), and of each class the most informative q_c = ceil(p-hat_c * 10 % * pool_c) images move into training.
   The optimizer starts anew, the weights stay. An exhausted pool leaves ordinary early stopping.
5. The reported model is the epoch with the best validation score of the whole run.

`resample=balanced` is an option outside the paper, and ours: each epoch draws from the current set with replacement,
every class as often. The anchors keep an imbalance of r s, and queries add the more images the more frequent a class
is; the rarest is used up from the start and, as the paper has it, stays behind (41 % on the board `synthetic-r100`,
whose mean is 61 %).

The story also keeps what pre-training has taught (`pretraining`): the mean per-class accuracy on validation of the
nearest class mean in pre-trained features and in those of the initial weights, and a warning where it is not above
these, or not above chance by two standard errors. It keeps, of each class, the 4 images farthest from their prototype
(`edges`) and, of each query, the 4 pool images with the least mutual information (`lowest`, the least first, and
`lowest_information`): nothing is decided by them.

Warm-up, anchor and query epochs together spend the budget that every method has; pre-training is extra and is
charged in the cost columns.

Source: Ju et al., MICCAI 2022, sections 2 and 3.2; no complete implementation by its authors exists.
Cost: one training, pre-training before it (two views, two encoders), one scoring pass over the pool a query.
Neutral: none, it trains on subsets
Status: from the paper; our reading where it is silent

Where the text is silent or contradicts itself, this is our reading, and an option where readings differ: anchor counts
(`anchor_profile`; the printed formula exceeds every class), "10 % of the unsampled pool" (`query_base`, `quota`), early
stopping during queries (`query_resets_patience`), difficulty from few validation images (`difficulty`, `smoothing`).
Under `paper_archive` the profile is `power`, as counts are no Pareto curve, and difficulty that of training images, as
rare classes have 2 or 3 validation images. Dropout lies between pooling and head, in training too. The text's 30 and 10
epochs are shares of its 100, so that they scale with the budget.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from ltbench.methods import hp, register
from ltbench.methods._pretraining import Contrast, contrast_stage
from ltbench.methods.base import Method, Run, share_of_epochs
from ltbench.methods.stages import Batch, EpochReport, Plateau, Pool, Progress, Stage, StageResult
from ltbench.samplers import (
    anchor_counts,
    class_difficulty,
    class_prototypes,
    mutual_information,
    nearest_prototype,
    query_quotas,
    reweighted_stream,
    select_anchors,
    select_queries,
)

_SHOWN = 4  # images of each class that the story keeps to be looked at, besides those that were chosen


@dataclass(frozen=True)
class QueryRule:
    """End a stage when it is time to query, or to stop for good.

    Attributes
    ----------
    patience : epochs without a rise after which to query
    early_stopping : the protocol's rule
    carried : epochs without a rise before this stage; None: a query resets early stopping
    pool_counts : int [K], pool of this stage
    by_validation : whether a class without a validation error blocks its own quota
    """

    patience: int
    early_stopping: Plateau
    carried: int | None
    pool_counts: np.ndarray
    by_validation: bool

    def wants_query(self, reports: Sequence[EpochReport]) -> bool:
        """Return whether patience is spent and a query would find images."""
        if self.early_stopping.waited(reports) < self.patience:
            return False
        if self.carried is not None and self.waited(reports) >= self.early_stopping.patience:
            return False
        difficulty = class_difficulty(np.asarray(reports[-1].val_recall)) if self.by_validation else 1
        return bool(((self.pool_counts > 0) & (difficulty > 0)).any())

    def waited(self, reports: Sequence[EpochReport]) -> int:
        """Return the count of early stopping: epochs without a rise."""
        waited = self.early_stopping.waited(reports)
        return waited + (self.carried or 0) if waited == len(reports) else waited

    def __call__(self, reports: Sequence[EpochReport]) -> bool:
        """Return whether the stage ends."""
        return self.wants_query(reports) or self.waited(reports) >= self.early_stopping.patience


@register("flex")
class FlexibleSampling(Method):
    """Pre-training, anchors, queries; hooks used: stages, and dropout in the head."""

    @dataclass(frozen=True)
    class Config(Contrast):
        """The paper's values, and an option for each reading."""

        pretrain: Literal["ssl", "ssl:simclr", "ssl:byol", "ssl:simsiam", "ssl:barlow", "ssl:kcl", "ce", "none"] = hp(
            "ssl", sweep=("ssl", "ce", "none"), source="Table 3; ssl:NAME outside the paper", pretraining=True
        )
        selection: Literal["anchor", "random", "edge"] = hp(
            "anchor", sweep=("anchor", "random", "edge"), source="Table 3"
        )
        anchor_scale: float = hp(0.1, low=1e-6, high=1.0, sweep=(0.05, 0.1, 0.2, 0.5), source="section 3.2, s")
        anchor_profile: Literal["pareto", "power"] = hp(
            "pareto", presets={"paper_archive": "power"}, source="our reading of section 2.2, by profile"
        )
        warmup: float = hp(0.3, low=0.0, high=1.0, source="section 3.2: 30 of 100 epochs")
        query: Literal["mutual_information", "random", "none"] = hp(
            "mutual_information", sweep=("mutual_information", "random", "none"), source="Table 3"
        )
        query_patience: float = hp(0.1, low=0.0, high=1.0, source="section 3.2: 10 of 100 epochs")
        query_fraction: float = hp(0.1, low=1e-6, high=1.0, sweep=(0.05, 0.1, 0.2), source="section 3.2")
        query_base: Literal["current", "initial"] = hp("current", source="section 3.2, literally")
        quota: Literal["per_class", "total"] = hp("per_class", source="our reading of sections 2.3 and 3.2")
        query_resets_patience: bool = hp(True, source="our reading; false is the common counter")
        difficulty: Literal["validation", "training"] = hp(
            "validation",
            presets={"paper_archive": "training"},
            source="section 2.3; training where a class has 2 or 3 validation images",
        )
        smoothing: Literal["none", "laplace"] = hp("none", source="our reading, for few validation images")
        resample: Literal["none", "balanced"] = hp(
            "none", sweep=("none", "balanced"), source="outside the paper; our option"
        )
        mc_passes: int = hp(10, low=2, source="the authors' released scoring script: n_drop")
        dropout: float = hp(0.5, low=0.0, high=0.95, sweep=(0.1, 0.3, 0.5), source="our reading")

    @classmethod
    def check(cls, config: Any, class_counts: np.ndarray) -> None:
        """Refuse a ratio that the anchor scale would turn over."""
        try:
            _anchor_counts(config, class_counts)
        except ValueError as error:
            raise ValueError(f"{error} (--set anchor_scale=...), or a higher --ratio") from error

    def build(self) -> None:
        """Put dropout before a linear head."""
        super().build()
        self.dropout = nn.Dropout(self.config.dropout)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits [B, K]; random while dropout is in training mode."""
        return super().classify(self.dropout(features))

    def most_steps(self, run: Run) -> int:
        """Return the steps of pre-training, and of the epochs that all later stages share."""
        return self._pretraining_steps(run) + run.steps(run.epochs)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield pre-training, then the anchor stage and one stage a query."""
        yield from self._prepare(run)
        sampler = self._balanced if self.config.resample == "balanced" else None
        chosen = np.asarray(run.memo("anchors", lambda: self._anchors(run))["indices"], dtype=np.int64)
        initial_pool = run.class_counts - np.bincount(run.labels[chosen], minlength=len(run.class_counts))
        warmup, spent, best = round(self.config.warmup * run.epochs), 0, -np.inf
        carried, exhausted = None if self.config.query_resets_patience else 0, self.config.query == "none"
        for number in range(run.epochs):
            early_stopping = run.early_stopping(warmup if number == 0 else 0, best)
            rule = self._rule(run, chosen, early_stopping, carried, exhausted)
            name = "anchors" if number == 0 else f"query{number}"
            result = yield Stage(name, run.epochs - spent, indices=chosen, stop=rule, sampler=sampler)
            spent, best = spent + result.epochs, max(best, result.best)
            if spent >= run.epochs or not rule.wants_query(result.reports):
                return
            carried = None if carried is None else rule.waited(result.reports)
            event = self._query(run, f"query{number + 1}", chosen, initial_pool, result, spent)
            chosen = np.concatenate([chosen, np.asarray(event["queried"], dtype=np.int64)])
            exhausted = not event["queried"]

    def _prepare(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield pre-training, if there is any, and keep what it has taught."""
        if self.config.pretrain == "none" and not run.shared_encoder:
            return
        initial = None
        if not run.shared_encoder:
            initial = run.memo("initial_features", lambda: self._nearest_mean(run), story=False)["accuracy"]
        yield from self._pretrain(run)
        run.memo("pretraining", lambda: self._taught(run, initial))

    def _taught(self, run: Run, initial: float | None) -> Mapping[str, Any]:
        """Return the accuracy of the nearest class mean in pre-trained features, and a warning where it is chance.

        Parameters
        ----------
        initial : that in features of the initial weights; None where the encoder came trained
        """
        found, chance = self._nearest_mean(run), 1 / len(run.class_counts)
        counts = run.val_class_counts[run.val_class_counts > 0]
        level = chance + 2 * np.sqrt(chance * (1 - chance) * (1 / counts).sum()) / len(counts)
        taught = found["accuracy"] > max(level, initial or 0.0)
        accuracy, before = (f"{100 * value:.1f} %" for value in (found["accuracy"], initial or chance))
        warning = (
            f"pre-training taught little: the nearest class mean is right on {accuracy} of validation, with initial "
            f"weights or by chance on {before}"
        )
        return {**found, "initial": initial, "chance": chance, **({} if taught else {"warning": warning})}

    def _nearest_mean(self, run: Run) -> Mapping[str, float]:
        """Return the mean per-class accuracy on validation of the nearest class mean of the training images."""
        features, labels = run.validation_features()
        means = class_prototypes(run.features(), run.labels, len(run.class_counts))
        right = labels[nearest_prototype(features, means) == labels]
        counts = np.bincount(labels, minlength=len(means))
        present = counts > 0
        return {"accuracy": float((np.bincount(right, minlength=len(means))[present] / counts[present]).mean())}

    def _balanced(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        return reweighted_stream(pool.labels, np.ones(len(pool.class_counts)), pool.length, rng)

    def _pretrain(self, run: Run) -> Generator[Stage, StageResult, None]:
        if run.shared_encoder:
            return
        if self.config.pretrain == "ce":
            yield self._supervised(run)
        elif self.config.pretrain != "none":
            yield contrast_stage("pretrain", self, run, self.config, self.config.pretrain.partition(":")[2])

    def _pretraining_steps(self, run: Run) -> int:
        """Return the steps of pre-training at most."""
        config = self.config
        if run.shared_encoder or config.pretrain == "none":
            return 0
        if config.pretrain == "ce":
            return run.steps(run.epochs)
        return run.steps(config.epochs_of(run), config.ssl_batch_size)

    def _supervised(self, run: Run) -> Stage:
        """Return plain training with dropout before the head, whatever a subclass makes of the hooks."""

        def logits(images: Tensor) -> Tensor:
            return FlexibleSampling.classify(self, Method.features(self, images))

        def loss(batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
            return {"loss": functional.cross_entropy(logits(batch.images), batch.targets)}

        return Stage(
            "pretrain",
            run.epochs,
            loss=loss,
            predict=logits,
            stop=run.early_stopping(),
            keep="best",
            select=False,
            recipe={"objective": "ce", "version": 2, "dropout": self.config.dropout},
        )

    def _anchors(self, run: Run) -> Mapping[str, Any]:
        counts = _anchor_counts(self.config, run.class_counts)
        features = run.features()
        chosen = select_anchors(features, run.labels, counts, self.config.selection, run.rng("anchors"))
        edges = select_anchors(features, run.labels, np.minimum(run.class_counts, _SHOWN), "edge")
        scale = _anchor_scale(self.config, run.class_counts)
        raised = {"scale": scale} if scale != self.config.anchor_scale else {}
        return {"counts": counts, "indices": chosen, "edges": edges, **raised}

    def _rule(
        self, run: Run, chosen: np.ndarray, early_stopping: Plateau, carried: int | None, exhausted: bool
    ) -> QueryRule:
        """Return the stop rule of a stage; after a query that found nothing there are no more of them."""
        pool_counts = run.class_counts - np.bincount(run.labels[chosen], minlength=len(run.class_counts))
        if exhausted:
            pool_counts = np.zeros_like(pool_counts)
        patience = share_of_epochs(run, self.config.query_patience)
        by_validation = self.config.difficulty == "validation" and self.config.smoothing == "none"
        return QueryRule(patience, early_stopping, carried, pool_counts, by_validation)

    def _query(
        self, run: Run, name: str, chosen: np.ndarray, initial_pool: np.ndarray, result: StageResult, epoch: int
    ) -> Mapping[str, Any]:
        """Return the event of one query, computed once: what was decided, and from what."""

        def compute() -> Mapping[str, Any]:
            pool = np.setdiff1d(np.arange(len(run.labels)), chosen)
            pool_labels = run.labels[pool]
            pool_counts = np.bincount(pool_labels, minlength=len(run.class_counts))
            accuracy = self._accuracy(run, result)
            base = initial_pool if self.config.query_base == "initial" else None
            fraction, rule = self.config.query_fraction, self.config.quota
            quotas = query_quotas(accuracy, pool_counts, fraction, base_counts=base, rule=rule)
            information = self._information(run, name, pool)
            picked = select_queries(information, pool_labels, quotas)
            lowest = select_queries(-information, pool_labels, np.minimum(pool_counts, _SHOWN))
            return {
                "epoch": epoch,
                "accuracy": accuracy,
                "difficulty": class_difficulty(accuracy),
                "quotas": quotas,
                "queried": pool[picked],
                "information": information[picked],
                "lowest": pool[lowest],
                "lowest_information": information[lowest],
                "pool_left": pool_counts - quotas,
                "training_images": len(chosen) + len(picked),
            }

        return run.memo(name, compute)

    def _accuracy(self, run: Run, result: StageResult) -> np.ndarray:
        if self.config.difficulty == "training":
            accuracy, counts = run.accuracy(), run.class_counts
        else:
            accuracy, counts = result.val_recall, run.val_class_counts
        if self.config.smoothing == "laplace":
            return np.where(counts > 0, (np.nan_to_num(accuracy) * counts + 1) / (counts + 2), np.nan)
        return accuracy

    def _information(self, run: Run, name: str, pool: np.ndarray) -> np.ndarray:
        if self.config.query == "random":
            return run.rng(name).random(len(pool))
        return run.mc_scores(pool, self.config.mc_passes, name, mutual_information)


def _anchor_counts(config: Any, class_counts: np.ndarray) -> np.ndarray:
    """Return `anchor_counts` at the scale that acts."""
    return anchor_counts(class_counts, _anchor_scale(config, class_counts), config.anchor_profile)


def _anchor_scale(config: Any, class_counts: np.ndarray) -> float:
    """Return the anchor scale, raised where one image of the smallest class makes it fall short of 1 / ratio.

    Class counts are rounded up: at ratio 10 the smallest class may have 501 images of 5000, and 0.1 * 5000 / 501 < 1.
    """
    largest, smallest = class_counts.max(), class_counts.min()
    if largest * config.anchor_scale >= smallest - 1:
        return max(config.anchor_scale, float(smallest / largest))
    return config.anchor_scale
