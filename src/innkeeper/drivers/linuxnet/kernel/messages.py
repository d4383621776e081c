"""pyroute2's message classes, without the rest of pyroute2.

`import pyroute2` loads all that the library can do, a database of links and a file server among it: 160 modules, which
hold 8 MiB for as long as the daemon lives. The classes stand in modules of their own that need none of that, so the
package is entered here without being run. Nothing else of it can be imported in this process; nothing else is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

if (_SPEC := importlib.util.find_spec("pyroute2")) is None:
    raise ModuleNotFoundError("No module named 'pyroute2'", name="pyroute2")
sys.modules.setdefault("pyroute2", importlib.util.module_from_spec(_SPEC))


def _message(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"pyroute2.netlink.rtnl.{module}"), name)


ifaddrmsg = _message("ifaddrmsg", "ifaddrmsg")
ifinfmsg = _message("ifinfmsg", "ifinfmsg")
rtmsg = _message("rtmsg", "rtmsg")
