"""What even a trusted key cannot sign."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from officers import AGREED, policy_text
from tiny_release import TRUSTED, an_attack, assert_refused, in_predicate, rows, sign_again, statement_of

from fedphantom.privacy.approving_site import ApprovingSite
from fedphantom.privacy.audit.extract import AttackRow
from fedphantom.privacy.finding import WORDING, finding
from fedphantom.privacy.label_making import EditedMaps, LabelMaking, SampledMaps
from fedphantom.privacy.policy import parse_policy
from fedphantom.privacy.release.datasheet import render_datasheet
from fedphantom.privacy.release.pack import verify_release
from fedphantom.privacy.release.readme import render_readme
from fedphantom.privacy.statement import EvaluationClaim, ReleasePredicate, may_be_shared


def _subject(name: str) -> Callable[[dict[str, Any]], None]:
    def change(statement: dict[str, Any]) -> None:
        statement["subject"][0]["name"] = name

    return change


@pytest.mark.parametrize(
    "name", ["../README.md", "/etc/passwd", "cohort/../README.md", "a//b", "a\\b", "./README.md", "", "a\0b", "x\n"]
)
def test_a_signed_path_that_leaves_the_folder_is_refused(either_release: Path, name: str) -> None:
    sign_again(either_release, _subject(name))
    assert_refused(either_release, "not a plain relative path")


A_SITE = {
    "policy_sha256": "e" * 64,
    "tier": "internal",
    "second_person": False,
    "signers": [{"key": "d" * 64, "role": "compliance officer", "expires": "2099-12-31"}],
    "overrides": [],
}
CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "an unknown key": in_predicate(site="site-a"),
    "an unknown statement key": lambda statement: statement.update(note="x"),
    "an inconclusive audit in public": in_predicate(tier="public"),
    "one site behind an average": in_predicate(one_site=True),
    "an ensemble of several sites": in_predicate(sharing="ensemble"),
    "another way of sharing": in_predicate(sharing="ensemble", one_site=True),
    "a study that shares volumes alone": in_predicate(sharing="volumes", one_site=True),
    "scans that are not there": lambda s: s["predicate"]["label_making"].update(scans=3),
    "a recipe that made none of them": lambda s: s["predicate"]["label_making"].update(
        scans=2, sampled=[], edited=[{"recipe": "move", "citation": "nobody", "scans": 2}]
    ),
    "sharing approved without a PASS": in_predicate(audit_permits_sharing=True),
    "a formal promise that nobody made": in_predicate(dp="epsilon = 1"),
    "another audit's verdict": lambda s: s["predicate"]["audit"].update(verdict="PASS"),
    "a failed audit": lambda s: s["predicate"]["audit"].update(verdict="FAIL"),
    "another generator": in_predicate(generator_sha256="0" * 64),
    "another predicate type": lambda statement: statement.update(predicateType="https://slsa.dev/provenance/v1"),
    "publication that no site has to approve": in_predicate(
        tier="public", audit_permits_sharing=True, audit={"verdict": "PASS"}, approving_sites=[]
    ),
    "a site whose policy forbids it": lambda s: s["predicate"].update(
        approving_sites=[{**A_SITE, "tier": "internal"}], tier="controlled"
    ),
    "one site twice": in_predicate(approving_sites=[A_SITE, A_SITE]),
    "a site that nobody can approve for": in_predicate(approving_sites=[{**A_SITE, "second_person": True}]),
    "sites that the study does not name": in_predicate(approving_sites=[A_SITE, {**A_SITE, "policy_sha256": "f" * 64}]),
    "a private source": lambda s: s["predicate"]["label_sources"][0].update(kind="private"),
    "no source": in_predicate(label_sources=[]),
    "a file twice": lambda statement: statement["subject"].insert(0, statement["subject"][0]),
    "another time format": in_predicate(created="yesterday"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_signed_statement_that_contradicts_itself_or_the_files_is_refused(
    either_release: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    sign_again(either_release)
    verify_release(either_release, TRUSTED)
    sign_again(either_release, change)
    assert_refused(either_release)


def test_a_signed_file_that_does_not_belong_in_a_release_is_refused(either_release: Path) -> None:
    (either_release / "optimiser.safetensors").write_bytes(b"x")
    sign_again(either_release)
    assert_refused(either_release, "no place in such a release")


def test_weights_do_not_ride_along_with_volumes(volumes_release: Path, weights_release: Path) -> None:
    shutil.copy(weights_release / "generator.safetensors", volumes_release)
    sign_again(volumes_release)
    assert_refused(volumes_release, "no place in such a release")


def test_a_readme_that_claims_more_than_was_signed_is_refused(either_release: Path) -> None:
    path = either_release / "README.md"
    path.write_text(path.read_text().replace("Not approved", "Approved"))
    sign_again(either_release)
    assert_refused(either_release, "README")


TABLES = {
    "a site beside a name": ("participants.tsv", b"participant_id\n", b"participant_id\tsite\n"),
    "a name that has no volume": ("participants.tsv", b"participant_id\n", b"participant_id\nsub-0042\n"),
    "another data set's name": ("dataset_description.json", b"FedPhantom synthetic release", b"Hospital B"),
    "another key": ("dataset_description.json", b'"Synthetic"', b'"Contact": "DOE", "Synthetic"'),
    "another channel table": ("dataset_description.json", b'"Synthetic"', b'"Channels": {"a": "b"}, "Synthetic"'),
    "another label row": ("dseg.tsv", b"1\ttissue\n", b"1\ttissue of DOE^JANE\n"),
    "an unfinished label row": ("dseg.tsv", b"1\ttissue\n", b"1\ttissue"),
}


@pytest.mark.parametrize(("name", "old", "new"), TABLES.values(), ids=TABLES.keys())
def test_a_signed_table_with_more_in_it_is_refused(volumes_release: Path, name: str, old: bytes, new: bytes) -> None:
    path = volumes_release / "cohort" / name
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    sign_again(volumes_release)
    assert_refused(volumes_release, "other entries")


def test_an_entry_hidden_behind_another_of_its_name_is_refused(volumes_release: Path) -> None:
    path = next(volumes_release.rglob("*_T1w.json"))
    path.write_text(path.read_text().replace('"NoiseSeed"', '"NoiseSeed": 19700101, "NoiseSeed"'))
    sign_again(volumes_release)
    assert_refused(volumes_release, "another encoding")


def test_a_release_whose_sentences_this_program_does_not_know_is_told_apart_from_a_forgery(
    either_release: Path,
) -> None:
    sign_again(either_release, in_predicate(wording=WORDING + 1))
    assert_refused(either_release, "the sentences of another program")


WORDINGS = {
    1: "b445179c43096940",
    2: "6d4386318513e625",
    3: "70b99b21b49b42da",
    4: "6d4103a0adc9a9e1",
    5: "9e5c45815e27e50f",
}
SITES = (
    (),
    tuple(
        ApprovingSite.of(parse_policy(policy_text(site, head, AGREED)), date(2026, 11, 22))
        for site, head in (("site-a", ""), ("site-b", "second_person = true"))
    ),
)
MAKINGS = (
    LabelMaking(),
    LabelMaking(scans=3, sampled=(SampledMaps(source="open balls", scans=3),)),
    LabelMaking(
        scans=3,
        sampled=(SampledMaps(source="open balls", scans=1),),
        edited=tuple(EditedMaps(recipe=name, citation="by hand", scans=2) for name in ("grow", "move")),
    ),
)


def test_the_number_of_the_sentences_is_raised_whenever_one_of_them_changes(volumes_release: Path) -> None:
    signed = ReleasePredicate.model_validate_json(json.dumps(statement_of(volumes_release)["predicate"]))
    given = signed.model_copy(update={"software": "fedphantom", "created": "then"})
    counted = given.model_copy(update={"label_carriers_min": 10})
    texts = [re.sub("[0-9a-f]{64}", "", render_readme(counted) + render_datasheet(counted))]
    for kind, tier, verdict, auc in itertools.product(
        ("volumes", "weights"), ("internal", "controlled", "public"), ("PASS", "INCONCLUSIVE"), (0.5, 0.9)
    ):
        tried = [AttackRow.model_validate(row) for row in rows(A1=an_attack("A1", "G", auc))]
        claim = given.audit.model_copy(update={"verdict": verdict, "finding": finding(tried, kind)})
        for evaluation in (None, EvaluationClaim(protocols=("arms", "shin", "fidelity"), test_patients=20)):
            changes = {"kind": kind, "tier": tier, "audit": claim, "evaluation": evaluation}
            changes["audit_permits_sharing"] = may_be_shared(tier, verdict)
            for sharing, making, sites in itertools.product(("weights", "ensemble", "volumes"), MAKINGS, SITES):
                changes |= {"sharing": sharing, "one_site": sharing != "weights", "label_making": making}
                changes["approving_sites"] = sites
                changed = given.model_copy(update=changes)
                pages = render_readme(changed) + (render_datasheet(changed) if kind == "volumes" else "")
                texts.append(re.sub("[0-9a-f]{64}", "", pages))
    assert len(set(texts)) > 20
    now = hashlib.sha256("".join(texts).encode()).hexdigest()[:16]
    assert WORDINGS[WORDING] == now, "a sentence has changed: raise WORDING, and note its number here"
