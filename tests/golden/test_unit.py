"""What systemd is told about the daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from innkeeper.cli.line import DATA
from innkeeper.main.boot import CannotReturn, return_at_boot, unit, unit_name
from innkeeper.main.place import Place


def test_the_daemon_of_one_machine() -> None:
    text = unit(Path("/opt/inn keeper/.venv/bin/inn"), Place(Path(DATA)))
    assert 'ExecStart="/opt/inn keeper/.venv/bin/inn" serve --data "/var/lib/innkeeper"\n' in text
    assert unit_name(Place(Path(DATA))) == "innkeeper.service"


def test_signs_that_systemd_would_read_are_quoted() -> None:
    assert '--data "/srv/50%%/a\\"b/$$HOME"\n' in unit(Path("/inn"), Place(Path('/srv/50%/a"b/$HOME')))


def test_installations_have_units_of_their_own(tmp_path: Path) -> None:
    names = {unit_name(Place(path)) for path in (Path(DATA), tmp_path / "a", tmp_path / "b")}
    assert len(names) == 3


def test_a_unit_is_found_again_without_the_variable_that_chose_its_folder(tmp_path: Path) -> None:
    """Also, whoever removes one of two installations does not take the other's unit."""
    code = "import sys; from innkeeper.main.boot import *; print(unit_name(Place(Path(sys.argv[1]))))"
    source = str(Path(sys.modules["innkeeper.main.boot"].__file__ or "").parents[2])
    names = {
        subprocess.run(
            (sys.executable, "-c", code, tmp_path),
            env={k: v for k, v in os.environ.items() if k != "INN_DATA"} | {"PYTHONPATH": source} | chosen,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for chosen in ({}, {"INN_DATA": str(tmp_path)})
    }
    assert names == {unit_name(Place(tmp_path)) + "\n"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_accepts_it(tmp_path: Path) -> None:
    file = tmp_path / "innkeeper.service"
    file.write_text(unit(Path("/bin/true"), Place(tmp_path / 'a "b" $c %d')))
    said = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs this machine, and would take the unit")
def test_elsewhere_it_is_said_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CannotReturn, match=r"not run by systemd.*/inn serve --data .* as root at boot"):
        return_at_boot(Path("/inn"), Place(tmp_path), start=False)
