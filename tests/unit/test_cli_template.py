"""Go's templates: what people write behind ``-f`` gives what Go gives; what nobody should write, a sentence."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_machine.cli.template import Struct, TemplateError, TemplateUnread, render

DATA: dict[str, object] = {
    "Name": "web",
    "Empty": "",
    "Nil": None,
    "Memory": 1024,
    "Million": 1000000,
    "Half": 0.5,
    "On": True,
    "Labels": ["a=1", "b=2"],
    "Mixed": [1, 2.5, "x", None, True],
    "Driver": {"IPAddress": "10.0.0.2", "SSHPort": 22, "Tags": {"b": 1, "a": "q"}},
}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("", ""),
        ("plain {} text", "plain {} text"),
        ("{{.Name}}", "web"),
        ("{{ .Driver.IPAddress }}:{{.Driver.SSHPort}}", "10.0.0.2:22"),
        ("{{.Nix}} {{.Nil}}", "<no value> <no value>"),
        ("{{.Memory}} {{.Million}} {{.Half}} {{.On}}", "1024 1e+06 0.5 true"),
        ("{{.Mixed}} {{.Driver.Tags}}", "[1 2.5 x <nil> true] map[a:q b:1]"),
        ("{{json .Driver}}", '{"IPAddress":"10.0.0.2","SSHPort":22,"Tags":{"a":"q","b":1}}'),
        ("{{prettyjson .Labels}}", '[\n    "a=1",\n    "b=2"\n]'),
        ("{{.Million | json}}", "1000000"),
        ("{{range .Labels}}{{.}};{{end}}", "a=1;b=2;"),
        ("{{range $i, $l := .Labels}}{{$i}}:{{$l}} {{end}}", "0:a=1 1:b=2 "),
        ("{{range $l := .Labels}}{{$l}} {{$.Name}} {{end}}", "a=1 web b=2 web "),
        ("{{range $k, $v := .Driver.Tags}}{{$k}}={{$v}},{{end}}", "a=q,b=1,"),
        ("{{range .Nil}}x{{else}}none{{end}}", "none"),
        ('{{range .Labels}}{{if eq . "b=2"}}{{break}}{{end}}{{.}}{{end}}', "a=1"),
        ('{{range .Labels}}{{if eq . "a=1"}}{{continue}}{{end}}{{.}}{{end}}', "b=2"),
        ('{{if eq .Name "db" "web"}}yes{{else}}no{{end}}', "yes"),
        ("{{if .Empty}}a{{else if .Nil}}b{{else if .On}}c{{else}}d{{end}}", "c"),
        ("{{with .Driver}}{{.SSHPort}}{{end}}{{with .Nil}}x{{else}}-{{end}}", "22-"),
        ("{{$x := .Name}}{{if true}}{{$x = `db`}}{{end}}{{$x}}", "db"),
        ("a {{- 1 -}} b", "a1b"),
        ("a{{/* nothing {{ */}}b", "ab"),
        ('{{index .Labels 1}} {{index .Driver "Tags" "a"}} {{(index .Driver "Tags").b}}', "b=2 q 1"),
        ("{{len .Labels}} {{len .Name}} {{slice .Name 1}} {{slice .Name 0 1}}", "2 3 eb w"),
        ("{{and .On .Name}} {{or .Empty .Name}} {{not .Nil}}", "web web true"),
        ("{{lt 1 2}} {{ge 2 2}} {{gt `a` `b`}} {{ne .Name `web`}} {{le .Memory 1024}}", "true true false false true"),
        (
            '{{printf "%-5s|%5d|%05.1f|%q|%v|%%|%t" .Name 7 .Half "a\\"b" .Memory .On}}',
            'web  |    7|000.5|"a\\"b"|1024|%|true',
        ),
        ('{{printf "%d" .Name}} {{printf "%s"}} {{printf "x" 1}}', "%!d(string=web) %!s(MISSING) x%!(EXTRA int=1)"),
        ('{{print 1 2 "a" 3}} {{println .Name}}', "1 2a3 web\n"),
        ("{{html `<a&'>`}} {{urlquery `a b&c`}} {{js `a'<b>`}}", "&lt;a&amp;&#39;&gt; a+b%26c a\\'\\u003Cb\\u003E"),
        ('{{define "t"}}<{{.}}>{{end}}{{template "t" .Name}}{{template "t"}}', "<web><<no value>>"),
        ('{{block "t" .Name}}[{{.}}]{{end}}', "[web]"),
        ("{{'a'}} {{0x10}} {{1_000}} {{\"\\u00e9\\n\"}}", "97 16 1000 é\n"),
        ("{{.Name | printf `%s-%s` `a`}}", "a-web"),
        ('{{printf "%x %X %x" "hi" "hé" 255}}', "6869 68C3A9 ff"),
        ('{{printf "%c%c %U" 104 8364 104}}', "h€ U+0068"),
        ("{{if eq .Driver.SSHPort 22}}yes{{end}} {{eq .Half 0.5}} {{lt .Half 1}} {{eq 0.5 0.5}}", "yes true true true"),
        ("{{range .Labels}}{{$x := .}}{{if true}}{{$x}}{{break}}{{end}}{{end}}", "a=1"),
        ("{{$x := 1}}{{if false}}{{else if true}}{{$x}}{{end}}", "1"),
    ],
)
def test_as_go_does(source: str, shown: str) -> None:
    assert render(source, DATA) == shown


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{.Name", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{foo}}", 'function "foo" not defined'),
        ("{{.Nix.More}}", "nil pointer evaluating interface {}.More"),
        ("{{.Name.More}}", "can't evaluate field More in type string"),
        ("{{if .On}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{index .Labels 9}}", "error calling index: index out of range: 9"),
        ("{{lt .Name 1}}", "error calling lt: incompatible types for comparison"),
        ("{{len}}", "wrong number of args for len: want 1 got 0"),
        ("{{len 1 2}}", "wrong number of args for len: want 1 got 2"),
        ("{{printf}}", "wrong number of args for printf: want at least 1 got 0"),
        ("{{and}}", "wrong number of args for and: want at least 1 got 0"),
        ("{{eq 1 1.0}}", "error calling eq: incompatible types for comparison"),
        ("{{lt 1 1.5}}", "error calling lt: incompatible types for comparison"),
        ("{{nil}}", 'executing "" at <nil>: nil is not a command'),
        ("{{slice .Name 99}}", "error calling slice: index out of range: 99"),
        ("{{slice .Name 2 1}}", "error calling slice: invalid slice index: 2 > 1"),
        ("{{slice .Name `a`}}", "error calling slice: cannot index slice/array with type string"),
        ("{{.Name 1}}", "can't give argument to non-function"),
        ("{{1 | .Name}}", "non executable command in pipeline"),
        ("{{(.Name}}", "unclosed left paren"),
        ('{{template "nix"}}', 'template "nix" not defined'),
        ('{{define "t"}}{{template "t"}}{{end}}{{template "t"}}', "it is nested too deeply"),
        ("{{$x = 1}}", "undefined variable: $x"),
        ("{{range .On}}{{end}}", "range can't iterate over true"),
    ],
)
def test_what_is_wrong_is_said(source: str, said: str) -> None:
    with pytest.raises(TemplateError, match=r"^template: :1:") as caught:
        render(source, DATA)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{if false}}{{$x}}{{end}}", 'undefined variable "$x"'),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", 'undefined variable "$x"'),
        ("{{range $x := .Labels}}{{end}}{{$x}}", 'undefined variable "$x"'),
        ('{{$x := 1}}{{define "t"}}{{$x}}{{end}}', 'undefined variable "$x"'),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{range .Labels}}{{else}}{{continue}}{{end}}", "{{continue}} outside {{range}}"),
        ('{{range .Labels}}{{block "t" .}}{{break}}{{end}}{{end}}', "{{break}} outside {{range}}"),
    ],
)
def test_what_is_nowhere_is_said_before_anything_is_shown(source: str, said: str) -> None:
    with pytest.raises(TemplateUnread) as caught:
        render(source, DATA)
    assert caught.value.message == f"template: :1: {said}"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a\nb {{foo}}", 'template: :2: function "foo" not defined'),
        ("{{.Nix}}", 'template: :1:2: executing "" at <.Nix>: can\'t evaluate field Nix in type commands.HostListItem'),
        ("a\n {{- .Nix }}", 'template: :2:5: executing "" at <.Nix>: can\'t evaluate field Nix in type'),
    ],
)
def test_where_it_is_wrong(source: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(source, Struct("commands.HostListItem", DATA))
    assert caught.value.message.startswith(said)
    assert isinstance(caught.value, TemplateUnread) == ("foo" in source)


def test_a_struct_is_printed_without_its_keys() -> None:
    found = Struct("swarm.Options", {"IsSwarm": False, "Discovery": "token://x", "ArbitraryFlags": ["a=b"]})
    assert render("{{.S}} {{json .S}}", {"S": found}) == (
        '{false token://x [a=b]} {"IsSwarm":false,"Discovery":"token://x","ArbitraryFlags":["a=b"]}'
    )


def test_json_is_safe_in_html_as_gos_is() -> None:
    assert render("{{json .}}", "<a&b>") == '"\\u003ca\\u0026b\\u003e"'


def test_functions_of_the_caller() -> None:
    assert render("{{shout .Name}}", DATA, {"shout": lambda text: str(text).upper()}) == "WEB"


PIECES = ["{{", "}}", ".Name", "$x", ":=", "|", "(", ")", '"', "`", "'", "if ", "end", "else ", "range ", ".", ",", "-"]
PIECES += [
    "with ",
    "define ",
    "template ",
    "printf ",
    "index ",
    "1",
    "\\",
    "%",
    " ",
    ".Labels",
    "json ",
    "eq ",
    "/*",
    "*/",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=30).map("{{{{{}}}}}".format))
def test_whatever_is_written_is_shown_or_told(source: str) -> None:
    with contextlib.suppress(TemplateError):
        assert isinstance(render(source, DATA), str)
