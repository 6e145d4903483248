"""A path that leads nowhere is told with the option or argument that gave it, for every command that takes paths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from tiny_cohorts import tiny_text, write_tiny_cohort

from fedphantom.cli import app, run
from fedphantom.common.gan.generation import initial_parameters
from fedphantom.common.gan.weights import generator_metadata, save_weights
from fedphantom.common.study import parse_study

RECIPE = """
name = "r"
citation = "c"
[labels]
lesion = ["tumour"]
host = ["brain"]
hemispheres = false
[[edit]]
operation = "move"
mm = [1.0, 2.0]
"""
SAMPLE, EDIT = "labels sample OUT -n 1 --study study.toml", "labels edit maps OUT --recipe r.toml --study study.toml"
SIMULATE = "simulate study.toml --site A=cohort --site B=other --out OUT"
INFER = "labels infer cohort OUT --network infers/generator.safetensors"
EVALUATE = "evaluate --synthetic cohort --real-train cohort --real-test cohort --study study.toml"

SITE = "site init OUT --invitation invited"
READ_ALOUD = "00000-00000-00000-00000-00000"

NOWHERE: dict[tuple[str, str], str] = {
    ("cohort check", "PATH"): "cohort check nowhere",
    ("cohort check", "--study"): "cohort check cohort --study nowhere",
    ("cohort import-dicom", "SRC"): "cohort import-dicom nowhere OUT",
    ("cohort import-dicom", "--channels"): "cohort import-dicom cohort OUT --channels nowhere",
    ("cohort import-dicom", "--site-secret"): "cohort import-dicom cohort OUT --site-secret study.toml",
    ("study check", "STUDY.toml"): "study check nowhere",
    ("study new", "--approval-key"): "study new OUT --template tiny --approval-key nowhere",
    ("study pretrain", "STUDY.toml"): "study pretrain nowhere OUT --public cohort",
    ("study pretrain", "--public"): "study pretrain study.toml OUT --public nowhere",
    ("budget show", "SITE_FOLDER"): "budget show nowhere",
    ("budget verify", "SITE_FOLDER"): "budget verify nowhere",
    ("simulate", "--start"): f"{SIMULATE} --start nowhere",
    ("study show", "STUDY.toml"): "study show nowhere",
    ("simulate", "STUDY.toml"): SIMULATE.replace("study.toml", "nowhere"),
    (
        "simulate",
        "--public",
    ): "simulate study.toml --site A=cohort --site B=other --out OUT --preview-every 1 --public nowhere",
    ("demo", "--data"): "demo --data nowhere --out OUT",
    ("generate", "GENERATOR"): "generate nowhere OUT --sample 1",
    ("generate", "--labels"): "generate paints/generator.safetensors OUT --labels nowhere",
    ("generate", "--public"): "generate paints/generator.safetensors OUT --sample 1 --public nowhere",
    ("labels sample", "--study"): SAMPLE.replace("study.toml", "nowhere"),
    ("labels sample", "--public"): f"{SAMPLE} --public nowhere",
    ("labels edit", "IN"): EDIT.replace("maps", "nowhere"),
    ("labels edit", "--recipe"): EDIT.replace("r.toml", "nowhere"),
    ("labels edit", "--study"): EDIT.replace("study.toml", "nowhere"),
    ("labels edit", "--public"): f"{EDIT} --public nowhere",
    ("labels edit", "--donors"): EDIT.replace("r.toml", "transplant.toml") + " --donors nowhere",
    ("labels edit", "--site-secret"): f"{EDIT} --site-secret study.toml",
    ("labels nearest", "LABELS"): "labels nearest nowhere cohort --study study.toml",
    ("labels nearest", "COHORT"): "labels nearest maps nowhere --study study.toml",
    ("labels nearest", "--study"): "labels nearest maps cohort --study nowhere",
    ("labels infer", "COHORT"): INFER.replace("cohort", "nowhere"),
    ("labels infer", "--network"): INFER.replace("infers/generator.safetensors", "nowhere"),
    ("labels infer", "--remapping"): f"{INFER} --remapping nowhere",
    ("labels infer", "--site-secret"): f"{INFER} --site-secret study.toml",
    ("evaluate", "--run"): "evaluate --synthetic cohort --run nowhere",
    ("evaluate", "--synthetic"): "evaluate --synthetic nowhere --real-train cohort --real-test cohort",
    ("evaluate", "--study"): EVALUATE.replace("study.toml", "nowhere"),
    ("evaluate", "--real-train"): EVALUATE.replace("--real-train cohort", "--real-train nowhere"),
    ("evaluate", "--real-test"): EVALUATE.replace("--real-test cohort", "--real-test nowhere"),
    ("evaluate", "--site-secret"): f"{EVALUATE} --site-secret nowhere",
    ("evaluate", "--public"): f"{EVALUATE.replace('--real-test cohort', '--real-test other')} --public nowhere",
    ("server init", "--study"): "server init OUT --study nowhere --address localhost:443",
    ("server init", "--start"): "server init OUT --study study.toml --address localhost:443 --start nowhere",
    ("server invite", "DIR"): "server invite nowhere site-b",
    ("server enroll", "DIR"): f"server enroll nowhere request --fingerprint {READ_ALOUD}",
    ("server enroll", "REQUEST"): f"server enroll lead nowhere --fingerprint {READ_ALOUD}",
    ("server revoke", "DIR"): "server revoke nowhere site-a --reason gone_for_good_now",
    ("server revoke", "--notice"): "server revoke lead site-b --notice nowhere",
    ("server renew", "DIR"): "server renew nowhere",
    ("server start", "DIR"): "server start nowhere",
    ("server run", "DIR"): "server run nowhere",
    ("server resume", "DIR"): "server resume nowhere",
    ("server stop", "DIR"): "server stop nowhere",
    ("server status", "DIR"): "server status nowhere",
    ("server export", "DIR"): "server export nowhere",
    ("server import", "DIR"): "server import nowhere study.toml",
    ("server import", "FILE"): "server import lead study.toml nowhere",
    ("site train", "DIR"): "site train nowhere study.toml --out OUT",
    ("site train", "REQUEST"): "site train site nowhere --out OUT",
    ("site export", "DIR"): "site export nowhere --out OUT",
    ("site init", "--invitation"): f"{SITE} --cohort cohort".replace("invited", "nowhere"),
    ("site init", "--cohort"): f"{SITE} --cohort nowhere",
    ("site init", "--start"): f"{SITE} --cohort cohort --start nowhere",
    ("site init", "--ledger"): f"{SITE} --cohort cohort --ledger nowhere",
    ("site join", "DIR"): f"site join nowhere roster --fingerprint {READ_ALOUD}",
    ("site join", "ROSTER"): f"site join site nowhere --fingerprint {READ_ALOUD}",
    ("site renew", "DIR"): "site renew nowhere",
    ("site approve", "DIR"): "site approve nowhere",
    ("site start", "DIR"): "site start nowhere",
    ("site pause", "DIR"): "site pause nowhere",
    ("site go-on", "DIR"): "site go-on nowhere",
    ("site withdraw", "DIR"): "site withdraw nowhere --reason gone_for_good_now",
    ("site status", "DIR"): "site status nowhere",
    ("site doctor", "DIR"): "site doctor nowhere",
    ("journal show", "JOURNAL"): "journal show nowhere",
    ("journal verify", "JOURNAL"): "journal verify nowhere",
}
"""(Command, what gave the path) to a line in which that path alone is wrong."""
WRITTEN = {"OUT", "--out", "--montage", "--plot", "--ledgers"}
"""Where something is written: tested with the places that can be."""
ALONE = {("study new", "STUDY.toml"), ("server init", "DIR"), ("site init", "DIR")}
"""Written, too, under another name."""
OTHER_WORDS = ("audit", "release")
"""Groups whose messages name what was given in words of their own."""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the lines need and that is not wrong."""
    root = tmp_path_factory.mktemp("paths")
    write_tiny_cohort(root / "cohort", 2)
    write_tiny_cohort(root / "other", 2, seed=1, prefix="q")
    study = parse_study(tiny_text())
    (root / "study.toml").write_text(tiny_text())
    anatomy = study.network.model_copy(update={"maps": "images-to-labels"})
    for name, one in (("paints", study), ("infers", study.model_copy(update={"network": anatomy}))):
        save_weights(root / name / "generator.safetensors", initial_parameters(one), generator_metadata(one, 1))
    (root / "r.toml").write_text(RECIPE)
    (root / "transplant.toml").write_text(RECIPE.replace('"move"\nmm = [1.0, 2.0]', '"transplant"'))
    (root / "maps").mkdir()
    for label in (root / "cohort").rglob("*_dseg.nii.gz"):
        (root / "maps" / label.name).write_bytes(label.read_bytes())
    for line in (
        f"server init {root}/lead --study {root}/study.toml --address localhost:443",
        f"server invite {root}/lead site-a --out {root}/invited",
        f"site init {root}/site --invitation {root}/invited --cohort {root}/cohort",
    ):
        assert run(line.split()) == 0
    return root


