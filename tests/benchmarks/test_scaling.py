"""Every case of `throughput.py --scale` runs, and the power of growth is that of the figures."""

from pathlib import Path

import pytest

from ltbench.benchmarks.scaling.cases import CASES
from ltbench.benchmarks.scaling.measuring import Growth
from ltbench.benchmarks.throughput import main


@pytest.mark.parametrize("name", CASES)
def test_each_case_runs(name: str, tmp_path: Path) -> None:
    CASES[name].prepare(300, tmp_path)()


def test_growth_is_a_power_of_size() -> None:
    assert Growth("manifest", (0.5, 2.0, 8.0), (1.0, 1.0, 1.0)).exponent == pytest.approx(2)
    assert Growth("manifest", (0.5,), (1.0,), "out of memory").row()[-1] == "out of memory"


def test_a_case_is_measured_in_processes_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--scale", "prototype"]) == 2
    assert main(["--scale", "split-by-image", "--repeats", "2"]) == 0
    assert "| split-by-image | classes |" in capsys.readouterr().out
