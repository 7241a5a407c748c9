"""Definitions of tools on their way over the bus: compressed, since a message has at most 1 MiB there."""

import zlib
from collections.abc import Iterable, Sequence

import msgspec

LONGEST = 256 * 1024  # bytes of one definition's text
_ALTOGETHER = 4 * 1024 * 1024  # bytes of texts in one message
_UNPACKED = 32 * 1024 * 1024  # bytes


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as its server lists it. `text` is its canonical definition, of which `digest` is the digest
    (libs.common.decision.pins); empty where it was too long to be sent."""

    name: str
    digest: str
    text: str = ""


class TooLong(ValueError):
    """There are too many of them for one message."""


def pack(definitions: Iterable[Definition], room: int) -> bytes:
    """`definitions` in at most `room` bytes. Where they do not fit the longest lose their texts, and only
    that: names and digests are always there. Raises `TooLong`. May take a tenth of a second."""
    kept = _without_text(list(definitions), LONGEST, _ALTOGETHER)
    while len(packed := zlib.compress(msgspec.json.encode(kept), 1)) > room:
        texts = sum(len(definition.text) for definition in kept)
        if not texts:
            raise TooLong(f"{len(kept)} definitions do not fit into {room} bytes")
        kept = _without_text(kept, LONGEST, texts // 2)
    return packed


def unpack(packed: bytes) -> list[Definition]:
    """What `pack` was given, perhaps without some texts. Raises `ValueError` for anything else."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(packed, _UNPACKED)
    except zlib.error as error:
        raise ValueError(f"no packed definitions: {error}") from error
    if not reader.eof:
        raise ValueError("no packed definitions: cut off, or too long")
    return msgspec.json.decode(data, type=list[Definition])


def _without_text(definitions: Sequence[Definition], longest: int, altogether: int) -> list[Definition]:
    """The same with the shortest texts that come to `altogether`, none over `longest`."""
    kept: set[int] = set()
    for index in sorted(range(len(definitions)), key=lambda index: len(definitions[index].text)):
        altogether -= len(definitions[index].text)
        if altogether < 0 or len(definitions[index].text) > longest:
            break
        kept.add(index)
    return [
        definition if index in kept else msgspec.structs.replace(definition, text="")
        for index, definition in enumerate(definitions)
    ]
