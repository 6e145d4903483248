"""Releases: what is packed, under which names and words, and from the command line."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from tiny_release import LEAK, TRUSTED, Releasable, an_attack, files_of, release_study, rows, statement_of
from typer.testing import CliRunner

from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.errors import ConfigError, PolicyRefused, StorageError
from fedphantom.common.keys import generate_key, load_private_key
from fedphantom.common.storage import TEMPORARY_PREFIX
from fedphantom.privacy.release.commands import release_app
from fedphantom.privacy.release.content import MANIFEST
from fedphantom.privacy.release.pack import verify_release


def test_a_release_of_volumes_says_what_it_is(volumes_release: Path, releasable: Releasable) -> None:
    report = verify_release(volumes_release, TRUSTED)
    assert (report.kind, report.tier, report.verdict, report.dp) == ("volumes", "internal", "INCONCLUSIVE", "none")
    assert report.volumes == 6
    assert report.generator_sha256 == releasable.generator_sha256
    assert report.study_digest == release_study().digest()
    assert report.label_sources == ("open balls",)
    declared = json.loads(releasable.declared.read_text())["sources"]
    named = statement_of(volumes_release)["predicate"]["label_sources"]
    assert {source["sha256"] for source in named} == releasable.sources_used(), "only the sources used are named"
    assert (len(named), len(declared)) == (2, 3)
    assert report.created == "2026-11-22T12:00:00Z"


def test_a_release_of_weights_holds_the_generator_and_no_volume(weights_release: Path) -> None:
    report = verify_release(weights_release, TRUSTED)
    assert (report.kind, report.volumes) == ("weights", 0)
    names = {path.relative_to(weights_release).as_posix() for path in files_of(weights_release)}
    assert names == {"generator.safetensors", "README.md", "audit.json", "public-labels.json", MANIFEST}


def test_a_released_cohort_is_read_like_any_other(volumes_release: Path) -> None:
    cohort = read_cohort(volumes_release / "cohort")
    assert len(cohort.patients) == 2
    assert cohort.channels == ("T1", "T1c")
    assert dict(cohort.label_names) == {0: "background", 1: "tissue"}
    assert all(scan.label is not None for scan in cohort.scans)


def test_voxels_are_released_as_they_were_generated(releasable: Releasable, volumes_release: Path) -> None:
    def contents(root: Path) -> set[bytes]:
        return {path.read_bytes() for path in root.rglob("*.nii.gz")}

    assert contents(volumes_release) == contents(releasable.synthetic)


def test_names_times_and_permissions_tell_nothing(releasable: Releasable) -> None:
    releasable.pack()
    folder = releasable.release
    assert not list(folder.rglob("sub-synthetic*"))
    for path in folder.rglob("*"):
        assert path.stat().st_mtime == 946_684_800
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


def test_names_are_drawn_anew_for_every_release(releasable: Releasable, volumes_release: Path) -> None:
    releasable.pack()
    names = [{path.name for path in (root / "cohort").glob("sub-*")} for root in (releasable.release, volumes_release)]
    assert not names[0] & names[1]


@pytest.mark.parametrize(("tier", "verdict"), [("internal", "INCONCLUSIVE"), ("internal", "PASS")])
def test_an_internal_release_is_marked_as_not_for_sharing(releasable: Releasable, tier: str, verdict: str) -> None:
    releasable.write_audit(verdict=verdict)
    report = releasable.pack(tier=tier)
    assert not report.audit_permits_sharing
    assert "not approved for sharing outside" in report.note
    assert "Not approved for sharing outside" in (releasable.release / "README.md").read_text()
    assert statement_of(releasable.release)["predicate"]["audit_permits_sharing"] is False


def test_a_release_that_passed_says_no_attack_tested_succeeded_and_nothing_stronger(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS")
    report = releasable.pack(tier="controlled")
    text = (releasable.release / "README.md").read_text()
    assert report.audit_permits_sharing
    assert "No attack tested succeeded" in text
    assert "anonym" not in text.lower()
    assert "`dp: none`" in text


def test_a_release_names_an_attack_that_succeeded_though_it_does_not_bind(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS", release="volumes", attacks=rows(A1=an_attack("A1", "G", 0.99, rejects=True)))
    report = releasable.pack(tier="controlled")
    told = "o attack that binds for a volumes release succeeded; A1 (AUC 0.99) did"
    for text in (report.note, (releasable.release / "README.md").read_text()):
        assert told in text
        assert "o attack tested succeeded" not in text


def test_an_internal_release_says_which_attack_was_not_judged(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS", tier="internal", attacks=rows(A3=an_attack("A3", "S", **LEAK)))
    report = releasable.pack(tier="internal")
    for text in (report.note, (releasable.release / "README.md").read_text()):
        assert "ot judged at this tier: A3 (AUC 0.90) rejects 'no leak'" in text
        assert "succeeded" not in text


def test_the_audit_table_travels_and_scores_of_patients_do_not(releasable: Releasable) -> None:
    releasable.write_audit(scores={"sub-009": 0.3}, coins={"sub-009": "member"})
    releasable.pack()
    audit = json.loads((releasable.release / "audit.json").read_text())
    assert audit["attacks"][0]["auc"] == 0.52
    assert not audit.keys() & {"scores", "coins"}
    claimed = statement_of(releasable.release)["predicate"]["audit"]["sha256"]
    assert claimed == hashlib.sha256(releasable.audit.read_bytes()).hexdigest()


def test_a_crash_at_any_file_leaves_nothing_that_verifies(
    releasable: Releasable, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, files = Path.write_bytes, 16

    for survived in range(files):
        written = 0

        def crash(path: Path, data: bytes, survived: int = survived) -> int:
            nonlocal written
            if written == survived:
                raise KeyboardInterrupt
            written += 1
            return real(path, data)

        monkeypatch.setattr(Path, "write_bytes", crash)
        with pytest.raises(KeyboardInterrupt):
            releasable.pack()
        assert not releasable.release.exists()
        assert not list(releasable.root.glob(f"{TEMPORARY_PREFIX}*"))


def test_a_release_is_never_written_over_another(releasable: Releasable) -> None:
    releasable.pack()
    before = (releasable.release / MANIFEST).read_bytes()
    with pytest.raises(StorageError, match="there already"):
        releasable.pack()
    assert (releasable.release / MANIFEST).read_bytes() == before


def pack_arguments(releasable: Releasable, key: Path, *more: str) -> list[str]:
    folders = [releasable.run, releasable.release, "--synthetic", releasable.synthetic, "--public", releasable.public]
    return ["pack", *map(str, folders), "--audit", str(releasable.audit), "--key", str(key), *more]


def test_the_command_line_packs_and_verifies_only_scans_that_the_generator_paints(releasable: Releasable) -> None:
    private, public = generate_key(releasable.root / "keys")
    arguments = pack_arguments(releasable, private, "--tier", "internal", "--json")
    first, second = releasable.scans()
    painted = first.read_bytes()
    first.write_bytes(second.read_bytes())
    releasable.write_audit()
    refused = CliRunner().invoke(release_app, arguments)
    assert isinstance(refused.exception, PolicyRefused)
    assert "does not paint" in str(refused.exception)
    assert not releasable.release.exists()

    first.write_bytes(painted)
    releasable.write_audit()
    done = CliRunner().invoke(release_app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["verdict"] == "INCONCLUSIVE"
    shown = CliRunner().invoke(release_app, ["verify", str(releasable.release), "--key", str(public)])
    assert "Not approved for sharing outside" in shown.output
    again = CliRunner().invoke(release_app, ["verify", str(releasable.release), "--key", str(public), "--json"])
    assert json.loads(again.stdout) == json.loads(done.stdout)
    load_private_key(private)


def test_a_pass_that_no_sites_journal_can_confirm_is_refused(releasable: Releasable) -> None:
    private, _ = generate_key(releasable.root / "keys")
    releasable.write_audit(verdict="PASS", release="volumes")
    done = CliRunner().invoke(release_app, pack_arguments(releasable, private))
    assert isinstance(done.exception, PolicyRefused)
    assert "without a site's folder" in str(done.exception)
    assert not releasable.release.exists()


@pytest.mark.parametrize(
    ("verdict", "remedy"),
    [
        ("FAIL", "Release nothing of this generator"),
        ("INVALID", "which control did not hold"),
        ("INCONCLUSIVE", "a full"),
    ],
)
def test_what_may_be_done_next_is_told_by_the_verdict(releasable: Releasable, verdict: Any, remedy: str) -> None:
    """Nobody is sent to try again until a proven leak passes."""
    private, _ = generate_key(releasable.root / "keys")
    releasable.write_audit(verdict=verdict, release="volumes")
    done = CliRunner().invoke(release_app, pack_arguments(releasable, private))
    assert isinstance(done.exception, PolicyRefused)
    assert f"audit verdict {verdict}" in str(done.exception)
    assert remedy in str(done.exception)


def test_a_policy_among_several_that_cannot_be_read_is_named(releasable: Releasable, tmp_path: Path) -> None:
    private, _ = generate_key(releasable.root / "keys")
    (tmp_path / "b.toml").write_text("tier = ")
    done = CliRunner().invoke(release_app, [*pack_arguments(releasable, private), "--policy", str(tmp_path / "b.toml")])
    assert isinstance(done.exception, ConfigError)
    assert "policy 'b.toml': the policy is not valid TOML" in str(done.exception)


def test_the_command_line_asks_for_the_controlled_tier_unless_told_otherwise(releasable: Releasable) -> None:
    private, _ = generate_key(releasable.root / "keys")
    done = CliRunner().invoke(release_app, pack_arguments(releasable, private))
    assert isinstance(done.exception, PolicyRefused)
    assert "verdict INCONCLUSIVE" in str(done.exception)
    assert "tier 'controlled'" in str(done.exception)
