"""Two sites' compliance officers and second people, with keys, policies and the folders in which they approve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fedphantom.common.journal import Journal
from fedphantom.common.keys import key_id
from fedphantom.common.study import parse_study
from fedphantom.privacy.audit.history import DONE
from fedphantom.privacy.audit.signature import sign_result


def a_key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(number, number + 32)))


OFFICERS = {"site-a": a_key(100), "site-b": a_key(120)}
SECONDS = {"site-a": a_key(140), "site-b": a_key(160)}
STRANGER = a_key(180)
APPROVAL_KEYS = tuple(key_id(key.public_key()) for key in OFFICERS.values())
AGREED = (
    '[override.outlier_auc_upper_max]\nvalue = 0.8\nreason = "the board agreed"\nby = "the board"\non = 2026-11-20\n'
)
LAST_DAY = "2099-12-31"


def public_pem(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_files(root: Path, name: str, key: Ed25519PrivateKey) -> tuple[Path, Path]:
    """The pair as two files."""
    root.mkdir(parents=True, exist_ok=True)
    private, public = root / f"{name}.pem", root / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_text(public_pem(key))
    return private, public


def signer_table(key: Ed25519PrivateKey, role: str = "compliance officer", expires: str = LAST_DAY) -> str:
    person = f'name = "Anna Berg"\nrole = "{role}"\nexpires = {expires}'
    return f"[[signer]]\n{person}\nkey = '''\n{public_pem(key)}'''\n"


def policy_text(site: str, head: str = 'tier = "internal"', tail: str = "", expires: str = LAST_DAY) -> str:
    """A site's policy; with ``second_person = true`` in its head also with its second person."""
    people = signer_table(OFFICERS[site], expires=expires)
    if "second_person = true" in head:
        people += signer_table(SECONDS[site], "second person")
    return f"{head}\n{people}{tail}"


def a_site(root: Path, name: str, study: str, audited: Iterable[bytes] = ()) -> Path:
    """A site's folder with its own copy of the study, and a journal that tells of these audit results."""
    root.mkdir(parents=True)
    lines = {"name": name, "cohort": "cohort", "study": "study.toml"}
    (root / "site.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))
    (root / "study.toml").write_text(study)
    journal = Journal(root / "journal.jsonl")
    journal.append("roles-drawn", coins="0" * 64)
    for result in audited:
        journal.append(DONE, sha256=hashlib.sha256(result).hexdigest())
    return root


def signed_audit(result: Path, study: str, *keys: Ed25519PrivateKey) -> Path:
    """The result file, its signatures beside it as 'audit run --key' leaves them."""
    sign_result(result, parse_study(study).digest(), keys)
    return result
