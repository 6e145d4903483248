"""An audit that was broken off goes on with the attack that was not finished: the same audit, to the same figures."""

from __future__ import annotations

import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audited_run import SIZES, audit, events
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from learners import PLAN, make_material, memoriser, trainer
from officers import a_key
from tiny_cohorts import tiny_scans

from fedphantom.common.cohort import PUBLIC_SITE
from fedphantom.common.cohorts.preparation import PreparedScans
from fedphantom.common.cohorts.roles import Role
from fedphantom.common.errors import ConfigError
from fedphantom.common.folder_lock import hold_folder
from fedphantom.common.journal import Journal
from fedphantom.common.site_folder import ROLES_DRAWN
from fedphantom.privacy.attacks.once import Arrays, Once
from fedphantom.privacy.audit import kept_findings
from fedphantom.privacy.audit.audit import run_audit
from fedphantom.privacy.audit.history import AUDITED, DONE, resume_audit
from fedphantom.privacy.audit.inputs import inputs_digest, material_digest
from fedphantom.privacy.audit.kept_findings import FINDINGS, KeptFindings
from fedphantom.privacy.audit.report import audit_run_command
from fedphantom.privacy.policy import TIERS

Find = Callable[[], Arrays]


@pytest.fixture(autouse=True)
def _every_finding_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_findings, "WORTH_KEEPING_S", 0.0)


def score(value: float) -> Find:
    return lambda: {"score": np.array([value, -0.0, 1e-300]), "of": np.array([3, -1])}


def ask(kept: KeptFindings, value: float, what: str = "generator: A1") -> float:
    return float(kept.once(what, score(value))["score"][0])


# What is kept.


def test_a_finding_is_read_again_to_the_bit_and_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    kept = KeptFindings(tmp_path, "these inputs")
    made = kept.once("generator: A1", score(0.1))
    again = kept.once("generator: A1", score(9.0))
    for name, array in made.items():
        assert array.dtype == again[name].dtype
        assert array.tobytes() == again[name].tobytes()
    assert ask(kept, 2.0, "generator: A3") == 2.0
    assert ask(KeptFindings(tmp_path, "other inputs"), 3.0) == 3.0
    assert kept.finished() == ("generator: A3",)  # the other inputs' finding took the place of A1


def test_nothing_found_is_nothing_kept(tmp_path: Path) -> None:
    kept = KeptFindings(tmp_path, "x")
    assert kept.once("generator: A6", dict) == {}
    assert kept.finished() == ()


def test_what_takes_no_time_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_findings, "WORTH_KEEPING_S", 60.0)
    ask(KeptFindings(tmp_path, "x"), 1.0)
    assert not list(tmp_path.iterdir())


def test_damaged_findings_are_made_again(tmp_path: Path) -> None:
    kept = KeptFindings(tmp_path, "x")
    ask(kept, 1.0)
    (file,) = tmp_path.glob("*.finding")
    whole = file.read_bytes()
    for spoilt in (whole[:-3], whole[:40], b"", whole[:-1] + bytes([whole[-1] ^ 1]), whole.replace(b"PK", b"KP", 1)):
        file.write_bytes(spoilt)
        assert ask(kept, 2.0) == 2.0
        file.write_bytes(whole)
    assert ask(kept, 2.0) == 1.0


