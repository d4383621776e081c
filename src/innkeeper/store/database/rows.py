"""Rows and values. Each body carries a checksum of its key and itself, so that a flipped bit is told, not believed."""

from __future__ import annotations

import zlib
from typing import Any, TypeVar

from innkeeper.model import codec
from innkeeper.model.cluster import name_key
from innkeeper.model.instance import Instance
from innkeeper.model.network import Nic
from innkeeper.model.observed import MachineState
from innkeeper.model.plans import Noun
from innkeeper.model.work import Operation
from innkeeper.ports.store import StoreFailed

T = TypeVar("T")
Row = dict[str, Any]


class Damaged(StoreFailed):
    """A row is not what was written."""


def checksum(key: str, body: str) -> int:
    """The key is part of it: a good body under the wrong key is damage, too."""
    return zlib.crc32(f"{key}\n{body}".encode())


def sealed(key: str, value: object, as_type: Any = None) -> Row:
    """The columns `body` and `checksum`."""
    body = codec.encode(value, as_type)
    return {"body": body, "checksum": checksum(key, body)}


def unsealed(table: str, key: str, row: Any, as_type: type[T]) -> T:
    """The value of a row that has `body` and `checksum`.

    Raises:
        Damaged: it is not what was written, or a newer release wrote it; says which row.
    """
    if checksum(key, row.body) != row.checksum:
        hint = "Stop the daemon, check the disk, and restore the database from the newest backup"
        raise Damaged(f"row {key} of table {table} is damaged: its checksum is wrong. {hint}")
    try:
        return codec.decode(row.body, as_type)
    except codec.NotReadable as error:
        raise Damaged(f"row {key} of table {table} {error}") from error


def object_key(kind: str, id: str) -> str:
    return f"{kind}/{id}"


def object_row(noun: Noun, revision: int, seq: int) -> Row:
    kind, project, name = name_key(noun)
    row = {"kind": kind.value, "id": noun.ref.id, "project": project, "name": name, "generation": noun.generation}
    return {**row, "revision": revision, "seq": seq, **sealed(object_key(kind.value, noun.ref.id), noun, Noun)}


def machine_row(state: MachineState, revision: int) -> Row:
    row = {"instance": state.instance, "seq": state.seq, "revision": revision}
    return {**row, **sealed(state.instance, state)}


def operation_row(operation: Operation) -> Row:
    """What changes while an operation lives."""
    return {
        "id": operation.id,
        "state": operation.state.value,
        "revision": operation.revision,
        **sealed(operation.id, operation),
    }


def holdings(noun: Noun | None) -> set[tuple[str, str]]:
    """(scope, key) of all that only one object may hold, names apart."""
    match noun:
        case Instance():
            return {(f"uid/{noun.host}", str(noun.uid_slot))}
        case Nic():
            return {("mac", noun.mac), *((f"address/{noun.network}", address) for address in noun.addresses)}
        case _:
            return set()
