"""Go's text/template, as far as --format uses it. Pure: text and values in, text out.

Fields, map keys, methods with arguments, variables, pipelines, `if`, `else if`, `with`, `range` (with `else`),
comments, trim markers, and the functions Go and Docker define. Values are those of JSON, and objects with a
`template_field` method (rows of a listing). Maps are ranged over in the order of their keys.
Source: go.dev text/template; error texts as docker prints them.
"""

from __future__ import annotations

from tare.cli.human import quote_go
from tare.client import gojson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Function: TypeAlias = "Callable[..., object]"


class TemplateError(Exception):
    """`str()` is Go's text, starting with `template: `. `parsing` tells a syntax error from one of execution."""

    def __init__(self, message: str, *, parsing: bool = False) -> None:
        super().__init__(message)
        self.parsing = parsing


class Missing(Exception):
    """A field that is not there; `str()` is the end of Go's sentence about it."""


class Nil:
    """A null whose Go type is known: false, empty, prints as `text`, is null in JSON."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return False


class _Token:
    __slots__ = ("at", "kind", "text")

    def __init__(self, kind: str, text: str, at: int) -> None:
        self.kind = kind
        self.text = text
        self.at = at


class _Node:
    """kind: text, action, if, with, range, pipe, command, field, chain, var, dot, nil, const, func."""

    __slots__ = ("at", "kind", "names", "otherwise", "parts", "source", "value")

    def __init__(self, kind: str, at: int = 0, *, source: str = "", value: object = None) -> None:
        self.kind = kind
        self.at = at
        self.source = source
        self.value = value
        self.names: list[str] = []
        self.parts: list[_Node] = []
        self.otherwise: list[_Node] = []


_BLANK = " \t\r\n"
_KEYWORDS = frozenset({"if", "else", "end", "range", "with", "break", "continue", "define", "template", "block"})
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class Template:
    """A parsed template. `name` stands in error texts; `functions` add to or replace the built-in ones."""

    def __init__(self, text: str, *, name: str = "", functions: Mapping[str, Function] | None = None) -> None:
        self._text = text
        self._name = name
        self._functions: dict[str, Function] = dict(_FUNCTIONS)
        self._functions.update(functions or {})
        self._nodes = _Parser(self, text).parse()

    def fail(self, at: int, message: str) -> TemplateError:
        """A syntax error at an offset."""
        line = self._text.count("\n", 0, at) + 1
        return TemplateError(f"template: {self._name}:{line}: {message}", parsing=True)

    def has_function(self, name: str) -> bool:
        """Whether `name` can be called."""
        return name in self._functions or name in ("and", "or")

    def execute(
        self,
        data: object,
        *,
        missing: Callable[[str, str], object] | None = None,
        nil: Callable[[str], object] | None = None,
    ) -> str:
        """Fill the template.

        missing(parent field, name): the value of a key a map lacks; raises Missing; default prints `<no value>`.
        nil(name): what a null in the field `name` stands for. Raises TemplateError.
        """
        return _Run(self, data, missing, nil).run(self._nodes)

    def call(self, name: str, arguments: list[object]) -> object:
        """Call a function. Raises ValueError with the reason."""
        try:
            return self._functions[name](*arguments)
        except TypeError as error:
            raise ValueError(f"wrong number or type of args for {name}: {error}") from None

    def at(self, node: _Node) -> str:
        """`template: name:line:column: executing "name" at <source>`."""
        line = self._text.count("\n", 0, node.at) + 1
        column = len(self._text[self._text.rfind("\n", 0, node.at) + 1 : node.at].encode("utf-8", "surrogateescape"))
        shown = node.source if len(node.source) <= 20 else f"{node.source[:20]}..."
        return f'template: {self._name}:{line}:{column}: executing "{self._name}" at <{shown}>'


class _Parser:
    def __init__(self, template: Template, text: str) -> None:
        self.template = template
        self.text = text
        self.at = 0
        self.tokens: list[_Token] = []
        self.variables = [["$"]]

    def parse(self) -> list[_Node]:
        nodes, stop = self._list()
        if stop is not None:
            raise self.template.fail(self.at, f"unexpected {{{{{stop}}}}}")
        return nodes

    def _list(self) -> tuple[list[_Node], str | None]:
        """Nodes up to the end of the text (None) or an `else`/`end`."""
        nodes: list[_Node] = []
        while True:
            start = self.text.find("{{", self.at)
            literal = self.text[self.at : start if start >= 0 else len(self.text)]
            if self._trims:
                literal = literal.lstrip(_BLANK)
                self._trims = False
            if start < 0:
                if literal:
                    nodes.append(_Node("text", value=literal))
                self.at = len(self.text)
                return nodes, None
            left = self.text[start + 2 : start + 3] == "-" and self.text[start + 3 : start + 4] in (*_BLANK,)
            if left:
                literal = literal.rstrip(_BLANK)
            if literal:
                nodes.append(_Node("text", value=literal))
            self.at = start + (4 if left else 2)
            stop = self._action(nodes)
            if stop is not None:
                return nodes, stop

    _trims = False

    def _action(self, nodes: list[_Node]) -> str | None:
        if self.text.startswith("/*", self.at):
            end = self.text.find("*/", self.at)
            if end < 0:
                raise self.template.fail(self.at, "unclosed comment")
            rest = self.text[end + 2 :]
            if rest.lstrip(_BLANK).startswith("-}}") and rest[:1] in (*_BLANK,):
                self._trims = True
                self.at = self.text.index("}}", end) + 2
            elif rest.startswith("}}"):
                self.at = end + 4
            else:
                raise self.template.fail(self.at, "comment ends before closing delimiter")
            return None
        self._lex()
        if not self.tokens:
            raise self.template.fail(self.at, "missing value for command")
        first = self.tokens[0]
        if first.kind == "word" and first.text in _KEYWORDS:
            self.tokens.pop(0)
            return self._keyword(first, nodes)
        pipe = self._pipeline()
        node = _Node("action", first.at)
        node.parts = [pipe]
        nodes.append(node)
        return None

    def _keyword(self, word: _Token, nodes: list[_Node]) -> str | None:
        name = word.text
        if name == "end":
            if self.tokens:
                raise self.template.fail(word.at, f"unexpected {self._shown(self.tokens[0])} in end")
            return "end"
        if name == "else":
            return "else"
        if name in ("break", "continue"):
            nodes.append(_Node(name, word.at))
            return None
        if name not in ("if", "with", "range"):
            raise self.template.fail(word.at, f"{{{{{name}}}}} is not supported here")
        nodes.append(self._control(name, word.at))
        return None

    def _control(self, name: str, at: int) -> _Node:
        if not self.tokens:
            raise self.template.fail(at, f"missing value for {name}")
        self.variables.append([])
        node = _Node(name, at)
        pipe = self._pipeline(ranging=name == "range")
        body, stop = self._list()
        node.parts = [pipe, *body]
        if stop == "else":
            self._skip()
            if self.tokens and self.tokens[0].kind == "word" and self.tokens[0].text in ("if", "with"):
                nested = self.tokens.pop(0)
                node.otherwise = [self._control(nested.text, nested.at)]
                stop = "end"
            else:
                node.otherwise, stop = self._list()
        if stop is None:
            raise self.template.fail(len(self.text), "unexpected EOF")
        self.variables.pop()
        return node

    # -- words of an action

    def _lex(self) -> None:
        text, at = self.text, self.at
        tokens: list[_Token] = []
        while True:
            if at >= len(text):
                raise self.template.fail(at, "unclosed action")
            char = text[at]
            if text.startswith("}}", at):
                at += 2
                break
            if char in _BLANK:
                start = at
                while at < len(text) and text[at] in _BLANK:
                    at += 1
                if text.startswith("-}}", at):
                    self._trims = True
                    at += 3
                    break
                tokens.append(_Token("space", " ", start))
                continue
            token, at = self._token(at)
            tokens.append(token)
        self.at = at
        while tokens and tokens[0].kind == "space":
            tokens.pop(0)
        while tokens and tokens[-1].kind == "space":
            tokens.pop()
        self.tokens = tokens

    def _token(self, at: int) -> tuple[_Token, int]:
        text, start, char = self.text, at, self.text[at]
        if char in '"`':
            return self._string(at)
        if char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise self.template.fail(at, "unterminated character constant")
            character = _unquote(f'"{text[at + 1 : end]}"')
            if len(character) != 1:
                raise self.template.fail(at, "malformed character constant")
            return _Token("const", str(ord(character)), start), end + 1
        if text.startswith(":=", at):
            return _Token("declare", ":=", start), at + 2
        if char in "=(),|":
            return _Token(char, char, start), at + 1
        if char == "." and not (text[at + 1 : at + 2].isdigit()):
            at += 1
            while at < len(text) and (text[at] in _WORD or text[at].isalpha()):
                at += 1
            return _Token("field" if at > start + 1 else "dot", text[start:at], start), at
        if char == "$":
            at += 1
            while at < len(text) and text[at] in _WORD:
                at += 1
            return _Token("var", text[start:at], start), at
        if char in "0123456789+-.":
            while at < len(text) and (text[at] in _WORD or text[at] in "+-."):
                at += 1
            return _Token("number", text[start:at], start), at
        if char in _WORD or char.isalpha():
            while at < len(text) and (text[at] in _WORD or text[at].isalpha()):
                at += 1
            return _Token("word", text[start:at], start), at
        raise self.template.fail(
            at,
            f"unexpected {quote_go(char)} in operand"
            if char in "{}"
            else f"unrecognized character in action: U+{ord(char):04X} {char!r}",
        )

    def _string(self, at: int) -> tuple[_Token, int]:
        text, quote, end = self.text, self.text[at], at + 1
        while end < len(text) and text[end] != quote:
            if quote == '"' and text[end] == "\n":
                break
            end += 2 if quote == '"' and text[end] == "\\" else 1
        if end >= len(text) or text[end] != quote:
            raise self.template.fail(
                at, "unterminated quoted string" if quote == '"' else "unterminated raw quoted string"
            )
        return _Token("string", text[at : end + 1], at), end + 1

    # -- pipelines

    def _shown(self, token: _Token) -> str:
        return f"<{token.text}>" if token.kind in ("field", "var", "word", "dot") else quote_go(token.text)

    def _skip(self) -> None:
        while self.tokens and self.tokens[0].kind == "space":
            self.tokens.pop(0)

    def _pipeline(self, *, ranging: bool = False) -> _Node:
        self._skip()
        first = self.tokens[0] if self.tokens else _Token("", "", self.at)
        pipe = _Node("pipe", first.at)
        self._declarations(pipe, ranging=ranging)
        while True:
            pipe.parts.append(self._command())
            self._skip()
            if self.tokens and self.tokens[0].kind == "|":
                self.tokens.pop(0)
                continue
            break
        if self.tokens and self.tokens[0].kind != ")":
            raise self.template.fail(self.tokens[0].at, f"unexpected {self._shown(self.tokens[0])} in operand")
        return pipe

    def _declarations(self, pipe: _Node, *, ranging: bool) -> None:
        kinds = [token.kind for token in self.tokens if token.kind != "space"]
        words = [token for token in self.tokens if token.kind != "space"]
        count = 0
        if kinds[:2] in (["var", "declare"], ["var", "="]):
            count = 1
        elif ranging and kinds[:4] == ["var", ",", "var", "declare"]:
            count = 2
        if not count:
            return
        operator = words[1 if count == 1 else 3]
        names = [words[0].text] if count == 1 else [words[0].text, words[2].text]
        while self.tokens.pop(0) is not operator:
            pass
        pipe.value = operator.text
        pipe.names = names
        if operator.text == ":=":
            self.variables[-1].extend(names)

    def _command(self) -> _Node:
        self._skip()
        command = _Node("command", self.tokens[0].at if self.tokens else self.at)
        while self.tokens and self.tokens[0].kind not in ("|", ")"):
            if self.tokens[0].kind == "space":
                self.tokens.pop(0)
                continue
            command.parts.append(self._operand())
        if not command.parts:
            raise self.template.fail(self.at, "missing value for command")
        return command

    def _operand(self) -> _Node:
        node = self._term()
        if self.tokens and self.tokens[0].kind == "field":
            fields = []
            at = self.tokens[0].at
            while self.tokens and self.tokens[0].kind == "field":
                fields.append(self.tokens.pop(0).text)
            if node.kind == "field":
                node.at = at
                node.names.extend(f[1:] for f in fields)
                node.source += "".join(fields)
            elif node.kind in ("var", "pipe", "dot", "func"):
                chain = _Node("chain", at if node.kind != "var" else node.at, source=node.source + "".join(fields))
                chain.parts = [node]
                chain.names = [f[1:] for f in fields]
                return chain
            else:
                raise self.template.fail(at, f"unexpected . after term {quote_go(node.source)}")
        return node

    def _term(self) -> _Node:
        token = self.tokens.pop(0)
        if token.kind == "field":
            node = _Node("field", token.at, source=token.text)
            node.names = [token.text[1:]]
            return node
        if token.kind == "dot":
            return _Node("dot", token.at, source=".")
        if token.kind == "var":
            if not any(token.text in scope for scope in self.variables):
                raise self.template.fail(token.at, f'undefined variable "{token.text}"')
            return _Node("var", token.at, source=token.text, value=token.text)
        if token.kind == "string":
            return _Node("const", token.at, source=token.text, value=_unquote(token.text))
        if token.kind == "const":
            return _Node("const", token.at, source=token.text, value=int(token.text))
        if token.kind == "number":
            return _Node("const", token.at, source=token.text, value=self._number(token))
        if token.kind == "word":
            return self._word(token)
        if token.kind == "(":
            pipe = self._pipeline()
            if not self.tokens:
                raise self.template.fail(token.at, "unclosed left paren")
            self.tokens.pop(0)
            pipe.source = self.text[token.at : self.at]
            return pipe
        raise self.template.fail(token.at, f"unexpected {self._shown(token)} in operand")

    def _number(self, token: _Token) -> object:
        try:
            return int(token.text, 0)
        except ValueError:
            pass
        try:
            return float(token.text)
        except ValueError:
            raise self.template.fail(token.at, f'bad number syntax: "{token.text}"') from None

    def _word(self, token: _Token) -> _Node:
        if token.text in ("true", "false"):
            return _Node("const", token.at, source=token.text, value=token.text == "true")
        if token.text == "nil":
            return _Node("nil", token.at, source="nil")
        if not self.template.has_function(token.text):
            raise self.template.fail(token.at, f'function "{token.text}" not defined')
        return _Node("func", token.at, source=token.text, value=token.text)


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


_ABSENT = object()


class _Run:
    def __init__(
        self,
        template: Template,
        data: object,
        missing: Callable[[str, str], object] | None,
        nil: Callable[[str], object] | None,
    ) -> None:
        self.template = template
        self.missing = missing
        self.nil = nil
        self.variables: list[dict[str, object]] = [{"$": data}]
        self.out: list[str] = []
        self.data = data

    def run(self, nodes: list[_Node]) -> str:
        self._walk(nodes, self.data)
        return "".join(self.out)

    def _walk(self, nodes: list[_Node], dot: object) -> None:
        for node in nodes:
            if node.kind == "text":
                self.out.append(str(node.value))
            elif node.kind == "action":
                value = self._pipe(node.parts[0], dot)
                if not node.parts[0].names:
                    self.out.append(text_of(value, top=True))
            elif node.kind == "range":
                self._range(node, dot)
            elif node.kind == "break":
                raise _Break
            elif node.kind == "continue":
                raise _Continue
            else:
                self.variables.append({})
                value = self._pipe(node.parts[0], dot)
                if is_true(value):
                    self._walk(node.parts[1:], value if node.kind == "with" else dot)
                else:
                    self._walk(node.otherwise, dot)
                self.variables.pop()

    def _range(self, node: _Node, dot: object) -> None:
        pipe = node.parts[0]
        depth = len(self.variables)
        self.variables.append({})
        names, pipe.names = pipe.names, []
        try:
            value = self._pipe(pipe, dot)
        finally:
            pipe.names = names
        items = self._items(value, node)
        try:
            for key, item in items:
                self.variables.append({})
                if len(names) == 2:
                    self.variables[-1].update({names[0]: key, names[1]: item})
                elif names:
                    self.variables[-1][names[0]] = item
                try:
                    self._walk(node.parts[1:], item)
                except _Continue:
                    pass
                del self.variables[depth + 1 :]
        except _Break:
            pass
        if not items:
            self._walk(node.otherwise, dot)
        del self.variables[depth:]

    def _items(self, value: object, node: _Node) -> list[tuple[object, object]]:
        if value is None or isinstance(value, Nil):
            return []
        if isinstance(value, dict):
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, (list, tuple)):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return [(i, i) for i in range(value)]
        shown = node.parts[0].parts[0].parts[0]
        raise TemplateError(f"{self.template.at(shown)}: range can't iterate over {text_of(value)}")

    def _pipe(self, pipe: _Node, dot: object) -> object:
        value: object = _ABSENT
        for command in pipe.parts:
            value = self._command(command, dot, value)
        for name in pipe.names:
            if pipe.value == ":=":
                self.variables[-1][name] = value
            else:
                scope = next(scope for scope in reversed(self.variables) if name in scope)
                scope[name] = value
        return value

    def _command(self, command: _Node, dot: object, final: object) -> object:
        first, rest = command.parts[0], command.parts[1:]
        if first.kind == "func":
            return self._function(first, rest, dot, final)
        if first.kind in ("field", "chain"):
            arguments = [self._value(part, dot) for part in rest]
            if final is not _ABSENT:
                arguments.append(final)
            return self._fields(first, dot, arguments)
        if rest or final is not _ABSENT:
            raise TemplateError(f"{self.template.at(first)}: can't give argument to non-function {first.source}")
        if first.kind == "nil":
            raise TemplateError(f"{self.template.at(first)}: nil is not a command")
        return self._value(first, dot)

    def _function(self, node: _Node, rest: list[_Node], dot: object, final: object) -> object:
        name = str(node.value)
        if name in ("and", "or"):
            value: object = None
            for part in rest:
                value = self._value(part, dot)
                if is_true(value) == (name == "or"):
                    return value
            return value if final is _ABSENT else final
        arguments = [self._value(part, dot) for part in rest]
        if final is not _ABSENT:
            arguments.append(final)
        try:
            return self.template.call(name, arguments)
        except ValueError as error:
            raise TemplateError(f"{self.template.at(node)}: error calling {name}: {error}") from None

    def _value(self, node: _Node, dot: object) -> object:
        if node.kind == "const":
            return node.value
        if node.kind == "dot":
            return dot
        if node.kind == "nil":
            return None
        if node.kind == "var":
            return next(scope[str(node.value)] for scope in reversed(self.variables) if node.value in scope)
        if node.kind == "pipe":
            return self._pipe(node, dot)
        if node.kind == "func":
            return self._function(node, [], dot, _ABSENT)
        return self._fields(node, dot, [])

    def _fields(self, node: _Node, dot: object, arguments: list[object]) -> object:
        value = self._value(node.parts[0], dot) if node.kind == "chain" else dot
        parent = ""
        for position, name in enumerate(node.names):
            last = position == len(node.names) - 1
            value = self._field(node, value, parent, name, arguments if last else [])
            parent = name
        return value

    def _field(self, node: _Node, value: object, parent: str, name: str, arguments: list[object]) -> object:
        where = self.template.at
        method = getattr(value, "template_field", None)
        if method is not None:
            try:
                return method(name, arguments)
            except Missing as error:
                raise TemplateError(f"{where(node)}: {error}") from None
        if arguments:
            raise TemplateError(f"{where(node)}: {name} has arguments but cannot be invoked as function")
        if isinstance(value, dict):
            if name in value:
                found: object = value[name]
                return self.nil(name) if found is None and self.nil is not None else found
            if self.missing is None:
                return None
            try:
                return self.missing(parent, name)
            except Missing as error:
                raise TemplateError(f"{where(node)}: {error}") from None
        if value is None or isinstance(value, Nil):
            if parent:
                raise TemplateError(f"{where(node)}: nil pointer evaluating interface {{}}.{name}")
            raise TemplateError(f"{where(node)}: nil data; no entry for key {quote_go(name)}")
        raise TemplateError(f"{where(node)}: can't evaluate field {name} in type interface {{}}")


# -- values


def is_true(value: object) -> bool:
    """Go's truth: empty strings, maps and lists, zero, null and false are false."""
    return bool(value)


