import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from talu.exceptions import TemplateError, TemplateSyntaxError, TemplateUndefinedError
from talu.template import sandbox
from talu.template.render import render
from talu.template.sandbox import check_template, run_template, template_variables

MESSAGES = [{"role": "user", "content": "Hi", "tags": ["a", "b"]}]
BIG = "{% set ns = namespace(s='x', l=[0], t=(1,)) %}"  # the start of attacks on memory

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ ''|attr('__cla' ~ 'ss__') }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ [''] | groupby('__class__') }}",
    "{{ [''] | selectattr('__class__') | list }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ dict.__class__.__mro__ }}",
    "{{ dict.mro() }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ range.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__.values() | list }}",
    "{{ (strftime_now|attr('__globals__')) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ self._TemplateReference__context.environment }}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{{ loop._iterator }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}{{ m.__init__ }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{x.__class__}'.format(x=1) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ ('{0.__class__}'|attr('format'))(1) }}",
    "{{ ['{0.__class__}']|map('format', 1)|list }}",
    "{% for f in ['{0.__class__}']|map(attribute='format') %}{{ f(1) }}{% endfor %}",
    "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
    "{{ ('{0.__class__}'|safe).format(1) }}",
    "{{ '{0[__class__]}'.format(messages) }}",
    "{{ messages.append({}) }}",
    "{{ messages.clear() }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages[0]['tags'].sort(reverse=true) }}",
    "{{ (messages|attr('append'))({}) }}",
    "{% set messages[0] = 1 %}",
    "{% set messages.x = 1 %}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{% set ns = namespace(__class__=1) %}",
    "{% set ns = namespace({'_Namespace__attrs': 1}) %}",
    "{% set ns = namespace({1: 2}) %}",
    "{% include '/etc/passwd' %}",
    "{% include ['/etc/passwd', 'x'] %}",
    "{% import 'os' as os %}{{ os }}",
    "{% from 'os' import system %}",
    "{% extends '/etc/passwd' %}",
    "{{ (messages|map('upper')).gi_frame.f_globals }}",
    "{{ (messages|map('upper')).gi_code }}",
    "{{ config }}{{ request }}{{ get_flashed_messages }}{{ url_for }}{{ environment }}",
    "{{ undefined_name.__class__ }}",
    "{{ messages|tojson(default=cycler) }}",
    "{{ 'é'.encode('utf-16') }}",
    "{{ (1).to_bytes(10, 'big') }}",
    "{{ ''.maketrans('a', 'b') }}",
    "{{ x() }}",
    "{{ 1() }}",
    "{{ open('/etc/passwd') }}{{ __import__('os') }}{{ eval('1') }}",
    "{% autoescape true %}{{ ''.__class__ }}{% endautoescape %}",
]
HARMFUL = ["<class", "class '", "object at", "root:", "function", "module", "built-in", "Global"]


@pytest.mark.parametrize("source", ESCAPES)
@pytest.mark.parametrize("strict", [False, True])
def test_a_way_out_of_the_sandbox_is_closed(source: str, strict: bool) -> None:
    try:
        text = run_template(source, {"messages": MESSAGES}, strict=strict)
    except TemplateError:
        text = ""
    assert not any(word in text for word in HARMFUL)
    assert MESSAGES == [{"role": "user", "content": "Hi", "tags": ["a", "b"]}]


