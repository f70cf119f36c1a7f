"""Words and tables."""

from datetime import UTC, datetime, timedelta

import pytest

from jupyterhub_bkai.cli.terminal import ago, cut, facts, memory, plain, table, width


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain – 한국어 é", "plain – 한국어 é"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jx\x9d0;t\x9cy", "xy"),
        ("a\nb\tc\rd", "a b c d"),
        ("\x1b", ""),
        ("a\x1bcb", "ab"),
        ("x\u202ey\u2066z\u200b", "xyz"),
        ("\x00\x07\x08\x7f\x85", " "),
        ("\x1b[31\x1b[32mx", "31x"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_plain_keeps_what_it_is_told() -> None:
    assert plain("a\n\tb\r\x1b[1m", keep="\n\t") == "a\n\tb "


def test_width_and_cut() -> None:
    assert width("한국e\u0301") == 5
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"
    assert width(cut("한국어한국어", 6)) <= 6


def test_table_fits() -> None:
    rows = [("a", "", "RUNNING", "waits " * 30), ("한국", "", "PENDING", "")]
    text = table(("NAME", "EMPTY", "STATE", "NOTE"), rows, columns=40)
    lines = text.splitlines()
    assert "EMPTY" not in text
    assert all(width(line) <= 40 for line in lines if "\x1b" not in line)
    assert lines[1].endswith("…")
    assert (
        lines[1].index("RUNNING") == lines[2].index("PENDING") + 2
    )  # two letters there are four columns wide


def test_prose_goes_below_where_there_is_no_room() -> None:
    rows = [("a", "it waits because of this and that"), ("b", "")]
    lines = table(("NAME", "NOTE"), rows, columns=30, prose="NOTE").splitlines()
    assert lines[1:] == ["a", "    it waits because of this", "    and that", "b"]
    assert "NOTE" not in lines[0]
    assert (
        table(("NAME", "NOTE"), rows, columns=60, prose="NOTE").splitlines()[1].startswith("a     it waits")
    )


def test_table_without_a_terminal_cuts_nothing() -> None:
    assert "x" * 500 in table(("A",), [("x" * 500,)])


def test_facts_leave_out_what_there_is_not() -> None:
    assert "B" not in facts([("A", 1), ("B", None), ("C", "")])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (45, "45 s ago"), (3700, "1 h 1 min ago"), (-3600, "in 1 h"), (90000, "1 d 1 h ago")],
)
def test_ago(seconds: int, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert ago(now - timedelta(seconds=seconds), now) == text


def test_memory() -> None:
    assert [memory(n) for n in (0, 512, 1024, 1536, 36096)] == [
        "0 MiB",
        "512 MiB",
        "1 GiB",
        "1.5 GiB",
        "35.2 GiB",
    ]
