"""`inn completion` and `inn help`: what the grammar says about itself."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from innkeeper.cli.grammar import call


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="bash, zsh or fish")], /) -> None:
    """Names of instances and templates are completed too, by asking the daemon."""
    sys.stdout.write(call.build().generate_completion(shell=shell))


def help_(*command: Annotated[str, Parameter(help="the command; without one, all of them")]) -> None:
    call.spoken(call.build(), [*command, "--help"])
