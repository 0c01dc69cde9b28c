"""The configuration stops what cannot be right, and every key of it is used."""

import ast
import re

import pytest
import torch
from omegaconf import OmegaConf

from kronos_lightning.cli.arguments import ArgumentError, prepare
from kronos_lightning.cli.errors import EXPECTED
from kronos_lightning.config.renamed import RENAMED, new_name
from kronos_lightning.config.validation import (
    ConfigError,
    check_evaluation,
    check_training,
)
from kronos_lightning.settings import Section
from kronos_lightning.training.stage_module import changed
from tests.helpers.commands import command
from tests.helpers.configuration import CHECKS, composed
from tests.helpers.paths import ROOT

NEEDED = {  # what has no default
    "forecast": ["candles=a.csv"],
    "doctor": ["candles=a.csv"],
    "export": ["run=folder"],
    "download": ["symbol=BTCUSDT", "interval=1d"],
}


def groups(name):
    return sorted(path.stem for path in (ROOT / "conf" / name).glob("[!_]*.yaml") if path.stem != "default")


@pytest.mark.parametrize("group", [
    "stage", "data", "augmentation", "regularization", "experiment", "sweep", "model", "trainer", "logger",
])  # fmt: skip
def test_every_group_choice_is_valid(group):
    for choice in set(groups(group)) - {"did_it_help"}:
        assert check_training(composed("train", f"{group}={choice}")).run_dir.startswith("outputs/models/")


def test_did_it_help_is_a_valid_evaluation():
    found = check_evaluation(composed("evaluate", "experiment=did_it_help")).compare
    assert {"untuned", "anchored:both", "both+har"} <= set(found)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_the_defaults_are_valid_and_the_guides(name):
    data = CHECKS[name](composed(name)).data
    assert (data.lookback, data.horizon, data.batch_size) == (90, 10, 50)
    assert data.train_time_range == ["2021-01-01", "2023-12-31"]


