"""A site that trains alone packs its own release, from its own folder; nobody packs the whole run."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from sites_alone import SITES, audit, pack, paint, simulate_sites_alone
from tiny_release import NO_TROUBLE, a_control, rows

from fedphantom.cli import run as fedphantom
from fedphantom.common.errors import DataError, VerificationFailed
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.parameters import parameters_digest
from fedphantom.common.gan.weights import generator_metadata, load_weights, save_weights, study_of
from fedphantom.common.installed_code import installed_code_digest
from fedphantom.common.journal import Journal, read_journal
from fedphantom.common.keys import generate_key, load_private_key
from fedphantom.common.scan_record import scans_digest
from fedphantom.common.signing import verify
from fedphantom.common.site_folder import SiteFolder
from fedphantom.privacy.audit.history import AUDITED, DONE
from fedphantom.privacy.audit.run import verify_audit
from fedphantom.privacy.audit.signature import sign_result
from fedphantom.privacy.evidence import BATTERY, REQUIRED_CONTROLS
from fedphantom.privacy.release.pack import ReleaseReport, verify_release
from fedphantom.privacy.release.run import pack_run
from fedphantom.privacy.synthetic_digest import synthetic_digest


@pytest.fixture(scope="module", params=["ensemble", "volumes"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which site a painted, and audited what it painted, from its own folder."""
    root = simulate_sites_alone(tmp_path_factory.mktemp(request.param), request.param)
    site = root / "run" / "sites" / "site-a"
    assert paint(site / "generator.safetensors", site / "synthetic") == 0
    assert audit(root, site) == 6  # INCONCLUSIVE: far too few patients
    generate_key(root / "keys")
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A copy to spoil; the cohorts stay where the sites know them."""
    for name in ("run", "keys"):
        shutil.copytree(template / name, tmp_path / name)
    shutil.copy(template / "internal.toml", tmp_path)
    return tmp_path


def site_of(root: Path, name: str = "site-a") -> Path:
    return root / "run" / "sites" / name


def sharing_of(root: Path) -> str:
    return SiteFolder.open(site_of(root)).study().federation.sharing


def key_of(root: Path) -> Path:
    return root / "keys" / "key.pem"


def verified(root: Path) -> ReleaseReport:
    return verify_release(root / "release", [load_private_key(key_of(root)).public_key()])


def policy_of(root: Path, tier: str, name: str = "officer") -> str:
    """Of a site whose officer has a new key in the folder ``name``."""
    _, public = generate_key(root / name)
    policy = str(root / f"{name}.toml")
    line = ["release", "policy", policy, "--officer", str(public), "--expires", "2099-12-31", "--tier", tier]
    assert fedphantom(line) == 0
    return policy


def predicate_of(root: Path) -> dict[str, Any]:
    envelope = (root / "release" / "manifest.dsse.json").read_bytes()
    statement: dict[str, Any] = json.loads(verify(envelope, [load_private_key(key_of(root)).public_key()]))
    return statement["predicate"]


def test_a_sites_folder_answers_for_generator_volumes_and_audit(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = site_of(root)
    assert pack(site, root / "release", key_of(root)) == 0
    capsys.readouterr()
    verify = ["release", "verify", str(root / "release"), "--key", str(root / "keys" / "key.pub.pem")]
    assert fedphantom([*verify, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sharing"], told["one_site"], told["kind"]) == (sharing_of(root), True, "volumes")
    assert told["generator_sha256"] == hashlib.sha256((site / "generator.safetensors").read_bytes()).hexdigest()
    assert fedphantom(verify) == 0
    assert "one site trained the generator and stands behind it" in capsys.readouterr().out
    assert not list((root / "release").rglob("*.safetensors"))


def test_statement_and_readme_say_that_one_site_stands_behind_the_release_and_not_which(root: Path) -> None:
    assert pack(site_of(root), root / "release", key_of(root)) == 0
    predicate = predicate_of(root)
    assert (predicate["sharing"], predicate["one_site"]) == (sharing_of(root), True)
    text = (root / "release" / "README.md").read_text()
    assert f"stands behind this release\n(sharing: {sharing_of(root)})" in text
    assert "signed approval" not in text
    for path in (root / "release").rglob("*.*"):
        assert not any(site.encode() in path.read_bytes() for site in SITES)


def test_a_pass_of_one_site_that_its_journal_knows_is_packed_for_controlled_access(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = site_of(root)
    content = {
        "verdict": "PASS",
        "tier": "controlled",
        "release": "volumes",
        "battery": BATTERY,
        "generator_sha256": hashlib.sha256((site / "generator.safetensors").read_bytes()).hexdigest(),
        "parameters_sha256": parameters_digest(load_weights(site / "generator.safetensors")[0]),
        "channels": list(study_of(load_weights(site / "generator.safetensors")[1]).channels),
        "synthetic_sha256": synthetic_digest(site / "synthetic"),
        "cohort_digest": "0" * 64,
        "scans_sha256": scans_digest([site / "journal.jsonl"]),
        "code_sha256": installed_code_digest(),
        "attacks": rows(),
        "controls": [a_control(name) for name in REQUIRED_CONTROLS["weights"]],
        "counts": {"member": 120, "holdout": 120},
        **NO_TROUBLE,
        "reasons": ["Read them."],
        "generator_named_by": "the site's journal",
    }
    (root / "pass.json").write_text(json.dumps(content))
    private, public = generate_key(root / "officer")
    line = ["release", "policy", str(root / "site.toml"), "--officer", str(public), "--expires", "2099-12-31"]
    assert fedphantom([*line, "--tier", "controlled"]) == 0
    more = ["--tier", "controlled", "--audit", str(root / "pass.json")]
    assert pack(site, root / "release", key_of(root), *more) == 5, "nobody noted such an audit"
    done = {"sha256": hashlib.sha256((root / "pass.json").read_bytes()).hexdigest(), "number": 2}
    Journal(site / "journal.jsonl").append(DONE, **done)
    capsys.readouterr()
    assert pack(site, root / "release", key_of(root), *more) == 4, "nobody is named who could approve it"
    assert "making every scan again" not in capsys.readouterr().err, "asked before what takes long"
    line = ["--policy", str(root / "site.toml")]
    capsys.readouterr()
    assert pack(site, root / "release", key_of(root), *more, *line) == 4, "so few patients carry every structure"
    told = capsys.readouterr().err
    assert "making every scan again ..." in told
    assert "still names its compliance officer 'to be filled in'" in told
    assert "fewer than 10 of the training patients carry: csf, grey, white" in told
    refused = [entry.facts["reason"] for entry in read_journal(site / "journal.jsonl") if "reason" in entry.facts]
    assert str(refused[-1]) in told
    why = (
        '[override.label_carriers_min]\nvalue = 1\nreason = "all patients agreed"\nby = "the board"\non = 2026-11-20\n'
    )
    with (root / "site.toml").open("a") as policy:
        policy.write(why)
    assert pack(site, root / "release", key_of(root), *more, *line) == 0
    assert verified(root).audit_permits_sharing
    assert not verified(root).approved
    packer = str(root / "keys" / "key.pub.pem")
    line = ["release", "approve", str(root / "release"), "--key", str(private), "--policy", str(root / "site.toml")]
    line += ["--packed-by", packer, "--site", str(site), "--audit", str(root / "pass.json")]
    assert fedphantom(line) == 4, "nobody signed it as it ended"
    sign_result(root / "pass.json", SiteFolder.open(site).study().digest(), [load_private_key(private)])
    assert fedphantom(line) == 0
    assert fedphantom(["release", "verify", str(root / "release"), "--key", packer, "--key", str(public)]) == 0
    assert "Meant for controlled access" in (root / "release" / "README.md").read_text()


def test_the_whole_run_is_neither_audited_nor_packed_as_if_it_had_one_generator(root: Path) -> None:
    run, result = root / "run", site_of(root) / "audit" / "audit.json"
    assert audit(root, run, "--synthetic", str(site_of(root) / "synthetic")) == 3
    assert pack(run, root / "release", key_of(root), "--audit", str(result)) == 3
    with pytest.raises(DataError, match="each have a generator of their own") as refused:
        verify_audit(result, run)
    assert "run/sites/NAME" in refused.value.remedy
    assert not (root / "release").exists()


def test_a_cohort_that_two_sites_painted_is_refused_with_what_to_do(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert paint(site_of(root, "site-b") / "generator.safetensors", root / "by-b") == 0
    site = site_of(root)
    mixed = Path(shutil.copytree(site / "synthetic", root / "mixed"))
    shutil.rmtree(mixed / "sub-synthetic00003")
    shutil.copytree(root / "by-b" / "sub-synthetic00003", mixed / "sub-synthetic00003")
    capsys.readouterr()
    assert pack(site, root / "release", key_of(root), "--synthetic", str(mixed)) == 4
    told = capsys.readouterr().err
    assert "painted by 2 generators" in told
    assert "each does so from its own folder" in told
    assert not (root / "release").exists()
    assert audit(root, site, "--synthetic", str(mixed)) == 5
    audits = [entry for entry in read_journal(site / "journal.jsonl") if entry.event == AUDITED]
    assert len(audits) == 1, "what is refused is no look at the holdout"


@pytest.mark.parametrize("whose", ["another site's", "nobody's"])
def test_a_generator_that_the_sites_journal_does_not_name_is_refused(root: Path, whose: str) -> None:
    site, file = site_of(root), site_of(root) / "generator.safetensors"
    study = study_of(load_weights(file)[1])
    if whose == "another site's":
        shutil.copy(site_of(root, "site-b") / "generator.safetensors", file)
    else:
        save_weights(file, initial_parameters(study), generator_metadata(study, 1))
    shutil.rmtree(site / "synthetic")
    assert paint(file, site / "synthetic") == 0
    assert audit(root, site) == 5
    # A result that speaks of that very file does not help.
    result = json.loads((site / "audit" / "audit.json").read_text())
    result["generator_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (root / "edited.json").write_text(json.dumps(result))
    key = key_of(root)
    with pytest.raises(VerificationFailed, match="this site's journal does not know"):
        pack_run(
            site,
            root / "release",
            "volumes",
            "internal",
            key,
            root / "edited.json",
            None,
            None,
            lambda stage: lambda done, total: None,
        )
    assert not (root / "release").exists()


def test_volumes_that_the_audit_did_not_see_are_refused(root: Path) -> None:
    site = site_of(root)
    shutil.rmtree(site / "synthetic" / "sub-synthetic00003")
    assert pack(site, root / "release", key_of(root)) == 5
    assert not (root / "release").exists()


def test_a_site_without_volumes_or_an_audit_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = site_of(root, "site-b")
    assert pack(site, root / "release", key_of(root)) == 3
    assert "Paint the volumes with the very generator file in this folder" in capsys.readouterr().err
    assert paint(site / "generator.safetensors", site / "synthetic") == 0
    assert pack(site, root / "release", key_of(root)) == 4
    assert not (root / "release").exists()


def test_weights_leave_only_an_ensembles_site_and_only_after_an_audit_of_every_way_to_attack_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, weights = site_of(root), ["--kind", "weights"]
    assert pack(site, root / "release", key_of(root), *weights) == 4, "its audit looked at volumes"
    expected = "an audit for volumes" if sharing_of(root) == "ensemble" else "share volumes alone"
    assert expected in capsys.readouterr().err
    assert audit(root, site, *weights) == 6
    code = pack(site, root / "release", key_of(root), *weights)
    if sharing_of(root) == "volumes":
        assert code == 4
        assert "no weights leave a site" in capsys.readouterr().err
        assert not (root / "release").exists()
        return
    assert code == 0
    report = verified(root)
    assert (report.kind, report.sharing, report.one_site) == ("weights", "ensemble", True)
    released = root / "release" / "generator.safetensors"
    assert released.read_bytes() == (site / "generator.safetensors").read_bytes()
    assert predicate_of(root)["audit"]["release"] == "weights"


def test_the_generator_in_a_sites_folder_is_the_owners_alone(template: Path) -> None:
    for site in SITES:
        folder = site_of(template, site)
        assert stat.S_IMODE((folder / "generator.safetensors").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = [path.parent for path in (template / "run").rglob("*.safetensors") if path.name == "generator.safetensors"]
    assert sorted(found) == [site_of(template, site) for site in SITES]


def test_where_volumes_alone_are_shared_no_parameter_of_a_site_lies_with_the_coordinator(template: Path) -> None:
    sites = template / "run" / "sites"
    secret = {
        value.tobytes()
        for site in SITES
        for value in load_weights(sites / site / "generator.safetensors")[0].values()
        if value.size > 8
    }
    coordinators = [p.read_bytes() for p in (template / "run").rglob("*") if p.is_file() and sites not in p.parents]
    seen = any(value in content for value in secret for content in coordinators)
    assert seen == (sharing_of(template) == "ensemble"), "an ensemble's coordinator has copies: this does look"


def test_generate_says_where_a_sites_generator_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert paint(site_of(root), root / "out") == 3
    assert "'site-a/generator.safetensors'" in capsys.readouterr().err
    assert paint(root / "run", root / "out") == 3
    expected = "'run/generators'" if sharing_of(root) == "ensemble" else "'run/sites/NAME/generator.safetensors'"
    assert expected in capsys.readouterr().err


def test_each_sites_generator_is_its_own(template: Path) -> None:
    digests = {parameters_digest(load_weights(site_of(template, site) / "generator.safetensors")[0]) for site in SITES}
    assert len(digests) == 2


def test_a_site_alone_packs_approves_and_takes_back_its_own_release_and_its_journal_tells(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, key, policy = site_of(root), str(key_of(root)), policy_of(root, "internal")
    private, public = root / "officer" / "key.pem", root / "officer" / "key.pub.pem"
    assert pack(site, root / "refused", key_of(root), "--tier", "controlled") == 4
    assert pack(site, root / "release", key_of(root), "--policy", policy) == 0
    packer = str(root / "keys" / "key.pub.pem")
    verify = ["release", "verify", str(root / "release"), "--key", packer, "--key", str(public)]
    assert fedphantom(verify) == 4
    assert "NOT APPROVED: the site" in capsys.readouterr().out
    line = ["release", "approve", str(root / "release"), "--key", str(private), "--policy", policy]
    assert fedphantom([*line, "--packed-by", packer, "--site", str(site_of(root, "site-b"))]) == 5, "not its generator"
    assert fedphantom([*line, "--packed-by", packer, "--site", str(site)]) == 0
    capsys.readouterr()
    assert fedphantom(verify) == 0
    assert "Approved by the one site behind it" in capsys.readouterr().out
    line = ["release", "withdraw", str(root / "release"), "--key", key, "--because", "error-found"]
    assert fedphantom([*line, "--run", str(site)]) == 0
    assert fedphantom([*verify, "--notices", str(root / "notices")]) == 5
    told = [entry.event for entry in read_journal(site / "journal.jsonl") if entry.event.startswith("release")]
    assert told == ["release-refused", "release-packed", "release-approved", "release-withdrawn"]


def test_a_second_policy_for_one_sites_generator_is_refused(root: Path) -> None:
    more = [word for name in ("one", "two") for word in ("--policy", policy_of(root, "internal", name))]
    assert pack(site_of(root), root / "release", key_of(root), *more) == 4
    assert not (root / "release").exists()
