"""An experiment, not a command: audits of real patients whose answer is known before they begin.

    python benchmarks/known_answers.py STUDY.toml --cohort COHORT --out DIR [--seeds 1 2 ... 10]

The cohort's own patients, by site: a sixth each are reference and control, a quarter train generators that no audited
patient took part in, the others hold fair coins, drawn anew for every seed. Public patients' label maps are painted.
Asked are: generators of strangers, one a seed (rarely a FAIL); one that learnt 24 members by heart, and the study's own
training on the same members for as long (FAIL); ten members against ten holdout patients, without and with a planted
copy (INCONCLUSIVE, FAIL); members and holdout patients of different sites (INVALID); fifty planted copies.

Reference and negative controls see nobody who holds a coin, so the coins leave them as they are: trained once, kept in
memory. DIR holds nothing of a patient but the prepared scans' cache: it stays on this machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from experiment import drawn_classes
from numpy.typing import NDArray

from fedphantom.common.atomic import write_atomic
from fedphantom.common.cohort import PUBLIC_SITE
from fedphantom.common.cohorts.check import check_cohort
from fedphantom.common.cohorts.layouts import read_cohort
from fedphantom.common.cohorts.preparation import PreparedScans, prepare
from fedphantom.common.cohorts.roles import Role
from fedphantom.common.device import Device, choose_device
from fedphantom.common.errors import TrainingError
from fedphantom.common.gan.generation import as_read_back
from fedphantom.common.labels.sampler import make_label_sampler
from fedphantom.common.progress import stages
from fedphantom.common.randomness import derived_seed, numpy_generator
from fedphantom.common.study import Study, read_study
from fedphantom.privacy.attacks.copies import confirmed_copies
from fedphantom.privacy.attacks.distances import distances
from fedphantom.privacy.attacks.interface import AuditedScans, Images, Labels, Networks, foreground
from fedphantom.privacy.attacks.moved_copies import search_moved
from fedphantom.privacy.audit.audit import AuditPlan, run_audit
from fedphantom.privacy.audit.control_training import train_control_generator, train_memoriser
from fedphantom.privacy.audit.controls import perturbed
from fedphantom.privacy.audit.material import AuditMaterial
from fedphantom.privacy.audit.result import AuditResult
from fedphantom.privacy.evidence import ReleaseKind
from fedphantom.privacy.policy import TIERS

OVERFIT_MEMBERS, EPOCHS = 24, 60
SHARES: Mapping[Role, float] = {"reference": 1 / 6, "control": 1 / 6, "training": 1 / 4}
KINDS = ("exact", "noise", "flipped", "shifted", "gamma")
PLANTED = 10
"""Copies of each kind."""


@dataclass(frozen=True)
class Bench:
    """What every audit here shares.

    Attributes:
        study: Networks, objective and grid.
        scans: Of the cohort's own patients.
        roles: Of each scan's patient before coins are drawn: who may hold one is ``member``.
        maps: Public label maps to paint, shape (S, X, Y, Z).
        steps: Of the reference, the negative controls and the generators of strangers.
        device: Where to train.
        trained: What was trained already, by rows, steps and seed.
    """

    study: Study
    scans: PreparedScans
    roles: tuple[Role, ...]
    maps: Labels
    steps: int
    device: Device
    trained: dict[tuple[bytes, int, int], Networks]

    def rows(self, *roles: Role) -> NDArray[np.intp]:
        """Rows of the scans of these roles."""
        return np.flatnonzero([role in roles for role in self.roles])

    def train(self, rows: NDArray[np.intp], steps: int, seed: int) -> Networks:
        """The study's own training on these rows, or what came of it before."""
        key = (rows.tobytes(), steps, seed)
        if key not in self.trained:
            made = train_control_generator(self.scans, rows, self.study, self.device, steps=steps, seed=seed)
            self.trained[key] = made
        return self.trained[key]

    def coins(self, seed: int) -> tuple[Role, ...]:
        """Fair coins for all who may hold one."""
        held = [row for row, role in enumerate(self.roles) if role == "member"]
        heads = numpy_generator(seed, "coins").random(len(held)) < 0.5
        fell: dict[int, Role] = {row: "member" if h else "holdout" for row, h in zip(held, heads, strict=True)}
        return tuple(fell.get(row, role) for row, role in enumerate(self.roles))

    def audit(
        self,
        target: Networks,
        roles: Sequence[Role],
        kind: ReleaseKind,
        *,
        planted: Images | None = None,
        rows: NDArray[np.intp] | None = None,
        one_site: bool = False,
        memorise: bool = False,
    ) -> AuditResult:
        """A whole audit at the controlled tier.

        Args:
            target: Under audit.
            roles: Of all scans.
            kind: Of release.
            planted: Volumes that take the places of the last of the synthetic set.
            rows: Scans to audit; all by default.
            one_site: Whether patients are compared across sites, as where one site had two scanners and said nothing.
            memorise: Whether the positive control is trained; it cannot turn a verdict into FAIL.
        """
        chosen = np.arange(len(self.scans)) if rows is None else rows
        scans = self.scans.only(chosen)
        synthetic = as_read_back(target.generator(self.maps, 0))
        if planted is not None:
            synthetic = np.concatenate([synthetic[: -len(planted)], planted])
        material = AuditMaterial(
            images=np.asarray(scans.volumes),
            labels=np.asarray(scans.classes),
            patients=scans.patients,
            roles=tuple(roles[row] for row in chosen.tolist()),
            sites=("",) * len(scans) if one_site else scans.sites,
            target=Networks(target.generator),
            synthetic=synthetic,
            synthetic_labels=self.maps,
            generator_sha256="0" * 64,
            cohort_digest="0" * 64,
            as_released=as_read_back,
            target_steps=self.steps,
            header=scans.headers,
            generator_named_by="the coordinator's journal",
        )

        def train(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
            return self.train(chosen[scans], steps, seed)

        def by_heart(scans: NDArray[np.intp], steps: int, seed: int) -> Networks:
            if not memorise:
                raise TrainingError("not trained in this experiment", expected="nothing", remedy="None.")
            return self.by_heart(chosen[scans], steps, seed)

        batch = self.study.training.batch
        plan = AuditPlan(release=kind, seed=1, training_seed=1, steps=self.steps, scans_per_step=batch)
        return run_audit(material, plan, TIERS["controlled"], train, by_heart)

    def by_heart(self, rows: NDArray[np.intp], steps: int, seed: int) -> Networks:
        """Trained to learn these rows' scans by heart."""
        return train_memoriser(self.scans, rows, self.study, self.device, steps=steps, seed=seed)


def told(result: AuditResult) -> dict[str, Any]:
    """What of an audit is kept: no patient's figure."""
    return {
        "verdict": result.verdict.outcome,
        "reasons": list(result.verdict.reasons),
        "members": result.evidence.n_member,
        "holdout": result.evidence.n_holdout,
        "attacks": {
            a.id: {"auc": round(a.auc, 4), "ci": [round(b, 4) for b in a.auc_ci], "p": a.p_value, "rejects": a.rejects}
            for a in result.evidence.attacks
        },
        "controls": {control.id: [control.ok, control.got] for control in result.evidence.controls},
        "copies": result.evidence.confirmed_copies,
    }


def copied(volume: NDArray[np.float32], kind: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """A planted copy, shape (C, X, Y, Z)."""
    match kind:
        case "exact" | "noise":
            return perturbed(volume, kind, rng)
        case "flipped":
            return np.ascontiguousarray(volume[:, ::-1])
        case "shifted":
            out = np.full_like(volume, float(volume[0, 0, 0, 0]))
            out[:, 3:] = volume[:, :-3]
            return out
        case "gamma":
            return np.asarray(2 * ((volume + 1) / 2).clip(0, 1) ** 1.3 - 1, dtype=np.float32)
    raise ValueError(kind)


def planted_copies(bench: Bench, roles: Sequence[Role], target: Networks) -> dict[str, Any]:
    """Ten copies of each kind, each of another member, among the volumes of a generator of strangers.

    Searched as an audit searches a released set, among everybody; its control of the searches plants fewer kinds among
    forty people (:mod:`fedphantom.privacy.audit.copy_control`).
    """
    scans = AuditedScans(
        np.asarray(bench.scans.volumes),
        np.asarray(bench.scans.classes),
        bench.scans.patients,
        bench.scans.sites,
        tuple(role == "member" for role in roles),
    )
    rng = numpy_generator(1, "planted")
    judged = foreground(scans.images, scans.labels)

    def accused(volumes: Images) -> int:
        near, moved = distances(scans, judged, volumes), search_moved(scans, judged, volumes).source
        return confirmed_copies(scans, judged, near, moved).volumes

    found: dict[str, Any] = {}
    for kind in KINDS:
        originals = rng.permutation(np.flatnonzero(scans.member))[:PLANTED]
        found[kind] = accused(as_read_back(np.stack([copied(scans.images[row], kind, rng) for row in originals])))
    clean = as_read_back(target.generator(bench.maps, 0))
    return found | {"accused of none": accused(clean), "volumes without a copy": len(clean)}


def make_bench(study: Study, cohort: Path, out: Path, volumes: int, steps: int) -> Bench:
    """Prepare the scans, deal out the roles that hold no coin, and draw the public label maps."""
    whole = read_cohort(cohort)
    public = whole.public()
    own = whole.only([p.patient_id for p in whole.patients if p.site != PUBLIC_SITE])
    scans = prepare(check_cohort(own, study).usable, study, out / "cache").named_by_site()
    roles: dict[str, Role] = {}
    for site in sorted(set(scans.sites)):
        there = sorted({p for p, s in zip(scans.patients, scans.sites, strict=True) if s == site})
        order = numpy_generator(1, "roles", site).permutation(there).tolist()
        for role, share in SHARES.items():
            taken, order = order[: round(share * len(there))], order[round(share * len(there)) :]
            roles |= dict.fromkeys(taken, role)
        roles |= dict.fromkeys(order, "member")
    sampler = make_label_sampler(study, public)
    seed = derived_seed(study.seed, "known answers")
    classes = drawn_classes(sampler, study, seed, volumes)
    return Bench(study, scans, tuple(roles[p] for p in scans.patients), classes, steps, choose_device(), {})


def with_members(bench: Bench, seeds: Sequence[int]) -> tuple[Role, ...]:
    """The first of these seeds' coins that leave as many members as are to be learnt by heart."""
    return next(coins for coins in map(bench.coins, seeds) if coins.count("member") >= OVERFIT_MEMBERS)


def strangers(bench: Bench, seed: int) -> Networks:
    """Trained on patients who hold no coin."""
    return bench.train(bench.rows("training"), bench.steps, derived_seed(seed, "strangers"))


def overfit(bench: Bench, roles: Sequence[Role]) -> dict[str, Any]:
    """Twenty-four members for sixty epochs and more: by heart, and by the study's own training."""
    members = np.flatnonzero([role == "member" for role in roles])[:OVERFIT_MEMBERS]
    kept: Sequence[Role] = ["training" if r == "member" and i not in members else r for i, r in enumerate(roles)]
    steps = -(-EPOCHS * len(members) // bench.study.training.batch)
    by_heart = bench.by_heart(members, steps, 1)
    usual = bench.train(members, steps, 1)
    return {
        "epochs": EPOCHS,
        "members": len(members),
        "by heart": told(bench.audit(by_heart, kept, "weights", memorise=True)),
        "the study's own training": told(bench.audit(usual, kept, "weights")),
    }


def few(bench: Bench, roles: Sequence[Role], target: Networks) -> dict[str, Any]:
    """Ten members against ten holdout patients, without and with a copy in the set."""
    sides = [np.flatnonzero([role == side for role in roles])[:10] for side in ("member", "holdout")]
    rows = np.sort(np.concatenate([*sides, bench.rows("reference", "control")]))
    copy = np.asarray(bench.scans.volumes[sides[0][0]])[None]
    return {
        "as it is": told(bench.audit(target, roles, "volumes", rows=rows)),
        "with a planted copy": told(bench.audit(target, roles, "volumes", rows=rows, planted=as_read_back(copy))),
    }


def other_scanner(bench: Bench, target: Networks) -> dict[str, Any]:
    """Members of one site against holdout patients of another, taken for one site's."""
    first, second, *_ = sorted(set(bench.scans.sites))
    side: dict[str, Role] = {first: "member", second: "holdout"}
    pairs = zip(bench.roles, bench.scans.sites, strict=True)
    roles: list[Role] = [side.get(site, "training") if role == "member" else role for role, site in pairs]
    return {"sites": [first, second]} | told(bench.audit(target, roles, "volumes", one_site=True))


def main() -> None:
    """Ask every question; ``result.json`` grows with each answer."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("study", type=Path)
    parse.add_argument("--cohort", type=Path, required=True)
    parse.add_argument("--out", type=Path, required=True)
    parse.add_argument("--volumes", type=int, default=100)
    parse.add_argument("--steps", type=int, default=480)
    parse.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    given = parse.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    bench = make_bench(read_study(given.study), given.cohort, given.out, given.volumes, given.steps)
    result: dict[str, Any] = {"steps": given.steps, "volumes": given.volumes, "strangers": {}}

    def keep(name: str, answer: dict[str, Any]) -> None:
        result[name] = answer
        write_atomic(given.out / "result.json", (json.dumps(result, indent=1) + "\n").encode())

    with stages() as stage:
        first = bench.coins(given.seeds[0])
        report = stage("overfit, few, other scanner, planted")
        keep("overfit", overfit(bench, with_members(bench, given.seeds)))
        report(1, 4)
        target = strangers(bench, given.seeds[0])
        keep("few", few(bench, first, target))
        report(2, 4)
        keep("other scanner", other_scanner(bench, target))
        report(3, 4)
        keep("planted copies", planted_copies(bench, first, target))
        report(4, 4)
        report = stage("strangers")
        for done, seed in enumerate(given.seeds, start=1):
            audited = told(bench.audit(strangers(bench, seed), bench.coins(seed), "volumes"))
            keep("strangers", {**result["strangers"], str(seed): audited})
            report(done, len(given.seeds))


if __name__ == "__main__":
    main()
