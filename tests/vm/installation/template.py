"""A template put into an installation without building it: the files into its pool, the row into its store.

Building takes minutes on a busy machine and has tests of its own; all others start from what was built once.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from innkeeper.drivers.images.catalogue import RECIPES
from innkeeper.drivers.qcow2.places import INITRD, KERNEL
from innkeeper.drivers.qcow2.render import DISK
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.main.place import Place
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import Draw, OperationId, ProjectId, TemplateId
from innkeeper.model.plans import Plan, Put, Verb
from innkeeper.model.template import Image, Origin, Template
from innkeeper.model.work import Operation, Submission
from innkeeper.plan.template import CATALOGUE
from innkeeper.store.store import open_store


async def put_image(pool: Path, template: TemplateId, recipe: str, built: Path) -> Image:
    """The template's artefacts in the pool."""
    templates = Templates(pool)
    await templates.prepare()
    kernel_args = (built / "kernel_args").read_text().strip()
    async with templates.stage(template) as staging:
        for name in (DISK, KERNEL, INITRD):
            shutil.copy(built / name, staging / name)
        measured = await templates.measure(staging, kernel_args)
        image = Image(
            digest=measured.digest,
            virtual_size_bytes=measured.virtual_size_bytes,
            stored_bytes=measured.stored_bytes,
            firmware=Firmware.DIRECT,
            kernel_args=kernel_args,
            os=RECIPES[recipe].os,
            agent=True,
            cloud_init=RECIPES[recipe].cloud_init,
        )
        await templates.adopt(template, staging, image)
    return image


async def put_template(place: Place, recipe: str, built: Path) -> None:
    """Before the daemon starts."""
    place.make()
    draw = Draw(recipe.encode())
    template = Template(
        id=TemplateId(draw.id("t")),
        project=None,
        name=recipe,
        version=1,
        origin=Origin.BUILT,
        created_at=time.time(),
        default_size=CATALOGUE[recipe],
        image=await put_image(place.data / "pool", TemplateId(draw.id("t")), recipe, built),
    )
    plan = Plan(verb=Verb.SET_UP, title=f"put {recipe} there", subjects=(template.ref,), accept=(Put(noun=template),))
    submission = Submission(
        operation=OperationId(draw.id("op")), project=ProjectId(""), principal="test", at=time.time(), plan=plan
    )
    store = await open_store(place.data / "innkeeper.db", place.data / "secret.key")
    (taken,) = await store.works.submit([submission])
    await store.close()
    assert isinstance(taken, Operation), taken
