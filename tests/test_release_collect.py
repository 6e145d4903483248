"""Approvals that sites send are taken into the packer's release if each holds for it, and not one of them otherwise."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consortium import EVERYONE, SITES, Consortium, consort
from killed import killed_at
from officers import OFFICERS, STRANGER
from tiny_release import STUDY, Releasable, sign_again, statement_of

from fedphantom.cli import run as fedphantom
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.journal import Journal, read_journal, verify_journal
from fedphantom.common.keys import key_id
from fedphantom.common.signing import sign, unverified, verify
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.release.collect import collect_approvals
from fedphantom.privacy.release.datasheet import render_datasheet
from fedphantom.privacy.release.readme import render_readme
from fedphantom.privacy.statement import ReleasePredicate

SECOND = {"site-b": 'tier = "internal"\nsecond_person = true'}


class Collecting(Consortium):
    """The consortium with the packer's run, and each site's approval as a file that it sent."""

    @classmethod
    def make(cls, root: Path, releasable: Releasable, heads: dict[str, str]) -> Collecting:
        Journal(releasable.run / "journal.jsonl").append("run-started", sites=list(SITES))
        return cls(consort(root, releasable, heads).root)

    @property
    def run(self) -> Path:
        return self.root.parent / "made" / "run"

    def sent(self, who: str) -> Path:
        return self.root / f"{who}.approval"

    def send(self, who: str, site: str | None = None) -> Path:
        """What comes of approving a copy at the site."""
        copy = Path(shutil.copytree(self.release, self.root / f"copy-{who}"))
        assert self.approve(site or who, who=who, release=copy) == 0
        return Path(shutil.move(copy / self.approval(who).relative_to(self.release), self.sent(who)))

    def collect(self, *files: Path, trusted: tuple[str, ...] = tuple(EVERYONE), more: tuple[str, ...] = ()) -> int:
        line = ["release", "collect", str(self.release), *map(str, files), *self.public(*trusted)]
        return fedphantom([*line, "--run", str(self.run), *more])

    def noted(self) -> list[Any]:
        """Facts of the packer's journal on approvals."""
        journal = self.run / "journal.jsonl"
        verify_journal(journal)
        return [entry.facts for entry in read_journal(journal) if entry.event == "approval-collected"]


