"""Learning curves as TensorBoard reads them: a folder of event files, each a piece of the curves.

TensorBoard's own writer names its files by host and process and keeps a thread. Here a piece is one file, whole or
absent, named by its first step: training that goes on from a step replaces what was drawn beyond it. Only files are
written; TensorBoard is another program, which nothing here starts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from .atomic import write_atomic
from .storage import storage_errors

FOLDER = "tensorboard"
"""Where a run's or a site's folder holds its curves."""

_PREFIX = "events.out.tfevents."  # by which TensorBoard knows its files


def write_curves(folder: Path, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    """Write one piece; pieces that begin at a later step are out of date and go.

    Args:
        folder: Of these curves alone.
        points: Step and values by name, steps ascending; nothing is written where there is none.

    Raises:
        StorageError: the disk is full, read-only or forbidden.
    """
    if not points:
        return
    # TensorBoard's records and their file format; neither opens a connection.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = time.time()
    events = [Event(wall_time=now, file_version="brain.Event:2")]
    for step, values in points:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        events.append(Event(wall_time=now, step=step, summary=summary))
    content = BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    name = f"{_PREFIX}{points[0][0]:010d}"
    with storage_errors():
        for other in folder.glob(f"{_PREFIX}*"):
            if other.name > name:
                other.unlink()
    write_atomic(folder / name, content.getvalue())
