"""What stands in the way is set aside, and never lost."""

import os

from kronos_lightning.storage import archive


def test_what_is_set_aside_gets_the_time_of_its_last_change_and_replaces_nothing(tmp_path):
    for name in ("", "+"):
        place = tmp_path / "report"
        place.mkdir()
        (place / "file").write_text(name)
        os.utime(place, (1_700_000_000, 1_700_000_000))
        aside = archive(place)
        assert aside.name == f"report.2023-11-14_22-13-20{name}"
        assert (aside / "file").read_text() == name
        assert not place.exists()
    assert archive(tmp_path / "report") is None
