"""A study under differential privacy carried by hand, typed as people type it: what a round costs is paid once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from promised import promised_text, write_start
from tiny_cohorts import write_tiny_cohort

from fedphantom.cli import run
from fedphantom.common.gan.weights import read_weights_header

pytestmark = pytest.mark.slow

Typed = Callable[[str], Any]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Types a line, which has to end well; what it printed, read where it is JSON."""
    monkeypatch.chdir(tmp_path)

    def type_line(line: str) -> Any:
        assert run(line.split()) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        return json.loads(shown) if "--json" in line else shown

    return type_line


def test_two_carried_rounds_under_a_promise_tell_what_they_cost_and_a_repetition_costs_nothing(
    typed: Typed, tmp_path: Path
) -> None:
    text = promised_text(write_start(tmp_path / "start"), promise='noised = "norms"\ndiscriminator_steps = 2', rounds=2)
    (tmp_path / "study.toml").write_text(text + "[federation]\nquorum = 1\n")
    write_tiny_cohort(tmp_path / "cohort", 12)

    lead = typed("server init lead --study study.toml --start start --address fed.example.org:443 --json")
    typed("server invite lead site-a --out invitation")
    made = typed("site init site --invitation invitation --cohort cohort --start start --ledger ledgers --json")
    typed(f"server enroll lead {made['request']} --fingerprint {made['fingerprint']}")
    typed(f"site join site lead/roster.dsse.json --fingerprint {lead['fingerprint']}")
    limits = tmp_path / "site" / "limits.toml"
    limits.write_text(re.sub(r"^(sites|patients) = \d+", r"\1 = 1", limits.read_text(), flags=re.MULTILINE))
    seen = typed("site approve site").split()[-1]
    typed(f"site approve site --seen {seen}")

    ledger = tmp_path / "ledgers" / "site-a" / "ledger.jsonl"
    spent = []
    for number in (1, 2):
        asked = typed("server export lead --json")
        first = typed(f"site train site {asked['file']} --out reply-{number} --json")
        paid = ledger.read_bytes()
        again = typed(f"site train site {asked['file']} --out again-{number} --json")
        assert (again["sha256"], again["again"], first["again"]) == (first["sha256"], True, False)
        assert ledger.read_bytes() == paid
        assert typed(f"server import lead reply-{number} again-{number} --json")["answered"] == ["site-a"]
        spent.append(typed("budget show site --json")["epsilon"])
    typed("site export site --out once-more")
    assert (tmp_path / "once-more").read_bytes() == (tmp_path / "reply-2").read_bytes()

    assert 0 < spent[0] < spent[1]
    summary = json.loads((tmp_path / "lead" / "run" / "summary.json").read_text())
    assert [record["epsilon"] for record in summary["rounds"]] == [{"site-a": one} for one in spent]
    assert summary["engine"] == "files"
    metadata = read_weights_header(tmp_path / "lead" / "run" / "generator.safetensors")[1]
    assert "epsilon" in metadata["dp"]
    typed("journal verify site/journal.jsonl")
    typed("journal verify lead/run/journal.jsonl")
    typed("budget verify site")
