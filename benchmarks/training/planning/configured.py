"""The methods of a request: by name, with their hyper-parameters, checked against the datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.datasets.loading import SplitDataset
from ltbench.errors import UserError
from ltbench.methods import available, configure, registry
from ltbench.registry import unknown


@dataclass(frozen=True)
class ConfiguredMethod:
    """A method with all its hyper-parameters.

    Attributes
    ----------
    name : registered name
    hyperparameters : all values
    changed : those that differ from the preset's defaults
    """

    name: str
    hyperparameters: Mapping[str, Any]
    changed: Mapping[str, Any]


def method_names(names: Sequence[str]) -> list[str]:
    """Return registered methods by name, `all` being every one of them.

    Raises
    ------
    UserError : an unknown name
    """
    known = available()
    for name in names:
        if name != "all" and name not in known:
            raise UserError(f"{unknown('method', name, ['all', *known])}; a file of your own is given by --plugin")
    return known if "all" in names else list(dict.fromkeys(names))


def configure_methods(
    names: Sequence[str], overrides: Mapping[str, Any], protocol: Protocol, datasets: Sequence[SplitDataset]
) -> list[ConfiguredMethod]:
    """Return the methods with the preset's defaults and the overrides.

    An override `name` goes to every method that knows it, `method.name` to one method alone.

    Raises
    ------
    UserError : an override that no method knows, of the wrong type or out of range, a method that refuses a dataset, or
        one that needs more of the backbone than the protocol gives
    """
    classes = {name: registry.get(name) for name in names}
    _require_tunable(classes, protocol)
    declared = {name: set(cls.Config.__dataclass_fields__) for name, cls in classes.items()}
    scoped = {key for key in overrides if key.partition(".")[0] in classes and "." in key}
    nobodys = {key for key in overrides if key not in scoped and not any(key in own for own in declared.values())}
    configured = []
    for name, cls in classes.items():
        given = {key: value for key, value in overrides.items() if key in declared[name] | nobodys}
        given |= {key.partition(".")[2]: overrides[key] for key in scoped if key.partition(".")[0] == name}
        default = configure(name, cls.Config, protocol.preset, {})
        config = configure(name, cls.Config, protocol.preset, given) if given else default
        for dataset in datasets:
            try:
                cls.check(config, dataset.class_counts)
            except ValueError as error:
                raise UserError(f"{name} at ratio {dataset.ratio:g}: {error}") from error
            except Exception as error:
                if registry.source_digest(name) is None:
                    raise
                what = f"{type(error).__name__}: {error}"
                raise UserError(f"{name} at ratio {dataset.ratio:g}: its check raised {what}") from error
        values, defaults = asdict(config), asdict(default)
        changed = {key: value for key, value in values.items() if value != defaults[key]}
        if protocol.shared_encoder:
            _require_effect(name, cls.Config, changed, protocol)
        configured.append(ConfiguredMethod(name, values, changed))
    return configured


def _require_tunable(classes: Mapping[str, Any], protocol: Protocol) -> None:
    """Refuse methods that need more of the backbone than the protocol gives."""
    from ltbench.methods.base import needed_of_backbone

    unfit = [name for name, cls in classes.items() if needed_of_backbone(cls) == "stages"]
    if unfit and protocol.tune != "full":
        raise UserError(
            f"--tune {protocol.tune} freezes the backbone, of which stages or several are needed by "
            f"{', '.join(unfit)}; leave that out, or use --tune full"
        )

    unfit = [name for name, cls in classes.items() if needed_of_backbone(cls) != "features"]
    if unfit and protocol.frozen_features:
        raise UserError(
            "--frozen-features computes the features of whole images once, and images are needed by "
            f"{', '.join(unfit)}; leave that out, or use --no-frozen-features"
        )


def _require_effect(name: str, config: Any, changed: Mapping[str, Any], protocol: Protocol) -> None:
    """Refuse settings of a method's own pre-training where all methods start from a shared encoder."""
    idle = sorted(key for key in changed if config.__dataclass_fields__[key].metadata.get("pretraining"))
    if idle:
        changes = (("init", "scratch"), ("tune", "full"), ("weights", "none"))
        rule = next(f"--{key} {own}" for key, usual in changes if (own := getattr(protocol, key)) != usual)
        raise UserError(
            f"{', '.join(idle)} of {name} would have no effect with {rule}, whose encoder is the same for every "
            "method; leave one of them out"
        )
