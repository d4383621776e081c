"""The one codec of plan rows, orders and reports: frozen values to JSON text and back, versioned.

Unions carry the class name in `_type`. A reader ignores fields it does not know, and a field that is missing takes its
default: so a newer release reads an older one's rows. Each release keeps golden rows that later ones must still decode.
A change that this rule cannot bridge raises VERSION and adds an upgrade from the version before.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar, get_args

from cattrs.preconf.json import make_converter
from cattrs.strategies import configure_tagged_union

from innkeeper.model import actions, hardware, observed, plans, work

VERSION = 1
T = TypeVar("T")

_converter = make_converter()
_UNIONS = (hardware.Device, actions.Action, plans.Noun, plans.Change, observed.State, observed.Report, work.Outcome)
for _union in _UNIONS:
    configure_tagged_union(_union, _converter)


def _structure_undo(value: Any, _: Any) -> Any:
    if isinstance(value, str):
        return plans.NoUndo(value)
    return _converter.structure(value, actions.Action)  # type: ignore[arg-type]


def _unstructure_undo(value: Any) -> Any:
    if isinstance(value, plans.NoUndo):
        return value.value
    return _converter.unstructure(value, actions.Action)


_converter.register_structure_hook_func(lambda t: t == (actions.Action | plans.NoUndo), _structure_undo)
_converter.register_unstructure_hook_func(lambda t: t == (actions.Action | plans.NoUndo), _unstructure_undo)


class NotReadable(ValueError):
    """Stored or received text is of a later version than this program, or is damaged."""


def encode(value: object, as_type: Any = None) -> str:
    """JSON text of a value; `as_type` is the union it belongs to, where the reader will expect one."""
    body = _converter.unstructure(value, as_type or type(value))
    return json.dumps({"v": VERSION, "b": body}, separators=(",", ":"))


def decode(text: str | bytes, as_type: type[T]) -> T:
    """The value again.

    Raises:
        NotReadable: the text is damaged, or was written by a later version.
    """
    try:
        envelope = json.loads(text)
        if envelope["v"] > VERSION:
            raise NotReadable(f"written as version {envelope['v']}, this program reads up to {VERSION}: upgrade it")
        return _converter.structure(envelope["b"], as_type)
    except NotReadable:
        raise
    except Exception as error:
        names = [a.__name__ for a in get_args(as_type)] or as_type
        raise NotReadable(f"cannot be read as {names}: {error!r}") from error


def plain(value: object, as_type: Any = None) -> Any:
    """The value as lists, dicts and scalars, for edges that show it."""
    return _converter.unstructure(value, as_type or type(value))
