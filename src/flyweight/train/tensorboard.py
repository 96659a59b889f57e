"""The history of a run as TensorBoard scalars, in one file that is whole or absent.

TensorBoard's own writer writes from a thread, which prints a traceback where the disk is full.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flyweight.files import write_bytes

SCALARS = ("train_loss", "val_loss", "val_accuracy", "lr")
NAME = "events.out.tfevents.0.flyweight"  # the same for every try: a run that is finished twice has its curves once


def write_scalars(history: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write loss (nats), accuracy (0 to 1) and learning rate of each epoch, numbered from 1. Raises OutputError."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    content, now = io.BytesIO(), time.time()
    writer = RecordWriter(content)
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for row in history:
        values = [Summary.Value(tag=name, simple_value=float(row[name])) for name in SCALARS]
        event = Event(wall_time=now, step=int(row["epoch"]), summary=Summary(value=values))
        writer.write(event.SerializeToString())
    write_bytes(folder / NAME, content.getvalue())
