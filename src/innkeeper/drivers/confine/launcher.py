"""The launcher: a small program of its own that starts QEMU in confinement and outlives the daemon.

    daemon ──(one request: JSON and descriptors)──▶ launcher ──fork──▶ child ──drops everything, exec──▶ QEMU
           ◀─(pid and start time, or why not)──────    │
                                                       └── waits for its children; writes how each ended

Why a process of its own: forking the daemon, with its threads and its memory, is slow and unsafe; and only a parent
learns how a process ended. So the launcher stays when the daemon dies, until its last child has ended and is recorded.
When the launcher itself dies, its children live on as orphans: that they ended can be seen then, but not how.

It runs as `python -I -S launcher.py FD`, imports nothing but a few parts of the standard library, and has one thread.
Files are renamed into place but not flushed to the disk: what they tell about ends with the host's uptime anyhow.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

FIRST_DESCRIPTOR = 3
MESSAGE_BYTES = 512 * 1024
DESCRIPTORS_MOST = 200
EXEC_TIMEOUT_S = 10
LOG_LOOK_S = 10.0
LOG_MOST_BYTES = 512 * 1024
LOG_KEPT_BYTES = 64 * 1024
EXIT_BYTES = 512
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
MARK = "INNKEEPER_RECORD"  # in the environment of all that we start: whose it is, even if the record was never written
NAMESPACES = {"net": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000}
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# --- in the child, between fork and exec


def _become(request: dict[str, Any], descriptors: list[int], errors: int) -> NoReturn:
    """Give up everything and become the program; on failure, tell the parent at which step."""
    step = "leave the session"
    try:
        os.setsid()
        step = "set oom_score_adj"
        _write("/proc/self/oom_score_adj", str(request["oom_score_adj"]))
        for group in request["cgroups"]:
            step = f"enter control group {group}"
            _write(f"{group}/cgroup.procs", "0")
        step = f"unshare {' '.join(request['namespaces'])}"
        _checked(_libc.unshare(sum(NAMESPACES[name] for name in request["namespaces"])))
        for name, value in request["limits"].items():
            step = f"limit {name} to {value}"
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        step = "place descriptors"
        errors = _place(descriptors, errors)
        step = f"become user {request['uid']}"
        _drop(request["uid"], request["gid"], request["groups"])
        step = f"run {request['argv'][0]}"
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execve(request["argv"][0], request["argv"], ENVIRONMENT | {MARK: request["record"]})
    except BaseException as error:
        # Whatever it was, a second launcher must not come out of this fork.
        why = getattr(error, "strerror", None) or repr(error)
        os.write(errors, f"cannot {step}: {why}".encode())
    finally:
        os._exit(127)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _place(descriptors: list[int], errors: int) -> int:
    """Standard streams, then the given descriptors in order, and nothing else."""
    log, *given = descriptors
    above = FIRST_DESCRIPTOR + len(given)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    # First all out of the way: a target number may be the source of another one.
    away = [_moved(fd, above) for fd in (null, log, log, *given)]
    errors = _moved(errors, above)
    for target, source in enumerate(away):
        os.dup2(source, target, inheritable=True)
    os.dup2(errors, above, inheritable=False)
    os.closerange(above + 1, max(fd for fd in (*away, errors, 1024)) + 4096)
    os.umask(0o077)
    os.chdir("/")
    return above


def _moved(fd: int, above: int) -> int:
    """A copy with a number beyond all targets, which exec closes."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above + 1)


def _drop(uid: int, gid: int, groups: list[int]) -> None:
    capability = 0
    # The kernel says where its list of capabilities ends; one that this program has not heard of goes too.
    while _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if capability == 0:
        _checked(-1)
    _checked(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, nothing))
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


# --- in the parent


def _start_time(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[19])


def _put(path: str, content: dict[str, Any]) -> None:
    staged = f"{path}.new"
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(content).encode())
    finally:
        os.close(fd)
    os.rename(staged, path)


def _complain(text: str) -> None:
    try:
        os.write(2, f"launcher {os.getpid()}: {text}\n".encode())
    except OSError:
        pass  # the disk that the log is on is full, which is likely what the complaint is about


def _attempt(what: Callable[[], None], otherwise: str) -> None:
    """One child's trouble must not end the launcher, which the others need too."""
    try:
        what()
    except OSError as error:
        _complain(f"{otherwise}: {error}")