@pytest.mark.parametrize("given", NOWHERE, ids=" ".join)
def test_a_wrong_path_is_told_with_what_gave_it(
    given: tuple[str, str],
    material: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(material)
    assert run(NOWHERE[given].replace("OUT", str(tmp_path / "out")).split()) == 3
    told = capsys.readouterr().err
    problem = next(line for line in told.splitlines() if line.startswith("error: "))
    # A study is called by its file's own name, as in errors of what it holds.
    assert problem.startswith(
        "error: no readable study file 'nowhere'" if given[1] == "STUDY.toml" else f"error: {given[1]}: "
    )
    assert "what to do: " in told


def commands() -> Iterator[tuple[str, click.Command]]:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # a group has them
        for sub, leaf in getattr(command, "commands", {"": command}).items():
            yield f"{name} {sub}".strip(), leaf


def test_every_path_of_every_command_is_in_the_table() -> None:
    paths = {
        (
            name,
            option.opts[0]
            if isinstance(option, click.Option)
            else option.make_metavar(click.Context(leaf)).strip("[]"),
        )
        for name, leaf in commands()
        for option in leaf.params
        if type(option.type).__name__ in ("Path", "TyperPath") and not name.startswith(OTHER_WORDS)
    }
    assert len(paths) > 20
    assert {(name, given) for name, given in paths if given not in WRITTEN} - ALONE == set(NOWHERE)
