"""The commands that a newcomer types first: they can be run, and hold no mistake that shellcheck knows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.repository import ROOT, complain, files, read

COMMANDS = ("run", "check", ".ci/run")


def shell_scripts() -> list[str]:
    return [
        name
        for name in files()
        if name.endswith(".sh")
        or ("." not in name.rsplit("/", 1)[-1] and is_shell((read(name) or "").split("\n", 1)[0]))
    ]


def is_shell(first_line: str) -> bool:
    return re.match(r"#!\S*/(env )?(ba)?sh\b", first_line) is not None


def test_commands_can_be_run() -> None:
    stuck = (name for name in COMMANDS if not os.access(ROOT / name, os.X_OK))
    complain(stuck, "These are commands: chmod +x, and commit the mode.")


def test_shell_scripts_hold_no_known_mistake() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed; ./check and `make dev` install it")
    scripts = shell_scripts()
    assert {"run", "check", "scripts/prepare.sh"} <= set(scripts)
    done = subprocess.run(
        ["shellcheck", "--external-sources", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"shellcheck found mistakes:\n{done.stdout}{done.stderr}", pytrace=False)


def test_what_needs_root_is_done_by_sudo() -> None:
    """A user who may use sudo, on a machine where everything but the group is there."""
    pretended = 'id() { echo 1000; }; sudo() { echo sudo "$@"; }; getent() { return 2; }; '
    prepared = "install_packages() { :; }; prepare_environment() { :; }; "
    words = f". scripts/prepare.sh; {pretended}{prepared}prepare run"
    done = subprocess.run(["bash", "-c", words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sudo groupadd --system innkeeper\n", "")


def test_shell_is_known_by_its_first_line() -> None:
    assert all(is_shell(line) for line in ("#!/bin/sh", "#!/usr/bin/env bash", "#!/bin/sh -e", "#!/usr/bin/bash"))
    assert not any(is_shell(line) for line in ("#!/usr/bin/env python3", "#!/bin/shred", "sh", ""))


GOOD = '<testcase name="good"/>'
TORN = '<testcase name="torn"><failure message="no"/><error message="no"/></testcase>'
LEFT_OUT = '<testcase name="left out"><skipped type="pytest.skip" message="no /dev/kvm"/></testcase>'


@pytest.mark.parametrize(
    "steps, cases, count, last_line, exit_code",
    [
        ("lint\t0\t1\nfast\t0\t2\nnet\t5\t1\n", GOOD + LEFT_OUT, 2, "1 passed, 0 failed, 1 skipped", 0),
        ("lint\t1\t1\nfast\t0\t2\n", GOOD + LEFT_OUT, 2, "1 passed, 0 failed, 1 skipped", 1),
        ("lint\t0\t1\nfast\t1\t2\n", GOOD + TORN + LEFT_OUT, 3, "1 passed, 1 failed, 1 skipped", 1),
        # Stopped in the middle of a test, which then has an entry as if it had passed, and is not in the count.
        ("fast\t124\t2\n", GOOD + LEFT_OUT + GOOD, 2, "1 passed, 1 failed, 1 skipped", 1),
        ("fast\t5\t2\n", LEFT_OUT, 1, "0 passed, 0 failed, 1 skipped", 1),
    ],
    ids=["all is well", "lint failed", "a test failed", "stopped", "no test at all"],
)
def test_the_last_page_of_check_counts_what_was(
    tmp_path: Path, steps: str, cases: str, count: int, last_line: str, exit_code: int
) -> None:
    (tmp_path / "steps.tsv").write_text(steps)
    (tmp_path / "fast.xml").write_text(f'<testsuites><testsuite tests="{count}">{cases}</testsuite></testsuites>')
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/check_summary.py", tmp_path],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == last_line, done.stderr
    assert "    1  no /dev/kvm\n" in done.stdout
    assert done.returncode == exit_code
