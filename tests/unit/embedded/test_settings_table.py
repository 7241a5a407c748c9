"""docs/settings.md says what the settings classes say."""

from pathlib import Path

from libs.common.settings import PREFIX, Settings
from services.embedded import settings_table
from services.embedded.catalog import NAMES, settings_class

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"
CLASSES: list[type[Settings]] = [Settings, *map(settings_class, NAMES)]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == settings_table.page(), (
        "write it anew: python -m services.embedded.settings_table > docs/settings.md"
    )


def test_every_setting_has_one_row() -> None:
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith(f"| `{PREFIX}")]
    assert sorted(rows) == sorted({f"{PREFIX}{name.upper()}" for cls in CLASSES for name in cls.model_fields})


def test_every_setting_says_what_it_does() -> None:
    fields = {name: field for cls in CLASSES for name, field in cls.model_fields.items()}
    assert [name for name, field in fields.items() if not field.description] == []
