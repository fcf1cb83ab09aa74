from __future__ import annotations

import pytest

from tare.cli.template import Missing, Template, TemplateError

DATA = {
    "Name": "web",
    "N": 3,
    "F": 2.5,
    "T": True,
    "Nil": None,
    "L": ["a", "b"],
    "M": {"y": "2", "x": "1"},
    "Deep": {"Er": {"Est": "end"}},
    "Objs": [{"K": 1}, {"K": 2}],
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("{{.Name}} {{.N}} {{.F}} {{.T}} {{.Nil}}", "web 3 2.5 true <no value>"),
        ("{{.L}} {{.M}}", "[a b] map[x:1 y:2]"),
        ("{{.Deep.Er.Est}} {{(.Deep).Er.Est}}", "end end"),
        ('{{index .M "x"}} {{index .L 1}} {{index .M "no"}}|', "1 b |"),
        ("{{range .L}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $k, $v := .M}}{{$k}}={{$v}};{{end}}", "x=1;y=2;"),
        ("{{range $i, $v := .L}}{{if $i}},{{end}}{{$v}}{{end}}", "a,b"),
        ("{{range .Nil}}x{{else}}none{{end}}", "none"),
        ("{{range .Objs}}{{.K}}{{$.Name}}{{end}}", "1web2web"),
        ("{{range .L}}{{break}}{{end}}{{range .L}}{{continue}}x{{end}}", ""),
        ('{{if eq .Name "web" "db"}}y{{else}}n{{end}}', "y"),
        ("{{if .Nil}}a{{else if .T}}b{{else}}c{{end}}", "b"),
        ("{{with .Deep.Er}}{{.Est}}{{end}}{{with .Nil}}x{{else}}-{{end}}", "end-"),
        ("{{$x := .N}}{{$x = 5}}{{$x}}", "5"),
        ("{{if and .T (gt .N 2) (not .Nil)}}ok{{end}}{{or .Nil .Name}}", "okweb"),
        ("{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 3}} {{ne 1 2}}", "true true false false true"),
        ("{{len .L}} {{len .Name}} {{slice .Name 1 2}}", "2 3 e"),
        ('{{printf "%-5s|%5s|%05d|%x|%q|%t|%v|%.1f|%%|%T" .Name .Name 7 255 "a" true .L .F 1}}', 'web  |  web|00007|ff|"a"|true|[a b]|2.5|%|int'),
        ('{{printf "%d" "x"}} {{printf "%s"}} {{printf "a" 1}}', "%!d(string=x) %!s(MISSING) a%!(EXTRA int=1)"),
        ('{{json .M}} {{json "<"}}', '{"y":"2","x":"1"} "<"'),
        ('{{join .L "-"}} {{split "a,b" ","}} {{upper "a"}} {{lower "A"}} {{title "ab cd"}}', "a-b [a b] A a Ab Cd"),
        ('{{truncate "abcdef" 3}}|{{pad "x" 1 2}}|{{trimSpace " x "}}', "abc| x  |x"),
        ('{{.Name | upper | printf "%s-%s" "a"}}', "a-WEB"),
        ("a {{- .N -}} b {{/* no */}}c {{- /* no */ -}} d", "a3b cd"),
        ("{{println .Name 1}}", "web 1\n"),
        ('{{"quoted \\"x\\" \\u00e9"}}{{`raw`}}{{\'a\'}}', 'quoted "x" éraw97'),
        ("{{1.5}} {{0x10}} {{true}} {{print 1 2 \"a\" 3}}", "1.5 16 true 1 2a3"),
        ('{{html "<a>"}} {{urlquery "a b"}}', "&lt;a&gt; a+b"),
    ],
)  # fmt: skip
def test_execute(text: str, result: str) -> None:
    assert Template(text).execute(DATA) == result


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{", "template: :1: unclosed action"),
        ("{{foo}}", 'template: :1: function "foo" not defined'),
        ("{{if .X}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{$x}}", 'template: :1: undefined variable "$x"'),
        ("\n{{.X | }}", "template: :2: missing value for command"),
        ('{{"x}}', "template: :1: unterminated quoted string"),
        ("{{/* x }}", "template: :1: unclosed comment"),
        ("{{(.X}}", "template: :1: unclosed left paren"),
    ],
)
def test_parse_errors(text: str, error: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text)
    assert str(caught.value) == error
    assert caught.value.parsing


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{.Foo}}", 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.Foo.Bar}}", 'template: :1:6: executing "" at <.Foo.Bar>: map has no entry for key "Foo"'),
        ("{{.Name.Bar}}", "template: :1:7: executing \"\" at <.Name.Bar>: can't evaluate field Bar in type interface {}"),
        ("{{index .L 9}}", 'template: :1:2: executing "" at <index>: error calling index: reflect: slice index out of range: 9'),
    ],
)  # fmt: skip
def test_execution_errors(text: str, error: str) -> None:
    def missing(_: str, name: str) -> object:
        raise Missing(f'map has no entry for key "{name}"')

    with pytest.raises(TemplateError) as caught:
        Template(text).execute(DATA, missing=missing)
    assert str(caught.value) == error
