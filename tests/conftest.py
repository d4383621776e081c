"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine may let any example take long: time is never what a test is about.
settings.register_profile("innkeeper", deadline=None)
settings.load_profile("innkeeper")
