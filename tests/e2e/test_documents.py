"""The documents tell the truth: commands, keys, packages, and the code they show."""

import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kronos_lightning import Forecaster
from kronos_lightning.cli.arguments import quote_files
from kronos_lightning.cli.download import as_lists
from kronos_lightning.config.validation import check_evaluation, check_training
from kronos_lightning.runs.builders import build_datamodule
from tests.helpers.configuration import CHECKS, composed
from tests.helpers.documents import blocks, text_of, write_extension
from tests.helpers.forecasts import made
from tests.helpers.pages import loaded, loaded_from_elsewhere
from tests.helpers.paths import ROOT
from tests.helpers.training import fit, tokenizer_module

READMES = ["README.md", "README.zh-CN.md"]
DOCS = ROOT / "docs"
PAGES = [*READMES, *sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))]
MODULES = {  # configuration and reading of the command line
    "kronos_lightning.forecast": ("forecast", lambda arguments: quote_files(arguments, "candles")),
    "kronos_lightning.data.doctor": ("doctor", lambda arguments: quote_files(arguments, "candles")),
    "kronos_lightning.export": ("export", lambda arguments: quote_files(arguments, "run")),
    "kronos_lightning.data.binance": ("download", as_lists),
    "kronos_lightning.serve": ("serve", lambda arguments: quote_files(arguments, "checkpoint")),
    "kronos_lightning.live": ("live", lambda arguments: arguments),
    "kronos_lightning.evaluation.leakcheck": ("evaluate", lambda arguments: arguments),
}


def commands(page):
    """Lines of the bash blocks of a page, without comments; what torchrun and srun start counts as a python command."""
    lines = [line.split(" #")[0].strip() for block in blocks(page, "bash") for line in block.splitlines()]
    return [re.sub(r"^(torchrun|srun) .*?(python )?(?=train\.py)", "python ", line) for line in lines]


ALL_COMMANDS = list(dict.fromkeys(line for page in PAGES for line in commands(page)))
PYTHON_COMMANDS = [line for line in ALL_COMMANDS if line.startswith("python ")]


def overrides_of(arguments):
    """All arguments but those which ask for a sweep or for the configuration; of swept values the first."""
    text = " ".join(map(shlex.quote, arguments))
    left = shlex.split(re.sub(r"(?<!\S)(-m|--multirun|--cfg job)(?!\S)", "", text))
    return [re.sub(r"^([^=]+=[^\[,]+),.*", r"\1", argument) for argument in left]


@pytest.mark.parametrize("line", PYTHON_COMMANDS)
def test_every_python_command_is_valid(line):
    """Composes and checks each command; data files and published weights are not at hand here."""
    _, script, *arguments = shlex.split(line)
    if script == "-m":
        name, overrides = MODULES[arguments[0]]
        arguments = overrides(arguments[1:])
    else:
        name, arguments = script.removesuffix(".py"), overrides_of(arguments)
    CHECKS[name](composed(name, *arguments))


@pytest.mark.parametrize("argument", ["--resume", "-x", "stage", "stage.lerning_rate=1", "~callbacks.nothing"])
def test_an_argument_that_is_none_is_not_passed_over(argument):
    with pytest.raises(Exception, match=re.escape(argument.strip("-~").split("=")[0])):
        test_every_python_command_is_valid(f"python train.py -m stage=tokenizer,predictor {argument} --cfg job")


def test_every_make_target_of_the_documents_exists():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[0] for line in shown.splitlines()}
    assert {line.split()[1] for line in ALL_COMMANDS if line.startswith("make ")} <= targets
    assert {"demo", "test", "lint", "format", "docs", "bench", "clean", "help"} <= targets


@pytest.mark.parametrize("page", READMES)
def test_a_readme_is_a_short_page_with_a_plot_and_the_main_commands(page):
    text = text_of(page)
    assert len(text.splitlines()) <= 130
    (image,) = re.findall(r"!\[.+\]\((.+)\)", text)
    assert 0 < (ROOT / image).stat().st_size < 300_000
    assert {"make demo", "make test"} <= set(commands(page))
    assert len([line for line in commands(page) if line.startswith("python ")]) >= 4


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        READMES,
        ("docs/quickstart.md", "docs/quickstart.zh.md"),
    ],
    ids=["README", "quickstart"],
)
def test_a_page_in_two_languages_shows_the_same_commands(english, chinese):
    assert commands(english)
    assert commands(english) == commands(chinese)


def test_both_readmes_show_the_same_scripts_and_links():
    english, chinese = map(text_of, READMES)
    scripts = re.findall(r"^kronos-\w+", text_of("pyproject.toml"), flags=re.MULTILINE)
    assert scripts
    for text in (english, chinese):
        assert set(re.findall(r"`(kronos-\w+)` \|", text)) == set(scripts)
    links = [set(re.findall(r"\]\((docs/[^)]+)\)", text)) for text in (english, chinese)]
    assert links[1] - links[0] <= {"docs/quickstart.zh.md"}
    assert links[0] - links[1] <= {"docs/quickstart.md"}


