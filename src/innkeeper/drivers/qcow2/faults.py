"""What a pool says when it cannot: three kinds, each with a reason and, where there is one, what to do next."""

from __future__ import annotations


class PoolFault(Exception):
    """`reason` says what happened to what; `hint` says what to do next."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.reason}. {self.hint}" if self.hint else self.reason


class PoolFull(PoolFault):
    """The file system of the pool has no room left, or the quota on it is used up."""


class ImageRefused(PoolFault):
    """An image is not what it was said to be, or asks for something that no image from outside may ask for."""


class DiskFailed(PoolFault):
    """The pool, or a tool working on it, did not do as it was told."""
