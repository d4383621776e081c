"""What guards an installation before anything is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from innkeeper.main.place import CannotServe, Place
from innkeeper.main.serve import _token
from innkeeper.model.cluster import Cluster
from innkeeper.model.codec import encode
from innkeeper.model.ids import NetworkId, ProjectId
from innkeeper.model.network import Network, NetworkWanted

NETWORK = Network(
    id=NetworkId("net-1"),
    project=ProjectId("p-1"),
    name="default",
    cidr="10.0.0.0/20",
    gateway="10.0.0.1",
    domain="inn",
)


def _used(folder: Path, obeyed: int) -> Place:
    """A place whose agent has obeyed up to this revision, with a disk."""
    for below in ("agent/networks", "agent/records", "pool/volumes"):
        (folder / below).mkdir(parents=True)
    wanted = NetworkWanted(network=NETWORK, generation=obeyed, ports=())
    (folder / "agent/networks/net-1.json").write_text(encode(wanted))
    (folder / "pool/volumes/vol-precious.qcow2").touch()
    return Place(folder)


@pytest.mark.parametrize("revision", [0, 41])
def test_an_older_database_is_not_served(tmp_path: Path, revision: int) -> None:
    place = _used(tmp_path, obeyed=42)
    with pytest.raises(CannotServe, match=r"vol-precious.*--accept-database"):
        place.check_database(Cluster(revision=revision), accepted=False)
    place.check_database(Cluster(revision=revision), accepted=True)
    place.check_database(Cluster(revision=revision), accepted=False)


def test_the_right_database_is(tmp_path: Path) -> None:
    _used(tmp_path, obeyed=42).check_database(Cluster(revision=42), accepted=False)


def test_a_new_installation_is(tmp_path: Path) -> None:
    Place(tmp_path).check_database(Cluster(), accepted=False)


def _twins(root: Path, same: Callable[[Place], object]) -> tuple[Place, Place]:
    """Two installations that draw the same; of some hundred, two do."""
    seen: dict[object, Place] = {}
    for number in range(100_000):
        place = _At(root / str(number), run=root / "run")
        twin = seen.setdefault(same(place), place)
        if twin is not place:
            return twin, place
    raise AssertionError("no two draw the same")


@dataclass(frozen=True, slots=True)
class _At(Place):
    """Not below the real /run."""

    run: Path

    @property
    def volatile(self) -> Path:
        return self.run / self.tag


def test_two_installations_do_not_meet(tmp_path: Path) -> None:
    first, second = (_At(tmp_path / name, run=tmp_path / "run") for name in ("a", "b"))
    first.make()
    second.make()
    second.make()
    assert first.tag != second.tag
    assert {first.users.of_slot(n) for n in (0, 59_999)}.isdisjoint(second.users.of_slot(n) for n in (0, 59_999))
    special = {first.users.converter, first.users.prover, first.users.baker}
    assert len(special | {first.users.of_slot(59_999)}) == 4
    assert special.isdisjoint({second.users.converter, second.users.prover, second.users.baker})


@pytest.mark.parametrize("same", [lambda p: p.tag, lambda p: p.users], ids=["names", "users"])
def test_what_draws_the_same_as_another_is_refused(tmp_path: Path, same: Callable[[Place], object]) -> None:
    first, second = _twins(tmp_path, same)
    first.make()
    with pytest.raises(CannotServe, match=rf"{first.data}.*choose another --data"):
        second.make()
    first.make()
    first.data.rename(tmp_path / "gone")
    second.make()


def test_a_host_has_one_id(tmp_path: Path) -> None:
    first = Place(tmp_path).host_id()
    assert Place(tmp_path).host_id() == first


@pytest.mark.parametrize("text", ["", "\0" * 15, "h-1234"])
def test_a_host_whose_id_was_lost_is_told_where_it_stands(tmp_path: Path, text: str) -> None:
    (tmp_path / "host-id").write_text(text)
    with pytest.raises(CannotServe, match=r"host-id is damaged.*innkeeper\.db"):
        Place(tmp_path).host_id()


def test_a_token_is_made_once_and_whole(tmp_path: Path) -> None:
    token = _token(Place(tmp_path))
    assert len(token) >= 32
    assert _token(Place(tmp_path)) == token
    assert (tmp_path / "api-token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "short\n"])
def test_a_token_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "api-token").write_text(text)
    (tmp_path / "api-token").chmod(0o600)
    with pytest.raises(CannotServe, match="api-token"):
        _token(Place(tmp_path))


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "api-token").write_text("x" * 43)
    (tmp_path / "api-token").chmod(0o644)
    with pytest.raises(CannotServe, match="api-token"):
        _token(Place(tmp_path))
