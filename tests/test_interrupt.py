"""Ctrl-C, as the whole process sees it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from cluster.cli.interrupt import Interrupt, Interrupted, descendants

PROGRAM = """
import subprocess, sys, time
from cluster.cli.interrupt import Interrupt
with Interrupt() as interrupt:
    child = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    print(child.pid, flush=True)
    while not interrupt.asked:
        time.sleep(0.01)
    print("asked", flush=True)
    while True:  # not one long sleep: a signal just before it begins is handled only after it
        time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_twice_kills_the_process_and_descendants(number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as p:
        assert p.stdout is not None and p.stderr is not None
        child = int(p.stdout.readline())
        below = descendants(p.pid)
        assert child in below
        p.send_signal(number)
        assert p.stdout.readline() == "asked\n" and p.poll() is None
        p.send_signal(number)
        assert p.wait(10) == 128 + number
        assert "Ctrl-C again" in p.stderr.read()
    for pid in below:
        while lives(pid):
            os.sched_yield()


def lives(pid: int) -> bool:
    """A zombie, which waits for its new parent, does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_interrupt_after_a_signal_check_raises_and_exit_restores() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="same command resumes"):
            interrupt.check()
    assert signal.getsignal(signal.SIGINT) is before