ENDLESS = {
    "steps": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "filtered": "{% for a in range(99999) %}"
    "{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}"
    "{{ m(99) }}",
    "calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive": "{% for x in [[]] recursive %}{{ loop([[], []]) }}{% endfor %}",
    "text": "{% for a in range(99999) %}0123456789abcdef0123456789abcdef"
    + "0123456789abcdef" * 20
    + "{% endfor %}",
    "hidden text": "{% set t %}{% for a in range(99999) %}"
    + "0123456789abcdef" * 40
    + "{% endfor %}{% endset %}",
    "range": "{{ range(10**9) }}",
    "power": "{{ 10**(10**10) }}",
    "squares": BIG + "{% for i in range(99) %}{% set ns.l = 7 if loop.first else ns.l * ns.l %}"
    "{% endfor %}",
    "repeat": "{{ 'a' * 10**9 }}",
    "repeat list": "{{ [0] * 10**9 }}",
    "repeat other way": "{{ 10**9 * 'a' }}",
    "doubled ~": BIG + "{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubled +": BIG + "{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubled list": BIG + "{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "doubled set": BIG
    + "{% for i in range(99) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}"
    + "{% set ns.s = x %}{% endfor %}",
    "doubled replace": BIG
    + "{% for i in range(99) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
    "doubled join": BIG
    + "{% for i in range(99) %}{% set ns.s = ''.join([ns.s, ns.s]) %}{% endfor %}",
    "doubled format": BIG
    + "{% for i in range(99) %}{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
    "doubled %": BIG + "{% for i in range(99) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    "slices": BIG
    + "{% set ns.s = 'x' * 99999 %}{% for i in range(99999) %}{% set x = ns.s[1:] %}{% endfor %}",
    "width format": "{{ '{:1000000000}'.format(1) }}",
    "width inside": "{{ '{:{w}}'.format(1, w=10**9) }}",
    "width %": "{{ '%1000000000d' % 1 }}{{ '%*d' % (10**9, 1) }}",
    "width after flags": "{{ ('%' ~ ' ' * 20 ~ '1000000000d') % 1 }}",
    "width after a name": "{% set k = '(k)' * 99 %}{{ ('%(' ~ k ~ ')1000000000d') % {k: 1} }}",
    "width of a part": "{{ '%.1000000000f' % 1 }}",
    "width filter": "{{ '%1000000000d'|format(1) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "markup ljust": "{{ ('a'|safe).ljust(10**9) }}",
    "zfill": "{{ '1'.zfill(10**9) }}",
    "indent": "{{ 'a\nb'|indent(10**9) }}",
    "json indent": "{{ [[1]]|tojson(indent=10**9) }}",
    "round": "{{ 5|round(-10**9) }}{{ 5|round(10**9, 'ceil') }}",
    "batch": "{{ [1]|batch(10**9, 0)|list }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "sum": BIG + "{{ ([[0] * 99999] * 99999)|sum(start=[]) }}",
    "join filter": "{{ range(99999)|join('x' * 99999) }}",
    "replace filter": "{{ ('x' * 99999)|replace('x', 'y' * 99999) }}",
    "replace named": "{{ ('x' * 99999)|replace(new='y' * 99999, old='x') }}",
    "date": "{{ strftime_now('%c' * 99999) }}",
    **{
        name: BIG + "{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
        "{% set ns.t = (ns.t, ns.t) %}{% endfor %}" + use
        for name, use in {
            "shown": "{{ ns.l }}",
            "joined": "{{ ns.l ~ '' }}",
            "compared": "{% set a = namespace(l=[0]) %}{% for i in range(60) %}"
            "{% set a.l = [a.l, a.l] %}{% endfor %}{{ a.l == ns.l }}",
            "compared by test": "{{ ns.l is eq ns.t }}",
            "in": "{{ ns.l in [1, ns.t] }}",
            "hashed": "{% set d = {ns.t: 1} %}",
            "looked up": "{{ {}[ns.t] }}{{ {}.get(ns.t) }}",
            "unique": "{{ [ns.t]|map('default', 1)|unique|list }}",
            "json": "{{ ns.l|tojson }}",
            "string": "{{ ns.l|string }}",
            "formatted": "{{ '%s' % (ns.l,) }}",
            "braces": "{{ '{}'.format(ns.l) }}",
            "refused": "{{ raise_exception(ns.l) }}",
            "in namespace": "{% set n = namespace(x=ns.l) %}{{ n }}",
            "trimmed": "{{ ns.l|trim }}",
            "dictionary": "{{ {'a': ns.l}.items() }}",
        }.items()
    },
}


