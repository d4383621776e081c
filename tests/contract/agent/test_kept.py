"""What an agent keeps: it survives our death, it does not pile up, and a full disk does not make it forget."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from innkeeper.agent.kept import records
from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.kept.records import Records
from innkeeper.model.ids import HostId, InstanceId, OperationId, VolumeId
from innkeeper.model.observed import MachineState, Phase, Report, Sample, StepProgress
from tests.contract.agent.orders import delete_disk, stop


def test_what_was_obeyed_is_known_in_the_next_life(tmp_path: Path) -> None:
    order = stop(3)
    Records(tmp_path).note(order)
    again = Records(tmp_path)
    assert again.is_done(order)
    assert again.of(order.about).generation == 3
    assert not again.is_done(stop(3))


def test_a_torn_record_is_as_none(tmp_path: Path) -> None:
    order = stop(3)
    Records(tmp_path).note(order)
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    assert Records(tmp_path).of(order.about).generation == 0


def test_orders_of_an_object_do_not_pile_up(tmp_path: Path) -> None:
    kept = Records(tmp_path)
    orders = [stop(generation) for generation in range(100)]
    for order in orders:
        kept.note(order)
    assert len(kept.of(orders[0].about).done) < 20
    assert kept.is_done(orders[-1])


def test_records_of_what_is_gone_are_kept_for_a_while_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "GONE_MOST", 5)
    kept = Records(tmp_path)
    orders = [delete_disk(VolumeId(f"vol-{number:012x}")) for number in range(12)]
    for order in orders[:8]:
        kept.note(order)
    kept = Records(tmp_path)  # also across lives
    for order in orders[8:]:
        kept.note(order)
    assert [kept.is_done(order) for order in orders] == [False] * 7 + [True] * 5
    assert len(list(tmp_path.rglob("*.json"))) == 5


def test_a_full_disk_does_not_deny_what_happened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = Records(tmp_path)
    first, second = stop(1), delete_disk()
    shutil.rmtree(tmp_path)
    kept.note(first)
    assert kept.is_done(first)
    assert "cannot be written yet" in caplog.text
    (tmp_path / "gone").mkdir(parents=True)
    kept.note(second)
    again = Records(tmp_path)
    assert again.is_done(first)
    assert again.is_done(second)


def test_numbers_of_reports_only_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "seq"
    last = Outbox(file).seq()
    for shift_s in (0, -400 * 86400, 0):  # a new life at once; one with an earlier clock; one with the right one again
        now = time.time() + shift_s
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=now: now)
            seq = Outbox(file).seq()
        assert seq > last
        last = seq


async def test_a_slow_reader_gets_the_newest_of_each_and_bounded_progress(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "seq")
    for number in range(3000):
        outbox.put(_state(outbox.seq(), "i-a"))
        outbox.put(_sample("i-a", float(number)))
        outbox.put(StepProgress(operation=OperationId(f"op-{number}"), step=0, fraction=0.5, words="half"))
    outbox.put(_state(outbox.seq(), "i-b"))
    outbox.put(_sample("i-b", 1.0))
    outbox.forget(InstanceId("i-b"))
    heard = await _all(outbox)
    assert [type(report) for report in heard[:2]] == [MachineState, Sample]
    assert isinstance(heard[1], Sample)
    assert heard[1].at == 2999.0
    assert all(isinstance(report, StepProgress) for report in heard[2:])
    assert len(heard) <= 1002


async def _all(outbox: Outbox) -> list[Report]:
    """All that waits: of progress, which goes last, this is the newest."""
    outbox.put(StepProgress(operation=OperationId("last"), step=0, fraction=1.0, words=""))
    heard: list[Report] = []
    async for report in outbox.reports():
        if isinstance(report, StepProgress) and report.operation == "last":
            break
        heard.append(report)
    return heard


def _state(seq: int, instance: str) -> MachineState:
    return MachineState(
        instance=InstanceId(instance), host=HostId("h-0123456789ab"), seq=seq, phase=Phase.RUNNING, since=1.0
    )


def _sample(instance: str, at: float) -> Sample:
    return Sample(
        instance=InstanceId(instance),
        at=at,
        cpu_s=1.0,
        memory_mib=1.0,
        disk_read_bytes=0,
        disk_written_bytes=0,
        net_received_bytes=0,
        net_sent_bytes=0,
    )
