"""Declared options: what `methods.hyperparameters`, tested on its own, does not use of them."""

from dataclasses import dataclass, fields

import pytest

from ltbench.errors import UserError
from ltbench.options import allowed, check_declared, filled, option, shown


@dataclass(frozen=True)
class Options:
    names: tuple[str, ...] = option(("a", "b"), help="what there is")
    side: int | None = option(None, low=8)


def set_to(**given: object) -> Options:
    return filled(Options, given, label="toy", what="option of dataset toy")


@pytest.mark.parametrize("given", ['x, "y, or so" ,z', ["x", "y, or so", "z "]])
def test_several_texts_are_separated_by_commas(given: object) -> None:
    assert set_to(names=given).names == ("x", "y, or so", "z")
    assert set_to(names="").names == () and set_to().names == ("a", "b")


def test_options_are_declared_known_texts() -> None:
    with pytest.raises(UserError, match=r"^unknown option of dataset toy 'sied'; did you mean 'side'"):
        set_to(sied=1)
    with pytest.raises(UserError, match=r"^unknown option of x 'hair'; known: none$"):
        filled(dataclass(frozen=True)(type("Empty", (), {})), {"hair": 1}, label="x", what="option of x")
    names, side = fields(Options)
    assert (allowed(names), shown(names.default)) == ("tuple[str, ...]", "a,b")
    assert (allowed(side), shown(side.default)) == ("8 ..", "none")
    with pytest.raises(TypeError, match=r"Own.Options must be decorated with @dataclass\(frozen=True\)"):
        check_declared("Own.Options", type("Options", (), {}))
