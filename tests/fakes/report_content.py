"""What a report can show, small and complete, and hands to read a rendered page with."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from dataclasses import replace
from html import unescape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedphantom.common.labels.chain import LabelSource
from fedphantom.common.study import Study, parse_study
from fedphantom.privacy.evidence import BATTERY, REQUIRED_CONTROLS, TESTS
from fedphantom.privacy.report.content import (
    ReleaseOutcome,
    ReportAudit,
    ReportContent,
    ReportEvaluation,
    ReportRound,
    RocCurve,
    SyntheticSample,
)

SHA = "ab" * 32
PAPER = "Simpson et al., arXiv:1902.09063"
SHAPE = (16, 24, 8)


def a_study(channels: tuple[str, ...] = ("T1",), labels: tuple[str, ...] = ("anterior", "posterior")) -> Study:
    table = "\n".join(f'"{name}" = {value}' for value, name in enumerate(("background", *labels)))
    return parse_study(
        f"""
        name = "hippocampus"
        seed = 1
        channels = {list(channels)}
        [labels]
        {table}
        [grid]
        shape = {list(SHAPE)}
        spacing_mm = [1.0, 1.0, 2.0]
        [public_labels]
        source = "folder"
        name = "Public hippocampi"
        licence = "CC-BY-SA-4.0"
        citation = "{PAPER}"
        """
    )


def an_attack(identifier: str, model: str, auc: float, half_width: float = 0.15) -> dict[str, Any]:
    at_zero = {"fpr": 0.0, "tpr": 0.12, "ci": [0.03, 0.31], "resolvable": True, "fpr_bound": 0.12}
    return {
        "id": identifier,
        "threat_model": model,
        "auc": auc,
        "auc_ci": [max(auc - half_width, 0), min(auc + half_width, 1)],
        "auc_upper95": min(auc + half_width - 0.02, 1),
        "tpr": [at_zero, {**at_zero, "fpr": 0.1, "tpr": 0.77}],
        "eps_lower_bound": 0.31,
        "p_value": 0.0004,
        "n_member": 25,
        "n_holdout": 24,
        "roc": [[0.0, 0.0], [0.0, 0.5], [1.0, 1.0]],
    }


def a_control(identifier: str, ok: bool = True) -> dict[str, Any]:
    return {"id": identifier, "required": "AUC at least 0.90", "got": "AUC 0.97", "ok": ok}


def an_audit(verdict: str = "INCONCLUSIVE", **changes: Any) -> ReportAudit:
    table = {
        "battery": BATTERY,
        "verdict": verdict,
        "tier": "controlled",
        "release": "volumes",
        "generator_sha256": SHA,
        "attacks": [
            an_attack("A1", "G", 0.52),
            an_attack("A3", "S", 0.51),
            an_attack("A1/outliers", "G", 0.5),
            an_attack("A3/outliers", "S", 0.5),
            an_attack("B0", "none", 0.49),
        ],
        "controls": [a_control(name) for name in ("positive-model", "positive-set", "negative", "blind")],
        "counts": {"member": 25, "holdout": 24},
        "reasons": ["24 holdout patients; the controlled tier asks for 50."],
        "audit_number": 1,
        "power": {
            "n_member": 25,
            "n_holdout": 24,
            "standard_error": 0.083,
            "smallest_auc": 0.697,
            "max_epsilon": 1.86,
            "fpr_bound": 0.117,
            "joint_power": 0.0031,
        },
    }
    return ReportAudit.read(table | changes)


def a_curve(name: str = "A1", n_holdout: int = 24) -> RocCurve:
    return RocCurve(name, np.array([0, 0, 0.5, 1.0]), np.array([0, 0.2, 0.6, 1.0]), 25, n_holdout)


def an_evaluation() -> ReportEvaluation:
    def figure(mean: float) -> dict[str, Any]:
        return {"mean": mean, "ci": [mean - 0.02, mean + 0.02], "n_test": 29}

    return ReportEvaluation.read(
        {
            "arms": [
                {"name": "real", "dice": figure(0.8), "per_label": {"anterior": figure(0.79)}},
                {"name": "synthetic", "dice": figure(0.76), "per_label": {"anterior": figure(0.71)}},
            ],
            "region": "foreground",
            "segmenter": {"steps": 1000},
        }
    )


def rounds(n: int = 4) -> tuple[ReportRound, ...]:
    return tuple(
        ReportRound.read(
            {
                "round": r,
                "sites": ["site-a", "site-b"] if r != 2 else ["site-a"],
                "left_out": {} if r != 2 else {"site-b": "no reply before the deadline"},
                "metrics": {"fake_mean": 0.1 * r, "fake_std": 0.2, "steps": 100.0},
                "weights": [1.0, 1.0],
                "seconds": 3.0,
            }
        )
        for r in range(1, n + 1)
    )


def a_sample(study: Study, n: int = 2, real: bool = True) -> SyntheticSample:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, k) for k in SHAPE), indexing="ij")
    radius = x**2 + y**2 + z**2
    labels = np.zeros((n, *SHAPE), np.uint8)
    for i in range(n):
        for value in range(1, len(study.labels)):
            labels[i][radius < 0.8 / value] = value
    volumes = np.stack([np.stack([np.exp(-radius) * (c + 1) for c in range(len(study.channels))])] * n).astype(
        np.float32
    )
    return SyntheticSample(volumes, labels, marked(volumes.shape) if real else None)


def marked(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A checkerboard in every plane: no smooth synthetic volume looks like it."""
    return np.broadcast_to(np.indices(SHAPE).sum(axis=0) % 2, shape).astype(np.float32)


