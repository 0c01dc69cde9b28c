"""One command from a laptop to a cluster: processes started by torchrun and SLURM, on one machine and on two."""

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import QUICK_TRAIN, command, shell_variables, without
from tests.helpers.paths import ROOT

ARGUMENTS = without(QUICK_TRAIN, "trainer", "data.batch_size", "stage.max_epochs", "logger")
ARGUMENTS += ["data.batch_size=20", "stage.max_epochs=1", "stage.learning_rate=1e-3"]
TRAIN = [str(ROOT / "train.py"), *ARGUMENTS]


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def expected(cwd):
    """Weights of two processes that Lightning started."""
    command("train.py", *ARGUMENTS, "trainer=ddp_cpu", "run_dir=ddp_cpu", cwd=cwd)
    return weights(cwd / "ddp_cpu")


def weights(run):
    return load_file(run / "checkpoints" / "best_model" / "model.safetensors")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def together(cwd, *processes):
    """Run commands, each with its variables, at the same time; their outputs."""
    running = [
        subprocess.Popen(arguments, cwd=cwd, env=shell_variables(**variables), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for arguments, variables in processes
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * len(running), "\n\n".join(outputs)
    return outputs


def same_run(cwd, name, expected):
    """The weights are those expected, bit for bit, and one process alone wrote the folder and its log."""
    found = weights(cwd / name)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    run = cwd / name
    assert {path.name for path in run.iterdir()} == {"checkpoints", "config.json", "logs", "run_info.json"}
    assert json.loads((run / "run_info.json").read_text())["status"] == "finished"
    assert len(list((run / "logs").glob("events.out.tfevents.*"))) == 1
    assert not list(cwd.glob(f"{name}.*"))  # nobody set the folder of another process aside
    assert (run / "logs" / "train.log").read_text().count("train: 5") == 1


def torchrun(*options):
    return [sys.executable, "-m", "torch.distributed.run", *options, *TRAIN]


@pytest.mark.minutes
def test_two_processes_of_torchrun_train_to_the_same_weights(cwd, expected):
    port = f"--master-port={free_port()}"
    output = together(cwd, ([*torchrun("--nproc-per-node=2", port), "trainer=ddp_cpu", "run_dir=torchrun"], {}))[0]
    same_run(cwd, "torchrun", expected)
    assert output.count("Model: torchrun") == 1


def test_two_tasks_of_slurm_train_to_the_same_weights(cwd, expected):
    """With the variables that srun sets; there is no SLURM here."""
    job = {
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "kronos", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0", "MASTER_PORT": free_port(),
    }  # fmt: skip
    ranks = [job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    arguments = [sys.executable, *TRAIN, "trainer=ddp_cpu", "run_dir=slurm"]
    first, second = together(cwd, *((arguments, rank) for rank in ranks))
    same_run(cwd, "slurm", expected)
    assert "Model: slurm" in first
    assert "Model: slurm" not in second


@contextmanager
def two_machines():
    """Two network namespaces with a cable between them: each has an address of its own and sees nothing else."""
    names, addresses = [f"kronos{os.getpid()}{i}" for i in "ab"], ["10.99.0.1", "10.99.0.2"]
    links = [f"kr{os.getpid() % 10**6}{i}" for i in "ab"]

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for name, link, address in zip(names, links, addresses, strict=True):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, links, strict=True)), addresses[0]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def may_make_networks():
    try:
        with two_machines():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@pytest.mark.skipif(not may_make_networks(), reason="NOT TRIED HERE: two machines, for that takes root and `ip netns`")
@pytest.mark.minutes
@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp"])
def test_two_machines_train_to_the_same_weights(trainer, cwd, expected):
    with two_machines() as (machines, address):
        options = ["--nnodes=2", "--nproc-per-node=1", f"--master-addr={address}", "--master-port=29511"]
        settings = [f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2"]
        settings.append(f"run_dir=machines_{trainer}")
        outputs = together(
            cwd,
            *(
                (["ip", "netns", "exec", name, *torchrun(*options, f"--node-rank={rank}"), *settings],
                 {"GLOO_SOCKET_IFNAME": link, "TP_SOCKET_IFNAME": link})
                for rank, (name, link) in enumerate(machines)
            ),
        )  # fmt: skip
    same_run(cwd, f"machines_{trainer}", expected)
    assert [f"Model: machines_{trainer}" in output for output in outputs] == [True, False]
