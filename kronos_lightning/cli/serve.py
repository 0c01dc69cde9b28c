"""Command that serves the decisions of an evaluated checkpoint over HTTP.

python -m kronos_lightning.serve checkpoint=outputs/models/finetune_predictor_btc
"""

from importlib.util import find_spec

from omegaconf import DictConfig

from kronos_lightning.cli.entry import command
from kronos_lightning.config.validation import ConfigError, check_serving


@command("serve", file_key="checkpoint")
def main(cfg: DictConfig) -> None:
    """Load the checkpoint and answer requests until SIGTERM."""
    settings = check_serving(cfg)
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client", "limits", "plotly") if not find_spec(name)]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: not installed; run pip install 'kronos-lightning[serve]'")
    from kronos_lightning.serve.server import serve

    serve(settings)


if __name__ == "__main__":
    main()
