"""Which user-data is let through, and what is said about the rest."""

from __future__ import annotations

import gzip

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from innkeeper.plan.intake.user_data import SIZE_BYTES_MAX, check_user_data

GOOD = (
    b"#cloud-config\n",
    b"#cloud-config\n{}\n",
    b"#cloud-config\npackages: [htop]\nruncmd:\n - [sh, -c, 'echo hi']\n",
    b"#cloud-config\r\npackages: [htop]\r\n",
    b"\n\n  #Cloud-Config\npackages: [htop]\n",
    b"#cloud-config\n---\npackages: [htop]\n",
    b"#cloud-config\nusers: &u [a]\ngroups: *u\n",
    b"#cloud-config\na: &a {x: 1}\nb: {<<: *a, y: 2}\n",
    b"#cloud-config\nwrite_files:\n- {path: /x, content: !!binary aGVsbG8=}\n",
    "#cloud-config\nhostname: größe\n".encode(),
    b"#cloud-config-archive\n- type: text/cloud-config\n  content: 'a: 1'\n",
    b"#cloud-config-jsonp\n[{}]",
    b"#!/bin/sh\necho hi\n",
    b"#!/usr/bin/env python3\n\xff\xfe",
    b"#include\nhttps://example.org/x\n",
    b"#include-once\nhttps://example.org/x\n",
    b"#cloud-boothook\n#!/bin/sh\n",
    b"#part-handler\n",
    b"## template: jinja\n#cloud-config\n{% if v1 %}a: [{% endif %}\n",
    b'Content-Type: multipart/mixed; boundary="=="\nMIME-Version: 1.0\n\n--==\n',
    b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=="\n\n--==\n',
    b"From nobody Fri Jan 11 07:00:00 1980\nContent-Type: text/x-shellscript\nMIME-Version: 1.0\n\n",
    gzip.compress(b"#cloud-config\n"),
)
BAD = (
    (b"#cloud-config\n!!set\n? a\n", "set"),
    (b"", "empty"),
    (b" \n\t\n", "empty"),
    (b"packages: [htop]\n", "first line"),
    (b"echo hi\n", "first line"),
    (b"\x00\x01\x02", "first line"),
    (b"# cloud-config\n", "first line"),
    (b"\xef\xbb\xbf#cloud-config\n", "byte order mark"),
    (b"Content-Type: multipart/mixed\n\n", "MIME-Version"),
    (b"#cloud-config\npackages: [htop\n", "line 3, column 1"),
    (b"#cloud-config\npackages:\n\t- htop\n", "line 3, column 1"),
    (b"#cloud-config\na: b: c\n", "line 2, column 5"),
    (b"#cloud-config\na: 'open\n", "line 3"),
    (b"#cloud-config\na: *nobody\n", "line 2, column 4"),
    (b"#cloud-config\na: !vault x\n", "!vault"),
    (b"#cloud-config\n!!python/object/apply:os.system ['id']\n", "mapping"),
    (b"#cloud-config\na: !!python/object/apply:os.system ['id']\n", "python/object"),
    (b"#cloud-config\n? [a]\n: b\n", "line 2"),
    (b"#cloud-config\n- packages\n", "mapping"),
    (b"#cloud-config\njust words\n", "mapping"),
    (b"#cloud-config-archive\na: 1\n", "list"),
    (b"#cloud-config\na: 1\n---\nb: 2\n", "2 YAML documents"),
    (b"#cloud-config\nday: 2026-02-31\n", "date"),
    (b"#cloud-config\nn: !!int no\n", "!!int"),
    (b"#cloud-config\nn: !!bool perhaps\n", "type"),
    (b"#cloud-config\nn: !!timestamp later\n", "type"),
    (b"#cloud-config\nn: !!int ''\n", "type"),
    (b"#cloud-config\nname: gr\xf6\xdfe\n", "byte 23"),
    (b"#cloud-config\nbell: \x07\n", "YAML"),
    (b"#cloud-config\na: " + b"[" * 200_000, "levels"),
    (b"#cloud-config\na: &a 1\nb: [" + b"*a, " * 2000 + b"]\n", "aliases"),
    (b"#!/bin/sh\n" + b"#" * SIZE_BYTES_MAX, "more than"),
    # A mebibyte that is let through by its size, and takes seconds, minutes and for ever to load.
    (b"#cloud-config\na: [" + b"1," * (SIZE_BYTES_MAX // 2 - 20) + b"1]\n", "more than 50000 values"),
    (b"#cloud-config\na: 1" + b":1" * (SIZE_BYTES_MAX // 2 - 20) + b"\n", "a number of 1048537 characters"),
    (b"#cloud-config\na: !!int '1" + b":1" * 1000 + b"'\n", "a number of 2001 characters"),
    (b"#cloud-config\nk: &k {%s<<: [*k, *k, *k]}\n" % b"".join(b"k%d: 1, " % n for n in range(9000)), "within what"),
)


@pytest.mark.parametrize("data", GOOD, ids=range(len(GOOD)))
def test_good(data: bytes) -> None:
    assert check_user_data(data) is None


@pytest.mark.parametrize("data,says", BAD, ids=range(len(BAD)))
def test_bad(data: bytes, says: str) -> None:
    problem = check_user_data(data)
    assert problem is not None
    assert says in problem
    assert problem.isprintable()


def test_merges_cannot_multiply() -> None:
    """Each line doubles the one before: 2^40 entries, were they built."""
    lines = ["#cloud-config", "k0: &k0 {a: 1}"]
    lines += [f"k{n}: &k{n} {{<<: [*k{n - 1}, *k{n - 1}]}}" for n in range(1, 40)]
    problem = check_user_data("\n".join(lines).encode())
    assert problem is not None
    assert "aliases" in problem


def test_aliases_count_as_what_they_stand_for() -> None:
    """Each line is three times the one before, in few aliases: thirty of them would be 3^10 times the first."""
    first = ", ".join(f"k{n}: 1" for n in range(1000))
    lines = ["#cloud-config", f"k0: &k0 {{{first}}}"]
    lines += [f"k{n}: &k{n} {{<<: [*k{n - 1}, *k{n - 1}, *k{n - 1}]}}" for n in range(1, 10)]
    assert check_user_data("\n".join(lines[:3]).encode()) is None
    problem = check_user_data("\n".join(lines).encode())
    assert problem is not None
    assert "more than 50000 values" in problem


def test_text_that_looks_like_a_long_number_is_text() -> None:
    quoted = b"#cloud-config\na: '1%s'\nb: |\n  1%s\n" % (b":1" * 2000, b":1" * 2000)
    assert check_user_data(quoted) is None


def test_a_problem_never_repeats_a_secret() -> None:
    for data in (
        b"password: hunter2\n",
        b"#cloud-config\npassword: 'hunter2\n",
        b"#cloud-config\npassword: hunter2: x\n",
        b"#cloud-config\nn: !!int hunter2\n",
        b"#cloud-config\nn: !!float hunter2\n",
        b"#cloud-config\nn: !!binary hunter2hunter2*\n",
        b"#cloud-config\nhunter2\n",
    ):
        problem = check_user_data(data)
        assert problem is not None
        assert "hunter2" not in problem


def loaded_if_possible(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError):
        return None


def test_a_large_one_is_loaded_too() -> None:
    head = b"#cloud-config\n" + b"".join(b"k%d: some words\n" % n for n in range(5000))
    assert check_user_data(head) is None
    problem = check_user_data(head + b"day: 2026-02-31\n")
    assert problem is not None
    assert "date" in problem


PIECES = [
    "a",
    ": ",
    "\n",
    "  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&x ",
    "*x ",
    "<<",
    "!!int ",
    "!!set ",
    "'",
    '"',
    "|",
    ">",
]
PIECES += ["? ", "2026-01-99", "1e3", "0o9", "!!omap ", "!!pairs ", "%", "#", "\t", "---\n", "~"]
YAML_PIECES = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@settings(max_examples=600, deadline=None)
@given(body=YAML_PIECES)
def test_what_is_let_through_is_what_cloud_init_can_load(body: str) -> None:
    data = f"#cloud-config\n{body}"
    if check_user_data(data.encode()) is None:
        loaded = yaml.safe_load(data)
        assert loaded is None or loaded == "" or isinstance(loaded, dict)
    else:
        assert not isinstance(loaded_if_possible(data), dict)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_crash_it(data: bytes) -> None:
    check_user_data(data)
    check_user_data(b"#cloud-config\n" + data)