def text_of(value: object, *, top: bool = False) -> str:
    """Go's %v. `top`: directly in an action, where an absent value reads `<no value>`."""
    if isinstance(value, str):
        return value
    if value is None or value is _ABSENT:
        return "<no value>" if top else "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Nil):
        return value.text
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return f"map[{' '.join(f'{k}:{text_of(value[k])}' for k in sorted(value))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(text_of(item) for item in value)}]"
    return str(value)


def _float(value: float) -> str:
    size = abs(value)
    if size and (size < 1e-4 or size >= 1e21):
        mantissa, _, exponent = f"{value!r}".partition("e")
        if not exponent:
            mantissa, _, exponent = f"{value:e}".partition("e")
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{exponent[0]}{exponent[1:].zfill(2)}"
    text = repr(value)
    return (f"{value:.0f}" if "e" in text else text).removesuffix(".0")


_UNESCAPE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
}
_HEX = {"x": 2, "u": 4, "U": 8}


def _unquote(text: str) -> str:
    body = text[1:-1]
    if text[0] == "`" or "\\" not in body:
        return body
    out, at = [], 0
    while at < len(body):
        char = body[at]
        if char != "\\":
            out.append(char)
            at += 1
            continue
        code = body[at + 1 : at + 2]
        if code in _HEX:
            out.append(chr(int(body[at + 2 : at + 2 + _HEX[code]], 16)))
            at += 2 + _HEX[code]
        else:
            out.append(_UNESCAPE.get(code, code))
            at += 2
    return "".join(out)


