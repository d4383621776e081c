"""A daemon whose template tiny has a memory image, for the tests of clones here that need one."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.vm.built import built_image
from tests.vm.installation.house import House, installation
from tests.vm.installation.template import put_template

_NEEDED = ("qemu-system-x86_64", "qemu-img", "dnsmasq")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip("needs root: users, namespaces and taps" if not missing else f"{', '.join(missing)} not installed")
    with installation("warm") as made:
        asyncio.run(put_template(made.place, "tiny", built_image("tiny")))
        made.start()
        made.do(made.post("/templates/tiny/warm"))
        yield made
