"""The pool on disk and the pool in memory keep the same promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from innkeeper.drivers.qcow2.fake import FakeFrozen, FakePool, FakeTemplates, FakeVolumes
from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.layers.frozen import Frozen
from innkeeper.drivers.qcow2.render import GIB
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.actions import Chain
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import SnapshotId, TemplateId, VolumeId
from innkeeper.model.template import Image
from tests.contract.disks.pools import OWNER, add_template, needs_qemu_img

T1, T2 = TemplateId("t-000000000001"), TemplateId("t-000000000002")
V1, V2 = VolumeId("vol-000000000001"), VolumeId("vol-000000000002")


@dataclass
class Pool:
    volumes: Volumes | FakeVolumes
    frozen: Frozen | FakeFrozen
    templates: Templates | FakeTemplates
    add: Callable[[TemplateId], Awaitable[Image]]


async def real(root: Path) -> Pool:
    volumes, templates = Volumes(root), Templates(root)
    await volumes.prepare()
    await templates.prepare()
    return Pool(volumes, Frozen(root), templates, lambda template: add_template(templates, template))


async def fake(_: Path) -> Pool:
    shared = FakePool()
    templates = FakeTemplates(shared)

    async def add(template: TemplateId) -> Image:
        image = Image(digest="0", virtual_size_bytes=GIB, stored_bytes=4096, firmware=Firmware.BIOS)
        async with templates.stage(template) as staging:
            await templates.adopt(template, staging, image)
        return image

    return Pool(FakeVolumes(shared), FakeFrozen(shared), templates, add)


@pytest.fixture(params=[pytest.param(real, marks=needs_qemu_img), fake])
async def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Pool:
    made: Pool = await request.param(tmp_path / "pool")
    return made


async def test_a_volume_is_made_found_and_deleted(pool: Pool) -> None:
    await pool.add(T1)
    await pool.volumes.create_overlay(V1, T1, 5, OWNER)
    assert await pool.volumes.list_volumes() == (V1,)
    await pool.volumes.delete(V1)
    assert await pool.volumes.list_volumes() == ()


async def test_making_and_deleting_may_be_repeated(pool: Pool) -> None:
    await pool.add(T1)
    for _ in range(2):
        await pool.volumes.create_overlay(V1, T1, 5, OWNER)
    for _ in range(2):
        await pool.volumes.delete(V1)
    assert await pool.volumes.list_volumes() == ()


async def test_another_volume_under_the_same_id_is_refused(pool: Pool) -> None:
    await pool.add(T1)
    await pool.add(T2)
    await pool.volumes.create_overlay(V1, T1, 5, OWNER)
    with pytest.raises(DiskFailed, match="stands already"):
        await pool.volumes.create_overlay(V1, T1, 6, OWNER)
    with pytest.raises(DiskFailed, match="stands already"):
        await pool.volumes.create_overlay(V1, T2, 5, OWNER)
    with pytest.raises(DiskFailed, match="stands already"):
        await pool.volumes.create_overlay(V1, T1, 5, OWNER + 1)
    await pool.volumes.create_overlay(V1, T1, 5, OWNER)


@pytest.mark.parametrize("size_gib", [0, -3, 1 << 40])
async def test_an_absurd_size_is_refused(pool: Pool, size_gib: int) -> None:
    await pool.add(T1)
    with pytest.raises(DiskFailed, match="cannot have"):
        await pool.volumes.create_overlay(V1, T1, size_gib, OWNER)
    assert await pool.volumes.list_volumes() == ()


async def test_no_volume_without_its_template(pool: Pool) -> None:
    with pytest.raises(DiskFailed, match=T1):
        await pool.volumes.create_overlay(V1, T1, 5, OWNER)
    assert await pool.volumes.list_volumes() == ()


async def test_a_volume_stands_over_no_other_template(pool: Pool) -> None:
    await pool.add(T1)
    await pool.add(T2)
    await pool.volumes.create_overlay(V1, T1, 5, OWNER)
    await pool.volumes.check_chain(Chain(volume=V1), T1)
    with pytest.raises(ImageRefused, match=T1):
        await pool.volumes.check_chain(Chain(volume=V1), T2)


async def test_what_is_not_there_is_missed(pool: Pool) -> None:
    await pool.add(T1)
    with pytest.raises(DiskFailed, match="missing"):
        await pool.volumes.check_chain(Chain(volume=V1), T1)


async def test_a_template_is_adopted_once_and_never_changed(pool: Pool) -> None:
    assert await pool.templates.image(T1) is None
    image = await pool.add(T1)
    assert await pool.templates.image(T1) == image
    assert await pool.templates.list_templates() == (T1,)
    async with pool.templates.stage(T1) as staging:
        await pool.templates.adopt(T1, staging, image)  # as after a crash between effect and answer
    async with pool.templates.stage(T1) as staging:
        with pytest.raises(DiskFailed, match="another template"):
            await pool.templates.adopt(T1, staging, replace(image, digest="other"))
    assert await pool.templates.image(T1) == image
    assert await pool.templates.leftovers() == ()


async def test_a_template_that_is_not_adopted_leaves_nothing(pool: Pool) -> None:
    async def give_up() -> None:
        async with pool.templates.stage(T1):
            assert len(await pool.templates.leftovers()) == 1
            raise RuntimeError("given up")

    with pytest.raises(RuntimeError):
        await give_up()
    assert await pool.templates.leftovers() == ()
    assert await pool.templates.list_templates() == ()


async def test_a_template_in_use_is_not_deleted(pool: Pool) -> None:
    await pool.add(T1)
    await pool.volumes.create_overlay(V1, T1, 5, OWNER)
    with pytest.raises(DiskFailed, match=V1):
        await pool.templates.delete(T1)
    assert await pool.templates.list_templates() == (T1,)
    await pool.volumes.delete(V1)
    for _ in range(2):
        await pool.templates.delete(T1)
    assert await pool.templates.list_templates() == ()
    assert await pool.templates.image(T1) is None
    assert await pool.templates.leftovers() == ()


# --- layers

V3 = VolumeId("vol-000000000003")
S1, S2 = SnapshotId("snap-000000000001"), SnapshotId("snap-000000000002")


async def stack(pool: Pool) -> None:
    await pool.add(T1)
    await pool.volumes.create_overlay(V1, T1, 5, OWNER)
    for _ in range(2):
        await pool.volumes.create_overlay(V2, T1, 5, OWNER, V1)
        await pool.volumes.create_overlay(V3, T1, 6, OWNER, V2)


async def test_a_chain_is_checked_down_to_the_template(pool: Pool) -> None:
    await stack(pool)
    await pool.add(T2)
    await pool.volumes.check_chain(Chain(volume=V3, below=(V2, V1)), T1)
    for wrong in ((), (V1,), (V2,), (V1, V2), (V2, V1, V1)):
        with pytest.raises(ImageRefused):
            await pool.volumes.check_chain(Chain(volume=V3, below=wrong), T1)
    with pytest.raises(ImageRefused):
        await pool.volumes.check_chain(Chain(volume=V3, below=(V2, V1)), T2)


async def test_a_layer_is_no_smaller_than_what_is_below_and_needs_it(pool: Pool) -> None:
    await stack(pool)
    new = VolumeId("vol-000000000004")
    with pytest.raises(DiskFailed, match="less than"):
        await pool.volumes.create_overlay(new, T1, 4, OWNER, V2)
    with pytest.raises(DiskFailed, match="missing"):
        await pool.volumes.create_overlay(new, T1, 5, OWNER, VolumeId("vol-00000000dead"))
    with pytest.raises(DiskFailed, match="stands already"):
        await pool.volumes.create_overlay(V2, T1, 5, OWNER)
    assert await pool.volumes.list_volumes() == (V1, V2, V3)


async def test_what_is_below_others_stays(pool: Pool) -> None:
    await stack(pool)
    for below in (V1, V2):
        with pytest.raises(DiskFailed, match="is below volumes"):
            await pool.volumes.delete(below)
    with pytest.raises(DiskFailed, match=f"is below volumes {V1},"):
        await pool.templates.delete(T1)
    for top in (V3, V2, V1):
        await pool.volumes.delete(top)
    await pool.templates.delete(T1)


async def test_what_was_told_of_a_snapshot_is_told_again(pool: Pool) -> None:
    await stack(pool)
    assert await pool.frozen.taken((V1, V2), S1) is None
    await pool.frozen.make_room((V1, V2), (Chain(volume=V3, below=(V2, V1)),))
    told = await pool.frozen.freeze((V1, V2), S1, consistent=True)
    assert told.consistent
    assert told.stored_bytes == await pool.frozen.stored_bytes((V1, V2)) > 0
    assert await pool.frozen.taken((V1, V2), S1) == told
    assert await pool.frozen.taken((V1, V2), S2) is None
    assert await pool.frozen.taken((V1, V3), S1) is None


async def test_a_frozen_volume_is_on_top_of_nothing_any_more(pool: Pool) -> None:
    await stack(pool)
    await pool.frozen.freeze((V2,), S1, consistent=False)
    with pytest.raises(DiskFailed, match="frozen"):
        await pool.volumes.check_chain(Chain(volume=V2, below=(V1,)), T1)
    await pool.volumes.check_chain(Chain(volume=V3, below=(V2, V1)), T1)


async def test_a_snapshot_of_what_is_not_as_stated_is_not_begun(pool: Pool) -> None:
    await stack(pool)
    with pytest.raises(ImageRefused):
        await pool.frozen.make_room((V1,), (Chain(volume=V3, below=(V1,)),))
    with pytest.raises(DiskFailed, match="missing"):
        await pool.frozen.make_room((VolumeId("vol-00000000dead"),), ())