OTHERWISE = {"calls itself", "recursive", "range"}  # stopped by Python or by Jinja's sandbox


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_never_ends_or_produces_too_much_is_stopped(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.template.limits.UNITS", 2_000_000)  # to keep the test quick
    started = time.process_time()
    with pytest.raises(TemplateError) as caught:
        run_template(ENDLESS[name], {})
    assert caught.value.code == "TEMPLATE_LIMIT_EXCEEDED" or name in OTHERWISE
    assert time.process_time() - started < 5


def test_the_clock_stops_work_that_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talu.template.limits.SECONDS", 0.05)
    source = "{% set s = 'a' * 999999 %}{% for i in range(99999) %}{% if 'b' in s %}{% endif %}"
    with pytest.raises(TemplateError, match=r"0\.05 seconds"):
        run_template(source + "{% endfor %}", {})


LONG = "{% set s = 'a' * 1000000 %}{% set half = 'ab' ~ 'a' * 500000 %}"
SLOW = {  # one call each that would take minutes
    "strip": "{{ ('a' * 1000000).strip('b' * 1000000 ~ 'a') }}",
    "lstrip": "{{ ('a' * 1000000).lstrip('b' * 1000000 ~ 'a') }}",
    "trim": "{{ ('a' * 1000000)|trim('b' * 1000000 ~ 'a') }}",
    "trim of markup": "{{ ('a' * 1000000)|safe|trim(chars='b' * 1000000 ~ 'a') }}",
    "rfind": LONG + "{{ s.rfind(half) }}",
    "rindex": LONG + "{{ s.rindex(half) }}",
    "rsplit": LONG + "{{ s.rsplit(half) }}",
    "rpartition": LONG + "{{ s.rpartition(half) }}",
    "rsplit by name": LONG + "{{ s.rsplit(sep=half) }}",
    "list count": LONG + "{% set t = s ~ 'a' %}{{ ([t] * 1000000).count(s ~ 'b') }}",
    "list index": LONG + "{% set t = s ~ 'a' %}{{ ([t] * 1000000).index(s ~ 'b') }}",
    "large keys": "{% set d = {2**70: 1} %}",
    "tuple keys": "{% set d = {(1, 2): 1} %}",
    "dict of pairs": "{{ dict([((1, 2), 1)]) }}",
    "unique pairs": "{{ [(1, 2)]|unique|list }}",
    "unique numbers": "{{ [2**61 - 1, (2**61 - 1) * 2]|unique|list }}",
    "long attribute": "{% set ns = namespace() %}{% set ns.a = ns %}"
    "{{ ([ns] * 99999)|map(attribute=('a.' * 99999) ~ 'a')|list|length }}",
    "lazy filter": "{{ ('a' * 5000000)|rejectattr(99)|list }}",
    "keys of groups": "{{ ('a' * 5000000)|groupby(99)|list }}",
    "defaults of groups": "{{ ('a' * 500000)|groupby(99, default='A' * 500000)|list }}",
    "other templates": "{% include ['x'] * 2000000 ignore missing %}",
    "comments in markup": "{{ ('<!--a-->' * 99999)|safe|attr('striptags')() }}",
    "sizes": "{% set ns = namespace(l=['']) %}{% for i in range(26) %}"
    "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{% for i in range(9) %}{{ ns.l }}{% endfor %}",
    "tried": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("name", SLOW)
def test_no_single_operation_runs_far_beyond_the_clock(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talu.template.limits.SECONDS", 0.1)
    started = time.thread_time()
    with pytest.raises(TemplateError):
        run_template(SLOW[name], {})
    assert time.thread_time() - started < 10  # unlimited: minutes


@pytest.mark.parametrize("name", ["title", "wordcount"])
def test_words_are_charged_before_they_are_cut_out(name: str) -> None:
    with pytest.raises(TemplateError, match="too much text"):  # else 700 MB of words
        run_template("{{ (['a ' * 500000] * 9)|" + name + " }}", {})


def test_all_template_work_of_a_request_shares_one_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("talu.template.limits.SECONDS", 0.3)
    busy = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    started = time.thread_time()
    with pytest.raises(TemplateError) as caught:  # without it, each trial would take that long
        render(busy, [{"role": "user", "content": "Hi"}])
    assert caught.value.code == "TEMPLATE_LIMIT_EXCEEDED"
    assert time.thread_time() - started < 3  # with 0.3 seconds for each trial: 6


def test_a_template_that_was_stopped_while_it_was_tried_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("talu.template.limits.SECONDS", 0.3)
    busy = "{% for a in range(9998) %}{% for b in range(9998) %}{% endfor %}{% endfor %}"
    for _ in range(3):
        with pytest.raises(TemplateError) as caught:
            render(busy, [{"role": "user", "content": "Hi"}])
        assert caught.value.code == "TEMPLATE_LIMIT_EXCEEDED"
        monkeypatch.setattr("talu.template.render.run_template", None)  # it is not called again


def test_a_template_of_too_many_tokens_is_not_compiled() -> None:
    with pytest.raises(TemplateSyntaxError, match="more than 20000 tokens"):
        check_template("{{a}}" * 13_000)


def test_blocks_inside_blocks_compile_as_fast_as_blocks_in_a_row() -> None:
    def seconds(source: str) -> float:
        started = time.thread_time()
        check_template(source)
        return time.thread_time() - started

    body, opened, closed = "{{ a }}" * 3000, "{% if a %}" * 19, "{% endif %}" * 19
    in_a_row = seconds(body + (opened[:10] + closed[:11]) * 19)
    assert seconds(opened + body + closed) < 6 * in_a_row  # quadratic: 20 times


def test_a_template_that_cannot_be_compiled_is_compiled_once() -> None:
    source = "{{ '" + "a" * 1000 + "' }}{{ b " * 500
    compiled = sandbox._compile.cache_info().misses
    for _ in range(3):
        with pytest.raises(TemplateSyntaxError):
            check_template(source)
    assert sandbox._compile.cache_info().misses == compiled + 1


def test_a_long_conversation_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% for message in messages %}{{ message.content }}{% endfor %}"
    check_template(source)
    monkeypatch.setattr("talu.template.limits.SECONDS", 0)
    monkeypatch.setattr("talu.template.limits.INPUT_PER_SECOND", 1000)
    messages = [{"role": "user", "content": "word"} for _ in range(2000)]
    assert run_template(source, {"messages": messages}) == "word" * 2000


def test_a_long_conversation_is_not_stopped() -> None:
    messages = [{"role": "user", "content": "word " * 20_000} for _ in range(50)]
    source = (
        "{% for m in messages %}{% if m.content.startswith('x') or '</t>' in m.content %}x"
        "{% else %}{{ m.role + ': ' + m.content.strip() ~ (m.content|trim) }}{% endif %}"
        "{% endfor %}"
    )
    assert len(run_template(source, {"messages": messages})) > 9_000_000


@pytest.mark.parametrize(
    ("source", "line"),
    [("a\n{% if %}", 2), ("{{ 1 | nothing }}", 1), ("{% for x in y %}", 1), ("\n\n{{ }", 3)],
)
def test_a_syntax_error_says_the_line(source: str, line: int) -> None:
    with pytest.raises(TemplateSyntaxError, match=f"line {line}:") as caught:
        run_template(source, {})
    assert caught.value.details == {"line": line}


@pytest.mark.parametrize(
    "source",
    ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% if 1 %}" * 3000, "{" * 300_000],
    ids=["parentheses", "blocks", "long"],
)
def test_a_template_too_deep_or_too_long_is_refused(source: str) -> None:
    with pytest.raises(TemplateSyntaxError):
        run_template(source, {})


def test_an_error_says_the_line_of_the_template() -> None:
    with pytest.raises(TemplateError, match="at line 3: ZeroDivisionError"):
        run_template("a\nb\n{{ 1 // 0 }}", {})


def test_a_refusal_by_a_template_has_a_distinct_code() -> None:
    with pytest.raises(TemplateError, match="Roles must alternate") as caught:
        run_template("{{ raise_exception('Roles must alternate') }}", {})
    assert caught.value.code == "TEMPLATE_RAISE_EXCEPTION"


def test_an_undefined_variable_is_empty_unless_strict() -> None:
    assert run_template("a{{ nobody }}b", {}) == "ab"
    with pytest.raises(TemplateUndefinedError, match="'nobody' is undefined"):
        run_template("a{{ nobody }}b", {}, strict=True)


def test_an_attribute_of_an_undefined_value_is_always_an_error() -> None:
    with pytest.raises(TemplateUndefinedError, match="'nobody' is undefined"):
        run_template("{{ nobody.name }}", {})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% if true %}\n  x\n{% endif %}\ny", "  x\ny"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        (
            "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("a{% generation %}{% set x = 1 %}b{{ x }}{% endgeneration %}c{{ x }}", "ab1c"),
        ("{{ {'é': '<&>', 'a': [1, none]} | tojson }}", '{"é": "<&>", "a": [1, null]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{{ strftime_now('%d %b %Y') }}", "02 Jan 2026"),
        (
            "{{ '%s is %05.2f' | format('x', 1.5) }} {{ '{:>4}|{!r}'.format(1, 'a') }}",
            "x is 01.50    1|'a'",
        ),
        ("{{ ', '.join(['a', 'b']) }}{{ ['a', 'b']|map('upper')|join('-') }}", "a, bA-B"),
        ("{{ ', '.join(['a', 'b']|map('upper')) }}", "A, B"),
        ("{{ dict(a=1)|items|list }}{{ dict([('a', 1)]) }}", "[('a', 1)]{'a': 1}"),
        (
            "{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}"
            "{% endfor %}{{ ns.n }}",
            "3",
        ),
        ("{{ 'a<b' }}{{ 'x' ~ 1 ~ none }}{{ ('<'|safe) ~ '<' }}", "a<bx1None<<"),
        ("{{ namespace(self=1).self }}{{ '**%s** (c) 2024' % 'x' }}", "1**x** (c) 2024"),
        ("{{ 'abc'[::-1] }}{{ [1, 2, 3][1:] }}", "cba[2, 3]"),
    ],
)
def test_the_language_is_that_of_chat_templates(source: str, text: str) -> None:
    assert run_template(source, {}, now=datetime(2026, 1, 2)) == text


