"""Process of the leak certificate: evaluates a configuration and writes the figures.

python -m kronos_lightning.cli.figures CONFIGURATION FIGURES
"""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kronos_lightning.config.resolvers import register_resolvers
from kronos_lightning.errors import KronosError
from kronos_lightning.evaluation.leakcheck.figures import Figures, load_figures, save_figures
from kronos_lightning.pipeline.evaluating import evaluate
from kronos_lightning.pipeline.figures import figures

from .errors import one_line_errors


class FreshProcessError(KronosError, RuntimeError):
    """Error for an evaluation of the certificate that failed; the message is that of the evaluation."""


def in_fresh_process(cfg: DictConfig) -> Figures:
    """Evaluate a configuration in a new interpreter, in which nothing is cached.

    Raises:
        FreshProcessError: the evaluation failed.
    """
    with tempfile.TemporaryDirectory(prefix="leakcheck_") as folder:
        configuration, output = Path(folder, "configuration.yaml"), Path(folder, "figures.npz")
        OmegaConf.save(cfg, configuration, resolve=True)
        command = [sys.executable, "-m", __name__, str(configuration), str(output)]
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # that it imports what this process would
        ended = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or [f"it ended with exit code {ended.returncode}"])[-1]
            raise FreshProcessError(f"an evaluation with changed candles failed: {reason.removeprefix('error: ')}")
        return load_figures(output)


def in_this_process(cfg: DictConfig) -> Figures:
    """Evaluate a configuration here.

    Raises:
        KronosError: the evaluation is impossible.
    """
    result = evaluate(cfg)
    if result is None:
        raise FreshProcessError("the evaluation has no result in this process; use one device")
    return figures(result)


@one_line_errors
def main() -> None:
    """Evaluate the configuration in the first argument, and write its figures to the path in the second."""
    configuration, output = map(Path, sys.argv[1:])
    register_resolvers()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    cfg = OmegaConf.load(configuration)
    assert isinstance(cfg, DictConfig)
    save_figures(in_this_process(cfg), output)


if __name__ == "__main__":
    main()
