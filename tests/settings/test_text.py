"""Text from settings, files and servers: no password and no control character gets out."""

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.plotting.terminal import Terminal
from kronos_lightning.settings.text import LineFormatter, masked, masked_values, printable, shown

WORDS = st.text("abcdefgh0123456789!$%^&*()_+~.", min_size=1, max_size=20)


@given(st.sampled_from(["http", "https", "socks5h", "postgresql"]), WORDS, WORDS)
@settings(deadline=None)
def test_no_user_or_password_of_a_url_is_shown(scheme, user, password):
    text = masked(f"asked {scheme}://u{user}:q{password}q@host:8080/x, and failed")
    assert text == f"asked {scheme}://***@host:8080/x, and failed"


@pytest.mark.parametrize(
    "text",
    [
        "https://h/x?symbol=A&token=PLANTED",
        "{apiKey: PLANTED}",
        '{"secret": "PLANTED x PLANTED"}',
        "http://u:PLA/PLANTED@h",
        "http://PLANTED@h",
        "password=PLANTED",
    ],
)
def test_planted_words_are_hidden(text):
    assert "PLANTED" not in masked(text)


@pytest.mark.parametrize(
    "text", ["regularization.dropout.token=0.1", "see https://x.y/a and b@c", "A+B@DIR", "cache_tokens=true"]
)
def test_other_text_stays_as_it_is(text):
    assert shown(text) == text


def test_nested_settings_keep_their_other_values():
    given = {"options": {"apiKey": "x", "timeout": 3}, "proxy": "http://a:b@c", "list": ["http://a:b@c", None, 1.5]}
    assert masked_values(given) == {
        "options": {"apiKey": "***", "timeout": 3},
        "proxy": "http://***@c",
        "list": ["http://***@c", None, 1.5],
    }


@given(st.text())
@settings(deadline=None)
def test_nothing_that_a_terminal_obeys_is_left(text):
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in printable(text))
    assert printable(printable(text)) == printable(text)
    json.dumps(printable(text)).encode()


def test_a_log_line_has_neither_password_nor_escape():
    record = logging.LogRecord("x", logging.INFO, "", 0, "failed: %s", ("\x1b[31m http://u:p@h",), None)
    assert LineFormatter("%(message)s").format(record) == "failed: \\x1b[31m http://***@h"


def test_brackets_and_escapes_of_a_file_are_printed_as_they_are(capsys):
    terminal = Terminal(width=100)
    terminal.print("[/x] [bold]a[/bold] :smile: \x1b]0;title\x07 http://u:p@h")
    assert capsys.readouterr().out.strip() == "[/x] [bold]a[/bold] :smile: \\x1b]0;title\\x07 http://***@h"
