"""What is typed into the pages. A secret is never shown again, also when a form comes back with an error."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, get_args

from starlette.datastructures import FormData

from libs.common.control.entries import Server, destination_of
from libs.common.errors import BadRequest, Conflict
from services.credentials.layout import Field, Into, Layout, Placement

VALUE = "value."  # before the name of a field
SPARE = 2  # empty rows for more


@dataclass(frozen=True, slots=True)
class CredentialForm:
    """`origin` is the server's as it was when the page was shown: whoever typed meant it for that one."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    label: str = ""
    origin: str = ""

    @classmethod
    def of(cls, form: FormData) -> Self:
        """White space around what was pasted is dropped."""
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
        values = {
            name.removeprefix(VALUE): value.strip() for name, value in texts.items() if name.startswith(VALUE)
        }
        return cls(values, texts.get("label", "").strip(), texts.get("origin", ""))

    @classmethod
    def blank(cls, server: Server) -> Self:
        return cls(origin=destination_of(server))

    def check_origin(self, server: Server) -> None:
        """Raise `Conflict` when `server` has moved since the page was shown."""
        if self.origin != destination_of(server):
            raise Conflict(
                "The server's address or command has changed in the meantime. Look at it, then enter the key."
            )


@dataclass(frozen=True, slots=True)
class FieldRow:
    name: str = ""
    label: str = ""
    help: str = ""
    secret: bool = True


@dataclass(frozen=True, slots=True)
class PlacementRow:
    into: str = "header"
    name: str = ""
    template: str = ""


@dataclass(frozen=True, slots=True)
class LayoutForm:
    """Rows as they were typed; empty ones do not count. `usual`: place keys as usual again."""

    fields: Sequence[FieldRow]
    placements: Sequence[PlacementRow]
    usual: bool = False

    @classmethod
    def of(cls, form: FormData) -> Self:
        def texts(name: str) -> list[str]:
            return [value.strip() if isinstance(value, str) else "" for value in form.getlist(name)]

        kinds = [kind != "shown" for kind in texts("field_kind")]
        rows = zip(texts("field_name"), texts("field_label"), texts("field_help"), kinds, strict=False)
        placements = zip(
            texts("placement_into"), texts("placement_name"), texts("placement_template"), strict=False
        )
        return cls(
            [FieldRow(*row) for row in rows],
            [PlacementRow(*row) for row in placements],
            usual="usual" in form,
        )

    @classmethod
    def showing(cls, layout: Layout, server: Server) -> Self:
        """The layout as it is, and room for more. A stdio server has environment variables only."""
        fits = all(
            (item.into == "environment") == (server.transport == "stdio") for item in layout.placements
        )
        into = "environment" if server.transport == "stdio" else "header"
        placements = layout.placements if fits else (PlacementRow(into, "", "{key}"),)
        return cls(
            [*(FieldRow(item.name, item.label, item.help, item.secret) for item in layout.fields),
             *[FieldRow()] * SPARE],
            [*(PlacementRow(item.into, item.name, item.template) for item in placements),
             *[PlacementRow(into)] * SPARE],
        )  # fmt: skip

    def layout(self) -> Layout:
        """Raises `BadRequest`."""
        if unknown := [row.into for row in self.placements if row.into not in get_args(Into)]:
            raise BadRequest(
                f"a key goes into a header, the query or the environment, not {unknown[0][:20]!r}"
            )
        return Layout(
            tuple(Field(row.name, row.label, row.secret, row.help) for row in self.fields if row.name),
            tuple(
                Placement(row.into, row.name, row.template)  # type: ignore[arg-type]
                for row in self.placements
                if row.name
            ),
        )