def test_variables_that_a_template_reads_are_found() -> None:
    source = "{% for m in messages %}{{ m }}{{ loop.index }}{% endfor %}{{ range(3) }}{{ x.y }}"
    assert template_variables(source) == {"messages", "x"}


def test_the_cache_of_compiled_templates_is_bounded() -> None:
    sources = [f"{{{{ {number} }}}}" for number in range(100)]
    assert [run_template(source, {}) for source in sources] == [str(n) for n in range(100)]
    assert sandbox._compile.cache_info().currsize <= 64


def test_threads_share_a_template_but_not_its_variables() -> None:
    def run(number: int) -> str:
        values: dict[str, Any] = {"n": number}
        return run_template("{{ n }}{{ strftime_now('%Y') }}", values, now=datetime(number, 1, 1))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(1000, 1200))) == [f"{n}{n}" for n in range(1000, 1200)]


@pytest.mark.parametrize("size", [100_001, 10**30])
def test_a_range_that_is_too_long_is_named_with_its_limit(size: int) -> None:
    with pytest.raises(TemplateError, match="a range has more than 100,000 numbers") as caught:
        run_template("{% for n in range(" + str(size) + ") %}{% break %}{% endfor %}", {})
    assert caught.value.code == "TEMPLATE_LIMIT_EXCEEDED"


def test_a_range_of_the_largest_length_is_allowed() -> None:
    assert run_template("{{ range(100000) | length }}", {}) == "100000"