def content(study: Study | None = None, **changes: Any) -> ReportContent:
    study = study or a_study()
    whole = ReportContent(
        title="Three hospitals",
        study=study,
        created="2026-11-02 14:05 UTC",
        software="fedphantom 0.1.0",
        generator_sha256=SHA,
        facts={"Sites": "3"},
        audit=an_audit(),
        roc=(a_curve(), a_curve("A1/outliers", n_holdout=6)),
        evaluation=an_evaluation(),
        rounds=rounds(),
        synthetic=None,
        release=ReleaseOutcome(False, "controlled", "volumes", ("audit verdict INCONCLUSIVE; expected PASS.",)),
        label_sources=tuple(
            LabelSource(
                kind="public", name="Public hippocampi", licence="CC-BY-SA-4.0", citation=PAPER, sha256=f"{i:064x}"
            )
            for i in range(16)
        ),
        times={"audit": 4210.0, "evaluation": 61.0},
    )
    return replace(whole, **({"synthetic": a_sample(study)} if "synthetic" not in changes else {}), **changes)


def empty() -> ReportContent:
    return ReportContent("Nothing yet", a_study(), "2026-11-02", "fedphantom 0.1.0", SHA)


def words_of(page: str) -> str:
    """The page's text as a reader sees it, style and picture data left out."""
    body = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def images_in(page: str) -> list[NDArray[np.uint8]]:
    """Every PNG of the page, decoded by the test's own reader (grey, 8 bit, no filter)."""
    out = []
    for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page):
        raw = base64.b64decode(data)
        width, height, depth, colour = struct.unpack(">IIBB", raw[16:26])
        assert (depth, colour) == (8, 0)
        at, packed = 8, b""
        while at < len(raw):
            (length,) = struct.unpack(">I", raw[at : at + 4])
            kind, body = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]
            assert struct.unpack(">I", raw[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
            packed += body if kind == b"IDAT" else b""
            at += 12 + length
        rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, width + 1)
        assert not rows[:, 0].any()
        out.append(rows[:, 1:])
    return out


def is_checkerboard(image: NDArray[np.uint8]) -> bool:
    steps = np.abs(np.diff(image.astype(int), axis=1))
    return bool((steps > 200).mean() > 0.5)


def a_large_page(shape: tuple[int, int, int]) -> ReportContent:
    """Three volumes of four channels of pure noise, which no picture format makes smaller; a whole audit of 400."""
    grid = a_study().grid.model_copy(update={"shape": shape})
    study: Study = a_study(channels=("T1", "T1c", "T2", "FLAIR"), labels=("csf", "grey", "white", "tumour"))
    study = study.model_copy(update={"grid": grid})
    rng = np.random.default_rng(0)
    volumes = rng.random((2, 3, 4, *shape), dtype=np.float32)
    labels = np.zeros((3, *shape), np.uint8)
    for value in range(1, 5):
        edge = tuple(slice(value * n // 12, n - value * n // 12) for n in shape)
        labels[:, edge[0], edge[1], edge[2]] = value
    steps = np.sort(rng.random((2, 400)))
    steps[:, 0], steps[:, -1] = 0, 1
    figure = {"mean": 0.8, "ci": [0.7, 0.9], "n_test": 200}
    arms = [
        {"name": name, "dice": figure, "per_label": dict.fromkeys(("csf", "grey", "white", "tumour"), figure)}
        for name in ("real", "synthetic", "real+synthetic", "public", "public+synthetic")
    ]
    return content(
        study,
        synthetic=SyntheticSample(volumes[0], labels, volumes[1]),
        audit=an_audit(
            attacks=[an_attack(name, "S", 0.5) for name in TESTS], controls=[a_control(n) for n in REQUIRED_CONTROLS]
        ),
        roc=tuple(RocCurve(name, steps[0], steps[1], 200, 200) for name in TESTS),
        rounds=rounds(200),
        evaluation=ReportEvaluation.read({"arms": arms, "region": "whole"}),
    )
