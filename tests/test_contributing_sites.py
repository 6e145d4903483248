"""Every contributing site's approval is needed: nobody can be left out of a release, and each judges for itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consortium import SITES, Consortium, consort
from officers import AGREED, OFFICERS, STRANGER, key_files, policy_text, public_pem
from tiny_release import KEY, STUDY, Releasable, an_attack, rows, sign_again, statement_of

from fedphantom.cli import run as fedphantom
from fedphantom.common.errors import ConfigError, PolicyRefused, SignatureInvalid
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.journal import Journal
from fedphantom.common.keys import key_id
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.policy import parse_policy
from fedphantom.privacy.release.datasheet import render_datasheet
from fedphantom.privacy.release.readme import render_readme
from fedphantom.privacy.statement import ReleasePredicate

OFFICER = OFFICERS["site-a"]


def test_a_release_that_leaves_out_a_site_of_the_study_is_not_packed(releasable: Releasable) -> None:
    one = [parse_policy(policy_text("site-a"))]
    with pytest.raises(PolicyRefused, match="policies of 1 site, a study that names 2"):
        releasable.pack(policies=one)
    with pytest.raises(ConfigError, match="one key in two policies"):
        releasable.pack(policies=one * 2)
    others = policy_text("site-b").replace(public_pem(OFFICERS["site-b"]), public_pem(STRANGER))
    with pytest.raises(SignatureInvalid, match="whose compliance officer's key the study does not name"):
        releasable.pack(policies=[*one, parse_policy(others)])


def test_more_sites_in_the_runs_journal_than_in_the_study_are_not_passed_over(releasable: Releasable) -> None:
    Journal(releasable.run / "journal.jsonl").append("run-started", sites=["site-a", "site-b", "site-c"])
    with pytest.raises(PolicyRefused, match="and a run of 3"):
        releasable.pack(policies=[parse_policy(policy_text(site)) for site in SITES])


def test_a_study_that_names_no_sites_keys_gives_no_release_that_could_be_approved(releasable: Releasable) -> None:
    study = parse_study(STUDY.rpartition("approval_keys")[0])
    save_weights(releasable.generator, initial_parameters(study), generator_metadata(study, study.training.rounds))
    releasable.write_audit(verdict="PASS", release="weights")
    for tier, policies in (("internal", [parse_policy(policy_text(site)) for site in SITES]), ("controlled", None)):
        changes = {"policies": policies} if policies else {}
        with pytest.raises(PolicyRefused, match="does not say whose approval it needs"):
            releasable.pack(kind="weights", tier=tier, synthetic=None, **changes)


def leave_out_site_b(release: Path, **changes: str) -> None:
    """What a dishonest packer could sign: a statement, and pages to go with it, that tell of one site."""

    def change(statement: dict[str, Any]) -> None:
        predicate = statement["predicate"]
        predicate.update(changes)
        left = [s for s in predicate["approving_sites"] if s["signers"][0]["key"] == key_id(OFFICER.public_key())]
        predicate["approving_sites"] = left

    sign_again(release, change)
    predicate = ReleasePredicate.model_validate_json(json.dumps(statement_of(release)["predicate"]))
    assert len(predicate.approving_sites) == 1
    (release / "README.md").write_text(render_readme(predicate))
    if predicate.kind == "volumes":
        (release / "cohort" / "README.md").write_text(render_datasheet(predicate))
    sign_again(release, change)


@pytest.mark.parametrize("kind", ["volumes", "weights"])
def test_a_site_that_a_dishonest_packer_left_out_is_missed_by_every_other_and_by_every_reader(
    releasable: Releasable, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"kind": "weights", "synthetic": None} if kind == "weights" else {}
    both = consort(tmp_path / "consortium", releasable, {}, **changes)
    assert both.verify() == 4, "it holds, and nobody has approved it yet"
    leave_out_site_b(both.release)
    capsys.readouterr()
    assert both.verify() == 5
    assert "policies of 1 site, a study that names 2" in capsys.readouterr().err
    assert both.approve("site-a") == 5
    assert not both.approval("site-a").exists()


def one_key_less(content: bytes) -> bytes:
    study = parse_stored(content)
    federation = study.federation.model_copy(update={"approval_keys": study.federation.approval_keys[:1]})
    return study.model_copy(update={"federation": federation}).canonical().encode()


def parse_stored(content: bytes) -> Study:
    return Study.model_validate_json(content)


STUDIES: dict[str, Callable[[bytes], bytes]] = {
    "with a key less": one_key_less,
    "in another encoding": lambda content: json.dumps(json.loads(content), indent=1).encode(),
    "no study": lambda content: b"{}",
    "nothing": lambda content: b"",
}


@pytest.mark.parametrize("change", STUDIES.values(), ids=STUDIES.keys())
def test_volumes_carry_the_very_study_that_the_statement_names(
    consortium: Consortium, change: Callable[[bytes], bytes]
) -> None:
    file = consortium.release / "study.json"
    assert parse_stored(file.read_bytes()).digest() == statement_of(consortium.release)["predicate"]["study_digest"]
    file.write_bytes(change(file.read_bytes()))
    sign_again(consortium.release)
    assert consortium.verify() == 5


def test_volumes_without_their_study_do_not_verify(consortium: Consortium) -> None:
    (consortium.release / "study.json").unlink()
    sign_again(consortium.release)
    assert consortium.verify() == 5


def test_a_study_made_up_to_fit_a_statement_is_none_of_any_site(consortium: Consortium) -> None:
    """Nobody who has only the release can tell; whoever trained under the true one does."""
    file = consortium.release / "study.json"
    file.write_bytes(one_key_less(file.read_bytes()))
    leave_out_site_b(consortium.release, study_digest=hashlib.sha256(file.read_bytes()).hexdigest())
    assert consortium.verify() == 4
    assert consortium.approve("site-a") == 5


def test_a_release_inside_the_study_without_a_policy_says_that_nobody_approved_it(
    volumes_release: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, public = key_files(tmp_path / "keys", "packer", KEY)
    line = ["release", "verify", str(volumes_release), "--key", str(public)]
    assert fedphantom(line) == 0
    assert "Not approved by any site's officer" in capsys.readouterr().out
    assert fedphantom([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["approved"] is False


def test_beyond_the_study_nothing_is_packed_without_a_policy(releasable: Releasable) -> None:
    releasable.write_audit(verdict="PASS")
    with pytest.raises(PolicyRefused, match="'controlled' without a site's policy"):
        releasable.pack(tier="controlled", policies=())


def test_a_site_approves_by_its_own_thresholds(releasable: Releasable, tmp_path: Path) -> None:
    """The audit allowed .80 on unusual patients; a site whose policy says .75 is not bound by that."""
    why = {"reason": "the board agreed", "by": "the board", "on": "2026-11-20"}
    releasable.write_audit(
        verdict="PASS",
        attacks=rows(**{"A3/outliers": an_attack("A3/outliers", "S", 0.74)}),
        policy={"outlier_auc_upper_max": 0.8, "reasons": {"outlier_auc_upper_max": why}},
    )
    head = 'tier = "controlled"'
    texts = [policy_text("site-a", head, AGREED), policy_text("site-b", head)]
    with pytest.raises(PolicyRefused, match="INCONCLUSIVE by a site's own policy"):
        releasable.pack(tier="controlled", policies=[parse_policy(text) for text in texts])
    texts = [policy_text(site, head, AGREED) for site in SITES]
    assert releasable.pack(tier="controlled", policies=[parse_policy(text) for text in texts]).audit_permits_sharing
