"""``python faults.py [KILLS] [SEED]``: a study under differential privacy whose processes are killed at random moments.

Two sites and a coordinator in network namespaces, as in the tutorial. SIGKILL strikes a site's SuperNode, its training,
the ServerApp, the SuperLink or nginx; whoever is left goes on, and ``server resume`` where the run ended. At the end
the study must be finished, every journal and ledger hold, and no site's ledger hold fewer noised steps than left it in
replies.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tutorial import ADDRESS, COORDINATOR, HOSPITALS, PORT, Tutorial, tutorial
from two_networks import networks_problem

from fedphantom.common.flower_programs import CLIENTAPP

ROUNDS, STEPS, SPARE = 12, 2, 40
TARGETS = {
    "a site's node": (HOSPITALS, "fedphantom.client.node.flower_node"),
    "a site's SuperExec": (HOSPITALS, "fedphantom.client.node.flower_superexec"),
    "a site's training": (HOSPITALS, CLIENTAPP),
    "the ServerApp": ((COORDINATOR,), "flwr-serverapp"),
    "the SuperLink": ((COORDINATOR,), "flower-superlink"),
    "nginx": ((COORDINATOR,), "nginx"),
}
LONGEST_S = 45 * 60


@dataclass
class Faults:
    """What was done to the study, and how it ended.

    Attributes:
        kills: (Seconds since the beginning, what was killed).
        resumed: How often the run had to be gone on with.
        seconds: From the first round's request to the last round's end.
        problems: What does not hold; empty where all does.
    """

    kills: list[tuple[float, str]] = field(default_factory=list)
    resumed: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def study_text(digest: str) -> str:
    """The template's study, coarse and short, with rounds to spare for those that are broken off."""
    import fedphantom.server

    text = (Path(fedphantom.server.__file__).parent / "study_templates" / "promised.toml").read_text(encoding="utf-8")
    for written, instead in (
        ("shape = [32, 32, 32]", "shape = [16, 16, 16]"),
        ("spacing_mm = [6.0, 6.0, 6.0]", "spacing_mm = [12.0, 12.0, 12.0]"),
        ('preset = "small"', 'preset = "tiny"'),
        ('# start = "…"', f'start = "{digest}"' if digest else '# start = "…"'),
        ("rounds = 2\n", f"rounds = {ROUNDS}\n"),
        ("local_steps = 75", f"local_steps = {STEPS}"),
        ("epsilon = 3.0 ", "epsilon = 100.0 "),
        ('noised = "means" ', 'noised = "norms" '),
        ("discriminator_steps = 5", "discriminator_steps = 1"),
        ("spare_rounds = 1 ", f"spare_rounds = {SPARE} "),
        ("delta = 0.001 ", "delta = 0.005 "),
        ("deadline_s = 3600", "deadline_s = 300"),
    ):
        if written not in text:
            raise RuntimeError(f"the template no longer says: {written}")
        text = text.replace(written, instead)
    return text


def set_up(terminals: Tutorial) -> None:
    """Everything up to the first round, as the tutorial has it."""
    lead = terminals.folder(COORDINATOR)
    terminals.type(COORDINATOR, "fedphantom cohort phantom public --patients 8 --spacing 12 --seed 99")
    (lead / "study.toml").write_text(study_text(""), encoding="utf-8")
    made = terminals.type(
        COORDINATOR, "fedphantom study pretrain study.toml start.safetensors --public public --steps 5 --json"
    )
    digest = json.loads(next(line for line in made.splitlines() if line.startswith("{")))["sha256"]
    (lead / "study.toml").write_text(study_text(digest), encoding="utf-8")
    terminals.type(
        COORDINATOR,
        f"fedphantom server init federation --study study.toml --address {ADDRESS}:{PORT} --start start.safetensors",
    )
    for number, hospital in enumerate(HOSPITALS, start=1):
        name = hospital.upper().replace("-", "_")
        terminals.type(COORDINATOR, f"fedphantom server invite federation {hospital} --out {hospital}.invitation")
        terminals.type(hospital, f"fedphantom cohort phantom cohort --patients 48 --spacing 12 --seed {number}")
        (terminals.folder(hospital) / "start.safetensors").write_bytes((lead / "start.safetensors").read_bytes())
        terminals.type(
            hospital,
            f"fedphantom site init site --invitation {hospital}.invitation --cohort cohort --start start.safetensors"
            " --ledger ledgers",
        )
        terminals.type(
            COORDINATOR, f'fedphantom server enroll federation {hospital}.request --fingerprint "${name}_SAYS"'
        )
    terminals.type(COORDINATOR, "fedphantom server start federation &")
    for hospital in HOSPITALS:
        name = hospital.upper().replace("-", "_")
        terminals.type(hospital, 'fedphantom site join site roster --fingerprint "$COORDINATOR_SAYS"')
        # Many steps for few patients: this is about what a ledger counts, not about a promise worth making.
        terminals.type(hospital, "sed -i 's/^epsilon = .*/epsilon = 100.0/' site/limits.toml")
        terminals.type(hospital, "fedphantom site approve site")
        terminals.type(hospital, f'fedphantom site approve site --seen "${name}_SAW"')
        terminals.type(hospital, "fedphantom site start site &")


