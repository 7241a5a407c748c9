"""Every setting as a page of Markdown, from the settings classes themselves.

python -m services.embedded.settings_table > docs/settings.md
"""

from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from libs.common.settings import PREFIX, Settings
from services.embedded.catalog import NAMES, settings_class

HEAD = f"""\
# Settings

By environment variables with the prefix `{PREFIX}`. Durations are in seconds, sizes in bytes. Wrong values
are reported all at once when a service starts, and variables that nothing reads are named. `lockgate up`
needs none.

This page is made from the code: `python -m services.embedded.settings_table > docs/settings.md`.
"""
COLUMNS = "| variable | default | values | |\n|---|---|---|---|"


def page() -> str:
    """All of it: a table for what every service reads, and one per service for its own."""
    sections = [_section("Every service", Settings)]
    sections += [_section(f"The {name} service", settings_class(name)) for name in NAMES]
    return "\n".join([HEAD, *sections])


def _section(title: str, cls: type[Settings]) -> str:
    rows = "\n".join(_row(name, field) for name, field in _own(cls))
    return f"## {title}\n\n{COLUMNS}\n{rows}\n"


def _own(cls: type[Settings]) -> Iterator[tuple[str, FieldInfo]]:
    """The fields of `cls` that not every service has, those of its bases after its own."""
    parts = cls.__mro__[: cls.__mro__.index(Settings)] or (Settings,)
    for part in parts:
        yield from ((name, field) for name, field in cls.model_fields.items() if name in part.__annotations__)


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{PREFIX}{name.upper()}` | {_default(field)} | {_values(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    match field.default:
        case None | "":
            return ""
        case bool() as value:
            return f"`{str(value).lower()}`"
        case float() as value:
            return f"`{value:.15g}`"
        case value:
            return f"`{value}`"


def _values(field: FieldInfo) -> str:
    """What it may be, where the type says so: words of a choice, or the bounds of a number."""
    if field.annotation is bool:
        return "`true`, `false`"
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(field.annotation))
    bounds: list[str] = []
    for bound in field.metadata:
        match bound:
            case Ge():
                bounds.append(f"from {bound.ge}")
            case Gt():
                bounds.append(f"above {bound.gt}")
            case Le():
                bounds.append(f"to {bound.le}")
    return " ".join(bounds)


if __name__ == "__main__":
    print(page(), end="")
