"""A coordinator's bundle at a site: the study's own passes; anything else is refused and nothing of it unpacked."""

from __future__ import annotations

import io
import tomllib
import zipfile
from pathlib import Path

import flwr.supernode.runtime.run_clientapp as runtime
import pytest
from deployed_site import deploy
from flwr.cli.build import build_fab_from_disk
from flwr.clientapp.client_app import LoadClientAppError
from hypothesis import given, settings
from hypothesis import strategies as st

from fedphantom.client.node import launcher
from fedphantom.client.node.bundle import LARGEST_BUNDLE, check_bundle
from fedphantom.common.errors import PolicyRefused
from fedphantom.common.flower_bundle import BUNDLE_FILE, bundle_text

STUDY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """As Flower itself packs what the coordinator writes."""
    return built(tmp_path_factory.mktemp("app"), bundle_text(STUDY))


def built(folder: Path, text: str, **others: str) -> bytes:
    (folder / BUNDLE_FILE).write_text(text)
    for name, content in others.items():
        (folder / f"{name}.py").write_text(content)
    return build_fab_from_disk(folder)


def packed(**files: str | bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def test_the_bundle_that_flower_builds_of_the_approved_study_passes(own: bytes) -> None:
    check_bundle(own, STUDY)


def test_a_bundle_of_another_study_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match="it is of another study"):
        check_bundle(built(tmp_path, bundle_text(OTHER)), STUDY)


def test_a_bundle_with_code_is_refused(tmp_path: Path) -> None:
    text = bundle_text(STUDY).replace(f'fab-include = ["{BUNDLE_FILE}"]', f'fab-include = ["{BUNDLE_FILE}", "*.py"]')
    with pytest.raises(PolicyRefused, match="other files than a configuration"):
        check_bundle(built(tmp_path, text, evil="print('here')"), STUDY)


def test_a_package_that_would_shadow_the_installed_one_is_refused() -> None:
    shadow = packed(**{BUNDLE_FILE: bundle_text(STUDY), "fedphantom/client/app.py": "app = None"})
    with pytest.raises(PolicyRefused, match="other files than a configuration"):
        check_bundle(shadow, STUDY)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("fedphantom.client.app:app", "os:system"),
        ("fedphantom.server.app:app", "evil:app"),
        ('publisher = "fedphantom"', 'publisher = "someone"'),
        (f'study = "{STUDY}"', f'study = "{STUDY}"\nsteps = 100000'),
        ("[tool.flwr.app.components]", '[tool.flwr.app.components]\nagentapp = "evil:app"'),
    ],
    ids=["client app", "server app", "publisher", "run configuration", "agent app"],
)
def test_a_configuration_that_is_not_the_studys_is_refused(written: str, instead: str) -> None:
    text = bundle_text(STUDY)
    assert written in text
    with pytest.raises(PolicyRefused, match="its configuration is not the study's"):
        check_bundle(packed(**{BUNDLE_FILE: text.replace(written, instead)}), STUDY)


def test_two_configurations_of_one_name_are_refused() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(BUNDLE_FILE, bundle_text(STUDY))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(BUNDLE_FILE, "[tool]")
    with pytest.raises(PolicyRefused, match="other files"):
        check_bundle(content.getvalue(), STUDY)


def test_a_large_bundle_is_refused_unread() -> None:
    with pytest.raises(PolicyRefused, match="larger than any bundle"):
        check_bundle(b"\0" * (LARGEST_BUNDLE + 1), STUDY)


def test_a_configuration_that_swells_when_it_is_unpacked_is_read_no_further_than_its_bound() -> None:
    bomb = packed(**{BUNDLE_FILE: b"#" * 50_000_000})
    assert len(bomb) < LARGEST_BUNDLE
    with pytest.raises(PolicyRefused, match="its configuration is not the study's"):
        check_bundle(bomb, STUDY)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_one_whose_compressed_bytes_are_none_is_refused_as_any_other(method: int) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr(BUNDLE_FILE, bundle_text(STUDY) * 20)
    content, begins = bytearray(made.getvalue()), 30 + len(BUNDLE_FILE)
    content[begins : begins + 12] = b"\xff" * 12
    with pytest.raises(PolicyRefused, match="it cannot be read"):
        check_bundle(bytes(content), STUDY)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_bytes_it_is_refused_or_it_is_the_studys_own(own: bytes, data: st.DataObject) -> None:
    """No byte string makes it raise anything else, or pass with another configuration."""
    position = data.draw(st.integers(0, len(own) - 1))
    changed = own[:position] + data.draw(st.binary(max_size=4)) + own[position + data.draw(st.integers(0, 4)) :]
    try:
        check_bundle(changed, STUDY)
    except PolicyRefused:
        return
    with zipfile.ZipFile(io.BytesIO(changed)) as archive:
        assert tomllib.loads(archive.read(BUNDLE_FILE).decode()) == tomllib.loads(bundle_text(STUDY))
        assert set(archive.namelist()) <= {BUNDLE_FILE, ".info/CONTENT"}


def test_a_refusal_that_cannot_be_journalled_tells_the_coordinator_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower sends the text of whatever else is raised there."""
    site = deploy(tmp_path).site
    *lines, last = site.journal.read_text().splitlines()
    site.journal.write_text("\n".join([*lines, last.replace('"event"', '"Event"')]) + "\n")
    for name in ("install_from_fab", "get_load_client_app_fn", "install_app_dependencies"):
        monkeypatch.setattr(runtime, name, getattr(runtime, name))  # put back afterwards
    monkeypatch.setattr("sys.argv", [])
    told: list[Exception] = []

    def flower() -> None:
        try:
            runtime.install_from_fab(b"no bundle", False)
        except Exception as error:
            told.append(error)

    monkeypatch.setattr("flwr.supernode.cli.flwr_clientapp", flower)
    launcher.main([str(site.root)])
    assert [type(error) for error in told] == [LoadClientAppError]
    assert "journal" not in str(told[0])
    noted = site.errors.read_text()
    assert noted.count("PolicyRefused") == 1
    assert "VerificationFailed" in noted