BAD = [
    ("train", "data.lookback=0", "data.lookback"),
    ("train", "data.horizon=0", "data.horizon"),
    ("train", "data.lookback=many", "data.lookback"),
    ("train", "data.lookback=600", "data.lookback 600 .* exceed model.max_context 512"),
    ("train", "data.interval=1x", "interval '1x'"),
    ("train", "data.train_time_range=[2023-01-01,2022-01-01]", "train_time_range ends before it begins"),
    ("train", "data.train_time_range=[2023-01-01]", "data.train_time_range"),
    ("train", "data.val_time_range=[2020-01-01,2020-06-01]", "val_time_range must end after"),
    ("train", "data.test_time_range=[2020-01-01,2020-06-01]", "test_time_range must end after"),
    ("train", "data.test_time_range=[soon,later]", "test_time_range: 'soon' is not a date"),
    ("train", "data.dataset_end_time=2019-01-01", "dataset_end_time is before"),
    ("train", "+data.look_back=5", "data.look_back: unknown key"),
    ("train", "data.name=a/b", "data.name"),
    ("train", "data.batch_size=0", "data.batch_size"),
    ("train", "data.samples_per_epoch=0", "data.samples_per_epoch"),
    ("train", "stage.learning_rate=-1e-4", "stage.learning_rate"),
    ("train", "stage.learning_rate=fast", "stage.learning_rate"),
    ("train", "+stage.dropout=0.5", "stage.dropout: unknown key"),
    ("train", "model.tokenizer.group_size=3", "group_size must divide"),
    ("train", "model.predictor.n_heads=3", "d_model 512 must be a multiple"),
    ("train", "model.predictor.s1_bits=9", "same s1_bits and s2_bits"),
    ("train", "forecast.top_p=0", "forecast.top_p"),
    ("train", "forecast.temperature=-1", "forecast.temperature"),
    ("train", "seed=-1", "seed"),
    ("train", "trainer.precision=bf17", "trainer.precision: 'bf17'"),
    ("train", "+trainer.max_epoch=3", "trainer.max_epoch: unknown key"),
    ("train", "trainer.max_epochs=many", "trainer.max_epochs: 'many'"),
    ("train", "callbacks.early_stopping.patience=long", "callbacks.early_stopping.patience: 'long'"),
    ("train", "+callbacks.early_stopping.patient=3", "callbacks.early_stopping.patient: unknown key"),
    ("train", "callbacks.best.monitor=val_loss", "callbacks.best.monitor: 'val_loss' cannot be monitored"),
    ("train", "logger.tensorboard._target_=tensorbord.Logger", "logger.tensorboard._target_"),
    ("evaluate", "strategy.sell_threshold=0.5", "strategy: sell_threshold must not be above"),
    ("evaluate", "backtest.cost=2", "backtest.cost"),
    ("evaluate", "backtest.side=both", "backtest.side"),
    ("evaluate", "evaluation.max_cutoffs=0", "evaluation.max_cutoffs"),
    ("evaluate", "evaluation.baselines=[oracle]", "evaluation.baselines"),
    ("evaluate", "evaluation.baselines=[]", "evaluation.baselines"),
    ("evaluate", "calibration.temperatures=[0.0]", "calibration.temperatures"),
    ("evaluate", "compare=[untuned,untuned]", "compare: 'untuned' is empty or repeated"),
    ("evaluate", "compare=[both+both]", "each member of a pool, once"),
    ("evaluate", "compare=[garch]", "compare: 'garch' is a baseline"),
    ("evaluate", "compare=[both+]", "compare: 'both\\+' is empty"),
    ("evaluate", "backtest.parameters=validation calibration.fit=false", "needs calibration.fit=true"),
    ("evaluate", "strategy.signal=mode", "strategy.signal: Input should be"),
    ("evaluate", "+strategy.patience=3", "strategy.patience: unknown key"),
    ("evaluate", "baselines.garch.refit_every=0", "baselines.garch.refit_every"),
    ("evaluate", "baselines.last_price_20._target_=nobody.Knows", "baselines.last_price_20._target_"),
    ("train", "data.source=kraken", "unknown source 'kraken'; use file, binance, ccxt, synthetic"),
    ("train", "data=sample data.synthetic=null", "data.sources.synthetic.settings"),
    ("train", "+regularization.extra.mine={_target_:torch.nn.Nothing}", "regularization.extra.mine._target_"),
    ("evaluate", "backtest.intrabar_csv=nothing.csv", "backtest.intrabar_csv: nothing.csv: no such file"),
    ("evaluate", "data.fold=5", "fold 5: out of range, data.folds=5"),
    ("train", "data.fold=all", "a run trains on one fold"),
    ("evaluate", "trainer.strategy=ddp_spawn", "cannot return their"),
    ("evaluate", "trainer.accelerator=[tpu]", "trainer.accelerator"),
    ("evaluate", "forecast.precision=float8", "forecast.precision"),
    ("forecast", "device=tpu", "device"),
    ("forecast", "horizon=0", "horizon"),
    ("forecast", "interval=soon", "interval 'soon'"),
    ("forecast", "touch_down=2", "touch_down"),
    ("train", "data.on_defect=repair", "data.on_defect"),
    ("train", "data.symbol=[A,A]", "symbol: a symbol is listed twice"),
    ("train", "data.symbol=[A,B] data.csv_path=one.csv", "for several symbols set csv_dir"),
    ("train", "data.symbol_weights=[1.0,2.0]", "one weight for each of the 1 symbols"),
    ("train", "data.symbol_weights=[0.0]", "data.symbol_weights"),
    ("train", "data.augmentation.reversal=2", "data.augmentation.reversal"),
    ("train", "data.binance.source=web", "data.binance.source"),
    ("evaluate", "data=crypto_1h", "one market at a time.*-m data.symbol=BTCUSDT,ETHUSDT"),
    ("doctor", "interval=1x", "interval '1x'"),
    ("download", "symbol=btc/usdt", "symbol"),
    ("download", "interval=7h", "interval"),
    ("download", "start=yesterday", "start: 'yesterday' is not a date"),
    ("download", "start=2018-01-01 end=2017-01-01", "end is before start"),
    ("download", "retries=-1", "retries"),
    ("download", "source=web", "source"),
    ("download", "rest_url=binance", "rest_url"),
    ("train", "scaling.rate=cubic", "scaling.rate"),
    ("train", "scaling.batch=half", "scaling.batch"),
    ("train", "~callbacks.best ~callbacks.early_stopping", "callbacks.best"),
    ("train", "callbacks.validation_paths.windows=0", "callbacks.validation_paths.windows: 0"),
    ("train", "callbacks.validation_paths.every_n_epochs=0", "callbacks.validation_paths.every_n_epochs: 0"),
    ("train", "callbacks.last.every_n_steps=0", "callbacks.last.every_n_steps: 0"),
    ("train", "callbacks.last.every_n_minutes=-1.0", "callbacks.last.every_n_minutes: -1.0"),
    ("train", "trainer.log_every_n_steps=0", "trainer.log_every_n_steps: must be above 0"),
    ("train", "trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches: must be above 0"),
    ("train", "+trainer.limit_val_batches=0", "trainer.limit_val_batches: must be above 0"),
    ("train", "+trainer.fast_dev_run=true", "trainer.fast_dev_run: not supported, because it saves no checkpoint"),
    ("train", "trainer.precision=bf16-true", "trainer.precision=bf16-true: not supported, weights are kept in float32"),
    ("export", "push=everywhere", "push"),
    ("export", "private=1", "private"),
]


