"""The start-up benchmark, on tiny networks."""

from __future__ import annotations

import pytest

from benchmarks import startup


def test_where_the_bank_is_complete_nothing_of_the_teacher_is_loaded() -> None:
    found = startup.compare({"now": startup.HERE}, repeats=2, tiny=True)
    for each in found["now"]:
        assert {name: each[name] for name in ("loads", "hashes", "bank_opens")} == {
            "loads": 0,
            "hashes": 0,
            "bank_opens": 1,
        }
        assert each["cpu_s"] > 0


def test_the_summary_is_the_median_and_the_ratio_is_of_cpu_seconds() -> None:
    def run(cpu: float) -> dict[str, float]:
        return dict.fromkeys(startup.FIGURES, 1.0) | {"cpu_s": cpu}

    document = startup.summary({"before": [run(4.0), run(9.0), run(6.0)], "now": [run(2.0), run(3.0), run(2.5)]})
    assert document["versions"]["before"]["cpu_s"] == 6.0
    assert document["versions"]["now"]["cpu_s_range"] == [2.0, 3.0]
    assert document["cpu_ratio"] == pytest.approx(2.4)
    assert document["n"] == 3


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        startup.main(["--help"])
    assert stopped.value.code == 0
    assert "--json" in capsys.readouterr().out
