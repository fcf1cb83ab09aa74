"""One line of comma-separated fields with double quotes, as --mount, --network and --gpus take it."""

from __future__ import annotations


def fields(line: str) -> list[str]:
    """The fields of `line`. A field in quotes may hold commas, `""` in it is one quote. Raises ValueError.

    Source: RFC 4180; the texts are those of Go's encoding/csv, which Docker's users know.
    """
    if line == "":
        raise ValueError("EOF")
    found: list[str] = []
    at = 0
    while True:
        if line[at : at + 1] == '"':
            field, at = _quoted(line, at + 1)
        else:
            end = line.find(",", at)
            end = len(line) if end < 0 else end
            field = line[at:end]
            if '"' in field:
                raise ValueError(
                    f'parse error on line 1, column {at + field.index(chr(34)) + 1}: bare " in non-quoted-field'
                )
            at = end
        found.append(field)
        if at >= len(line):
            return found
        at += 1


def _quoted(line: str, at: int) -> tuple[str, int]:
    text = ""
    while True:
        end = line.find('"', at)
        if end < 0:
            raise ValueError(f'parse error on line 1, column {len(line) + 1}: extraneous or missing " in quoted-field')
        text += line[at:end]
        at = end + 1
        if line[at : at + 1] == '"':
            text += '"'
            at += 1
        elif at >= len(line) or line[at] == ",":
            return text, at
        else:
            raise ValueError(f'parse error on line 1, column {at}: extraneous or missing " in quoted-field')
