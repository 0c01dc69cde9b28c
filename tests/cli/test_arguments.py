"""Arguments of the commands: files under any name, and one sentence for each argument that is wrong."""

import pytest

from kronos_lightning.cli.arguments import ArgumentError, prepare, quote_files
from tests.helpers.commands import command
from tests.helpers.configuration import composed

NAMES = [
    "my candles.csv",
    "it's.csv",
    "EURUSD=X.csv",
    "BTC-USD (1).csv",
    "比特币.csv",
    "a,b.csv",
    "x{1}.csv",
    "[1].csv",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_may_have_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    for configuration in ("forecast", "doctor"):
        assert composed(configuration, *prepare(configuration, [name], "candles")).candles == name
    assert composed("train", *prepare("train", [f"data.csv_path={name}"])).data.csv_path == name
    assert composed("train", *prepare("train", ["-m", f"data.csv_path={name}", "seed=1,2"])[1:2]).data.csv_path == name


def test_a_file_that_is_missing_is_still_a_file():
    assert quote_files(["my candles.csv", "horizon=3", "--cfg", "job"], "candles") == [
        "candles='my candles.csv'",
        "horizon=3",
        "--cfg",
        "job",
    ]


@pytest.mark.parametrize(
    ("configuration", "arguments", "message"),
    [
        ("train", ["data.csv_path=gone (1).csv"], "shell too: 'data.csv_path=\"gone (1).csv\"'"),
        ("train", ["resume=ck/epoch=0-step=1.ckpt"], "shell too: 'resume=\"ck/epoch=0-step=1.ckpt\"'"),
        ("train", ["lookback=80"], "lookback: unknown key; did you mean data.lookback?"),
        ("train", ["data.lookbak=80"], "data.lookbak: unknown key; did you mean data.lookback?"),
        ("train", ["data=btc_2h"], "data=btc_2h: no such choice; data is one of"),
        ("train", ["data=btc_2h"], "btc, btc_15m, btc_1h"),
        ("train", ["data=btc_1h", "data.lookback=80,90"], "data.lookback=80,90: several values need -m (a sweep)"),
        ("train", ["-m", "stage.lr=1e-5,2e-5"], "stage.lr: unknown key"),
        ("evaluate", ["~baselines.arima"], "~baselines.arima"),
        ("forecast", ["candles=x", "weekends=true"], "weekends: unknown key"),
    ],
)
def test_a_wrong_argument_is_told_in_one_sentence(configuration, arguments, message):
    with pytest.raises(ArgumentError) as error:
        prepare(configuration, arguments)
    assert message in str(error.value)
    assert "+" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "stage.learning_rate=1e-5,2e-5", "stage=tokenizer,predictor", "hydra/launcher=basic"],
        ["-m", "hydra/sweeper=optuna", "stage.learning_rate=interval(1e-5,1e-4)"],
        ["-m", "seed=range(1,4)", "data.batch_size=choice(10,20)"],
        ["--cfg", "job", "experiment=gentle"],
        ["~callbacks.throughput", "hydra.run.dir=x"],
    ],
)
def test_what_hydra_understands_stays_as_it_is(arguments):
    assert prepare("train", arguments) == arguments


def test_a_command_ends_with_the_sentence_alone(tmp_path):
    result = command("kronos_lightning.data.doctor", "x.csv", "interva=1h", cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: interva: unknown key; did you mean interval?\n"


def test_a_number_stays_a_number_where_a_file_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").touch()
    assert prepare("train", ["seed=7"]) == ["seed=7"]
