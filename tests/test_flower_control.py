"""The coordinator's SuperLink told who may take part: what was not done is not taken for done, and is tried again."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from fedphantom.common.errors import PeerError
from fedphantom.server import flower_control
from fedphantom.server.coordinator.nodes import NodeTable
from fedphantom.server.flower_control import FlowerControl

KEYS = {"site-a": "ecdsa a", "site-b": "ecdsa b"}

_FLWR = """#!{python}
# As flwr 1.41 answers: exit code 0, whatever happened.
import json, sys
from pathlib import Path
state = Path(__file__).with_name("state.json")
nodes = json.loads(state.read_text())
command, given = sys.argv[1:3], sys.argv[3:]
if Path(__file__).with_name("down").exists():
    print(json.dumps({{"success": False, "error-message": "Connection to the SuperLink is unavailable."}}))
elif command == ["supernode", "list"]:
    print(json.dumps({{"success": True, "nodes": [
        {{"node-id": node, "status": status}} for node, (key, status) in nodes.items()
    ]}}))
elif command == ["supernode", "register"]:
    key = Path(given[0]).read_text().strip()
    if any(key == other and status != "unregistered" for other, status in nodes.values()):
        print(json.dumps({{"success": False, "error-message": "[code: 23] Public key already in use"}}))
    else:
        node = str(len(nodes) + 1)
        nodes[node] = [key, "registered"]
        print(json.dumps({{"success": True, "node-id": node}}))
elif command == ["supernode", "unregister"]:
    nodes[given[0]][1] = "unregistered"
    print(json.dumps({{"success": True}}))
else:
    print(json.dumps({{"success": False}}))
state.write_text(json.dumps(nodes))
"""


class Link:
    """A SuperLink's registrations behind a ``flwr`` that answers as Flower's does."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        self.place = place
        program = place / "flwr"
        program.write_text(_FLWR.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (place / "state.json").write_text("{}")
        monkeypatch.setattr(flower_control, "flower_program", lambda name: place / name)
        self.control = FlowerControl(place, "127.0.0.1:9")
        self.table = NodeTable(place / "nodes.json")

    def let_in(self) -> list[str]:
        nodes = json.loads((self.place / "state.json").read_text())
        return sorted(key for key, status in nodes.values() if status == "registered")

    def down(self, *, is_down: bool = True) -> None:
        mark = self.place / "down"
        mark.touch() if is_down else mark.unlink()


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Link:
    return Link(tmp_path, monkeypatch)


def test_who_is_enrolled_is_let_in_and_who_is_revoked_put_out(link: Link) -> None:
    assert [each.site for each in link.table.match(KEYS, link.control)] == ["site-a", "site-b"]
    assert link.let_in() == ["ecdsa a", "ecdsa b"]
    assert [each.site for each in link.table.match({"site-b": "ecdsa b"}, link.control)] == ["site-b"]
    assert link.let_in() == ["ecdsa b"]


def test_a_revocation_that_the_superlink_did_not_get_is_no_revocation_and_is_tried_again(link: Link) -> None:
    link.table.match(KEYS, link.control)
    link.down()
    with pytest.raises(PeerError, match="did not do what 'flwr supernode' asked"):
        link.table.match({"site-b": "ecdsa b"}, link.control)
    assert [each.site for each in link.table.read()] == ["site-a", "site-b"]
    link.down(is_down=False)
    link.table.match({"site-b": "ecdsa b"}, link.control)
    assert link.let_in() == ["ecdsa b"]


def test_a_key_that_was_registered_and_not_written_down_stands_in_nobodys_way(link: Link) -> None:
    link.table.match(KEYS, link.control)
    link.table.path.unlink()  # as if ended between the two
    assert [each.site for each in link.table.match(KEYS, link.control)] == ["site-a", "site-b"]
    assert link.let_in() == ["ecdsa a", "ecdsa b"]


def test_a_key_that_nobody_is_enrolled_with_any_more_is_put_out_though_the_table_forgot_it(link: Link) -> None:
    link.table.match(KEYS, link.control)
    link.table.path.unlink()
    link.table.match({"site-a": "ecdsa a"}, link.control)
    assert link.let_in() == ["ecdsa a"]


@pytest.mark.parametrize("ask", ["stop", "register", "unregister", "nodes", "submit"])
def test_what_was_not_done_raises(link: Link, ask: str) -> None:
    link.down()
    key = link.place / "key.pub"
    key.write_text("ecdsa a\n")
    asked = {
        "stop": lambda: link.control.stop("7"),
        "register": lambda: link.control.register(key, "site-a"),
        "unregister": lambda: link.control.unregister("1"),
        "nodes": lambda: link.control.nodes(),
        "submit": lambda: link.control.submit(link.place),
    }
    with pytest.raises(PeerError):
        asked[ask]()
