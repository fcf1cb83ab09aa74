"""Listings: Docker's tables, `--format`, `-q`, for any kind of row.

A kind of row is a `Kind`: its fields are functions of the item, each with a heading. The built-in tables are a list of
field names, so the common case runs without the template engine.
Source: the layout is that of Go's text/tabwriter with minimum width 10 and padding 3.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from tare.cli.context import Context

    Item: TypeAlias = "dict[str, Any]"
    Field: TypeAlias = "tuple[str, Callable[[Item], object]]"

_MIN_WIDTH, _PADDING = 10, 3
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class Kind:
    """A kind of row. `go_type` is Go's name in errors; `methods` are fields that take one argument."""

    def __init__(
        self,
        go_type: str,
        fields: dict[str, Field],
        *,
        methods: dict[str, Callable[[Item, str], str]] | None = None,
        in_json: Sequence[str] = (),
        not_in_json: Sequence[str] = (),
    ) -> None:
        self.go_type = go_type
        self.fields = fields
        self.methods = methods or {}
        self.json_names = sorted((set(fields) - set(not_in_json)) | set(in_json))


class Row:
    """One item as templates see it."""

    def __init__(self, kind: Kind, item: Item) -> None:
        self._kind = kind
        self._item = item

    def template_field(self, name: str, arguments: list[object]) -> object:
        """The value of a field or method. Raises Missing."""
        from tare.cli.template import Missing

        if name in self._kind.methods:
            if len(arguments) != 1 or not isinstance(arguments[0], str):
                raise Missing(f"wrong number of args for {name}: want 1 got {len(arguments)}")
            return self._kind.methods[name](self._item, arguments[0])
        if name not in self._kind.fields:
            raise Missing(f"can't evaluate field {name} in type {self._kind.go_type}")
        if arguments:
            raise Missing(f"wrong number of args for {name}: want 0 got {len(arguments)}")
        return self._kind.fields[name][1](self._item)

    def template_json(self) -> dict[str, object]:
        """`{{json .}}`."""
        return {name: self._kind.fields[name][1](self._item) for name in self._kind.json_names}


class _Header:
    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def template_field(self, name: str, arguments: list[object]) -> object:
        if name in self._kind.methods and arguments:
            return str(arguments[0]).split(".")[-1].replace("-", " ").replace("_", " ")
        if name in self._kind.fields:
            return self._kind.fields[name][0]
        return "<no value>"


def escape(text: str) -> str:
    """Text from outside made harmless for a terminal: controls, escapes and direction marks become visible."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\x{ord(c):02x}" if ord(c) < 32 or 127 <= ord(c) < 160 else f"\\u{ord(c):04x}" if c in _BIDI else c
        for c in text
    )


def table(rows: Sequence[Sequence[str]], *, least: int = _MIN_WIDTH) -> str:
    """Rows of cells as lines, each cell but the last padded to its column of `least` or more."""
    columns = max((len(row) for row in rows), default=0)
    widths = [0] * columns
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths[column], len(cell) + _PADDING, least)
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[column]) for column, cell in enumerate(row[:-1])]
        lines.append("".join([*cells, *row[-1:]]) + "\n")
    return "".join(lines)


def show(context: Context, kind: Kind, items: Sequence[Item], *, columns: Sequence[str], layout: str = "") -> None:
    """Print `items` as the built-in table of `columns`, or as `layout` (--format) says. Raises Exit for a bad one."""
    clean = escape if context.is_terminal else str
    if layout in ("", "table"):
        rows = [[kind.fields[name][0] for name in columns]]
        rows += [[clean(_cell(kind.fields[name][1](item))) for name in columns] for item in items]
        context.out(table(rows))
        return
    is_table = layout == "table" or layout.startswith(("table ", "table\t", "table\\t"))
    template = compile_layout("{{json .}}" if layout == "json" else layout[len("table") :] if is_table else layout)
    from tare.cli.template import TemplateError

    texts = []
    try:
        texts = [template.execute(Row(kind, item)) for item in items]
    except TemplateError as error:
        from tare.cli import exit as exits

        raise exits.Exit(exits.FAILED, f"failed to execute template: {error}") from None
    if is_table:
        texts.insert(0, header_template(layout[len("table") :]).execute(_Header(kind)))
        context.out(table([[clean(cell) for cell in line.split("\t")] for text in texts for line in text.split("\n")]))
    else:
        for text in texts:
            context.line(text)


def lines(context: Context, values: Sequence[str]) -> None:
    """What -q prints."""
    if values:
        context.out("\n".join(values) + "\n")


def _cell(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def compile_layout(text: str, *, name: str = "") -> Template:
    """The template of --format, with Docker's `\\t` and `\\n`. Raises Exit with Docker's text."""
    from tare.cli import exit as exits
    from tare.cli.template import Template, TemplateError

    try:
        return Template(text.strip(" ").replace("\\t", "\t").replace("\\n", "\n"), name=name)
    except TemplateError as error:
        raise exits.Exit(exits.FAILED, f"failed to parse template: {error}") from None


def header_template(text: str) -> Template:
    """The same layout for the headings, where the functions leave the text alone."""
    from tare.cli.template import Template

    same = dict.fromkeys(("json", "title", "lower", "upper"), lambda text: text)
    cut = {"truncate": lambda text, _: text, "pad": lambda text, *_: text}
    parts = {"split": lambda text, _: text, "join": lambda text, _: text}
    layout = text.strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    return Template(layout, functions={**same, **cut, **parts})


def filters(pairs: Sequence[str]) -> str:
    """--filter key=value in the map form of the wire; "" when there are none."""
    if not pairs:
        return ""
    from tare.client import gojson

    found: dict[str, dict[str, bool]] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key:
            found.setdefault(key.strip().lower(), {})[value.strip()] = True
    return gojson.dumps({key: dict(sorted(found[key].items())) for key in sorted(found)}) if found else ""


def ellipsis(text: str, width: int) -> str:
    """At most `width` characters, the last an ellipsis when something was cut."""
    if len(text) <= width:
        return text
    return text[:width] if width <= 1 else f"{text[: width - 1]}\u2026"


def short_id(identifier: str) -> str:
    """Twelve digits, without the algorithm."""
    return identifier.partition(":")[2][:12] if ":" in identifier else identifier[:12]


if TYPE_CHECKING:
    from tare.cli.template import Template