@pytest.mark.parametrize(("name", "override", "message"), BAD)
def test_a_wrong_key_or_value_is_named(name, override, message):
    with pytest.raises(ConfigError, match=message):
        CHECKS[name](composed(name, *NEEDED.get(name, []), *override.split()))


INTERVALS = "'1s', '1m', '3m', '5m', '15m', '30m', '1h', '2h', '4h', '6h', '8h', '12h', '1d', '3d', '1w' or '1M'"


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("download", "interval=3h", f"interval: Input should be {INTERVALS} (it is '3h')"),
        ("download", "interval=[1h,3h]", f"interval.1: Input should be {INTERVALS} (it is '3h')"),
        ("download", "symbol=5", "symbol: Input should be a valid string (it is 5)"),
        ("download", "symbol=[]", "symbol: Input should be a valid string; or List should have at least 1 item "
         "after validation, not 0 (it is [])"),
        ("train", "data.fold=-1", "data.fold: Input should be greater than or equal to 0; or Input should be 'all' "
         "(it is -1)"),
        ("train", "stage.patience=0", "stage.patience: Input should be greater than 0 (it is 0)"),
        ("train", "model.tokenizer.d_model=0", "model.tokenizer.d_model: Input should be greater than 0 (it is 0)"),
        ("train", "~stage.weight_decay", "stage.weight_decay: Field required"),
    ],
)  # fmt: skip
def test_each_wrong_key_has_one_sentence(name, override, message):
    with pytest.raises(ConfigError) as caught:
        CHECKS[name](composed(name, *NEEDED.get(name, []), override))
    assert str(caught.value) == message


def test_an_evaluation_that_would_lose_its_forecasts_is_refused():
    with pytest.raises(ConfigError, match="cannot return their"):
        check_evaluation(composed("evaluate", "trainer=ddp", "trainer.strategy.start_method=spawn"))


def test_resume_and_init_from_exclude_each_other():
    with pytest.raises(ConfigError, match="at most one"):
        check_training(composed("train", "resume=auto", "init_from=somewhere"))


@pytest.mark.parametrize(
    ("script", "override", "message"),
    [
        ("train.py", "data.lokback=5", "lokback"),
        ("train.py", "data.horizon=0", "error: data.horizon: Input should be greater than 0 (it is 0)"),
        ("train.py", "data.csv_path=nothing.csv", "error: nothing.csv: no such file; data.csv_path=FILE names"),
        pytest.param(
            "evaluate.py",
            "trainer=gpu",
            "error: trainer: No supported gpu backend found! Use trainer=cpu or trainer=auto\n",
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU"),
        ),
        ("train.py", "trainer=tpu", "trainer=tpu: no such choice"),
        ("evaluate.py", "backtest.cost=free", "error: backtest.cost"),
    ],
)
def test_commands_stop_with_one_line_and_no_traceback_and_leave_nothing(tmp_path, script, override, message):
    result = command(script, override, cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "outputs").exists()
    assert not list(tmp_path.rglob("*.parquet"))


def test_the_traceback_is_shown_when_asked_for(tmp_path):
    result = command("train.py", "data.horizon=0", cwd=tmp_path, check=False, env={"HYDRA_FULL_ERROR": "1"})
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_cfg_job_shows_the_whole_configuration(tmp_path):
    result = command("train.py", "--cfg", "job", cwd=tmp_path)
    shown = OmegaConf.create(result.stdout)
    assert {"stage", "data", "model", "trainer", "callbacks", "logger", "forecast", "paths", "seed"} <= set(shown)


