"""The last page of ./check: one table of its steps, the reasons for skipped tests, and one line that counts.

Reads `steps.tsv` (name, exit code, seconds) and pytest's JUnit files from a folder. Exits non-zero if a step failed.
Uses the standard library only, because it must also tell of an environment that could not be made.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TEST_STEPS = ("fast", "net", "vm")
# Exit codes of pytest after an orderly run.
SOME_FAILED = 1
NO_TESTS = 5


@dataclass(slots=True, kw_only=True)
class Tests:
    """What one run of pytest, or several together, came to."""

    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tests) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    name: str
    code: int
    seconds: int
    tests: Tests | None

    @property
    def ok(self) -> bool:
        """A marker that no test has yet is no failure, except in the fast run, where it means that collecting broke."""
        return self.code == 0 or (self.code == NO_TESTS and self.name in TEST_STEPS and self.name != "fast")

    @property
    def word(self) -> str:
        if self.ok:
            return "ok" if self.code == 0 else "no tests"
        return {124: "TIMEOUT", 137: "TIMEOUT"}.get(self.code, "FAILED")


def read_tests(path: Path) -> Tests:
    suite = ET.parse(path).getroot().find("testsuite")
    if suite is None:
        return Tests()
    tests = Tests()
    for case in suite.iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            tests.failed += 1
        elif skipped is not None:
            expected = "expected failure: " if skipped.get("type") == "pytest.xfail" else ""
            tests.skipped[expected + (skipped.get("message") or "no reason given")] += 1
    # Not counted by case: a test that was interrupted has one, with nothing in it, as if it had passed.
    tests.passed = int(suite.get("tests", 0)) - tests.failed - tests.skipped.total()
    return tests


def read_steps(folder: Path) -> list[Step]:
    steps = []
    for line in (folder / "steps.tsv").read_text().splitlines():
        name, code, seconds = line.split("\t")
        report = folder / f"{name}.xml"
        tests = read_tests(report) if report.exists() else None
        if name in TEST_STEPS and int(code) not in (0, SOME_FAILED, NO_TESTS):
            tests = tests or Tests()
            tests.failed += 1  # the run itself: it crashed, or was stopped
        steps.append(Step(name=name, code=int(code), seconds=int(seconds), tests=tests))
    return steps


def main(folder: Path) -> int:
    steps = read_steps(folder)
    total = Tests()
    print(f"\n{'step':<20} {'result':<10} {'time':>7} {'passed':>7} {'failed':>7} {'skipped':>8}")
    for step in steps:
        counts = ""
        if step.tests is not None:
            total.add(step.tests)
            counts = f"{step.tests.passed:>7} {step.tests.failed:>7} {step.tests.skipped.total():>8}"
        print(f"{step.name:<20} {step.word:<10} {step.seconds:>5} s {counts}".rstrip())
    if total.skipped:
        print("\nskipped, and why:")
        for reason, count in total.skipped.most_common():
            print(f"{count:>5}  {reason}")
    failed = [step for step in steps if not step.ok]
    if failed:
        print(f"\nfailed: {', '.join(step.name for step in failed)}")
    print(f"\n{total.passed} passed, {total.failed} failed, {total.skipped.total()} skipped")
    return 1 if failed or total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
