"""Which QEMU this is and what it can do: asked of the program itself, in one run of a moment."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

MINIMUM = (7, 2)
# A first run reads 20 MiB of program from the disk; a host that is busy besides takes its time.
ASK_TIMEOUT_S = 20.0
QUESTIONS = ("qmp_capabilities", "query-version", "query-machines", "query-command-line-options", "quit")


class QemuUnusable(Exception):
    """There is no QEMU, or not one that machines can be given to; the text says what to install."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuFacts:
    """`version` as numbers, `text` as the distribution names it; `machine_type` is the newest versioned q35."""

    binary: str
    version: tuple[int, int, int]
    text: str
    machine_type: str


async def probe_qemu(binary: str) -> QemuFacts:
    """Ask it.

    Raises:
        QemuUnusable: it is missing, does not run, is too old, or was built without what we rely on.
    """
    answers = await _ask(binary)
    try:
        version, machines, options = (answers[name] for name in QUESTIONS[1:4])
        numbers = version["qemu"]
        found = (int(numbers["major"]), int(numbers["minor"]), int(numbers["micro"]))
    except (KeyError, ValueError, TypeError) as error:
        raise QemuUnusable(f"{binary} does not answer as QEMU does: {error!r}") from error
    text = ".".join(map(str, found)) + (f" {version['package']}" if version.get("package") else "")
    if found[:2] < MINIMUM:
        raise QemuUnusable(f"{binary} is QEMU {text}, and 7.2 or later is needed: install a newer qemu-system-x86")
    if "sandbox" not in {option["option"] for option in options}:
        raise QemuUnusable(f"{binary} was built without seccomp, so machines could not be confined: install another")
    return QemuFacts(binary=binary, version=found, text=text, machine_type=newest_q35(m["name"] for m in machines))


def newest_q35(names: Any) -> str:
    """Of the machine types that never change, the newest. Distributions' own (pc-q35-noble) are left alone."""
    matches = [re.fullmatch(r"pc-q35-(\d+)\.(\d+)(?:\.(\d+))?", name) for name in names]
    versions = {tuple(int(n or 0) for n in m.groups()): m.string for m in matches if m is not None}
    if not versions:
        raise QemuUnusable("this QEMU has no versioned q35 machine: install qemu-system-x86")
    return versions[max(versions)]


async def _ask(binary: str) -> dict[str, Any]:
    words = [binary, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"]
    pipe = asyncio.subprocess.PIPE
    try:
        program = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise QemuUnusable(f"QEMU cannot be run: {binary}: {error.strerror}. Install qemu-system-x86") from error
    text = "".join(json.dumps({"execute": name, "id": name}) + "\n" for name in QUESTIONS)
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            said, complaint = await program.communicate(text.encode())
    except TimeoutError:
        program.kill()
        await program.wait()
        raise QemuUnusable(f"{binary} did not say its version in {ASK_TIMEOUT_S:g} s") from None
    try:
        lines = [json.loads(line) for line in said.splitlines()]
    except ValueError as error:
        raise QemuUnusable(f"{binary} does not answer as QEMU does: {error}") from error
    answers = {line["id"]: line["return"] for line in lines if "return" in line and "id" in line}
    if program.returncode != 0 or len(answers) < len(QUESTIONS):
        last = complaint.decode(errors="replace").strip()[-300:]
        raise QemuUnusable(f"{binary} ended with code {program.returncode} when asked for its version: {last}")
    return answers