# -- functions


def _plain(value: object) -> object:
    """What json sees: rows as maps, typed nulls as null."""
    as_map = getattr(value, "template_json", None)
    if as_map is not None:
        return as_map()
    return None if isinstance(value, Nil) else value


def to_json(value: object) -> str:
    """`{{json .X}}`: a whole row escapes `<`, `>` and `&`, a single value does not (as docker's output has it)."""
    return gojson.dumps(_plain(value), html=hasattr(value, "template_json"))


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if value is None or isinstance(value, Nil):
            return "" if isinstance(key, str) else None
        if isinstance(value, dict):
            if isinstance(key, str) and key in value:
                value = value[key]
            else:
                value = "" if all(isinstance(v, str) for v in value.values()) else None
        elif isinstance(value, (list, str)):
            if not isinstance(key, int) or isinstance(key, bool):
                raise ValueError(f"cannot index slice/array with type {type(key).__name__}")
            if not 0 <= key < len(value):
                raise ValueError(
                    f"index out of range: {key}"
                    if not isinstance(value, list)
                    else f"reflect: slice index out of range: {key}"
                )
            value = value[key] if isinstance(value, list) else value.encode()[key]
        else:
            raise ValueError(f"can't index item of type {type(value).__name__}")
    return value


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, (list, str)):
        raise ValueError("can't slice item of this type")
    numbers = [b for b in bounds if isinstance(b, int)]
    if len(numbers) != len(bounds) or any(not 0 <= n <= len(value) for n in numbers):
        raise ValueError("index out of range")
    return value[slice(*(numbers if len(numbers) != 1 else (numbers[0], None)))]


