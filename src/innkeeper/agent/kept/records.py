"""What an agent keeps durably beside each object: the newest generation it obeyed, and the last orders it carried out.

It survives kill -9 of our process, which is what it is for: an order given again after a crash finds its result,
and an old order finds a newer generation. It is not flushed to the disk: after a power failure the machines are
gone too, every order may be given again, and each finds its work done or does it.

    ROOT/KIND-ID.json        of objects that are there
    ROOT/gone/KIND-ID.json   of those that a last order removed: kept for a while, because that order may be given
                             again, and an old one that made the object must still bounce; the oldest are dropped
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from innkeeper.agent.kept.keeping import keep
from innkeeper.model.actions import DeleteDisk, DeleteMemory, DeleteTemplate, ForgetMachine
from innkeeper.model.ids import Kind, Ref
from innkeeper.model.work import Order

log = logging.getLogger(__name__)

_KEPT = 8
GONE_MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Obeyed:
    """`done` names orders by operation, step and direction, newest last."""

    generation: int = 0
    done: tuple[str, ...] = ()


def order_name(order: Order) -> str:
    return f"{order.operation}/{order.step}{'/undo' if order.undo else ''}"


def undo_name(order: Order) -> str:
    """The name of the order that undoes this one."""
    return f"{order.operation}/{order.step}/undo"


class Records:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Ref, Obeyed] = {}
        self._unwritten: set[Ref] = set()
        (root / "gone").mkdir(parents=True, exist_ok=True, mode=0o700)
        # A dictionary for its order: oldest first.
        self._gone: dict[Ref, None] = dict.fromkeys(_by_age(root / "gone"))

    def of(self, about: Ref) -> Obeyed:
        found = self._known.get(about)
        return self._read(about) if found is None else found

    def is_done(self, order: Order) -> bool:
        return order_name(order) in self.of(order.about).done

    def is_undone(self, order: Order) -> bool:
        """Whether its undo was carried out: then it must never be again."""
        return not order.undo and undo_name(order) in self.of(order.about).done

    def note(self, order: Order) -> None:
        """The order was carried out.

        A full disk is no reason to deny what happened: it is remembered, and written as soon as there is room.
        """
        about, before = order.about, self.of(order.about)
        kept = (*(d for d in before.done if d != order_name(order)), order_name(order))[-_KEPT:]
        self._known[about] = Obeyed(generation=max(before.generation, order.generation), done=kept)
        if isinstance(order.action, DeleteDisk | DeleteMemory | DeleteTemplate | ForgetMachine):
            self._gone.setdefault(about)
        self._unwritten.add(about)
        for unwritten in tuple(self._unwritten):
            self._write(unwritten)
        while len(self._gone) > GONE_MOST:
            self._drop(next(iter(self._gone)))

    def _write(self, about: Ref) -> None:
        obeyed = self._known[about]
        try:
            keep(self._path(about), json.dumps({"generation": obeyed.generation, "done": obeyed.done}))
            if about in self._gone:
                self._path(about, gone=False).unlink(missing_ok=True)
        except OSError as error:
            log.error("what was obeyed about %s is remembered, but cannot be written yet: %s", about, error)
            return
        self._unwritten.discard(about)

    def _drop(self, about: Ref) -> None:
        self._path(about).unlink(missing_ok=True)
        self._path(about, gone=False).unlink(missing_ok=True)
        del self._gone[about]
        self._known.pop(about, None)
        self._unwritten.discard(about)

    def _read(self, about: Ref) -> Obeyed:
        try:
            found = json.loads(self._path(about).read_text())
            return Obeyed(generation=int(found["generation"]), done=tuple(map(str, found["done"])))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Obeyed()  # never obeyed, or torn by a power failure: then everything may be given again

    def _path(self, about: Ref, *, gone: bool | None = None) -> Path:
        folder = self._root / "gone" if (about in self._gone if gone is None else gone) else self._root
        return folder / f"{about.kind.value}-{about.id}.json"


def _by_age(folder: Path) -> list[Ref]:
    paths = sorted(folder.glob("*-*.json"), key=lambda p: p.stat().st_mtime_ns)
    parts = (path.stem.partition("-") for path in paths)
    return [Ref(Kind(kind), id_) for kind, _, id_ in parts if kind in {k.value for k in Kind}]
