"""Reads what wandb wrote offline."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def _records(path: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file: a header of 7 bytes, then 32 KiB blocks of LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        rest = 32768 - position % 32768
        if rest < 7:
            position += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def offline_runs(results: Path) -> list[dict[str, Any]]:
    """Return the offline runs under a results folder, oldest first."""
    runs = []
    for path in sorted(results.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        found: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "exit": None, "artifacts": []}
        for record in _records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found["run"] = record.run
                found["config"] |= _values(record.run.config.update)
            elif kind == "history":
                found["history"].append(_values(record.history.item))
            elif kind == "summary":
                found["summary"] |= _values(record.summary.update)
            elif kind == "exit":
                found["exit"] = record.exit.exit_code
            elif kind == "artifact":
                found["artifacts"].append(record.artifact)
        runs.append(found)
    return runs
