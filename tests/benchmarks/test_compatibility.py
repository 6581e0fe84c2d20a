"""`make compatibility`: the table has every module, and says where litlab is worse and why a cell is not ✓."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def part(monkeypatch):
    """Imports a module of benchmarks/compatibility."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks/compatibility")
    return __import__


def test_a_cell_that_is_worse_than_lightning_clis_is_named(part, tmp_path):
    table, cases, cells = part("table"), part("cases"), part("cells")
    gan, dqn = (next(case for case in cases.CASES if case.name == name) for name in ("gan", "dqn"))
    results = table.Results(tmp_path / "results.json", "abc")
    ok, no, other = cells.Cell(True), cells.Cell(False, cells.NO, "a | reason"), cells.Cell(False, cells.OTHER_WEIGHTS)
    for column in cells.COLUMNS:
        for case in (gan, dqn):
            results.add(case.name, "litlab", column, no if column in ("test", "resume", "ddp", "sweep") else ok)
        for case in (gan, dqn):
            results.add(
                case.name,
                "plain",
                column,
                {"test": no, "resume": other, "sweep": cells.Cell(False, cells.NONE)}.get(column, ok),
            )
    worse = table.Results(tmp_path / "results.json", "abc").worse([gan, dqn])
    assert [line.split(":")[0] for line in worse] == ["gan resume", "gan sweep", "gan ddp", "dqn resume", "dqn ddp"]
    page = table.markdown(results, [gan, dqn])
    assert "✓ / ✓ | no<sup>1</sup> / no<sup>1</sup> |" in page
    assert "1. a / reason" in page
    assert not table.Results(tmp_path / "results.json", "other source").worse([gan, dqn])


def test_every_case_has_a_configuration_of_its_own(part):
    cases = part("cases").CASES
    assert len(cases) >= 20
    for case in cases:
        config = yaml.safe_load(case.path.read_text())
        assert {"model", "trainer"} <= set(config) <= {"model", "trainer", "data", "seed_everything"}