def _len(value: object) -> int:
    if isinstance(value, Nil):
        return 0
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (dict, list)):
        return len(value)
    raise ValueError("len of nil pointer" if value is None else "len of type that has none")


def _equal(first: object, *others: object) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    return any(_same(first, other) for other in others)


def _same(first: object, second: object) -> bool:
    first, second = _plain(first), _plain(second)
    if first is None or second is None:
        return first is second
    numeric = isinstance(first, (int, float)) and isinstance(second, (int, float))
    if isinstance(first, bool) != isinstance(second, bool) or not (numeric or type(first) is type(second)):
        raise ValueError("incompatible types for comparison")
    return first == second


def _less(first: object, second: object) -> bool:
    if isinstance(first, str) and isinstance(second, str):
        return first < second
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return first < second
    raise ValueError("incompatible types for comparison")


def _print(*values: object) -> str:
    """Go's Sprint: a blank between operands when neither is a string."""
    out = ""
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            out += " "
        out += text_of(value)
    return out


def _println(*values: object) -> str:
    return " ".join(text_of(value) for value in values) + "\n"


def _printf(layout: object, *values: object) -> str:
    if not isinstance(layout, str):
        raise ValueError(f"wrong type for value; expected string; got {type(layout).__name__}")
    out, at, used = [], 0, 0
    while at < len(layout):
        percent = layout.find("%", at)
        if percent < 0:
            out.append(layout[at:])
            break
        out.append(layout[at:percent])
        at = percent + 1
        start = at
        while at < len(layout) and layout[at] in "+-# 0123456789.*":
            at += 1
        if at >= len(layout):
            out.append("%!(NOVERB)")
            break
        spec, verb = layout[start:at], layout[at]
        at += 1
        if verb == "%":
            out.append("%")
            continue
        if "*" in spec and used < len(values):
            spec = spec.replace("*", text_of(values[used]), 1)
            used += 1
        if used >= len(values):
            out.append(f"%!{verb}(MISSING)")
            continue
        out.append(_verb(spec, verb, values[used]))
        used += 1
    if used < len(values):
        rest = ", ".join(f"{_go_type(v)}={text_of(v)}" for v in values[used:])
        out.append(f"%!(EXTRA {rest})")
    return "".join(out)


