"""Learning curves: files that TensorBoard reads, whole, named by step, written without a word to anybody."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tensorboard_reader import read_curves

from fedphantom.common.curves import write_curves


def test_tensorboard_reads_what_was_written_piece_by_piece(tmp_path: Path) -> None:
    write_curves(tmp_path, [(1, {"l1": 0.5, "adversarial": 2.0}), (2, {"l1": 0.25, "adversarial": 1.0})])
    write_curves(tmp_path, [(3, {"l1": 0.125})])
    assert read_curves(tmp_path) == {"l1": {1: 0.5, 2: 0.25, 3: 0.125}, "adversarial": {1: 2.0, 2: 1.0}}


def test_training_done_again_from_a_step_replaces_what_was_drawn_beyond_it(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write_curves(tmp_path, [(step, {"l1": 1.0})])
    write_curves(tmp_path, [(3, {"l1": 7.0})])
    assert read_curves(tmp_path) == {"l1": {1: 1.0, 2: 1.0, 3: 7.0}}


def test_steps_beyond_ten_digits_of_order_stay_in_order(tmp_path: Path) -> None:
    for step in (9, 10, 100_000):
        write_curves(tmp_path, [(step, {"l1": float(step)})])
    assert read_curves(tmp_path)["l1"] == {9: 9.0, 10: 10.0, 100_000: 100_000.0}


def test_names_of_files_tell_neither_host_nor_process(tmp_path: Path) -> None:
    write_curves(tmp_path, [(12, {"l1": 0.5})])
    assert [path.name for path in tmp_path.iterdir()] == ["events.out.tfevents.0000000012"]
    content = next(tmp_path.iterdir()).read_bytes()
    assert socket.gethostname().encode() not in content
    assert str(tmp_path).encode() not in content


def test_no_point_is_no_file(tmp_path: Path) -> None:
    write_curves(tmp_path / "none", [])
    assert not (tmp_path / "none").exists()


OFFLINE = """
import socket, sys
from pathlib import Path
def never(*_, **__):
    raise AssertionError("a connection")
for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, never)
socket.getaddrinfo = socket.gethostbyname = never
from fedphantom.common.curves import write_curves
write_curves(Path(sys.argv[1]), [(1, {"l1": 0.5})])
"""


def test_writing_opens_no_connection_and_asks_for_no_address(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path)], check=True)
    assert read_curves(tmp_path) == {"l1": {1: 0.5}}
