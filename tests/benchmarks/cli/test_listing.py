"""What `--list` says of methods comes from their files."""

from pathlib import Path

import pytest

from ltbench import datasets, methods
from ltbench.benchmarks.cli.listing import describe_method, hooks_of, listing
from ltbench.errors import UserError
from ltbench.registry import load_plugin


@pytest.mark.parametrize("name", methods.available())
def test_every_method_says_where_it_comes_from_what_it_costs_and_how_far_it_was_checked(name: str) -> None:
    details = methods.registry.details(name)
    assert {"Source", "Cost", "Status"} <= details.keys()
    checked = ("verified against the original code", "from the paper", "from a description", "our reading")
    assert details["Status"].startswith(checked)
    assert ": " in methods.registry.summary(name) and methods.registry.source_digest(name) is None


@pytest.mark.parametrize(
    ("name", "hooks"),
    [
        ("ce", ["stages"]),
        ("rs", ["sampler"]),
        ("mixup", ["transform"]),
        ("elf", ["build", "predict", "inspect", "loss"]),
    ],
)
def test_hooks_are_those_that_the_class_overrides(name: str, hooks: list[str]) -> None:
    assert hooks_of(name) == hooks
    defined = vars(methods.registry.get(name))
    assert all(hook in defined for hook in hooks)


@pytest.mark.parametrize("name", datasets.available())
def test_every_dataset_says_how_large_it_is(name: str) -> None:
    dataset, size = datasets.registry.get(name), datasets.registry.details(name)["Size"]
    if dataset.expected_counts is not None:
        counts = dataset.expected_counts.values()
        assert size == f"{len(counts)} classes, {sum(counts):,} images."


def test_a_method_is_explained_with_its_hyper_parameters() -> None:
    text = describe_method("flex")
    assert "anchor_scale=" in text and "(quick: 0.5)" in text and "section 3.2" in text
    assert text.startswith("flex\n====\nFlexible Sampling")
    assert "--set" not in describe_method("ce")
    with pytest.raises(UserError, match="unknown method 'flexx'; did you mean 'flex'"):
        describe_method("flexx")


def test_a_plugin_is_listed_with_what_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "listed.py"
    path.write_text(
        '"""Listed: a plug-in."""\n\nfrom ltbench.methods import Method, register\n\n\n@register("listed")\n'
        "class Listed(Method):\n    def loss(self, batch, progress):\n        return super().loss(batch, progress)\n"
    )
    load_plugin(path)
    try:
        assert "Listed: a plug-in." in listing() and hooks_of("listed") == ["loss"]
    finally:
        for table in (methods.registry._entries, methods.registry._plugins):
            table.pop("listed", None)