def test_both_quickstarts_show_the_same_commands():
    assert commands("docs/quickstart.md") == commands("docs/quickstart.zh.md")


@pytest.mark.parametrize("notebook", sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")))
def test_every_notebook_is_linked_from_both_readmes_and_shown_by_the_architecture_page(notebook):
    assert all(f"(notebooks/{notebook})" in text_of(page) for page in READMES)
    assert notebook in text_of("docs/explanations/architecture.md")


@pytest.mark.parametrize("page", READMES)
def test_the_links_of_a_readme_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text_of(page))
    assert len(targets) >= 15
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize(
    "text",
    [
        '<script src="{}"></script>',
        '<link rel="stylesheet" href="{}">',
        '<img src="{}">',
        '<iframe src="{}"></iframe>',
        "<style>p {{ background: url('{}') }}</style>",
        '<p style="background: url({})">',
        '<style>@import "{}";</style>',
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(text, tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "page.html").write_text('<a href="https://a.b/c">a link loads nothing</a><img src="data:image/png,x">')
    (tmp_path / "inside" / "page.html").write_text(text.format("own.file"))
    assert loaded_from_elsewhere(tmp_path) == []
    assert loaded(tmp_path) == {"inside/page.html": ["own.file"]}
    for address in ("https://a.b/c", "//a.b/c"):
        (tmp_path / "inside" / "page.html").write_text(text.format(address))
        assert loaded_from_elsewhere(tmp_path) == [("inside/page.html", address)]


def test_the_website_builds_and_loads_nothing_from_elsewhere(tmp_path):
    """Strict: a broken link or a page that the navigation lacks is an error."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "site").rglob("*.html"))) > len(list(DOCS.rglob("*.md")))  # and one for a wrong address
    assert loaded_from_elsewhere(tmp_path / "site") == []


def keys_of(node, prefix=""):
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


@pytest.fixture(scope="module")
def conf():
    """Each key of each command, with the values that it has in them."""
    every = [composed("train", "stage=predictor"), *map(composed, CHECKS)]
    values = {}
    for one in every:
        for key in keys_of(OmegaConf.to_container(one, resolve=False)):
            values.setdefault(key, []).append(OmegaConf.select(one, key))
    return values


def rows(page):
    """First heading and cells of each row of a page's tables; a heading that is a key is a row of keys as well."""
    for table in re.findall(r"(?:^\|.*\n?)+", text_of(page), flags=re.MULTILINE):
        head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        if re.fullmatch(r"`[a-z_]+\.[a-z_.]+`", head[0]):
            yield "key", head
        yield from ((head[0], cells) for cells in lines)


def settings_in(heading, cell):
    """Settings that the first cell of a row names: in a table of keys all words of code, else those with a value."""
    words = re.findall(r"`([^`]+)`", cell)
    section = "".join(words[:1]).rpartition(".")[0]  # `backtest.stop_loss`, `take_profit`
    if heading != "key":
        return [word for word in words if re.fullmatch(r"[a-z_./0-9]+=\S+", word)]
    return [word if "." in word or "=" in word or not section else f"{section}.{word}" for word in words]


TABLES = {page: [row for row in rows(page) if settings_in(row[0], row[1][0])] for page in PAGES}


def test_the_guides_have_tables_of_settings():
    in_guides = [row for page in PAGES if page.startswith("docs/guides/") for row in TABLES[page]]
    assert len([row for row in in_guides if row[0] == "key"]) >= 40


@pytest.mark.parametrize("page", [page for page in PAGES if TABLES[page]])
def test_the_settings_in_the_tables_of_a_page_are_those_of_conf(page, conf):
    for heading, (first, *_) in TABLES[page]:
        for setting in settings_in(heading, first):
            key, _, value = setting.partition("=")
            if value and (ROOT / "conf" / key).is_dir():
                assert (ROOT / "conf" / key / f"{value}.yaml").is_file(), setting
            else:
                assert key.removesuffix(".*") in conf, setting


def test_the_numbers_in_the_tables_of_defaults_are_those_of_conf(conf):
    compared = 0
    for page in PAGES:
        for heading, (first, default, *_) in (row for row in TABLES[page] if row[0] == "key"):
            try:
                values = json.loads(f"[{default.replace('−', '-')}]")
            except ValueError:  # in words
                continue
            keys = settings_in(heading, first)
            for key, value in zip(keys, values, strict=True) if len(keys) == len(values) else product(keys, values):
                assert value in conf[key], f"{page}: {key} {value}"
                compared += 1
    assert compared >= 20


@pytest.fixture(scope="module")
def generator():
    return runpy.run_path(str(DOCS / "generate_configuration.py"))


def test_the_configuration_reference_is_up_to_date(generator):
    assert text_of("docs/reference/configuration.md") == generator["page"](), "run make docs"


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_every_configuration_key_has_an_explanation(generator, name):
    assert generator["unexplained"](name) == []


def test_an_explanation_is_the_comment_beside_a_key_or_above_it(generator, tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text(
        "# header of the file\n"
        "first: 1\n"
        "second: a   # beside, which\n"
        "            # continues\n"
        "# above\n"
        "third: [x, y]\n"
        "inner:      # of the section\n"
        "  fourth: '#'   # after a quoted value\n"
        "  fifth: 2\n"
    )
    assert generator["ConfFile"](path, "part").explanations() == {
        "part.second": "beside, which continues",
        "part.third": "above",
        "part.inner": "of the section",
        "part.inner.fourth": "after a quoted value",
    }


def test_the_architecture_page_shows_every_package():
    shown = text_of("docs/explanations/architecture.md")
    packages = {path.parent.name for path in (ROOT / "kronos_lightning").glob("*/__init__.py")}
    assert packages
    assert {package for package in packages if len(re.findall(rf"\b{package}/", shown)) < 2} == set()


@pytest.mark.parametrize("page", [*READMES, "docs/reference/python-api.md"])
def test_the_python_code_of_the_documents_runs(
    page, tmp_path, monkeypatch, guide_csv, tiny_tokenizer, tiny_predictor, candles
):
    def tiny(tokenizer, predictor):
        return Forecaster(tiny_tokenizer, tiny_predictor, max_context=64)

    monkeypatch.setattr(Forecaster, "from_pretrained", tiny)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "csv").mkdir()
    shutil.copy(guide_csv, tmp_path / "csv" / "BTCUSDT_1d.csv")
    frame = pd.read_csv(guide_csv, parse_dates=["timestamps"])
    long = frame.rename(columns={"timestamps": "timestamp"}).assign(item_id="X")
    found = {"candles": frame, "long_df": long}
    for block in blocks(page, "python"):
        exec(block, found)
    assert found["paths"].shape == (1, 100, 24, 6)
    assert {"target_name", "predictions", "0.1", "0.5", "0.9"} <= set(found["table"].columns)


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """Write the code and the configuration of a page of docs/extend; returns the search path for Hydra."""

    def write(page):
        write_extension(page, tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        return f"hydra.searchpath=[file://{tmp_path / 'conf'}]"

    return write


def test_the_source_of_the_documents_fills_a_data_module(extension, tmp_path):
    settings = check_training(
        composed("train", extension("docs/extend/source.md"), "data=waves", f"data.processed_dir={tmp_path / 'done'}")
    )
    module = build_datamodule(settings.data)
    module.prepare_data()
    module.setup()
    (candles,) = module.read()
    assert candles.synthetic
    assert candles.frame["close"].max() == pytest.approx(110)
    assert len(module.windows["train"]) > 400


def test_the_baseline_of_the_documents_gives_paths(extension, candles):
    search = extension("docs/extend/baseline.md")
    chosen = "evaluation.baselines=[constant,garch]"
    settings = check_evaluation(composed("evaluate", search, "baselines=constant", chosen))
    baseline = instantiate(settings.baselines["constant"])
    assert baseline.applies_to(candles.interval)
    paths = baseline.sample_paths(candles, np.array([100, 200]), 4, 3)
    assert paths.shape == (2, 3, 4, 6)
    np.testing.assert_allclose(paths[1, 0, 0], candles.frame["close"][200], rtol=1e-6)


def test_the_strategy_of_the_documents_gives_signals_and_is_searched(extension):
    search = extension("docs/extend/strategy.md")
    strategy = instantiate(check_evaluation(composed("evaluate", search, "strategy=every_nth")).strategy)
    forecasts = made(paths=np.ones((6, 3, 2)), actual=np.ones((6, 2)), last=np.ones(6))
    assert strategy.signals(forecasts).tolist() == [1, -1, 0, 0, 1, -1]
    name, values = next(iter(strategy.search_space.items()))
    assert {strategy.with_parameters(**{name: value}).parameters[name] for value in values} == set(values)
    assert strategy.describe()


def test_the_regulariser_of_the_documents_acts_in_a_step(extension, tmp_path, tiny_tokenizer):
    settings = check_training(composed("train", extension("docs/extend/regulariser.md"), "regularization=zero"))
    regulariser = instantiate(settings.regularization.extra["zero"])
    fit(tokenizer_module(tiny_tokenizer, regularisers=[regulariser]), tmp_path, max_steps=1)
    weights = dict(tiny_tokenizer.named_parameters())
    assert not any(torch.count_nonzero(p) for name, p in weights.items() if name.startswith("decoder.0."))
    assert torch.count_nonzero(weights["embed.weight"])
