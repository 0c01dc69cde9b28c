"""One process at a time writes to a place; the second is told who the first is, and a dead one holds nothing."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from kronos_lightning.storage import InUseError, Lock
from tests.helpers.paths import ROOT

HOLD = """
import os, sys, time
from pathlib import Path
from kronos_lightning.storage import Lock
with Lock(Path(sys.argv[1])):
    if os.fork() == 0:  # as the loader's processes
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_second_process_is_refused_and_told_the_first(holder, tmp_path):
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    for name in ("run", "alias", "other/../run"):
        with pytest.raises(InUseError, match=rf"in use by process {holder.pid} since \d{{4}}-.* UTC; wait .* dirs$"):
            Lock(tmp_path / name, ", or mind the dirs").__enter__()


def test_a_lock_ends_with_its_process_although_a_fork_of_it_lives(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with Lock(tmp_path / "run"):
        pass


def test_who_waits_goes_on_when_the_place_is_free(holder, tmp_path, caplog):
    caplog.set_level("INFO")
    threading.Timer(0.3, holder.stdin.close).start()
    with Lock(tmp_path / "run", wait=True):
        assert f"run: waiting for process {holder.pid} since" in caplog.text


def test_two_locks_of_one_process_exclude_each_other_and_can_be_taken_again(tmp_path):
    for _ in range(2):
        with Lock(tmp_path / "run"), pytest.raises(InUseError, match=f"process {os.getpid()}"), Lock(tmp_path / "run"):
            raise AssertionError("taken twice")
