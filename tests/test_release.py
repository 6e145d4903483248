"""Releases: what is packed, what is refused, and that one changed byte is noticed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from fedphantom.common.atomic import TEMPORARY_PREFIX
from fedphantom.common.bids_writer import BidsWriter
from fedphantom.common.errors import (
    DataError,
    FedPhantomError,
    PolicyRefused,
    SignatureInvalid,
    StorageError,
    VerificationFailed,
)
from fedphantom.common.label_chain import LabelChain, LabelSource, LabelStep, PublicSources
from fedphantom.common.layouts import read_cohort
from fedphantom.common.roles import CoinRecord, draw_roles
from fedphantom.common.signing import generate_key, load_private_key, sign, verify
from fedphantom.common.study import RolesTable, Study, parse_study
from fedphantom.common.weights import generator_metadata, save_weights
from fedphantom.privacy import release
from fedphantom.privacy.audit_extract import read_audit
from fedphantom.privacy.commands import release_app
from fedphantom.privacy.evidence import REQUIRED_CONTROLS
from fedphantom.privacy.release import pack, verify_release
from fedphantom.privacy.release_content import MANIFEST
from fedphantom.privacy.synthetic_digest import synthetic_digest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = [KEY.public_key()]
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CREATED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

STUDY = """
name = "tiny"
seed = 1
channels = ["T1", "T1c"]
labels = { background = 0, tissue = 1 }
[grid]
shape = [8, 8, 16]
spacing_mm = [0.9375, 1.2, 3.0]
[public_labels]
source = "atlas"
"""
SOURCES = tuple(LabelSource(kind="public", name=f"atlas {n}", licence="CC0-1.0", sha256=f"{n}" * 64) for n in (1, 2, 3))
STEPS = (
    LabelStep(name="affine", parameters={"rotation_deg": [0.5, -1.0, 2.0], "scale": [1.0, 1.1, 0.9]}, seed=4),
    LabelStep(name="lesion", parameters={"radius_mm": 4.0, "centre_mm": [1.0, 2.0, 3.0]}, seed=5),
)


def _study() -> Study:
    return parse_study(STUDY)


ATTACKS = (("A1", "G"), ("A3", "S"), ("A1/outliers", "G"), ("A3/outliers", "S"), ("B0", "none"), ("A3-WB", "W"))
LEAK = {"auc": 0.9, "rejects": True, "p_value": 1e-4}


def an_attack(identifier: str, model: str, auc: float = 0.52, **changes: Any) -> dict[str, Any]:
    return {
        "id": identifier,
        "threat_model": model,
        "auc": auc,
        "auc_ci": [auc - 0.05, auc + 0.05],
        "auc_lower95": auc - 0.04,
        "auc_upper95": auc + 0.04,
        "tpr": [{"fpr": 0.0, "tpr": 0.0, "ci": [0.0, 0.04], "resolvable": True, "fpr_bound": 0.03}],
        "eps_lower_bound": 0.0,
        "p_value": 0.4,
        "rejects": False,
        "n_member": 120,
        "n_holdout": 120,
    } | changes


def a_control(identifier: str, ok: bool = True) -> dict[str, Any]:
    return {"id": identifier, "required": "|AUC − .5| ≤ 1.96·SE", "got": "0.51", "ok": ok}


def rows(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    return [changed.get(name, an_attack(name, model)) for name, model in ATTACKS]


class Made:
    """A run, its synthetic cohort and its audit, made to be spoiled."""

    def __init__(self, root: Path) -> None:
        self.root, self.run, self.cohort, self.audit = root, root / "run", root / "synthetic", root / "audit.json"
        study = _study()
        rng = np.random.default_rng(0)
        weights = {"layer.weight": rng.standard_normal((4, 3), dtype=np.float32), "layer.bias": np.zeros(4, np.float32)}
        save_weights(self.run / "generator.safetensors", weights, generator_metadata(study, rounds=2))
        self.generator_sha256 = hashlib.sha256((self.run / "generator.safetensors").read_bytes()).hexdigest()
        (self.run / "public-labels.json").write_text(PublicSources(sources=SOURCES).model_dump_json())
        grid = study.volume_grid()
        with BidsWriter(self.cohort, grid, study.channels, study.labels, "synthetic", synthetic=True) as writer:
            for index in range(2):
                sidecar = {
                    "GeneratorSha256": self.generator_sha256,
                    "LabelChain": LabelChain(source=SOURCES[index], steps=STEPS).model_dump(mode="json"),
                    "NoiseSeed": index,
                }
                voxels = rng.standard_normal((2, *grid.shape), dtype=np.float32)
                writer.add(f"{index + 1:03}", voxels, rng.integers(0, 2, grid.shape, dtype=np.uint8), sidecar)
        self.write_audit()

    def write_audit(self, **changes: Any) -> None:
        """An audit whose figures would allow a PASS for any kind of release, but not for the public tier."""
        content = {
            "verdict": "INCONCLUSIVE",
            "tier": "controlled",
            "release": "weights",
            "generator_sha256": self.generator_sha256,
            "synthetic_sha256": synthetic_digest(self.cohort),
            "attacks": rows(),
            "controls": [a_control(name) for name in REQUIRED_CONTROLS],
            "counts": {"member": 120, "holdout": 120},
            "audit_number": 1,
            "negative_seeds": 3,
            "confirmed_copies": 0,
            "copied_members": 0,
            "canary_excess": False,
            "reasons": ["Read them."],
        }
        self.audit.write_text(json.dumps(content | changes))

    def pack(self, **changes: Any) -> release.ReleaseReport:
        options: dict[str, Any] = {
            "kind": "volumes",
            "tier": "internal",
            "key": KEY,
            "audit": self.audit,
            "synthetic": self.cohort,
            "created": CREATED,
        }
        return pack(self.run, self.root / "release", **(options | changes))

    def edit_sidecar(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = next(self.cohort.glob("sub-002/anat/*_T1w.json"))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    made = Made(root / "made")
    made.pack()
    pack(made.run, made.root / "weights", kind="weights", tier="internal", key=KEY, audit=made.audit, created=CREATED)
    return made.root


@pytest.fixture
def made(template: Path, tmp_path: Path) -> Made:
    """A fresh copy of run, cohort and audit, without releases."""
    out = Made.__new__(Made)
    out.root = tmp_path / "made"
    shutil.copytree(template, out.root, ignore=shutil.ignore_patterns("release", "weights"))
    out.run, out.cohort, out.audit = out.root / "run", out.root / "synthetic", out.root / "audit.json"
    out.generator_sha256 = hashlib.sha256((out.run / "generator.safetensors").read_bytes()).hexdigest()
    return out


@pytest.fixture(params=["release", "weights"])
def packed(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Path:
    """A release of either kind."""
    return Path(shutil.copytree(template / request.param, tmp_path / "packed"))


@pytest.fixture
def volumes(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template / "release", tmp_path / "volumes"))


@pytest.fixture
def weights(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template / "weights", tmp_path / "weights"))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _statement(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(verify((folder / MANIFEST).read_bytes(), TRUSTED))
    return content


def _sign_again(folder: Path, change: Callable[[dict[str, Any]], None] = lambda statement: None) -> None:
    """What a dishonest or careless holder of the trusted key could do."""
    statement = _statement(folder)
    statement["subject"] = [
        {
            "name": path.relative_to(folder).as_posix(),
            "digest": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        }
        for path in _files(folder)
        if path.name != MANIFEST
    ]
    statement["subject"].sort(key=lambda subject: subject["name"])
    change(statement)
    (folder / MANIFEST).write_bytes(sign(json.dumps(statement).encode(), KEY))


def _refused(folder: Path, match: str | None = None, error: type[FedPhantomError] = VerificationFailed) -> None:
    with pytest.raises(error, match=match) as caught:
        verify_release(folder, TRUSTED)
    assert caught.value.exit_code == 5


# What a release says and holds


def test_a_release_of_volumes_says_what_it_is(template: Path, made: Made) -> None:
    report = verify_release(template / "release", TRUSTED)
    assert (report.kind, report.tier, report.verdict, report.dp) == ("volumes", "internal", "INCONCLUSIVE", "none")
    assert report.volumes == 6
    assert report.generator_sha256 == made.generator_sha256
    assert report.study_digest == _study().digest()
    assert report.label_sources == ("atlas 1", "atlas 2"), "only the sources used are named"
    assert report.created == "2026-11-22T12:00:00Z"


def test_a_release_of_weights_holds_the_generator_and_no_volume(weights: Path) -> None:
    report = verify_release(weights, TRUSTED)
    assert (report.kind, report.volumes) == ("weights", 0)
    names = {path.relative_to(weights).as_posix() for path in _files(weights)}
    assert names == {"generator.safetensors", "README.md", "audit.json", "public-labels.json", MANIFEST}


def test_a_released_cohort_is_read_like_any_other(volumes: Path) -> None:
    cohort = read_cohort(volumes / "cohort")
    assert len(cohort.patients) == 2
    assert cohort.channels == ("T1", "T1c")
    assert dict(cohort.label_names) == {0: "background", 1: "tissue"}
    assert all(scan.label is not None for scan in cohort.scans)


def test_voxels_are_released_as_they_were_generated(made: Made, volumes: Path) -> None:
    def contents(root: Path) -> set[bytes]:
        return {path.read_bytes() for path in root.rglob("*.nii.gz")}

    assert contents(volumes) == contents(made.cohort)


def test_names_times_and_permissions_tell_nothing(made: Made) -> None:
    made.pack()
    folder = made.root / "release"
    assert not list(folder.rglob("sub-00*"))
    for path in folder.rglob("*"):
        assert path.stat().st_mtime == 946_684_800
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


def test_names_are_drawn_anew_for_every_release(made: Made, template: Path) -> None:
    made.pack()
    names = [{path.name for path in (root / "release" / "cohort").glob("sub-*")} for root in (made.root, template)]
    assert not names[0] & names[1]


@pytest.mark.parametrize(("tier", "verdict"), [("internal", "INCONCLUSIVE"), ("internal", "PASS")])
def test_an_internal_release_is_marked_as_not_for_sharing(made: Made, tier: str, verdict: str) -> None:
    made.write_audit(verdict=verdict)
    report = made.pack(tier=tier)
    assert not report.approved_for_sharing
    assert "not approved for sharing outside" in report.note
    assert "Not approved for sharing outside" in (made.root / "release" / "README.md").read_text()
    assert _statement(made.root / "release")["predicate"]["approved_for_sharing"] is False


def test_a_release_that_passed_says_no_attack_tested_succeeded_and_nothing_stronger(made: Made) -> None:
    made.write_audit(verdict="PASS")
    report = made.pack(tier="controlled")
    text = (made.root / "release" / "README.md").read_text()
    assert report.approved_for_sharing
    assert "No attack tested succeeded" in text
    assert "anonym" not in text.lower()
    assert "`dp: none`" in text


def test_a_release_names_an_attack_that_succeeded_though_it_does_not_bind(made: Made) -> None:
    made.write_audit(verdict="PASS", release="volumes", attacks=rows(A1=an_attack("A1", "G", 0.99, rejects=True)))
    report = made.pack(tier="controlled")
    told = "o attack that binds for a volumes release succeeded; A1 (AUC 0.99) did"
    for text in (report.note, (made.root / "release" / "README.md").read_text()):
        assert told in text
        assert "o attack tested succeeded" not in text


def test_an_internal_release_says_which_attack_was_not_judged(made: Made) -> None:
    made.write_audit(verdict="PASS", tier="internal", attacks=rows(A3=an_attack("A3", "S", **LEAK)))
    report = made.pack(tier="internal")
    for text in (report.note, (made.root / "release" / "README.md").read_text()):
        assert "ot judged at this tier: A3 (AUC 0.90) rejects 'no leak'" in text
        assert "succeeded" not in text


def test_the_audit_table_travels_and_scores_of_patients_do_not(made: Made) -> None:
    made.write_audit(scores={"sub-009": 0.3}, coins={"sub-009": "member"})
    made.pack()
    audit = json.loads((made.root / "release" / "audit.json").read_text())
    assert audit["attacks"][0]["auc"] == 0.52
    assert not audit.keys() & {"scores", "coins"}
    claimed = _statement(made.root / "release")["predicate"]["audit"]["sha256"]
    assert claimed == hashlib.sha256(made.audit.read_bytes()).hexdigest()


# Tampering


FLIPS = 5
"""Random offsets tried in every file."""


def test_one_flipped_byte_in_any_file_is_noticed(packed: Path) -> None:
    rng = np.random.default_rng(7)
    verify_release(packed, TRUSTED)
    for path in _files(packed):
        content = path.read_bytes()
        for offset in {0, len(content) - 1, *rng.integers(len(content), size=FLIPS).tolist()}:
            changed = bytearray(content)
            changed[offset] ^= int(rng.integers(1, 256))
            path.write_bytes(bytes(changed))
            with pytest.raises(VerificationFailed) as caught:
                verify_release(packed, TRUSTED)
            assert caught.value.exit_code == 5
        path.write_bytes(content)
    verify_release(packed, TRUSTED)


def test_every_file_is_missed(packed: Path) -> None:
    for path in _files(packed):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(VerificationFailed):
            verify_release(packed, TRUSTED)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "cohort/more.txt", "deep/er/file"])
def test_a_file_that_nobody_signed_is_refused(packed: Path, name: str) -> None:
    (packed / name).parent.mkdir(parents=True, exist_ok=True)
    (packed / name).write_text("")
    _refused(packed, "1 that nobody signed")


def test_an_empty_folder_is_refused(packed: Path) -> None:
    (packed / "patient-17").mkdir()
    _refused(packed, "empty folder")


def test_a_link_is_refused_even_to_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    (packed / "README.md").rename(tmp_path / "README.md")
    (packed / "README.md").symlink_to(tmp_path / "README.md")
    _refused(packed, "link or device")


def test_a_release_that_is_itself_a_link_is_refused(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(packed)
    _refused(tmp_path / "link", "not a folder")


def test_a_pipe_is_refused_and_never_waited_for(packed: Path) -> None:
    os.mkfifo(packed / "pipe")
    _refused(packed, "link or device")


def test_a_missing_manifest_is_no_signature(packed: Path) -> None:
    (packed / MANIFEST).unlink()
    _refused(packed, "without manifest", SignatureInvalid)


def test_another_keys_signature_is_refused(packed: Path) -> None:
    with pytest.raises(SignatureInvalid, match="unknown key"):
        verify_release(packed, [OTHER_KEY.public_key()])


def test_the_manifest_of_another_release_is_refused(volumes: Path, weights: Path) -> None:
    shutil.copy(weights / MANIFEST, volumes / MANIFEST)
    _refused(volumes, "nobody signed")


def test_the_signature_of_another_release_is_refused(volumes: Path, weights: Path) -> None:
    ours, theirs = (json.loads((folder / MANIFEST).read_bytes()) for folder in (volumes, weights))
    swapped = ours | {"signatures": theirs["signatures"]}
    (volumes / MANIFEST).write_bytes(json.dumps(swapped, sort_keys=True, separators=(",", ":")).encode())
    _refused(volumes, "does not hold", SignatureInvalid)


def test_a_folder_left_by_a_crash_is_never_believed(packed: Path) -> None:
    left = packed.rename(packed.with_name(f"{TEMPORARY_PREFIX}0123-release"))
    _refused(left, "never finished")


def test_a_crash_at_any_file_leaves_nothing_that_verifies(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
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
            made.pack()
        assert not (made.root / "release").exists()
        assert not list(made.root.glob(f"{TEMPORARY_PREFIX}*"))


def test_a_release_is_never_written_over_another(made: Made) -> None:
    made.pack()
    before = (made.root / "release" / MANIFEST).read_bytes()
    with pytest.raises(StorageError, match="there already"):
        made.pack()
    assert (made.root / "release" / MANIFEST).read_bytes() == before


# What even a trusted key cannot sign


def _subject(name: str) -> Callable[[dict[str, Any]], None]:
    def change(statement: dict[str, Any]) -> None:
        statement["subject"][0]["name"] = name

    return change


@pytest.mark.parametrize(
    "name", ["../README.md", "/etc/passwd", "cohort/../README.md", "a//b", "a\\b", "./README.md", "", "a\0b", "x\n"]
)
def test_a_signed_path_that_leaves_the_folder_is_refused(packed: Path, name: str) -> None:
    _sign_again(packed, _subject(name))
    _refused(packed, "not a plain relative path")


def _predicate(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda statement: statement["predicate"].update(changes)


CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "an unknown key": _predicate(site="site-a"),
    "an unknown statement key": lambda statement: statement.update(note="x"),
    "an inconclusive audit in public": _predicate(tier="public"),
    "sharing approved without a PASS": _predicate(approved_for_sharing=True),
    "a formal promise that nobody made": _predicate(dp="epsilon = 1"),
    "another audit's verdict": lambda s: s["predicate"]["audit"].update(verdict="PASS"),
    "a failed audit": lambda s: s["predicate"]["audit"].update(verdict="FAIL"),
    "another generator": _predicate(generator_sha256="0" * 64),
    "another predicate type": lambda statement: statement.update(predicateType="https://slsa.dev/provenance/v1"),
    "a private source": lambda s: s["predicate"]["label_sources"][0].update(kind="private"),
    "no source": _predicate(label_sources=[]),
    "a file twice": lambda statement: statement["subject"].insert(0, statement["subject"][0]),
    "another time format": _predicate(created="yesterday"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_signed_statement_that_contradicts_itself_or_the_files_is_refused(
    packed: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    _sign_again(packed)
    verify_release(packed, TRUSTED)
    _sign_again(packed, change)
    _refused(packed)


def test_a_signed_file_that_does_not_belong_in_a_release_is_refused(packed: Path) -> None:
    (packed / "optimiser.safetensors").write_bytes(b"x")
    _sign_again(packed)
    _refused(packed, "no place in such a release")


def test_weights_do_not_ride_along_with_volumes(volumes: Path, weights: Path) -> None:
    shutil.copy(weights / "generator.safetensors", volumes)
    _sign_again(volumes)
    _refused(volumes, "no place in such a release")


def test_a_readme_that_claims_more_than_was_signed_is_refused(packed: Path) -> None:
    path = packed / "README.md"
    path.write_text(path.read_text().replace("Not approved", "Approved"))
    _sign_again(packed)
    _refused(packed, "README")


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
def test_a_signed_table_with_more_in_it_is_refused(volumes: Path, name: str, old: bytes, new: bytes) -> None:
    path = volumes / "cohort" / name
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    _sign_again(volumes)
    _refused(volumes, "other entries")


def test_an_entry_hidden_behind_another_of_its_name_is_refused(volumes: Path) -> None:
    path = next(volumes.rglob("*_T1w.json"))
    path.write_text(path.read_text().replace('"NoiseSeed"', '"NoiseSeed": 19700101, "NoiseSeed"'))
    _sign_again(volumes)
    _refused(volumes, "another encoding")


# Clean volumes


def _volume(root: Path) -> Path:
    return next(root.rglob("*_ce-gadolinium_T1w.nii.gz"))


def _unpacked(path: Path) -> bytearray:
    return bytearray(gzip.decompress(path.read_bytes()))


def _packed(content: bytes, header: bytes = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff", tail: bytes = b"") -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = deflate.compress(content) + deflate.flush()
    return header + body + struct.pack("<II", zlib.crc32(content), len(content)) + tail


def _at(offset: int, planted: bytes) -> Callable[[Path], bytes]:
    def plant(path: Path) -> bytes:
        content = _unpacked(path)
        content[offset : offset + len(planted)] = planted
        return _packed(bytes(content))

    return plant


def _with_extension(path: Path) -> bytes:
    content = _unpacked(path)
    content[108:112] = struct.pack("<f", 352 + 32)
    content[348:352] = b"\1\0\0\0"
    content[352:352] = struct.pack("<ii", 32, 6) + b"DOE^JANE 1970-01-01".ljust(24, b"\0")
    return _packed(bytes(content))


PLANTED: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "data_type": (_at(4, b"DOE^JANE"), "'data_type'"),
    "db_name": (_at(14, b"hospital"), "'db_name'"),
    "extents": (_at(32, struct.pack("<i", 16384)), "'extents'"),
    "session_error": (_at(36, b"\1"), "'session_error'"),
    "regular": (_at(38, b"r"), "'regular'"),
    "dim_info": (_at(39, b"\x39"), "'dim_info'"),
    "unused dim": (_at(40 + 2 * 7, struct.pack("<h", 1970)), "'dim'"),
    "intent parameters": (_at(56, struct.pack("<f", 19.7)), "'intent_p'"),
    "pixdim of time": (_at(76 + 4 * 4, struct.pack("<f", 2.5)), "'pixdim'"),
    "scl_slope": (_at(112, struct.pack("<f", 1.5)), "'scl_slope'"),
    "cal_max": (_at(124, struct.pack("<f", 700)), "'cal_max_min'"),
    "toffset": (_at(136, struct.pack("<f", 20261122)), "'toffset'"),
    "glmax": (_at(140, struct.pack("<i", 19700101)), "'glmax_min'"),
    "descrip": (_at(148, b"TE=2.9;Time=101500.000"), "'descrip'"),
    "descrip behind its end": (_at(148 + 60, b"DOE"), "'descrip'"),
    "aux_file": (_at(228, b"sub-0042"), "'aux_file'"),
    "scanner offset in qform": (_at(268, struct.pack("<f", -87.31)), "'qoffset'"),
    "oblique qform": (_at(256, struct.pack("<f", 0.02)), "'quatern'"),
    "scanner offset in sform": (_at(280 + 12, struct.pack("<f", -87.31)), "'srow'"),
    "intent_name": (_at(328, b"site-b"), "'intent_name'"),
    "extension flag": (_at(348, b"\1"), "'extension'"),
    "extension": (_with_extension, "not empty|'vox_offset'"),
    "bytes behind the voxels": (lambda path: _packed(bytes(_unpacked(path)) + b"DOE^JANE"), "behind the voxels"),
    "gzip name": (
        lambda path: _packed(bytes(_unpacked(path)), b"\x1f\x8b\x08\x08" + bytes(4) + b"\x00\xffsub-0042.nii\0"),
        "gzip header",
    ),
    "gzip time": (lambda path: _packed(bytes(_unpacked(path)), b"\x1f\x8b\x08\x00abcd\x00\xff"), "gzip header"),
    "bytes behind gzip": (lambda path: _packed(bytes(_unpacked(path)), tail=b"DOE"), "behind the gzip"),
    "second gzip member": (lambda path: path.read_bytes() + _packed(b"DOE^JANE"), "behind the gzip"),
    "truncated": (lambda path: path.read_bytes()[:-200], "volume with"),
    "big-endian": (_at(0, struct.pack(">i", 348)), "little-endian"),
    "not finite": (_at(352, struct.pack("<f", float("nan"))), "NaN"),
    "empty": (lambda path: b"", "gzip header"),
}


@pytest.mark.parametrize(("plant", "named"), PLANTED.values(), ids=PLANTED.keys())
def test_whatever_is_planted_in_a_volume_is_found(
    made: Made, volumes: Path, plant: Callable[[Path], bytes], named: str
) -> None:
    source = _volume(made.cohort)
    source.write_bytes(plant(source))
    with pytest.raises(VerificationFailed, match=named) as caught:
        made.pack()
    assert not {"DOE", "1970", "0042"} & set(str(caught.value).replace("^", " ").split())
    signed = _volume(volumes)
    signed.write_bytes(plant(signed))
    _sign_again(volumes)
    _refused(volumes, named)


def test_a_label_map_holds_labels_and_an_image_intensities(volumes: Path) -> None:
    image = _volume(volumes)
    image.write_bytes(next(volumes.rglob("*_dseg.nii.gz")).read_bytes())
    _sign_again(volumes)
    _refused(volumes, "'datatype'")


def test_volumes_of_different_grids_are_refused(volumes: Path, tmp_path: Path) -> None:
    from fedphantom.common.nifti import write_volume
    from fedphantom.common.volume import Grid

    write_volume(_volume(volumes), np.zeros((8, 8, 8), np.float32), Grid((8, 8, 8), (1.0, 1.0, 1.0)))
    _sign_again(volumes)
    _refused(volumes, "different grids")


@pytest.mark.parametrize("ending", ["_T1w.json", "_T1w.nii.gz", "_dseg.nii.gz"])
def test_a_volume_without_its_sidecar_or_label_map_is_refused(volumes: Path, ending: str) -> None:
    next(volumes.rglob(f"*{ending}")).unlink()
    _sign_again(volumes)
    _refused(volumes, "without a sidecar or label map, or with different channels")


# Sidecars and label chains


def _change_sidecar(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda sidecar: sidecar.update(changes)


UNFIT: dict[str, Callable[[dict[str, Any]], None]] = {
    "a patient's identifier": _change_sidecar(PatientID="DOE^JANE"),
    "a date": _change_sidecar(AcquisitionDate="19700101"),
    "not said to be synthetic": _change_sidecar(Synthetic=False),
    "synthetic left out": lambda sidecar: sidecar.pop("Synthetic"),
    "another generator": _change_sidecar(GeneratorSha256="0" * 64),
    "text among the parameters": lambda s: s["LabelChain"]["steps"][0]["parameters"].update(note="DOE^JANE 1970"),
    "text as a parameter's name": lambda s: s["LabelChain"]["steps"][0]["parameters"].update({"sub-0042": 1}),
    "text deep among the parameters": lambda s: s["LabelChain"]["steps"][0]["parameters"].update(scale=[[1, "id 7"]]),
}
PRIVATE: dict[str, Callable[[dict[str, Any]], None]] = {
    "no chain": lambda sidecar: sidecar.pop("LabelChain"),
    "an empty chain": _change_sidecar(LabelChain={}),
    "a private source": lambda s: s["LabelChain"]["source"].update(kind="private"),
    "an undeclared source": lambda s: s["LabelChain"]["source"].update(sha256="f" * 64),
    "a declared digest under another name": lambda s: s["LabelChain"]["source"].update(name="my atlas"),
    "a declared digest under another licence": lambda s: s["LabelChain"]["source"].update(licence="mine"),
    "an unknown step": lambda s: s["LabelChain"]["steps"][0].update(name="taken-from-patient"),
    "a step with more in it": lambda s: s["LabelChain"]["steps"][0].update(origin="site-a"),
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT.keys())
def test_an_unfit_sidecar_is_refused(made: Made, change: Callable[[dict[str, Any]], None]) -> None:
    made.edit_sidecar(change)
    with pytest.raises(VerificationFailed) as caught:
        made.pack()
    assert caught.value.exit_code == 5
    assert "DOE" not in str(caught.value)
    assert not (made.root / "release").exists()


@pytest.mark.parametrize("change", PRIVATE.values(), ids=PRIVATE.keys())
def test_a_label_map_without_a_public_chain_is_never_released(
    made: Made, change: Callable[[dict[str, Any]], None]
) -> None:
    made.edit_sidecar(change)
    with pytest.raises(PolicyRefused) as caught:
        made.pack()
    assert caught.value.exit_code == 4
    assert not (made.root / "release").exists()


@pytest.mark.parametrize("change", (UNFIT | PRIVATE).values(), ids=(UNFIT | PRIVATE).keys())
def test_a_sidecar_edited_and_signed_is_refused(volumes: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = next(volumes.rglob("*_dseg.json"))
    sidecar = json.loads(path.read_text())
    change(sidecar)
    path.write_text(json.dumps(sidecar))
    _sign_again(volumes)
    _refused(volumes)


def test_a_volume_without_a_sidecar_counts_as_private(made: Made) -> None:
    next(made.cohort.rglob("*_T1w.json")).unlink()
    with pytest.raises(PolicyRefused, match="counts as private"):
        made.pack()


def test_a_declared_source_must_be_public(made: Made) -> None:
    private = LabelSource(kind="private", name="hmac", licence="none", sha256="a" * 64)
    (made.run / "public-labels.json").write_text(PublicSources(sources=(*SOURCES, private)).model_dump_json())
    for kind in ("volumes", "weights"):
        with pytest.raises(PolicyRefused, match="private one"):
            made.pack(kind=kind)


def test_a_run_that_declares_no_public_source_releases_nothing(made: Made) -> None:
    (made.run / "public-labels.json").write_text('{"sources": []}')
    with pytest.raises(PolicyRefused, match="empty"):
        made.pack(kind="weights")


def test_a_patients_identifier_in_a_packed_text_stops_the_release(made: Made) -> None:
    record: CoinRecord = draw_roles(["JD-0042", "JD-0043", "7"], RolesTable(), np.random.default_rng(0))
    (made.run / "sites" / "a").mkdir(parents=True)
    (made.run / "sites" / "a" / "coins.json").write_text(record.to_json())
    made.pack()
    shutil.rmtree(made.root / "release")
    made.write_audit(reasons=["The copy of JD-0042 was removed."])
    with pytest.raises(VerificationFailed, match="identifier") as caught:
        made.pack()
    assert "0042" not in str(caught.value)


# The gate


@pytest.mark.parametrize(
    ("tier", "verdict"),
    [
        ("internal", "FAIL"),
        ("internal", "INVALID"),
        ("controlled", "FAIL"),
        ("controlled", "INVALID"),
        ("controlled", "INCONCLUSIVE"),
        ("public", "INCONCLUSIVE"),
        ("public", "FAIL"),
    ],
)
def test_a_verdict_that_the_tier_does_not_permit_is_refused(made: Made, tier: str, verdict: str) -> None:
    made.write_audit(verdict=verdict, tier=tier)
    with pytest.raises(PolicyRefused, match=verdict) as caught:
        made.pack(tier=tier)
    assert caught.value.exit_code == 4
    assert not (made.root / "release").exists()


EDITED: dict[str, dict[str, Any]] = {
    "a control that is not there": {"controls": [a_control(name) for name in REQUIRED_CONTROLS[1:]]},
    "a control that does not hold": {"controls": [a_control(name, name != "blind") for name in REQUIRED_CONTROLS]},
    "no control": {"controls": []},
    "an attack that is not there": {"attacks": rows()[1:]},
    "an attack that rejects": {"attacks": rows(A3=an_attack("A3", "S", **LEAK))},
    "an attack whose p-value rejects": {"attacks": rows(A3=an_attack("A3", "S", p_value=1e-4))},
    "an attack above the threshold": {"attacks": rows(A3=an_attack("A3", "S", 0.63))},
    "an upper bound below its own AUC": {
        "attacks": rows(A3=an_attack("A3", "S", 0.7, auc_lower95=0.5, auc_upper95=0.6))
    },
    "an attack without its upper bound": {"attacks": rows(A3=an_attack("A3", "S", auc_upper95=None))},
    "thresholds changed without a reason": {
        "policy": {"auc_upper_max": 0.9},
        "attacks": rows(A3=an_attack("A3", "S", 0.63)),
    },
    "a copy": {"confirmed_copies": 1},
    "copies that nobody counted": {"confirmed_copies": None},
    "one negative generator": {"negative_seeds": 1},
    "too few patients": {"counts": {"member": 120, "holdout": 30}},
    "no count of patients": {"counts": {}},
    "a tier that asks for a formal promise": {"tier": "public"},
}


@pytest.mark.parametrize("changes", EDITED.values(), ids=EDITED.keys())
def test_a_pass_that_its_own_figures_do_not_bear_out_is_refused(made: Made, changes: dict[str, Any]) -> None:
    made.write_audit(verdict="PASS")
    assert read_audit(made.audit.read_bytes())[0].verdict == "PASS"
    made.write_audit(**({"verdict": "PASS"} | changes))
    with pytest.raises(VerificationFailed, match="whose figures give") as caught:
        made.pack(tier="controlled")
    assert caught.value.exit_code == 5
    assert not (made.root / "release").exists()


def test_a_threshold_changed_with_a_reason_is_the_threshold(made: Made) -> None:
    policy = {"auc_upper_max": 0.7, "reasons": {"auc_upper_max": "the board agreed"}}
    made.write_audit(verdict="PASS", policy=policy, attacks=rows(A3=an_attack("A3", "S", 0.63)))
    assert made.pack(tier="controlled").verdict == "PASS"


def test_a_signed_verdict_better_than_its_figures_is_refused(volumes: Path) -> None:
    path = volumes / "audit.json"
    audit = json.loads(path.read_text())
    path.write_text(json.dumps(audit | {"confirmed_copies": 2}, indent=2, sort_keys=True) + "\n")
    _sign_again(volumes)
    _refused(volumes, "whose figures give FAIL")


def test_volumes_other_than_those_audited_are_not_packed(made: Made) -> None:
    """One scan planted after the audit, clean in every other way."""
    first, second = (next(made.cohort.glob(f"sub-00{n}/anat/*_T1w.nii.gz")) for n in (1, 2))
    first.write_bytes(second.read_bytes())
    with pytest.raises(VerificationFailed, match="another synthetic cohort") as caught:
        made.pack()
    assert caught.value.exit_code == 5
    made.write_audit(synthetic_sha256=None)
    with pytest.raises(VerificationFailed, match="another synthetic cohort"):
        made.pack()
    made.write_audit()
    made.pack()


def test_a_cohort_with_fewer_volumes_than_audited_is_not_packed(made: Made) -> None:
    shutil.rmtree(made.cohort / "sub-002")
    with pytest.raises(VerificationFailed, match="another synthetic cohort"):
        made.pack()


def test_signed_volumes_other_than_those_audited_are_refused(volumes: Path) -> None:
    first, second = sorted((volumes / "cohort").glob("sub-*/anat/*_T1w.nii.gz"))[:2]
    first.write_bytes(second.read_bytes())
    _sign_again(volumes)
    _refused(volumes, "other than those that were audited")


def test_weights_do_not_ask_for_the_audited_volumes(made: Made) -> None:
    made.write_audit(synthetic_sha256=None)
    assert made.pack(kind="weights").kind == "weights"


def test_a_pass_by_laxer_thresholds_does_not_open_a_stricter_tier(made: Made) -> None:
    made.write_audit(verdict="PASS", tier="controlled")
    with pytest.raises(PolicyRefused, match="tier 'controlled'"):
        made.pack(tier="public")


def test_an_audit_of_volumes_does_not_release_weights(made: Made) -> None:
    made.write_audit(release="volumes")
    with pytest.raises(PolicyRefused, match="audit for volumes"):
        made.pack(kind="weights")
    assert made.pack(kind="volumes").kind == "volumes"


@pytest.mark.parametrize("given", [None, "absent.json"])
def test_no_audit_no_release(made: Made, given: str | None) -> None:
    with pytest.raises(PolicyRefused, match="no audit") as caught:
        made.pack(audit=made.root / given if given else None)
    assert caught.value.exit_code == 4


def test_the_audit_of_another_generator_is_refused(made: Made) -> None:
    made.write_audit(generator_sha256="0" * 64)
    with pytest.raises(VerificationFailed, match="another generator") as caught:
        made.pack()
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("content", ["", "[]", '{"verdict": "PASS"}', '{"verdict": "FINE"}'])
def test_a_file_that_is_no_audit_is_bad_input(made: Made, content: str) -> None:
    made.audit.write_text(content)
    with pytest.raises(DataError) as caught:
        made.pack()
    assert caught.value.exit_code == 3


def test_weights_with_hidden_bytes_are_refused(made: Made, weights: Path) -> None:
    path = weights / "generator.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["note"] = "DOE^JANE"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    audit = json.loads((weights / "audit.json").read_text()) | {"generator_sha256": digest}
    (weights / "audit.json").write_text(json.dumps(audit, indent=2, sort_keys=True) + "\n")
    _sign_again(weights, _predicate(generator_sha256=digest))
    _refused(weights, "hidden bytes|README")
    (made.run / "generator.safetensors").write_bytes(path.read_bytes())
    made.write_audit(generator_sha256=digest)
    with pytest.raises(VerificationFailed, match="hidden bytes"):
        made.pack(kind="weights")


# Commands


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights here are no network, so that no volume can be painted again."""
    monkeypatch.setattr("fedphantom.privacy.run_release.check_origin", lambda *_args, **_kwargs: None)


@pytest.mark.usefixtures("unpainted")
def test_pack_and_verify_from_the_command_line(made: Made) -> None:
    private, public = generate_key(made.root / "keys")
    out = made.root / "out"
    arguments = ["pack", made.run, out, "--synthetic", made.cohort, "--audit", made.audit, "--key", private]
    done = CliRunner().invoke(release_app, [*map(str, arguments), "--tier", "internal", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["verdict"] == "INCONCLUSIVE"
    shown = CliRunner().invoke(release_app, ["verify", str(out), "--key", str(public)])
    assert "Not approved for sharing outside" in shown.output
    again = CliRunner().invoke(release_app, ["verify", str(out), "--key", str(public), "--json"])
    assert json.loads(again.stdout) == json.loads(done.stdout)
    load_private_key(private)


@pytest.mark.usefixtures("unpainted")
def test_the_command_line_asks_for_the_controlled_tier_unless_told_otherwise(made: Made) -> None:
    private, _ = generate_key(made.root / "keys")
    arguments = ["pack", made.run, made.root / "out", "--synthetic", made.cohort, "--audit", made.audit]
    done = CliRunner().invoke(release_app, [*map(str, arguments), "--key", str(private)])
    assert isinstance(done.exception, PolicyRefused)
