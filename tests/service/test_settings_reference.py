"""The page of settings says what the code says."""

from pathlib import Path

from service.settings import Settings
from service.settings_reference import settings_reference

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == settings_reference(), "docs/settings.md is not current: make settings"


def test_every_setting_says_what_it_is_and_what_it_takes() -> None:
    rows = [line.strip("| ").split(" | ") for line in settings_reference().splitlines() if line.startswith("| `QUANT")]
    assert [row[0] for row in rows] == [f"`QUANTSIEVE_{name.upper()}`" for name in Settings.model_fields]
    assert all(row[1] and row[-1] for row in rows)
    assert "at least 0, at most 65535" in next(row[1] for row in rows if "PORT" in row[0])