def _go_type(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    return {str: "string", int: "int", float: "float64"}.get(type(value), "interface {}")


def _verb(spec: str, verb: str, value: object) -> str:
    flags = spec[: len(spec) - len(spec.lstrip("+-# 0"))]
    width, _, precision = spec[len(flags) :].partition(".")
    has_precision = "." in spec
    digits = int(precision) if precision else 0
    text = _body(verb, value, flags, digits if has_precision else None)
    if text is None:
        return f"%!{verb}({_go_type(value)}={text_of(value)})"
    room = int(width) if width else 0
    if "-" in flags:
        return text.ljust(room)
    if "0" in flags and isinstance(value, (int, float)) and text[:1] in "+-":
        return text[:1] + text[1:].rjust(room - 1, "0")
    return text.rjust(room, "0" if "0" in flags and verb != "s" else " ")


def _body(verb: str, value: object, flags: str, digits: int | None) -> str | None:
    plus = "+" in flags
    if verb in "vs":
        if verb == "s" and isinstance(value, (int, float)):
            return None
        text = text_of(value)
        return text[:digits] if digits is not None and isinstance(value, str) else text
    if verb == "q":
        return quote_go(value) if isinstance(value, str) else None
    if verb == "t":
        return text_of(value) if isinstance(value, bool) else None
    if verb == "T":
        return _go_type(value)
    if verb in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return text.upper() if verb == "X" else text
    if isinstance(value, bool):
        return None
    if verb in "dxXobc" and isinstance(value, int):
        text = chr(value) if verb == "c" else f"{value:{'#' if '#' in flags else ''}{verb}}"
        return f"+{text}" if plus and value >= 0 else text
    if verb in "feEgG" and isinstance(value, float):
        text = (
            f"{value:.{6 if digits is None else digits}{verb}}" if verb != "g" or digits is not None else _float(value)
        )
        return f"+{text}" if plus and value >= 0 else text
    return None


def _title(text: str) -> str:
    return "".join(
        c.upper() if i == 0 or not (text[i - 1].isalnum() or text[i - 1] in "_'") else c for i, c in enumerate(text)
    )


def _truncate(text: str, length: int) -> str:
    return text if len(text) < length else text[:length]


def _pad(text: str, before: int, after: int) -> str:
    return f"{' ' * before}{text}{' ' * after}" if text else text


def _join(values: object, between: str) -> str:
    if isinstance(values, Nil) or values is None:
        return ""
    if not isinstance(values, list):
        raise ValueError("wrong type for value; expected []string")
    return between.join(text_of(value) for value in values)


def _html(*values: object) -> str:
    table = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;", "\0": "\ufffd"}
    return "".join(table.get(c, c) for c in _print(*values))


def _urlquery(*values: object) -> str:
    from tare.client.http import percent

    return percent(_print(*values), " ").replace(" ", "+")


def _split(text: str, between: str) -> list[str]:
    return text.split(between) if between else list(text)


_FUNCTIONS: dict[str, Function] = {
    "not": lambda value: not is_true(value),
    "len": _len,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "html": _html,
    "urlquery": _urlquery,
    "eq": _equal,
    "ne": lambda a, b: not _same(a, b),
    "lt": _less,
    "le": lambda a, b: _less(a, b) or _same(a, b),
    "gt": lambda a, b: not (_less(a, b) or _same(a, b)),
    "ge": lambda a, b: not _less(a, b),
    "json": to_json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "pad": _pad,
    "truncate": _truncate,
    "trimSpace": lambda text: text.strip(),
}
