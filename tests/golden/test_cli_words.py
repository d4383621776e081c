"""The words of the command line: every page of help, and lists and pages of a fixed world in every format."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from innkeeper.api.schemas import rfc3339
from innkeeper.cli import output
from innkeeper.cli.commands import instances, lists, operations, snapshots, templates
from innkeeper.cli.grammar.table import COMMANDS
from tests.contract.cli.running import Inn
from tests.golden.compare import same_as_golden

NOW = 1_767_225_600.0


def at(seconds: float) -> str:
    """As the API says it: so long after now."""
    return rfc3339(NOW + seconds)


WEB: dict[str, Any] = {
    "id": "i-3f09c2d41b7a",
    "name": "web",
    "project": "default",
    "host": "sim",
    "template": "debian-12:3",
    "size": {"vcpus": 2, "memory_mib": 1536, "disk_gib": 10},
    "wanted": "running",
    "status": "running",
    "reason": "",
    "since": at(-90),
    "agent": True,
    "cloud_init": "done",
    "addresses": ["10.1.2.3", "fe80::1"],
    "nics": [{"id": "nic-1", "network": "default", "mac": "52:54:00:00:00:01", "addresses": ["10.1.2.3"]}],
    "volumes": [{"id": "vol-1", "name": "web/root", "size_gib": 10}],
    "snapshots": 3,
    "over": "before",
    "warm": True,
    "cold": "",
    "autostart": True,
    "ephemeral": False,
    "created_at": at(-7300),
    "expires_at": at(86_400),
    "labels": {"team": "blue", "odd": 'a "b", c'},
    "operation": None,
    "generation": 4,
    "rates": {
        "at": at(0),
        "cpus": 0.25,
        "memory_mib": 300.5,
        "disk_read_bytes_per_s": 0.0,
        "disk_written_bytes_per_s": 2048.0,
        "net_received_bytes_per_s": 1.0,
        "net_sent_bytes_per_s": 5e6,
    },
}
DOWN = {
    **WEB,
    "id": "i-000000000002",
    "name": "a-rather-long-name-of-an-instance",
    "status": "crashed",
    "reason": "QEMU was killed by signal 9\x1b[2J",
    "agent": False,
    "cloud_init": "",
    "addresses": [],
    "size": {"vcpus": 1, "memory_mib": 64, "disk_gib": 1},
    "snapshots": 0,
    "over": "web/before",
    "warm": False,
    "cold": "the memory image has 256 MiB of memory, not 1024",
    "created_at": at(-12),
    "expires_at": None,
    "labels": {},
    "autostart": False,
    "operation": "op-5e328ff2ebd8",
    "rates": None,
}
SNAPSHOT: dict[str, Any] = {
    "id": "snap-6f1d2a90c3e4",
    "name": "before",
    "instance": "web",
    "project": "default",
    "host": "sim",
    "template": "debian-12:3",
    "status": "ready",
    "created_at": at(-7200),
    "size": {"vcpus": 2, "memory_mib": 1536, "disk_gib": 10},
    "stored_bytes": 700 << 20,
    "consistent": True,
    "parent": None,
    "current": True,
    "operation": None,
    "generation": 1,
}
CRASHED = {
    **SNAPSHOT,
    "id": "snap-000000000002",
    "name": "2025-12-31",
    "created_at": at(-4000),
    "stored_bytes": 3 << 20,
    "consistent": False,
    "parent": "before",
    "current": False,
}
TAKING = {
    **CRASHED,
    "id": "snap-000000000003",
    "name": "now",
    "status": "taking",
    "created_at": at(-1),
    "stored_bytes": None,
    "consistent": None,
    "operation": "op-5e328ff2ebd8",
}
TEMPLATE: dict[str, Any] = {
    "id": "t-e899a393ce89",
    "name": "debian-12",
    "version": 3,
    "origin": "built",
    "os": "Debian GNU/Linux 12 (bookworm)",
    "firmware": "direct",
    "digest": "d" * 64,
    "virtual_size_bytes": 2 << 30,
    "stored_bytes": 700 << 20,
    "agent": True,
    "cloud_init": True,
    "created_at": at(0),
    "default_size": {"vcpus": 1, "memory_mib": 512, "disk_gib": 8},
    "used_by": 2,
    "memory_images": [
        {
            "id": "mem-0123456789ab",
            "host": "cellar",
            "status": "ready",
            "size": {"vcpus": 1, "memory_mib": 512, "disk_gib": 8},
            "stored_bytes": 190 << 20,
            "digest": "sha256:0123",
            "clones": 1,
            "created_at": "2026-01-01T12:00:00.000Z",
        },
        {
            "id": "mem-ba9876543210",
            "host": "cellar",
            "status": "making",
            "size": {"vcpus": 1, "memory_mib": 512, "disk_gib": 8},
            "stored_bytes": None,
            "digest": None,
            "clones": 0,
            "created_at": "2026-01-01T12:00:00.000Z",
        },
    ],
    "generation": 1,
}
OPERATION: dict[str, Any] = {
    "id": "op-5e328ff2ebd8",
    "title": "launch web from debian-12:3",
    "state": "undoing",
    "principal": "root",
    "created_at": at(-60),
    "updated_at": at(-58.5),
    "steps": 4,
    "done": 1,
    "progress": 0.25,
    "doing": "",
    "error": "no room in the pool for disk vol-1",
    "hint": "Delete disks or templates, or add storage.",
    "cancel_wanted": False,
    "children": [],
    "plan": [
        {"number": 0, "state": "done", "words": "sim: write seed of web", "undo": "forget web"},
        {"number": 1, "state": "undone", "words": "sim: start web", "undo": "stop web by force"},
    ],
}


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 100 columns, at one moment, in one time zone."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("innkeeper.cli.times.time.time", lambda: NOW)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_help(capfd: pytest.CaptureFixture[str]) -> None:
    inn, families = Inn(capfd), dict.fromkeys(c.name.split()[0] for c in COMMANDS if " " in c.name)
    calls = ([], *([family] for family in families), *(c.name.split() for c in COMMANDS))
    pages = [f"$ inn {' '.join([*words, '--help'])}\n{inn.well(*words, '--help').rstrip()}\n" for words in calls]
    same_as_golden("cli/help.txt", "\n\n".join(pages))


@pytest.mark.parametrize("form", ["table", "json", "yaml", "csv"])
def test_a_list_of_instances(capsys: pytest.CaptureFixture[str], form: str) -> None:
    output.show_many([WEB, DOWN], lists.INSTANCES, form, "none")
    same_as_golden(f"cli/instances.{form}", said(capsys))


@pytest.mark.parametrize("form", ["table", "json", "yaml", "csv"])
def test_a_list_of_snapshots(capsys: pytest.CaptureFixture[str], form: str) -> None:
    output.show_many([SNAPSHOT, CRASHED, TAKING], lists.SNAPSHOTS, form, "none")
    same_as_golden(f"cli/snapshots.{form}", said(capsys))


def test_other_lists(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_many([TEMPLATE], lists.TEMPLATES, "table", "none")
    output.show_many([OPERATION], lists.OPERATIONS, "table", "none")
    same_as_golden("cli/lists.table", said(capsys))


def test_pages(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_one(WEB, instances.lines(WEB), "table")
    output.show_one(DOWN, instances.lines(DOWN), "table")
    for one in (SNAPSHOT, CRASHED, TAKING):
        output.show_one(one, snapshots.lines(one), "table")
    output.show_one(TEMPLATE, templates.lines(TEMPLATE), "table")
    output.show_one(OPERATION, operations.lines(OPERATION), "table")
    same_as_golden("cli/pages.table", said(capsys))


def test_a_page_as_csv_has_a_column_for_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_one(WEB, [], "csv")
    head, row = said(capsys).splitlines()
    assert "size.vcpus,size.memory_mib" in head
    # What not every row has stands in one column, or columns would come and go.
    assert "labels." not in head
    (whole,) = csv.DictReader(io.StringIO(f"{head}\n{row}\n"))
    assert json.loads(whole["labels"]) == WEB["labels"]
