from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import characters, desired_slots, words

from hal0.core.quote import systemd_join, systemd_lines, systemd_quote, systemd_text
from hal0.core.spec import Desired, DesiredSlot, HostFacts

NAMED = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34, "'": 39, "s": 32}
ESCAPE = re.compile(r"""([abfnrtv\\"'s])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})""")
WHITESPACE = " \t"


def exec_words(line: str) -> list[str]:
    """Read a command line as systemd.syntax(7) and systemd.service(5) say, and refuse what they leave open."""
    if re.search(r"[\0\n\r]", line) or line.endswith("\\") or line != line.strip(WHITESPACE):
        raise ValueError("a unit file can't hold this as one line")
    found, rest = [], line
    while rest:
        raw, rest = unquoted(rest)
        found.append(without_variables(without_specifiers(raw.decode())))
    return found


def unquoted(text: str) -> tuple[bytes, str]:
    """Return the first item, without quotes and escapes, and the rest of the line."""
    quote = text[0] if text[0] in "\"'" else ""
    item, at = b"", len(quote)
    while at < len(text):
        char = text[at]
        if char == quote or (not quote and char in WHITESPACE):
            after = text[at + len(quote) :]
            if after and after[0] not in WHITESPACE:
                raise ValueError("a closing quote must be followed by whitespace")
            return item, after.lstrip(WHITESPACE)
        if not quote and char in "\"'":
            raise ValueError("an opening quote must follow whitespace")
        if not quote and char == ";" and item == b"" and text[at + 1 : at + 2] in ("", *WHITESPACE):
            raise ValueError("a semicolon of its own begins another command")
        if char == "\\":
            value, length = unescaped(text[at + 1 :])
            item, at = item + value, at + 1 + length
        else:
            item, at = item + char.encode(), at + 1
    if quote:
        raise ValueError("a quote is not closed")
    return item, ""


def unescaped(text: str) -> tuple[bytes, int]:
    match = ESCAPE.match(text)
    if not match:
        raise ValueError("an unknown escape")
    named, byte, octal, short, long = match.groups()
    if named or byte or octal:
        return bytes([NAMED[named] if named else int(byte, 16) if byte else int(octal, 8)]), match.end()
    return chr(int(short or long, 16)).encode(), match.end()


def without_specifiers(item: str) -> str:
    if re.search(r"(?<!%)(?:%%)*%(?!%)", item):
        raise ValueError("a specifier would be expanded")
    return item.replace("%%", "%")


def without_variables(item: str) -> str:
    if re.search(r"\$\{", item.replace("$$", "")) or re.match(r"\$(?!\$)", item):
        raise ValueError("a variable would be expanded")
    return item.replace("$$", "$")


def unit_file(text: str) -> list[tuple[str, str, str]]:
    """Return (section, key, value) of every setting, lines joined as systemd.syntax(7) says."""
    found, section, before = [], "", ""
    for raw in text.split("\n"):
        line = raw.strip(WHITESPACE)
        if line.startswith(("#", ";")) or (not line and not before):
            continue
        if (len(line) - len(line.rstrip("\\"))) % 2:
            before += line[:-1] + " "
            continue
        line, before = before + line, ""
        if line.startswith("["):
            section = line.strip("[]")
        else:
            key, _, value = line.partition("=")
            found.append((section, key.strip(WHITESPACE), value.strip(WHITESPACE)))
    assert not before
    return found


@pytest.mark.parametrize(
    ("line", "items"),
    [
        ("/bin/echo one  two\t'th ree'", ["/bin/echo", "one", "two", "th ree"]),
        (r'"a\x41\101\u00e9\U0001f600\s\"\'\\\t"', ["aAAé😀 \"'\\\t"]),
        ('"" a"b', None),
        ('"a"b', None),
        ('"a', None),
        (r'"\q"', None),
        ("a ; b", None),
        ('a ";" b', ["a", ";", "b"]),
        ("%%a 100%%", ["%a", "100%"]),
        ("%n", None),
        ("%%%n", None),
        ("$$a a$$b", ["$a", "a$b"]),
        ("$a", None),
        ("a${b}", None),
        ("a b\\", None),
    ],
)
def test_the_reader_of_these_tests_reads_what_the_manual_says(line: str, items: list[str] | None) -> None:
    if items is None:
        with pytest.raises(ValueError, match=r"."):
            exec_words(line)
    else:
        assert exec_words(line) == items


any_word = st.text(characters("\0"), max_size=20) | words()


@settings(max_examples=300, deadline=None)
@given(any_word)
@example("")
@example(";")
@example("$")
@example("${HOME}")
@example("%i")
@example("100%")
@example("trailing\\")
@example("two\nlines\r\n")
@example('"')
@example("'quoted'")
@example("a\x85b\u2028c")
@example("\x7f")
def test_systemd_reads_back_any_word(word: str) -> None:
    assert exec_words(systemd_quote(word)) == [word]


@settings(max_examples=200, deadline=None)
@given(st.lists(any_word, max_size=8))
def test_systemd_reads_back_any_command_line(line: list[str]) -> None:
    assert exec_words(systemd_join(["/bin/true", *line])) == ["/bin/true", *line]


@settings(max_examples=200, deadline=None)
@given(st.lists(any_word, max_size=8))
def test_systemd_reads_back_any_command_line_of_many_lines(line: list[str]) -> None:
    (setting,) = unit_file("[Service]\nExecStart=" + systemd_lines(["/bin/true", *line]) + "\n")
    assert exec_words(setting[2]) == ["/bin/true", *line]


def test_a_command_line_of_many_lines_has_an_option_on_each() -> None:
    words = ["/bin/x", "run", "--a=1", "--b", "2", "image", "-c", "--d=e f", "g"]
    assert systemd_lines(words).splitlines() == [
        *("/bin/x run \\", "  --a=1 \\", "  --b 2 \\", "  image \\", "  -c \\", '  "--d=e f" \\', "  g"),
    ]


@settings(max_examples=40, deadline=None)
@given(desired_slots("systemd"))
def test_systemd_reads_a_drop_in_back_as_the_slot_it_was_made_for(
    world: tuple[HostFacts, DesiredSlot, Desired],
) -> None:
    slot = world[1]
    settings = unit_file(slot.body)
    assert [(section, key) for section, key, _ in settings] == [
        ("Unit", "Description"),
        *[("Service", key) for key in ("ExecStart", "ExecStart", "ExecStop", "ExecStop", "TimeoutStopSec")],
    ]
    assert [value for _, key, value in settings if key.startswith("Exec")][::2] == ["", ""]
    assert exec_words(settings[2][2]) == list(slot.launch.argv)
    assert exec_words(settings[4][2])[-1] == f"hal0-slot-{slot.spec.name}"
    assert int(settings[5][2]) > slot.spec.stop_timeout


def test_a_word_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        systemd_quote("a\0b")


@pytest.mark.parametrize("word", ["/usr/bin/podman", "--publish=127.0.0.1:8081:8080", "-/usr/bin/podman", "a@b_c+d,e"])
def test_a_plain_word_stays_as_it_is_for_people_to_read(word: str) -> None:
    assert systemd_quote(word) == word


@settings(max_examples=200, deadline=None)
@given(any_word)
def test_free_text_is_one_line_without_specifiers(text: str) -> None:
    shown = systemd_text(text)
    assert not re.search(r"[\0\n\r]", shown)
    assert without_specifiers(shown).split() == text.split()
