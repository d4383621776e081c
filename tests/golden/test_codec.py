"""The golden rows of every release still decode to the same values, and this release writes its own as they stand.

`codec/<release>` holds what that release wrote. REWRITE_GOLDEN=1 writes the present release's anew, never an older
one's: once a release is out, machines and databases hold rows like these.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest

from innkeeper.model import actions, hardware, observed, plans, work
from innkeeper.model.codec import VERSION, NotReadable, decode, encode, plain
from innkeeper.model.plans import Plan
from tests.golden.codec_samples import INSTANCE, MACHINE, PLAN, SAMPLES

FOLDER = Path(__file__).parent / "codec"
PRESENT = "0.1"


def _written(value: object, as_type: Any) -> str:
    """Broken into lines, so that a difference can be reviewed."""
    return json.dumps(json.loads(encode(value, as_type)), indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", SAMPLES)
def test_this_release_writes_its_golden_rows(name: str) -> None:
    path = FOLDER / PRESENT / f"{name}.json"
    text = _written(*SAMPLES[name])
    if os.environ.get("REWRITE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing: run once with REWRITE_GOLDEN=1 and look at what it says"
    assert text == path.read_text()


ROWS = sorted(path for path in FOLDER.glob("*/*.json"))


@pytest.mark.parametrize("path", ROWS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_rows_still_decode(path: Path) -> None:
    value, as_type = SAMPLES[path.stem]
    assert decode(path.read_text(), as_type) == value


@pytest.mark.parametrize("name", SAMPLES)
def test_there_and_back(name: str) -> None:
    value, as_type = SAMPLES[name]
    assert decode(encode(value, as_type), as_type) == value
    assert plain(value, as_type) == json.loads(encode(value, as_type))["b"]


@pytest.mark.parametrize(
    "union", [actions.Action, plans.Noun, observed.Report, work.Outcome, plans.Change, hardware.Device, observed.State]
)
def test_every_kind_has_its_row(union: Any) -> None:
    seen: set[type] = set()

    def walk(value: object) -> None:
        seen.add(type(value))
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                walk(getattr(value, field.name))
        elif isinstance(value, tuple):
            for part in value:
                walk(part)

    for value, _ in SAMPLES.values():
        walk(value)
    assert set(get_args(union)) <= seen


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_fill_every_field(name: str) -> None:
    """A field left at its default would not show whether it is written at all."""
    value, _ = SAMPLES[name]
    assert dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value):
        if field.default is not dataclasses.MISSING:
            assert getattr(value, field.name) != field.default, f"{name}: {field.name}"


def test_fields_of_a_newer_release_are_ignored_and_missing_ones_take_their_default() -> None:
    body = json.loads(encode(MACHINE))
    body["b"]["mood"] = "fine"
    del body["b"]["pid"]
    assert decode(json.dumps(body), observed.MachineState) == dataclasses.replace(MACHINE, pid=None)


def test_a_newer_version_is_told() -> None:
    text = encode(PLAN).replace(f'"v":{VERSION}', f'"v":{VERSION + 1}', 1)
    with pytest.raises(NotReadable, match=f"written as version {VERSION + 1}, this program reads up to {VERSION}"):
        decode(text, Plan)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        '{"v":1}',
        '{"v":1,"b":{"_type":"Sing","instance":"i-1"}}',
        '{"v":1,"b":{"_type":"PauseMachine"}}',
    ],
)
def test_damaged_text_is_told(text: str) -> None:
    with pytest.raises(NotReadable, match=r"cannot be read as .*PauseMachine"):
        decode(text, actions.Action)  # type: ignore[arg-type]
    with pytest.raises(NotReadable, match=r"cannot be read as .*Plan"):
        decode(text, Plan)


def test_values_without_a_union_need_no_type() -> None:
    assert decode(encode(actions.PauseMachine(instance=INSTANCE)), actions.PauseMachine).instance == INSTANCE