def test_scores_of_patients_are_for_the_owner_of_the_folder_alone(tmp_path: Path) -> None:
    kept = KeptFindings(tmp_path / FINDINGS, "x")
    kept.begin("an audit")
    ask(kept, 1.0)
    for path in ((tmp_path / FINDINGS), *(tmp_path / FINDINGS).iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    kept.forget()
    assert not (tmp_path / FINDINGS).exists()


def test_an_audit_that_begins_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    kept = KeptFindings(tmp_path, "x")
    ask(kept, 1.0)
    kept.begin("another")
    assert kept.finished() == ()
    assert kept.turn() == "another"
    assert KeptFindings(tmp_path, "other inputs").turn() is None


# What it depends on.


def digest(scans: PreparedScans, roles: tuple[Role, ...], facts: Iterable[object], code: str = "this version") -> str:
    return inputs_digest(material_digest(scans, roles, code), facts)


def test_whatever_an_audit_depends_on_changes_its_digest() -> None:
    scans = replace(tiny_scans(4), headers=np.zeros((4, 2)))
    roles: tuple[Role, ...] = ("member", "holdout", "member", "reference")
    facts = ("a generator", SIZES, TIERS["controlled"])
    seen = {digest(scans, roles, facts)}
    assert digest(scans, roles, facts) in seen

    volumes, classes, headers = (np.array(part) for part in (scans.volumes, scans.classes, scans.headers))
    volumes[3, 0, 5, 5, 5] += 1e-6
    classes[0, 0, 0, 0] += 1
    headers[1] += 1
    changed = (
        digest(replace(scans, volumes=volumes), roles, facts),
        digest(replace(scans, classes=classes), roles, facts),
        digest(replace(scans, headers=headers), roles, facts),
        digest(replace(scans, patients=scans.patients[::-1]), roles, facts),
        digest(scans, ("holdout", "member", *roles[2:]), facts),
        digest(scans, roles, ("another generator", *facts[1:])),
        digest(scans, roles, (facts[0], replace(SIZES, draws=4), facts[2])),
        digest(scans, roles, (*facts[:2], TIERS["public"])),
        digest(scans, roles, facts, "another version"),
    )
    assert len({*seen, *changed}) == 1 + len(changed)


# Whose turn it is.


def journals(root: Path, *sites: str) -> list[Journal]:
    found = [Journal(root / site / "journal.jsonl") for site in sites]
    for journal in found:
        journal.append(ROLES_DRAWN, cohort="0" * 64)
    return found


def begun(journal: Journal, number: int, audit: str = "one", digest: str = "these") -> None:
    journal.append(AUDITED, number=number, audit=audit, inputs=digest, generator="f" * 64)


def test_the_turn_of_a_broken_off_audit_is_taken_up_where_every_journal_ends_with_its_beginning(tmp_path: Path) -> None:
    both = journals(tmp_path, "a", "b")
    for journal in both:
        journal.append(DONE, number=1, audit="zero", p_values={"A1": 0.5})
        begun(journal, 2)
    turn = resume_audit(both, "one", "these")
    assert turn is not None
    assert (turn.number, turn.id, turn.earlier) == (2, "one", ({"A1": 0.5},))


AFTERWARDS: dict[str, Callable[[Journal], None]] = {
    "it ended": lambda journal: journal.append(DONE, number=1, audit="one", p_values={"A1": 0.5}),
    "another began": lambda journal: begun(journal, 2, "two"),
    "another ended": lambda journal: journal.append(DONE, number=2, audit="two", p_values={"A1": 0.5}),
}


@pytest.mark.parametrize("then", AFTERWARDS.values(), ids=AFTERWARDS.keys())
def test_no_turn_is_taken_up_once_one_journal_tells_of_more(tmp_path: Path, then: Callable[[Journal], None]) -> None:
    both = journals(tmp_path, "a", "b")
    for journal in both:
        begun(journal, 1)
    assert resume_audit(both, "one", "these") is not None
    then(both[1])
    assert resume_audit(both, "one", "these") is None


def test_no_turn_is_taken_up_by_other_inputs_another_audit_or_a_site_that_was_not_asked(tmp_path: Path) -> None:
    both = journals(tmp_path, "a", "b")
    begun(both[0], 1)
    assert resume_audit(both[:1], "one", "these") is not None
    assert resume_audit(both[:1], "one", "others") is None
    assert resume_audit(both[:1], "two", "these") is None
    assert resume_audit(both, "one", "these") is None
    assert resume_audit([*both[:1], Journal(tmp_path / "c" / "journal.jsonl")], "one", "these") is None


# The whole way.


class Stops:
    """Keeps findings, and is broken off before the n-th is made."""

    def __init__(self, kept: KeptFindings, after: int | None) -> None:
        self.kept, self.left, self.made = kept, after, list[str]()

    def once(self, what: str, find: Find) -> Arrays:
        def counted() -> Arrays:
            if self.left is not None and len(self.made) == self.left:
                raise KeyboardInterrupt
            self.made.append(what)
            return find()

        return self.kept.once(what, counted)


def test_wherever_an_audit_is_broken_off_it_goes_on_to_the_same_figures_and_repeats_nothing(tmp_path: Path) -> None:
    material = make_material(3, member=20, holdout=20, training=4, control=6)
    plan = replace(PLAN, negative_seeds=1, blind_permutations=2)

    def found(once: Once) -> str:
        train, by_heart = trainer(material), memoriser(material)
        return run_audit(material, plan, TIERS["controlled"], train, by_heart, once=once).to_json()

    whole = Stops(KeptFindings(tmp_path / "whole", "x"), None)
    undisturbed = found(whole.once)
    assert {"generator: A1", "generator: A3", "memoriser: A1", "B0"} < set(whole.made)
    assert any(what.startswith("moved copies: volumes 1 to ") for what in whole.made)
    assert any(what.startswith("copied label maps: ") for what in whole.made)
    assert any(what.startswith("planted copies, noise: ") for what in whole.made)

    kept, made = KeptFindings(tmp_path / "broken off", "x"), list[str]()
    for after in (1, 5, 20):
        stops = Stops(kept, after)
        with pytest.raises(KeyboardInterrupt):
            found(stops.once)
        made += stops.made
    last = Stops(kept, None)
    assert found(last.once) == undisturbed
    finished = [*made, *last.made]
    # What was in the middle of being found is made again, with what it asked for first; nothing that was finished is.
    again = {what for what in finished if finished.count(what) > 1}
    assert len(again) <= 3
    assert set(finished) == set(whole.made)


def command(run: Path, public: Path, say: Callable[[str], None] = lambda text: None) -> None:
    """``audit run`` at the smallest size."""
    audit_run_command(
        *(run, None, None, None, public, "volumes", None, None, SIZES, "cpu"),
        progress=lambda done, total: None,
        say=say,
    )


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from fedphantom.privacy.audit import kept_findings
from test_audit_resumed import command
kept_findings.WORTH_KEEPING_S = 0.0
once = kept_findings.KeptFindings.once

def killed(self, what, find):
    if what == sys.argv[5]:
        os.kill(os.getpid(), signal.SIGKILL)
    return once(self, what, find)

kept_findings.KeptFindings.once = killed
command(Path(sys.argv[3]), Path(sys.argv[4]))
"""


def killed(run: Path, public: Path, at: str) -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED, here, here / "fakes", run, public, at], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
def test_a_killed_audit_goes_on_with_the_attack_that_was_not_finished_and_counts_as_one(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for root in (broken, whole):
        for name in ("run", "synthetic"):
            shutil.copytree(simulated / name, root / name)
    public = Path(shutil.copytree(simulated / "public", tmp_path / "public"))
    table = public / "participants.tsv"
    table.write_text(re.sub(r"\tA\b", f"\t{PUBLIC_SITE}", table.read_text()))
    command(whole / "run", public)
    killed(broken / "run", public, "generator: A4")
    left = broken / "run" / "audit" / FINDINGS
    assert (left / "turn.json").exists()
    assert not (broken / "run" / "audit" / "audit.json").exists()

    made: list[str] = []
    once = KeptFindings.once

    def noted(self: KeptFindings, what: str, find: Find) -> Arrays:
        return once(self, what, lambda: (made.append(what), find())[1])

    monkeypatch.setattr(KeptFindings, "once", noted)
    told: list[str] = []
    command(broken / "run", public, told.append)
    assert "generator: A4" in made
    assert not {"generator: A1", "generator: A3", "reference: measured as released"} & set(made)
    results = [(root / "run" / "audit" / "audit.json").read_text() for root in (broken, whole)]
    assert results[0] == results[1]
    for site in ("site-a", "site-b"):
        assert events(broken, site) == [("audit-begun", 1), ("audit-done", 1)]
    assert any(text.startswith("Going on with audit 1 of this holdout, which was broken off") for text in told)
    assert any("found finished, generator: " in text and "A1, " in text for text in told)
    assert not left.exists()


def broken_off(
    root: Path, simulated: Path, monkeypatch: pytest.MonkeyPatch, keys: Sequence[Ed25519PrivateKey] = ()
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedphantom.privacy.audit.audit.blind_baseline", stopped)
        patch.setattr("fedphantom.privacy.audit.audit.positive_set_control", stopped)
        with pytest.raises(KeyboardInterrupt):
            audit(root, simulated, keys=keys)


def test_where_anything_changed_a_further_audit_begins_and_the_scores_of_the_first_are_gone(
    simulated: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_off(spoilt, simulated, monkeypatch)
    before = {path.name: path.read_bytes() for path in (spoilt / "audit" / FINDINGS).glob("*.finding")}
    assert before
    volume = min((spoilt / "synthetic").rglob("*_dseg.nii.gz"))
    shutil.copy(max((spoilt / "synthetic").rglob("*_dseg.nii.gz")), volume)
    broken_off(spoilt, simulated, monkeypatch)
    assert events(spoilt, "site-a") == [("audit-begun", 1), ("audit-begun", 2)]
    after = {path.name: path.read_bytes() for path in (spoilt / "audit" / FINDINGS).glob("*.finding")}
    assert not {name for name in before if before[name] == after.get(name)}
    # Nor does an audit that a key signs go on with what an unsigned one left: anybody could have.
    broken_off(spoilt, simulated, monkeypatch, [a_key(1)])
    assert events(spoilt, "site-a")[2:] == [("audit-begun", 3)]
    broken_off(spoilt, simulated, monkeypatch, [a_key(1)])
    assert len(events(spoilt, "site-a")) == 3, "its own it goes on with"


def test_two_processes_do_not_audit_into_one_folder(simulated: Path, spoilt: Path) -> None:
    with hold_folder(spoilt / "audit" / FINDINGS), pytest.raises(ConfigError, match="another process is running"):
        audit(spoilt, simulated)
    assert events(spoilt, "site-a") == []
