"""Commands that begin at once: a process has imported the libraries, which takes five seconds, and forks for each.

A command runs as from the shell, in a process of its own: file, arguments, folder, environment, output, exit code. Only
that the libraries are in memory already. `Server` is the tests' side; run as a script, this is the process.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


class Server:
    """The process, started with an environment."""

    def __init__(self, environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self.process.kill)
        self._answer(120)

    def run(
        self, command: list[str], cwd: object, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess:
        """Run a command: path of a script or name of a module, and arguments."""
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as errors:
            request = {"command": command, "cwd": str(cwd), "environment": environment}
            request |= {"stdout": out.name, "stderr": errors.name}
            print(json.dumps(request), file=self.process.stdin, flush=True)
            code = int(self._answer(timeout))
            return subprocess.CompletedProcess(command, code, out.read(), errors.read())

    def _answer(self, timeout: float) -> str:
        if select.select([self.process.stdout], [], [], timeout)[0]:
            return self.process.stdout.readline()
        server.cache_clear()
        os.killpg(self.process.pid, signal.SIGKILL)
        raise TimeoutError(f"no end after {timeout} s")


@functools.cache
def server() -> Server:
    """The one of this test process."""
    return Server(dict(os.environ))


def serve() -> dict | None:
    """Fork for each request; a child returns its own, the server None after the last."""
    gc.freeze()  # so that no child walks, and copies, what all of them share
    print("ready", flush=True)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def become(request: dict) -> None:
    """Run a command as if this process had been started for it."""
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["stdout"], os.O_WRONLY),
        (2, request["stderr"], os.O_WRONLY),
    ):
        os.dup2(os.open(path, flags), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    program, *_ = sys.argv = request["command"]
    if program.endswith(".py"):
        sys.path[0] = os.path.dirname(program)
        runpy.run_path(program, run_name="__main__")
    else:
        sys.path[0] = request["cwd"]
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    import evaluate  # noqa: F401
    import train  # noqa: F401
    from kronos_lightning.cli import doctor, download, export, forecast, leakcheck  # noqa: F401

    if (mine := serve()) is not None:
        become(mine)
