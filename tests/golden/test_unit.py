"""What systemd is told about the daemon."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from innkeeper.main.boot import CannotReturn, return_at_boot, unit, unit_name
from innkeeper.main.place import DATA_FOLDER, Place


def test_the_daemon_of_one_machine() -> None:
    text = unit(Path("/opt/inn keeper/.venv/bin/inn"), Place(DATA_FOLDER))
    assert 'ExecStart="/opt/inn keeper/.venv/bin/inn" serve --data "/var/lib/innkeeper"\n' in text
    assert unit_name(Place(DATA_FOLDER)) == "innkeeper.service"


def test_signs_that_systemd_would_read_are_quoted() -> None:
    assert '--data "/srv/50%%/a\\"b/$$HOME"\n' in unit(Path("/inn"), Place(Path('/srv/50%/a"b/$HOME')))


def test_installations_have_units_of_their_own(tmp_path: Path) -> None:
    names = {unit_name(Place(path)) for path in (DATA_FOLDER, tmp_path / "a", tmp_path / "b")}
    assert len(names) == 3


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
