"""Guests of a few bytes, for testing QEMU without an operating system: multiboot images, 32-bit code at 1 MiB."""

from __future__ import annotations

import struct
from pathlib import Path

POWER_OFF = bytes.fromhex("66ba040666b8002066ef")  # mov dx, 0x604; mov ax, 0x2000; out dx, ax: q35's ACPI register
PANIC = bytes.fromhex("66ba0505b001ee")  # mov dx, 0x505; mov al, 1; out dx, al: pvpanic
REBOOT = bytes.fromhex("66baf90cb006ee")  # mov dx, 0xcf9; mov al, 6; out dx, al: reset control
# edi = 4 MiB; 1: mov [edi], eax; add edi, 4096; cmp edi, 60 MiB; jb 1b: each page for the first time
TOUCH_MEMORY = bytes.fromhex("bf00004000890781c70010000081ff0000c00372f0")
SLEEP = bytes.fromhex("faf4ebfc")  # cli; hlt; and again


def say(words: bytes) -> bytes:
    """To the serial port, each byte once there is room for it."""
    # 1: mov dx, 0x3fd; in al, dx; test al, 0x20; jz 1b; mov dx, 0x3f8; mov al, …; out dx, al
    return b"".join(bytes.fromhex("66bafd03eca82074f766baf803b0") + bytes([byte]) + b"\xee" for byte in words)


def say_for_ever(word: int) -> bytes:
    """Without looking whether there is room."""
    return bytes.fromhex("66baf803b0") + bytes([word]) + bytes.fromhex("eeebfd")


def wait_for_key_then(code: bytes) -> bytes:
    """Until the serial port has received something."""
    # 1: mov dx, 0x3fd; in al, dx; test al, 1; jz 1b
    return bytes.fromhex("66bafd03eca80174f7") + code


def write_image(path: Path, code: bytes) -> Path:
    magic, flags, base = 0x1BADB002, 0x00010000, 0x100000
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, base, base, 0, 0, base + 32)
    path.write_bytes(header + code + SLEEP)
    path.chmod(0o444)
    return path
