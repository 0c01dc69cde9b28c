"""The doctor on units and columns: small prices, and a volume that is not known."""

import pandas as pd

from kronos_lightning.data.doctor import diagnose
from kronos_lightning.data.formats import PRICES


def test_small_prices_are_reported_with_what_the_published_code_does(tmp_path):
    for scale, told in ((1.0, False), (1e-8, True)):
        frame = pd.DataFrame({"timestamps": pd.date_range("2024-01-01", periods=60, freq="h")})
        frame = frame.assign(**dict.fromkeys(PRICES, 2000.0 * scale), volume=1.0)
        frame.to_csv(tmp_path / "x.csv", index=False)
        found = [finding for finding in diagnose(tmp_path / "x.csv").findings if finding.check == "small prices"]
        assert bool(found) == told


def test_the_volume_that_is_not_known_is_a_warning(tmp_path):
    stamps = pd.date_range("2024-01-01", periods=60, freq="h")
    frame = pd.DataFrame({"timestamps": stamps}).assign(**dict.fromkeys(PRICES, 2000.0), **{"Volume MA": 5.0})
    frame.to_csv(tmp_path / "x.csv", index=False)
    warnings = [finding.message for finding in diagnose(tmp_path / "x.csv").findings if finding.severity == "warning"]
    assert any("columns={volume: Volume MA}" in message for message in warnings)
