"""Hyper-parameters: typed, checked, and none of the protocol's."""

from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.errors import UserError
from ltbench.methods import Method, available, configure, hp, registry
from ltbench.methods.hyperparameters import PROTOCOL_FIELDS


@dataclass(frozen=True)
class Everything:
    """One field of every kind."""

    count: int = hp(4, low=1, high=100, presets={"quick": 2})
    rate: float = hp(0.5, low=0.0, high=1.0)
    above: float = hp(1.0, low=0.0)
    below: float = hp(1.0, high=2.0)
    free: float = hp(0.0)
    flag: bool = hp(False)
    scheme: Literal["plain", "fancy"] = hp("plain", presets={"quick": "fancy"})
    level: Literal[1, 2] = hp(1)
    text: str = hp("a")
    limit: int | None = hp(None, low=1)


def set_to(preset: str = "paper", **overrides: Any) -> Everything:
    return configure("toy", Everything, preset, overrides)


@pytest.mark.parametrize(
    ("name", "raws", "value"),
    [
        ("count", ("7", 7), 7),
        ("rate", ("1e-3",), 1e-3),
        ("flag", ("true", True), True),
        ("flag", ("False", False), False),
        ("scheme", ("fancy",), "fancy"),
        ("level", ("2", 2), 2),
        ("text", ("b c",), "b c"),
        ("limit", ("3",), 3),
        ("limit", ("none", "None", None), None),
        *(("count", (bound,), bound) for bound in (1, 100)),
        *(("rate", raws, value) for raws, value in (((0, 0.0), 0.0), (("1", 1.0), 1.0))),
        *((name, (value,), value) for name, value in (("above", 1e9), ("below", -1e9))),
    ],
)
def test_values_are_typed_and_bounds_inclusive(name: str, raws: tuple[Any, ...], value: Any) -> None:
    for raw in raws:
        result = getattr(set_to(**{name: raw}), name)
        assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ("name", "raws", "allowed"),
    [
        ("count", ("seven", "1.5", "", None, 1.5), "a whole number"),
        ("count", ("0", "101"), "at least 1 and at most 100"),
        ("rate", ("half", None), "a number"),
        ("rate", ("-0.1", "1.1", "nan"), "at least 0 and at most 1"),
        ("flag", ("yes", 1), "true or false"),
        ("scheme", ("Plain",), "plain, fancy"),
        ("level", ("3",), "1, 2"),
        ("above", ("-1", "nan"), "at least 0"),
        ("below", ("3",), "at most 2"),
        ("limit", ("x",), "a whole number"),
        ("limit", ("0",), "at least 1"),
        ("free", ("nan",), "a finite number"),
    ],
)
def test_values_of_another_type_or_out_of_range_are_refused(name: str, raws: tuple[Any, ...], allowed: str) -> None:
    for raw in raws:
        with pytest.raises(UserError, match=f"toy: {name} must be .*{allowed}") as caught:
            set_to(**{name: raw})
        assert str(raw) in str(caught.value)


def test_unknown_names_get_the_nearest_or_the_word_none() -> None:
    with pytest.raises(UserError, match=r"unknown hyper-parameter of toy 'cuont'; did you mean 'count'\?"):
        set_to(cuont=1)
    with pytest.raises(UserError, match="method ce has no hyper-parameters, got 'beta'"):
        configure("ce", Method.Config, "paper", {"beta": 1})


def test_presets_change_defaults_and_overrides_win() -> None:
    assert (set_to().count, set_to().scheme) == (4, "plain")
    assert (set_to("quick").count, set_to("quick").scheme) == (2, "fancy")
    assert set_to("quick", count="9").count == 9
    assert set_to("unheard of") == set_to()
    assert {field.name for field in fields(Protocol)} == PROTOCOL_FIELDS


@pytest.mark.parametrize("name", sorted(PROTOCOL_FIELDS))
def test_redeclaring_the_protocol_is_an_error(name: str) -> None:
    config = dataclass(frozen=True)(type("Config", (), {"__annotations__": {name: int}, name: hp(1)}))
    with pytest.raises(TypeError, match=rf"Greedy\.Config redeclares {name},"):
        type("Greedy", (Method,), {"Config": config})


def test_every_field_that_is_redeclared_is_named() -> None:
    with pytest.raises(TypeError, match="redeclares epochs, lr,"):

        class Greedy(Method):
            @dataclass(frozen=True)
            class Config:
                lr: float = hp(1.0)
                own: int = hp(1)
                epochs: int = hp(1)


@dataclass
class Thawed:
    own: int = hp(1)


class Bare:
    own: int = 1


class Heir(Method.Config):
    own: int = hp(1)


@pytest.mark.parametrize("config", [Thawed, Bare, Heir])
def test_a_config_that_is_no_frozen_dataclass_is_an_error(config: type) -> None:
    with pytest.raises(TypeError, match=r"Mine\.Config must be decorated with @dataclass\(frozen=True\)"):
        type("Mine", (Method,), {"Config": config})


@pytest.mark.parametrize("name", available())
@pytest.mark.parametrize("preset", ["paper", "quick"])
def test_shipped_defaults_and_sweeps_are_within_their_own_rules(name: str, preset: str) -> None:
    config = registry.get(name).Config
    default = configure(name, config, preset, {})
    for field in fields(config):
        value = getattr(default, field.name)
        assert getattr(configure(name, config, preset, {field.name: str(value)}), field.name) == value
        for trial in field.metadata["sweep"] or ():
            configure(name, config, preset, {field.name: trial})
        assert field.metadata["source"]
