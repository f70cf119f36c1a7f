"""Tickets: read by whom they were issued, for their time, unchanged."""

import pytest

from jupyterhub_bkai.api.tickets import VALID_MS, Tickets
from jupyterhub_bkai.model import Person

ADA = Person("ada", ("vision", "naïve “group”"), True)


def test_says_for_whom_it_was_issued() -> None:
    tickets = Tickets()
    assert tickets.read(tickets.issue(ADA, 1000), 1000 + VALID_MS - 1) == ADA


def test_ends() -> None:
    tickets = Tickets()
    assert tickets.read(tickets.issue(ADA, 1000), 1000 + VALID_MS) is None


def test_another_process_cannot_read_it() -> None:
    assert Tickets().read(Tickets().issue(ADA, 0), 0) is None


def test_a_changed_name_breaks_the_seal() -> None:
    tickets = Tickets()
    mine, theirs = tickets.issue(ADA, 0), tickets.issue(Person("bob"), 0)
    assert tickets.read(f"{mine.split('.')[0]}.{theirs.split('.')[1]}", 0) is None


@pytest.mark.parametrize("text", ["", ".", "a", "a.b", "a.b.c", "…", "\x00", "é.é", "A" * 100_000])
def test_nonsense_is_no_ticket(text: str) -> None:
    assert Tickets().read(text, 0) is None
