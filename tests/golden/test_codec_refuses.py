"""What the codec does with text that is damaged or from a later release."""

from __future__ import annotations

import json

import pytest

from innkeeper.model.codec import VERSION, NotReadable, decode, encode, plain
from innkeeper.model.instance import Size
from innkeeper.model.plans import Refusal, Why

SIZE = Size(vcpus=1, memory_mib=2, disk_gib=3)


def test_later_versions_are_named() -> None:
    text = json.dumps({"v": VERSION + 1, "b": {}})
    with pytest.raises(NotReadable, match=f"version {VERSION + 1}.*upgrade"):
        decode(text, Size)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v":1}', '{"v":1,"b":{"vcpus":"many"}}', '{"v":null,"b":{}}'])
def test_damage_is_told_with_what_was_expected(text: str) -> None:
    with pytest.raises(NotReadable, match="Size"):
        decode(text, Size)


def test_unknown_fields_are_passed_over() -> None:
    body = {**plain(SIZE), "colour": "green"}
    assert decode(json.dumps({"v": 1, "b": body}), Size) == SIZE
    assert decode(encode(SIZE), Size) == SIZE


def test_a_refusal_reads_as_sentences() -> None:
    assert str(Refusal(why=Why.BUSY, reason="web is held")) == "web is held"
    assert str(Refusal(why=Why.BUSY, reason="web is held", hint="Wait")) == "web is held. Wait"
