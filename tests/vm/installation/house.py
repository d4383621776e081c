"""A whole installation: its daemon, what is said to it over its socket and by `inn`, and its end.

What it leaves on the machine is found by looking, past the daemon: processes by their mark, files, namespaces, taps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from innkeeper.drivers.qemu.hand import kill_stray, strays
from innkeeper.main.remove import without_networks
from tests.vm.installation.process import INN, Process

WORK_S, BOOT_S = 180.0, 240.0  # two and four, on a quiet machine


class Problem(Exception):
    """What the daemon refuses, with its words."""

    def __init__(self, status: int, said: dict[str, Any]) -> None:
        super().__init__(f"{status}: {said.get('detail')} ({said.get('hint')})")
        self.status = status
        self.detail: str = said.get("detail", "")
        self.hint: str = said.get("hint", "")


class Failed(Exception):
    """An operation did not succeed; the text is its error."""


class Spoken(Process):
    """Spoken to over its socket, and by `inn`."""

    def inn(self, *words: str, stdin: bytes = b"", timeout_s: float = BOOT_S) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*INN, *words], env=self.environment(), input=stdin, capture_output=True, timeout=timeout_s, check=False
        )

    def said_in(self, name: str, *command: str) -> str:
        """What a command in the guest says; it must succeed."""
        ran = self.inn("exec", name, "--", *command)
        assert ran.returncode == 0, (command, ran)
        return ran.stdout.decode().strip()

    def get(self, path: str, /, **query: Any) -> Any:
        return self._ask("GET", path, None, query)

    def post(self, path: str, /, **body: Any) -> Any:
        return self._ask("POST", path, body, {})

    def delete(self, path: str, /, **query: Any) -> Any:
        return self._ask("DELETE", path, None, query)

    def _ask(self, method: str, path: str, body: Any, query: dict[str, Any]) -> Any:
        headers = {"idempotency-key": uuid.uuid4().hex} if method == "POST" else {}
        transport = httpx.HTTPTransport(uds=str(self.place.socket))
        with httpx.Client(transport=transport, base_url="http://inn", timeout=BOOT_S + 30) as client:
            answer = client.request(method, f"/v1{path}", json=body, params=query, headers=headers)
        if answer.status_code >= 400:
            raise Problem(answer.status_code, answer.json())
        return json.loads(answer.content) if answer.content else None


class House(Spoken):
    """With what tests do most, and wait for."""

    def start(self, **env: str) -> None:
        """Until it answers, and its host has said what it is."""
        super().start(**env)
        until = time.monotonic() + WORK_S
        while [host["status"] for host in self.get("/hosts")["items"]] != ["ready"]:
            assert time.monotonic() < until, self.said()
            time.sleep(0.05)

    def ended(self, operation: dict[str, Any]) -> dict[str, Any]:
        """The operation once it has ended, however it ended."""
        until = time.monotonic() + WORK_S
        while operation["state"] not in ("succeeded", "failed", "cancelled"):
            assert time.monotonic() < until, (operation, self.said())
            operation = dict(self.get(f"/operations/{operation['id']}/wait", timeout_s=20))
        return operation

    def quiet(self) -> None:
        """Waits until nothing is under way, which the background may have begun by itself."""
        for operation in self.get("/operations", limit=100)["items"]:
            self.ended(operation)

    def do(self, operation: dict[str, Any]) -> dict[str, Any]:
        """The operation once it has succeeded."""
        ended: dict[str, Any] = self.ended(operation)
        if ended["state"] != "succeeded":
            raise Failed(f"{ended['title']}: {ended['error']}")
        return ended

    def launch(self, name: str, template: str = "tiny", **wish: Any) -> dict[str, Any]:
        """An instance whose guest answers."""
        self.do(self.post("/instances", template=template, name=name, **wish))
        return dict(self.until(name, "agent"))

    def until(self, name: str, what: str) -> Any:
        try:
            return self.get(f"/instances/{name}/wait", **{"for": what, "timeout_s": BOOT_S})
        except Problem as problem:
            problem.add_note(self.inn("logs", name).stdout.decode(errors="replace")[-4000:])
            raise

    def power(self, name: str, verb: str, **body: Any) -> dict[str, Any]:
        return self.do(self.post(f"/instances/{name}/{verb}", **body))

    def remove(self, *names: str) -> None:
        for operation in [self.delete(f"/instances/{name}", force="true") for name in names]:
            self.do(operation)

    def show(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.get(f"/instances/{name}")
        return shown

    def instances(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("/instances")["items"]
        return items

    def seen(self, name: str, status: str) -> dict[str, Any]:
        """The instance once it shows this status."""
        until = time.monotonic() + WORK_S
        while (shown := self.show(name))["status"] != status:
            assert time.monotonic() < until, (shown, self.said())
            time.sleep(0.1)
        return shown

    def pid(self, name: str) -> int:
        """Of the instance's QEMU."""
        instance = self.show(name)["id"]
        (pid,) = (s.pid for s in strays(self.place.data / "machines", ()) if s.instance == instance)
        return pid


def end_processes(house: House) -> None:
    house.kill()
    for stray in strays(house.place.data / "machines", ()):
        kill_stray(stray)


def clear_away(house: House) -> None:
    """Everything of an installation, also after a test that failed halfway."""
    end_processes(house)
    asyncio.run(without_networks(house.place))
    shutil.rmtree(house.place.data, ignore_errors=True)
    house.log.unlink(missing_ok=True)


@contextlib.contextmanager
def installation(word: str) -> Iterator[House]:
    """With an empty data directory; its daemon is not started yet."""
    # Not below pytest's own folder: only root may enter that, and dnsmasq and QEMU are somebody else.
    # Nearly as long as it may be: below it are sockets whose paths are longer still.
    prefix = f"innkeeper-{word}-"
    data = Path(tempfile.mkdtemp(prefix=prefix + "x" * (100 - len(f"/tmp/{prefix}12345678/api.sock"))))
    data.chmod(0o711)
    house = House(data)
    try:
        yield house
        house.end()
    finally:
        clear_away(house)
