"""Runs a command so that it never outlives whoever asked for it: ``python guard.py COMMAND…``.

Standard input is the leash: its other end is held by the service, and the kernel lets go of it however the service
ends, SIGKILL included. Then, or on SIGTERM, the command's whole process group is ended, politely and then not. Only
the standard library is imported: the guard must start at once. Started by `vllm_process.py`, by nobody else.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_GRACE_S = 8.0
_POLL_S = 0.2


def main(command: list[str]) -> int:
    """Run `command` until it ends or the leash is let go; return its exit status."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent)
    try:
        while child.poll() is None:
            readable, _, _ = select.select([sys.stdin.buffer], [], [], _POLL_S)
            if readable and not os.read(sys.stdin.fileno(), 4096):
                return 143
        return child.returncode
    finally:
        _end_group(child)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    """End every process of the child's group, and whatever of it was adopted by us."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for kind, grace_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + grace_s
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, kind)
        while time.monotonic() < deadline:
            _reap()
            try:
                os.killpg(child.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(0.05)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, argument: int) -> None:
    """Ask the kernel for what only Linux has; elsewhere the leash alone must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
