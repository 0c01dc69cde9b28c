"""Runs with one data.name do not disturb each other; processed candles are whole or made anew."""

import threading

import pytest

from kronos_lightning.data import CandleError
from tests.helpers.data import data_module


@pytest.fixture
def make(tmp_path):
    def prepared(**changes):
        module = data_module(**{"processed_dir": str(tmp_path / "processed")} | changes)
        module.prepare_data()
        return module

    return prepared


def files(module):
    return {path.name: path.read_bytes() for path in module.files.folder.iterdir()}


def test_a_run_keeps_its_data_and_fingerprints_while_another_prepares_the_same_name(make):
    first = make()
    fingerprints, before = first.fingerprints, files(first)
    synthetic = first.config.synthetic.model_dump() | {"seed": 4}
    for changes in ({"synthetic": synthetic}, {"lookback": 30}):
        other = make(**changes)
        assert other.files.folder != first.files.folder
    first.setup()
    assert first.state_dict() == {"fingerprints": fingerprints}
    assert files(first) == before
    assert first.read()[0].fingerprint == fingerprints["X"]


@pytest.mark.parametrize("place", ["values.npy", "data.parquet"])
def test_a_changed_bit_is_noticed_and_the_candles_are_processed_again(make, caplog, place):
    module = make()
    before = files(module)
    path = next(module.files.folder.glob(f"*train*{place}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = make()
    assert f"{path}: does not match its checksum" in caplog.text
    assert files(again) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"settings": {}}'])
def test_a_damaged_manifest_is_written_again(make, text):
    module = make()
    before = files(module)
    (module.files.folder / "manifest.json").write_text(text)
    assert files(make()) == before


def test_several_that_prepare_the_same_at_once_get_the_same_whole_data(make):
    made, threads = [], [threading.Thread(target=lambda: made.append(make())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert all(files(module) == files(made[0]) and module.files.is_whole() for module in made)


def test_candles_that_change_after_they_were_prepared_are_refused_with_both_fingerprints(make, guide_csv):
    module = make(csv_path=str(guide_csv), synthetic=None)
    before = module.fingerprints["X"]
    lines = guide_csv.read_text().splitlines()
    guide_csv.write_text("\n".join(lines[:-1]))
    with pytest.raises(CandleError, match=rf"X \(fingerprint {before[:16]} before, [0-9a-f]{{16}} now\)"):
        module.read()
    with pytest.raises(CandleError, match=rf"cannot resume.*{before[:16]} before"):
        make(csv_path=str(guide_csv), synthetic=None).load_state_dict({"fingerprints": {"X": before}})


def test_a_file_that_changes_while_it_is_read_is_refused(make, guide_csv, monkeypatch):
    module = data_module(csv_path=str(guide_csv), synthetic=None, processed_dir=str(guide_csv.parent / "processed"))
    examine = module.markets[0].examine

    def change():
        result = examine()
        guide_csv.write_text(guide_csv.read_text() + "\n")
        return result

    monkeypatch.setattr(module.markets[0], "examine", change)
    with pytest.raises(CandleError, match="a candle file changed while it was read"):
        module.prepare_data()
