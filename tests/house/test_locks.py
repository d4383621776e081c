"""The lock files make an install the same everywhere: exact versions, a hash for each, and no address to fetch from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest

from tests.house.repository import complain, files, read

LOCKS = ("requirements.lock", "requirements-dev.lock")
AGAIN = "Do not edit lock files: change pyproject.toml and run `make lock`."

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
# By a statement, or by name where that saves a start time.
_LOADED = r"^\s*(?:import|from) {0}\b|(?:import_module|find_spec)\(\"{0}\b"
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(text: str) -> Iterator[str]:
    """Each requirement as one line."""
    joined = text.replace("\\\n", " ")
    return (line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def pins(text: str) -> dict[str, str]:
    found = (PIN.match(entry) for entry in entries(text))
    return {canonical(match[1]): match[2] for match in found if match}


def faults(text: str) -> Iterator[str]:
    for entry in entries(text):
        if not PIN.match(entry):
            yield f"not an exact version: {entry}"
        elif not HASH.search(entry):
            yield f"no hash: {entry}"
        elif "://" in entry or "index" in entry.split("--hash", 1)[0]:
            yield f"an address: {entry}"


def asked_for(*groups: str) -> set[str]:
    project = tomllib.loads(read("pyproject.toml") or "")
    wanted = list(project["project"]["dependencies"])
    for group in groups:
        wanted += project["dependency-groups"][group]
    return {canonical(re.split(r"[\s<>=!~;\[]", one, maxsplit=1)[0]) for one in wanted}


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_carries_a_hash_and_no_address(name: str) -> None:
    complain(faults(read(name) or "missing"), f"{name}: {AGAIN}")


def test_all_that_is_asked_for_is_locked() -> None:
    run, dev = (set(pins(read(name) or "")) for name in LOCKS)
    complain(asked_for("build") - run, f"Asked for in pyproject.toml, and not in requirements.lock. {AGAIN}")
    complain(asked_for("build", "dev") - dev, f"Asked for in pyproject.toml, and not in requirements-dev.lock. {AGAIN}")


def test_what_users_install_is_what_the_program_imports() -> None:
    """What only tests need is asked for in the group `dev`."""
    named = {"pyyaml": "yaml", "qemu-qmp": "qemu.qmp"}
    source = "\n".join(read(name) or "" for name in files() if name.startswith("src/") and name.endswith(".py"))
    unused = (
        name
        for name in asked_for()
        if not re.search(_LOADED.format(re.escape(named.get(name, name.replace("-", "_")))), source, re.M)
    )
    complain(unused, "Nothing in src imports these dependencies: ask for them in another group, or not at all.")


def test_tests_run_with_what_users_run() -> None:
    run, dev = (pins(read(name) or "") for name in LOCKS)
    differing = (f"{name}: {version} and {dev.get(name)}" for name, version in run.items() if dev.get(name) != version)
    complain(differing, f"The two lock files disagree. {AGAIN}")


GOOD = "a.b==1.0 ; python_version < '3.12' \\\n    --hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        "a>=1.0",
        "a==1.0",
        "a==1.0 --hash=sha256:12",
        "--index-url https://example.org/simple\n" + GOOD,
        "a @ https://e.org/a",
    ],
)
def test_faults_are_found(text: str) -> None:
    assert list(faults(text))


def test_a_good_lock_has_none() -> None:
    assert not list(faults("# made by make lock\n" + GOOD))
    assert pins(GOOD) == {"a-b": "1.0"}