def attributes_in_code():
    names = set()
    for path in [*ROOT.glob("*.py"), *(ROOT / "kronos_lightning").rglob("*.py")]:
        if path.name in ("schema.py", "sections.py") or path.match("data/settings.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return names


def subclasses(cls):
    return {cls, *(below for one in cls.__subclasses__() for below in subclasses(one))}


def test_every_key_of_the_schema_is_read_by_the_code():
    interpolated = {
        name
        for path in (ROOT / "conf").rglob("*.yaml")
        for name in re.findall(r"\$\{[a-z_.]*?(\w+)\}", path.read_text())
    }
    used = attributes_in_code() | interpolated | {"target"}
    unread = {f"{s.__name__}.{key}" for s in subclasses(Section) for key in s.model_fields if key not in used}
    by_range = {f"DataSection.{split}_time_range" for split in ("train", "val", "test")}
    by_kind = {"PretrainedSection.tokenizer_revision", "PretrainedSection.predictor_revision"}
    by_hydra = {"Training.trainer", "Training.callbacks", "Training.logger", "Evaluation.trainer"}  # instantiated
    assert unread - by_range - by_kind - by_hydra == set()


def test_sharding_is_refused_with_what_needs_whole_weights():
    for change in ("regularization.ema=0.9", "regularization.l2_pretrained=1.0", "regularization=lora"):
        with pytest.raises(ConfigError, match=r"regularization\.\w+: not supported with trainer=fsdp"):
            check_training(composed("train", "trainer=fsdp", change))


def test_sharding_is_refused_where_it_cannot_work(tmp_path):
    with pytest.raises(ConfigError, match="trainer=fsdp: only for training; use trainer=ddp"):
        check_evaluation(composed("evaluate", "trainer=fsdp"))
    sweep = ["data=sample", "model=kronos-tiny", "trainer=fsdp", "seed=1,2"]
    result = command("train.py", "-m", *sweep, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "trainer=fsdp: not supported in a multirun" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("name", "old", "new"), [(n, *pair) for n, pairs in RENAMED.items() for pair in pairs.items()])
def test_a_renamed_key_stops_with_its_new_name(name, old, new):
    override = old if "=" in old else f"{old}=1"
    with pytest.raises(ArgumentError) as stop:
        prepare(name, ["-m", "seed=1", override])
    assert str(stop.value) == f"{override}: renamed, write {new}"
    present, value = re.match(r"([\w.]+)(=\w+)?", new).groups()
    more = [f"{present}{value}"] if value else []
    node = composed(name, *NEEDED.get(name, []), *(["stage=predictor"] if name == "train" else []), *more)
    for part in present.split(".") if not value else []:
        node = node[part]


def test_keys_below_a_renamed_section_are_told_by_their_new_names():
    assert new_name("train", "data.sample.candles=600") == "data.synthetic.candles"
    assert new_name("train", "++data.sample.seed=1") == "data.synthetic.seed"
    assert new_name("train", "data.samples_per_epoch=5") is None


def test_settings_of_earlier_runs_are_read_by_their_new_names():
    before = {"tokenizer": "auto", "loss_on": "window", "seed": 1}
    assert changed(before, {"frozen_tokenizer": "auto", "loss_rows": "window", "seed": 1}) == []
    assert changed(before, {"frozen_tokenizer": "auto", "loss_rows": "horizon", "seed": 1}) == [
        "loss_rows (window before, horizon now)"
    ]


def test_a_command_refuses_a_renamed_key(tmp_path):
    result = command("evaluate.py", "backtest.signal=mean", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: backtest.signal=mean: renamed, write strategy.signal\n"


NASTY = [
    "x",
    "",
    -1,
    0,
    1e400,
    -0.5,
    True,
    None,
    [],
    [None],
    {},
    {"a": 1},
    "9999-12-31",
    "0001-01-01",
    "ü" * 300,
    "${x}",
]


def keys_of(node, prefix=""):
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


@pytest.mark.parametrize("name", CHECKS)
def test_no_value_of_any_key_ends_in_a_traceback(name):
    """Every key takes a sixth of the nasty values, or refuses them with an error that commands print in one line."""
    plain = OmegaConf.to_container(composed(name, *NEEDED.get(name, [])), resolve=False)
    refused = {}
    for i, key in enumerate(keys_of(plain)):
        for value in NASTY[i % 6 :: 6]:
            changed = OmegaConf.create(plain)
            OmegaConf.update(changed, key, value, merge=False)
            try:
                CHECKS[name](changed)
            except EXPECTED as error:
                refused[key] = str(error)
    assert len(refused) > len(list(keys_of(plain))) / 2
    assert all(refused.values())
