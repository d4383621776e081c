"""How the guest's program is built: values to argv."""

from __future__ import annotations

SOURCES = (
    "identity/announce.c",
    "identity/files.c",
    "identity/identity.c",
    "identity/network.c",
    "identity/words.c",
    "main.c",
    "port.c",
    "run.c",
    "session.c",
    "spawn.c",
    "status.c",
    "wire.c",
)

# When memory runs out, a compiler goes before any guest.
OOM_SCORE = 500

_FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-D_FORTIFY_SOURCE=2",
    "-O2",
    "-fstack-protector-strong",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wall",
    "-Wextra",
    "-Wl,--gc-sections",
    "-static",
    "-s",
)


def compile_argv(source_dir: str, output: str, cc: str = "cc") -> list[str]:
    """One static program from the files in `source_dir`, which runs in any guest of the compiler's architecture."""
    return [cc, *_FLAGS, "-o", output, *(f"{source_dir}/{name}" for name in SOURCES)]


def sanitized_argv(source_dir: str, output: str, cc: str = "cc") -> list[str]:
    """The same program, built to notice its own mistakes; for tests on the machine that built it."""
    kept = [flag for flag in _FLAGS if flag not in ("-static", "-s", "-O2", "-D_FORTIFY_SOURCE=2")]
    watch = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    return [cc, *kept, *watch, "-o", output, *(f"{source_dir}/{name}" for name in SOURCES)]
