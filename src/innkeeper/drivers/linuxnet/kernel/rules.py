"""nftables rules as a value: what is to stand in one namespace, and the words that bring it about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A whole: `base` makes tables with empty sets, removing what stood before; `elements` fill them.

    `elements` maps a set, as `family table name`, to its members in nft's own words.
    """

    base: str
    elements: Mapping[str, frozenset[str]]

    def text(self) -> str:
        return self.base + "".join(_elements("add", name, members) for name, members in sorted(self.elements.items()))

    def since(self, older: Rules) -> str:
        """What turns `older` into this, given the same base."""
        words = []
        for name, members in sorted(self.elements.items()):
            words.append(_elements("delete", name, older.elements[name] - members))
            words.append(_elements("add", name, members - older.elements[name]))
        return "".join(words)


def _elements(verb: str, name: str, members: frozenset[str]) -> str:
    return f"{verb} element {name} {{ {', '.join(sorted(members))} }}\n" if members else ""