def kill(terminals: Tutorial, chance: random.Random) -> str | None:
    """Kill something that runs; what it was, or None where the lot fell on what does not run just now."""
    what = chance.choice(sorted(TARGETS))
    roles, program = TARGETS[what]
    role = chance.choice(roles)
    listed = subprocess.run(
        ["ip", "netns", "pids", terminals.networks.names[role]], capture_output=True, text=True, check=True
    ).stdout.split()
    found = [int(pid) for pid in listed if _runs(program, Path("/proc") / pid)]
    if not found:
        return None
    try:
        os.kill(chance.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return None
    return f"{what} ({role})" if len(roles) > 1 else what


def _runs(program: str, process: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")
        called = (process / "comm").read_text().strip()
    except OSError:  # it has ended
        return False
    # A training divided itself off from the SuperExec, whose command it keeps: its own name tells it apart.
    if CLIENTAPP in (called, program):
        return called == program
    # A program of Flower's is a script that Python runs; the keeper above it names it too, and must live.
    return any(part.endswith(program.encode()) for part in command[:4]) and b"process_keeper" not in b" ".join(command)


def strike(terminals: Tutorial, kills: int, seed: int) -> Faults:
    """Run the study and kill; then look at what is left."""
    chance, faults, began = random.Random(seed), Faults(), time.monotonic()  # noqa: S311 - a lot, no secret
    next_kill, command = began + 15, "run"
    while True:
        run = subprocess.Popen(
            terminals.networks.inside(COORDINATOR, ["fedphantom", "server", command, "federation", "--json"]),
            cwd=terminals.folder(COORDINATOR),
            env=terminals.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while run.poll() is None:
            time.sleep(0.25)
            if time.monotonic() - began > LONGEST_S:
                run.kill()
                faults.problems.append(f"not finished in {LONGEST_S // 60} minutes")
                return faults
            if len(faults.kills) < kills and time.monotonic() >= next_kill:
                what = kill(terminals, chance)
                if what is None:
                    continue
                faults.kills.append((round(time.monotonic() - began, 1), what))
                print(f"{faults.kills[-1][0]:7.1f} s  killed {what}", flush=True)
                next_kill = time.monotonic() + chance.uniform(3, 25)
        said = run.communicate()[1].strip().splitlines()
        if run.returncode == 0:
            break
        faults.resumed += 1
        print(f"{time.monotonic() - began:7.1f} s  the run ended: {said[-3] if len(said) > 2 else said}", flush=True)
        command = "resume"
        time.sleep(2)
    faults.seconds = round(time.monotonic() - began, 1)
    look(terminals, faults)
    return faults


def look(terminals: Tutorial, faults: Faults) -> None:
    """Is the study finished, do journals and ledgers hold, is nothing under-counted?"""
    from fedphantom.common.gan.weights import load_weights
    from fedphantom.common.journal import read_journal, verify_journal
    from fedphantom.common.site_folder import REPLY_LEFT

    federation = terminals.folder(COORDINATOR) / "federation"
    summary = json.loads((federation / "run" / "summary.json").read_text(encoding="utf-8"))
    done = [record["round"] for record in summary["rounds"]]
    if done != list(range(1, ROUNDS + 1)):
        faults.problems.append(f"rounds done: {done}")
    load_weights(federation / "run" / "generator.safetensors")
    verify_journal(federation / "journal.jsonl")
    verify_journal(federation / "run" / "journal.jsonl")
    for hospital in HOSPITALS:
        site = terminals.folder(hospital) / "site"
        verify_journal(site / "journal.jsonl")
        terminals.type(hospital, "fedphantom budget verify site")
        spent = json.loads(terminals.type(hospital, "fedphantom budget show site --json"))
        entries = read_journal(site / "journal.jsonl")
        left = {entry.facts["round"] for entry in entries if entry.event == REPLY_LEFT}
        print(f"{hospital}: {len(left)} rounds left; ledger {json.dumps(spent)[:300]}", flush=True)
        told = max(record["epsilon"][hospital] for record in summary["rounds"] if hospital in record["epsilon"])
        if spent["epsilon"] < told:
            faults.problems.append(f"{hospital}: the ledger holds ε {spent['epsilon']}, a reply said {told}")
        steps = sum(line["steps_counted"] for line in spent["lines"])
        if steps < len(left) * STEPS:
            faults.problems.append(f"{hospital}: {steps} steps in the ledger, {len(left)} rounds left")


def main() -> int:
    if problem := networks_problem():
        print(f"faults cannot be tried here: {problem}", file=sys.stderr)
        return 1
    kills, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 20, int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as root, tutorial(Path(root)) as terminals:
        set_up(terminals)
        faults = strike(terminals, kills, seed)
    print(
        f"{len(faults.kills)} kills, {faults.resumed} times resumed, {ROUNDS} rounds in {faults.seconds:.0f} s; "
        + ("; ".join(faults.problems) or "everything holds")
    )
    return int(bool(faults.problems) or len(faults.kills) < kills)


if __name__ == "__main__":
    # An end that is asked for leaves no process and no namespace behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
