"""Every documented key is set once through the command line; bad values end in one line and exit code 1."""

import sys
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kronos_lightning.cli.arguments import prepare
from kronos_lightning.cli.entry import command
from kronos_lightning.cli.errors import one_line_errors
from kronos_lightning.cli.secrets import without_secrets
from kronos_lightning.config.compose import conf_directory
from kronos_lightning.settings.text import UNPRINTABLE
from tests.helpers.configuration import CHECKS, composed

REQUIRED = {
    "forecast": ["candles=x.csv"],
    "download": ["symbol=BTCUSDT", "interval=1d"],
    "doctor": ["candles=x.csv"],
    "export": ["run=runs/x"],
    "live": ["checkpoint=x"],
}
NUMBERS = st.sampled_from(["0", "-1", "1e400", "nan", "inf", "99999999999999999999", "0x10", "true", "null", "''"])
ODD = st.sampled_from(
    ["[]", "{}", "[1,2]", "{a:1}", "a b", "a,b", "${x}", "${oc.env:NOT_SET}", "???", "\\", "'", "é\x1b[0m"]
)

PLACES = [
    "/",
    "..",
    "/dev/null",
    "\x1b[2J",
    "a\nb",
    "${x}",
    "nan",
    "-0",
    "2024-13-45",
    "9" * 400,
    "../" * 99,
    "${oc.env:NO}",
]


def leaves(node, prefix=""):
    """Each dotted key with a value that is not a mapping, as in the files."""
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none() and len(value) and not value._is_interpolation():
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", OmegaConf.to_container(OmegaConf.create({"x": value}), resolve=False)["x"]


def text(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{text(one)}" for key, one in value.items()) + "}"
    return str(value) if isinstance(value, int | float) else "'{}'".format(str(value).replace("'", "\\'"))


@pytest.mark.parametrize("name", CHECKS)
def test_every_key_can_be_set_on_the_command_line(name):
    given = REQUIRED.get(name, [])
    plain = composed(name, *given)
    arguments = [f"{key}={text(value)}" for key, value in leaves(plain)]
    assert len(arguments) > 4
    set_again = composed(name, *prepare(name, without_secrets(arguments)))
    assert OmegaConf.to_container(set_again, resolve=False) == OmegaConf.to_container(plain, resolve=False)


@pytest.mark.parametrize("name", CHECKS)
def test_no_key_of_a_command_has_the_name_of_a_group_that_it_does_not_use(name):
    groups = {path.name for path in conf_directory().iterdir() if path.is_dir()}
    scalars = {key for key, _ in leaves(composed(name)) if "." not in key}
    assert not groups & scalars


def run(name, arguments, monkeypatch, capsys):
    """Run a command up to its checked configuration; return its exit code and what it wrote to stderr."""
    monkeypatch.setattr(sys, "argv", ["program", *arguments])

    def main(cfg):
        CHECKS[name](cfg)

    try:
        command(name)(main)()
        code = 0
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


KEYS = [(name, key) for name in CHECKS for key, _ in leaves(composed(name, *REQUIRED.get(name, [])))]


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KEYS), NUMBERS | ODD)
def test_a_bad_value_ends_in_one_line(monkeypatch, capsys, key, value):
    name, dotted = key
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    code, told = run(name, [*REQUIRED.get(name, []), f"{dotted}={value}"], monkeypatch, capsys)
    assert code in (0, 1), told
    if code:
        assert told.startswith("error: ")
        assert told.count("\n") == 1
        assert "\x1b" not in told


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(PLACES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
PLAIN = {name: composed(name, *REQUIRED.get(name, [])) for name in CHECKS}


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(KEYS), ANYTHING)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(monkeypatch, capsys, key, value):
    name, dotted = key
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    changed = PLAIN[name].copy()
    try:
        OmegaConf.update(changed, dotted, value, merge=False)
    except OmegaConfBaseException:  # no configuration can hold it
        return
    with suppress(SystemExit):
        one_line_errors(CHECKS[name])(changed)
        return
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert not UNPRINTABLE.search(told), ascii(told)


def test_a_password_is_not_told_in_an_error(monkeypatch, capsys):
    for argument in ("data.binance.proxy=ftp://user:PLANTED@host", "data.binanc.proxy=http://user:PLANTED@host"):
        code, told = run("train", [argument], monkeypatch, capsys)
        assert code == 1
        assert "PLANTED" not in told


def test_a_password_is_referred_to_and_still_used():
    (argument,) = prepare("train", without_secrets(["data.binance.proxy=http://user:PLANTED@host:8080"]))
    assert "PLANTED" not in argument
    cfg = composed("train", argument)
    assert cfg.data.binance.proxy == "http://user:PLANTED@host:8080"
    assert "PLANTED" not in OmegaConf.to_yaml(cfg)