@pytest.fixture(scope="module")
def collecting_template(release_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Above the packer's run and a consortium whose two sites have sent their approvals."""
    root = tmp_path_factory.mktemp("collecting")
    ignored = shutil.ignore_patterns("release", "weights")
    releasable = Releasable(Path(shutil.copytree(release_template, root / "made", ignore=ignored)))
    made = Collecting.make(root / "consortium", releasable, {})
    for site in SITES:
        made.send(site)
    return root


@pytest.fixture
def collecting(collecting_template: Path, tmp_path: Path) -> Collecting:
    return Collecting(Path(shutil.copytree(collecting_template, tmp_path / "collecting")) / "consortium")


Told = Callable[[], dict[str, Any]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    capsys.readouterr()
    return lambda: json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]  # one object


def test_two_sites_approvals_make_an_approved_release_of_a_packed_one(collecting: Collecting, told: Told) -> None:
    assert collecting.collect(collecting.sent("site-a"), more=("--json",)) == 0
    half = told()
    assert (half["approved"], len(half["collected"]), len(half["missing_approvals"])) == (False, 1, 1)
    assert half["missing_approvals"][0].endswith("no approval by its compliance officer")
    assert collecting.verify("site-a") == 4
    told()
    assert collecting.collect(collecting.sent("site-b"), more=("--json",)) == 0
    whole = told()
    assert (whole["approved"], whole["missing_approvals"]) == (True, [])
    assert [one["key"] for one in whole["here_before"]] == [key_id(OFFICERS["site-a"].public_key())]
    assert collecting.verify(*SITES) == 0


def test_several_come_at_once_and_second_people_among_them(
    releasable: Releasable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = Collecting.make(tmp_path / "consortium", releasable, SECOND)
    files = [strict.send(site) for site in SITES]
    capsys.readouterr()
    assert strict.collect(*files) == 0
    said = capsys.readouterr().out
    assert "2 approvals taken in" in said
    assert "no approval by its second person" in said
    assert strict.collect(strict.send("site-b-second", "site-b")) == 0
    assert "Every site behind it has approved it" in capsys.readouterr().out
    assert strict.verify(*SITES, "site-b-second") == 0


def test_given_again_nothing_changes_and_nothing_is_noted_twice(collecting: Collecting) -> None:
    files = [collecting.sent(site) for site in SITES]
    assert collecting.collect(*files) == 0
    before = {path: path.read_bytes() for path in collecting.release.rglob("*") if path.is_file()}
    assert len(collecting.noted()) == 2
    assert collecting.collect(*files) == 0
    assert len(collecting.noted()) == 2
    assert {path: path.read_bytes() for path in collecting.release.rglob("*") if path.is_file()} == before


def test_the_packers_journal_names_release_key_and_file(collecting: Collecting) -> None:
    assert collecting.collect(collecting.sent("site-a")) == 0
    (noted,) = collecting.noted()
    said = json.loads(unverified(collecting.sent("site-a").read_bytes())[1])
    assert noted["release"] == said["subject"][0]["digest"]["sha256"]
    assert (noted["key"], noted["signed"]) == (key_id(OFFICERS["site-a"].public_key()), said["predicate"]["time"])


def test_an_approval_half_written_by_a_killed_command_stands_in_nobodys_way(collecting: Collecting) -> None:
    place = collecting.release / "approvals"
    place.mkdir()
    assert collecting.verify() == 5, "an empty folder"
    assert collecting.approve("site-a") == 0
    (place / ".tmp-123-half").write_bytes(b"{")
    assert collecting.verify("site-a") == 5
    assert collecting.collect(collecting.sent("site-b")) == 0
    assert collecting.verify(*SITES) == 0


def test_killed_at_any_moment_it_is_done_by_calling_it_again(
    collecting: Collecting, monkeypatch: pytest.MonkeyPatch, unflushed: None
) -> None:
    files = [collecting.sent(site) for site in SITES]
    keys = [key.public_key() for key in EVERYONE.values()]
    for moment in range(1, 20):
        shutil.rmtree(collecting.release / "approvals", ignore_errors=True)
        killed = killed_at(
            moment, lambda: collect_approvals(collecting.release, files, keys, collecting.run), monkeypatch
        )
        assert collect_approvals(collecting.release, files, keys, collecting.run).approved
        if not killed:
            assert moment > 2
            return
    raise AssertionError("it never came to its end")


# Refused, by name, and nothing taken in.


def _signed(collecting: Collecting, key: Any, change: Callable[[dict[str, Any]], None]) -> Path:
    """What site-a's officer said, changed and signed again."""
    said = json.loads(verify(collecting.sent("site-a").read_bytes(), [OFFICERS["site-a"].public_key()]))
    change(said)
    path = collecting.root / "spoilt"
    path.write_bytes(sign(json.dumps(said).encode(), key))
    return path


def _of_another_release(said: dict[str, Any]) -> None:
    said["subject"][0]["digest"]["sha256"] = "0" * 64


def _at(time: str) -> Callable[[dict[str, Any]], None]:
    return lambda said: said["predicate"].update(time=time)


def _changed(collecting: Collecting) -> Path:
    envelope = json.loads(collecting.sent("site-a").read_bytes())
    other = json.loads(collecting.sent("site-b").read_bytes())
    path = collecting.root / "spoilt"
    mixed = envelope | {"payload": other["payload"]}
    path.write_bytes(json.dumps(mixed, sort_keys=True, separators=(",", ":")).encode())
    return path


def _written(content: bytes) -> Callable[[Collecting], Path]:
    def write(collecting: Collecting) -> Path:
        path = collecting.root / "spoilt"
        path.write_bytes(content)
        return path

    return write


SPOILT: dict[str, tuple[Callable[[Collecting], Path], int, str]] = {
    "of another release": (lambda c: _signed(c, OFFICERS["site-a"], _of_another_release), 5, "another release"),
    "by a key that the release does not name": (lambda c: _signed(c, STRANGER, lambda _: None), 5, "does not name"),
    "after its key's last day": (lambda c: _signed(c, OFFICERS["site-a"], _at("2100-01-01T00:00:00Z")), 5, "expired"),
    "from before packing": (lambda c: _signed(c, OFFICERS["site-a"], _at("2026-11-20T00:00:00Z")), 5, "dated before"),
    "in another role": (
        lambda c: _signed(c, OFFICERS["site-a"], lambda said: said["predicate"].update(role="second person")),
        5,
        "another role",
    ),
    "changed": (_changed, 5, "does not hold"),
    "no envelope": (_written(b"approved, I swear"), 5, "not a DSSE envelope"),
    "signed, but no approval": (_written(sign(b"{}", OFFICERS["site-a"])), 5, "no approval"),
    "too large": (_written(b"x" * (1 << 17)), 3, "no readable approval"),
    "not there": (lambda c: c.root / "spoilt", 3, "no readable approval"),
    "given twice": (lambda c: Path(shutil.copy(c.sent("site-b"), c.root / "spoilt")), 3, "a second approval by"),
}


@pytest.mark.parametrize(("make", "code", "words"), SPOILT.values(), ids=SPOILT.keys())
def test_a_file_that_does_not_hold_is_refused_by_name_and_no_other_is_taken_in(
    collecting: Collecting,
    make: Callable[[Collecting], Path],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    assert collecting.collect(collecting.sent("site-b"), make(collecting)) == code
    said = capsys.readouterr().err
    assert said.startswith("error: spoilt: ")
    assert words in said
    assert not (collecting.release / "approvals").exists()
    assert collecting.noted() == []


def test_a_key_that_the_packer_does_not_have_from_its_holder_is_unknown(
    collecting: Collecting, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collecting.collect(collecting.sent("site-a"), trusted=("packer", "site-b")) == 5
    assert "site-a.approval: the approval" in capsys.readouterr().err


def test_a_second_other_approval_by_a_key_is_refused_and_the_first_stays(
    collecting: Collecting, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collecting.collect(collecting.sent("site-a")) == 0
    first = collecting.approval("site-a").read_bytes()
    other = _signed(collecting, OFFICERS["site-a"], lambda said: said["predicate"]["looked_at"].update(report="1" * 64))
    assert collecting.collect(other) == 4
    assert "whose first one is here" in capsys.readouterr().err
    assert collecting.approval("site-a").read_bytes() == first


def test_what_was_spoilt_in_the_release_itself_is_found_before_anything_is_added(collecting: Collecting) -> None:
    assert collecting.collect(collecting.sent("site-a")) == 0
    shutil.copy(collecting.sent("site-b"), collecting.approval("site-a"))
    assert collecting.collect(collecting.sent("site-b")) == 5
    assert not collecting.approval("site-b").exists()
    (collecting.release / "approvals").joinpath(collecting.approval("site-a").name).unlink()
    (collecting.release / "README.md").write_text("changed")
    assert collecting.collect(collecting.sent("site-b")) == 5


def test_the_release_of_another_run_is_refused(collecting: Collecting, capsys: pytest.CaptureFixture[str]) -> None:
    study = parse_study(STUDY.replace("seed = 1", "seed = 2"))
    save_weights(collecting.run / "generator.safetensors", initial_parameters(study), generator_metadata(study, 2))
    assert collecting.collect(collecting.sent("site-a")) == 5
    assert "another generator than the run's" in capsys.readouterr().err


def test_a_release_that_leaves_out_a_site_of_the_study_collects_nothing(
    collecting: Collecting, capsys: pytest.CaptureFixture[str]
) -> None:
    officer = key_id(OFFICERS["site-a"].public_key())

    file = collecting.release / "study.json"
    study = Study.model_validate_json(file.read_bytes())
    fewer = study.federation.model_copy(update={"approval_keys": (officer,)})

    def change(statement: dict[str, Any]) -> None:
        predicate = statement["predicate"]
        predicate["study_digest"] = hashlib.sha256(file.read_bytes()).hexdigest()
        sites = predicate["approving_sites"]
        predicate["approving_sites"] = [s for s in sites if s["signers"][0]["key"] == officer]

    sign_again(collecting.release, change)
    assert collecting.collect(collecting.sent("site-a")) == 5, "by the study in it"
    file.write_bytes(study.model_copy(update={"federation": fewer}).canonical().encode())
    sign_again(collecting.release, change)
    left = ReleasePredicate.model_validate_json(json.dumps(statement_of(collecting.release)["predicate"]))
    (collecting.release / "README.md").write_text(render_readme(left))
    (collecting.release / "cohort" / "README.md").write_text(render_datasheet(left))
    sign_again(collecting.release, change)
    assert collecting.collect(collecting.sent("site-a")) == 4, "by the run's, if that in it was made up to fit"
    assert "a study that names 2" in capsys.readouterr().err
    assert read_journal(collecting.run / "journal.jsonl")[-1].event == "release-refused"


def test_without_the_packers_journal_nothing_is_taken_in(collecting: Collecting) -> None:
    for name in ("journal.jsonl", "journal.jsonl.head"):
        (collecting.run / name).unlink()
    assert collecting.collect(collecting.sent("site-a")) == 5
    assert not collecting.approval("site-a").exists()
