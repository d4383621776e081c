"""Rules on the host that are not ours: other installations' and other firewalls'."""

from __future__ import annotations

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.host import foreign
from innkeeper.drivers.linuxnet.kernel.nft import Nft, NftRefused
from innkeeper.drivers.linuxnet.settings import NetFailed


class Neighbours:
    def __init__(self, nft: Nft, tag: str) -> None:
        self._nft, self._tag = nft, tag

    def guarded(self, *, with_ours: bool) -> set[str]:
        """Interfaces that installations on this host opened, by their rules."""
        found: set[str] = set()
        for table in filter(names.is_table, self._tables()):
            if with_ours or table != self._tag:
                for item in self._nft.show(f"list set inet {table} opened"):
                    found.update(item.get("set", {}).get("elem", ()))
        return found

    def let_us_pass(self) -> None:
        """No firewall of others drops what our networks send and are answered. May be repeated.

        Raises:
            NetFailed: one would, and lets us add no rule.
        """
        text = ""
        for chain in foreign.base_chains(self._nft.show("list chains")):
            listed = self._nft.show(f"list chain {chain.words}")
            where = foreign.place(chain, listed)
            there = listed if where == chain else self._nft.show(f"list chain {where.words}")
            text += foreign.correction(self._tag, where, there, foreign.stops(self._tag, chain, listed))
        if not text:
            return
        try:
            self._nft.run(text)
        except NftRefused as refused:
            raise NetFailed(
                f"Another firewall drops what guests send and lets us add no rule ({refused}). With firewalld, run "
                f"`firewall-cmd --permanent --zone=trusted --add-interface={self._tag}-+` and `firewall-cmd --reload`."
            ) from refused

    def forget_us(self) -> None:
        """No rule of ours stands anywhere on the host, in no table. May be repeated."""
        text = foreign.removal(self._tag, self._nft.show("list ruleset"))
        text += f"delete table inet {self._tag}\n" if self._tag in self._tables() else ""
        if text:
            self._nft.run(text)

    def _tables(self) -> set[str]:
        return {item["table"]["name"] for item in self._nft.show("list tables inet") if "table" in item}