def _received(control: socket.socket) -> tuple[bytes, list[int]]:
    """The next request; nothing when the daemon is gone. It may have died with an answer unread: the kernel then says
    ECONNRESET, and whatever else it says, there is no line any more, and the children need us.
    """
    try:
        message, descriptors, *_ = socket.recv_fds(control, MESSAGE_BYTES, DESCRIPTORS_MOST, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        _complain(f"the line to the daemon broke: {error}")
        return b"", []
    return message, descriptors


class Child:
    """One program that runs, and the open file in which its end will be written."""

    def __init__(self, pid: int, log: int, exit_file: str) -> None:
        self.pid = pid
        self.start_time = _start_time(pid)
        self._exit_file = exit_file
        self._open: list[int] = []
        try:
            self.pidfd = self._keep(os.pidfd_open(pid))
            self._log = self._keep(os.dup(log))
            new = os.open(f"{exit_file}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self._exit_fd = self._keep(new)
            # Written in full now, so that a disk that is full by then cannot swallow the reason.
            os.write(new, b" " * EXIT_BYTES)
        except OSError:
            self.close()
            raise

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def keep_log_short(self) -> None:
        size = os.fstat(self._log).st_size
        if size > LOG_MOST_BYTES:
            tail = os.pread(self._log, LOG_KEPT_BYTES, size - LOG_KEPT_BYTES)
            os.ftruncate(self._log, 0)
            os.write(self._log, b"[what was here before was cut off]\n" + tail)

    def ended(self) -> None:
        """Reap it, and write how it ended."""
        _, status, usage = os.wait4(self.pid, 0)
        content = {
            "pid": self.pid,
            "start_time": self.start_time,
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            "at": time.time(),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        }
        try:
            os.pwrite(self._exit_fd, json.dumps(content).encode().ljust(EXIT_BYTES), 0)
            os.rename(f"{self._exit_file}.new", self._exit_file)
        except FileNotFoundError:
            pass  # everything about this machine was removed meanwhile, so nobody will ask
        finally:
            self.close()


class Launcher:
    def __init__(self, control: socket.socket) -> None:
        self._control: socket.socket | None = control
        self._children: dict[int, Child] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._looked_at = time.monotonic()

    def run(self) -> None:
        while self._control is not None or self._children:
            ready = self._poll.poll(LOG_LOOK_S * 1000 if self._children else None)
            for fd, _ in ready:
                child = self._children.pop(fd, None)
                if child is not None:
                    self._poll.unregister(fd)
                    _attempt(child.ended, f"the end of {child.pid} could not be written")
                elif self._control is not None and fd == self._control.fileno():
                    self._serve(self._control)
            if time.monotonic() - self._looked_at > LOG_LOOK_S:
                self._looked_at = time.monotonic()
                for child in self._children.values():
                    _attempt(child.keep_log_short, f"the log of {child.pid} could not be cut")

    def _serve(self, control: socket.socket) -> None:
        message, descriptors = _received(control)
        if not message:
            self._poll.unregister(control)
            control.close()
            self._control = None
            return
        request = json.loads(message)
        try:
            answer = self._spawn(request, descriptors)
        except OSError as error:
            answer = {"failed": f"cannot start {request['argv'][0]}: {error}"}
        finally:
            for fd in descriptors:
                os.close(fd)
        try:
            control.send(json.dumps(answer | {"id": request["id"]}).encode())
        except OSError:
            pass  # the daemon died while it waited; its successor finds the record

    def _spawn(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        if request.get("count") != len(descriptors):
            return {"failed": f"{request.get('count')} descriptors were sent and {len(descriptors)} arrived"}
        reading, writing = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                _become(request, descriptors, writing)
        finally:
            os.close(writing)
        try:
            trouble = _trouble(reading)
        finally:
            os.close(reading)
        if trouble is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"failed": trouble}
        try:
            return self._watch(pid, descriptors[0], request)
        except OSError:
            # A program that nobody could find again must not run.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise

    def _watch(self, pid: int, log: int, request: dict[str, Any]) -> dict[str, Any]:
        child = Child(pid, log, request["exit_file"])
        try:
            known = {"pid": pid, "start_time": child.start_time, "launcher": os.getpid()}
            _put(request["record"], request["note"] | known)
        except OSError:
            child.close()
            raise
        self._children[child.pidfd] = child
        self._poll.register(child.pidfd, select.POLLIN)
        return {"pid": pid, "start_time": child.start_time}


def _trouble(reading: int) -> str | None:
    """Why exec did not happen; None once it has, which closes the other end of the pipe."""
    waiting = select.poll()
    waiting.register(reading, select.POLLIN)
    if not waiting.poll(EXEC_TIMEOUT_S * 1000):
        return f"cannot start the program: it was not ready to run after {EXEC_TIMEOUT_S} s"
    return os.read(reading, 4096).decode(errors="replace") or None


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    if os.fork() != 0:
        os._exit(0)  # the daemon waits for this one at once, and for the launcher never
    os.setsid()
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control.send(json.dumps({"ready": os.getpid()}).encode())
    Launcher(control).run()


if __name__ == "__main__":
    main()
