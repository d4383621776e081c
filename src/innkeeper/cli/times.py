"""Moments as the API tells them, RFC 3339 in UTC, and as people read them: ages, spans, and the time on their clock."""

from __future__ import annotations

import time
from datetime import datetime

from innkeeper.cli.units import human_age


def epoch(moment: str) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def age(moment: str) -> str:
    return human_age(time.time() - epoch(moment))


def span(seconds: float) -> str:
    """`0.05s`, `12.5s`, `2m05s`, `1h05m`, `3d04h`: two units at most."""
    seconds = max(0.0, seconds)
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2f}s" if whole < 10 else f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def when(moment: str) -> str:
    """On the clock of whoever reads it, with how long ago or ahead that is."""
    at, now = epoch(moment), time.time()
    told = f"{human_age(now - at)} ago" if at <= now else f"in {span(at - now)}"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))} ({told})"


def clock(moment: str) -> str:
    return time.strftime("%H:%M:%S", time.localtime(epoch(moment)))
