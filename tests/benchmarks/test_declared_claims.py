"""Every benchmark can be run by the name of its result, and what is stored of it is what it claims."""

from __future__ import annotations

from dataclasses import fields

import pytest

from benchmarks.__main__ import MODULES, benchmark_named
from benchmarks.harness.arguments import options_of
from benchmarks.harness.claims import declaration
from benchmarks.harness.ledger import RESULTS, read_result
from photopic.core.config import comments


@pytest.mark.parametrize("name", MODULES)
def test_stored_rows_answer_declared_claims_with_the_targets_that_were_asked_for(name: str) -> None:
    benchmark = benchmark_named(name)
    path = RESULTS / f"{name}.json"
    if not path.exists():  # never run in full
        assert name in ("few-shot",)
        return
    content, rows = read_result(path)
    assert content["command"].startswith("python -m benchmarks")
    for row in rows:
        claim = declaration(row.claim, benchmark.claims)
        assert row.unit == claim.unit, row.claim
        if claim.target:
            assert row.target == claim.target, row.claim


@pytest.mark.parametrize("name", MODULES)
def test_the_command_line_changes_the_config_and_tells_what_each_option_does(name: str) -> None:
    benchmark = benchmark_named(name)
    arguments = [name, benchmark.about, benchmark.config, benchmark.quick]
    assert options_of(*arguments, []).config == benchmark.config
    quick = options_of(*arguments, ["--quick"]).config
    assert quick == benchmark.quick != benchmark.config and type(quick) is type(benchmark.config)
    said = comments(type(benchmark.config))
    assert all(
        said[each.name] for each in fields(benchmark.config) if each.name not in ("search", "tuning", "bits", "groups")
    )


def test_every_stored_result_has_its_benchmark() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} <= MODULES.keys()
