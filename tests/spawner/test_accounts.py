"""Hub user names become account and folder names that are safe and never meet."""

import re
from pathlib import Path

import pytest
from bkaispawner import accounts
from hypothesis import given
from hypothesis import strategies as st

HOSTILE = [
    "",
    "root",
    "../../etc/passwd",
    "a/b",
    "-rf",
    "--help",
    "a b",
    "A",
    "a:b",
    "a\nb",
    "a\0b",
    "$(id)",
    "ada--0123456789",
    "ada-",
    "1ada",
    "_ada",
    "ada@example.org",
    "Ärger",
    "用户",
    "a" * 200,
    "😀",
]


@pytest.mark.parametrize("name", ["ada", "ada-lovelace", "a1_b", "a" * 27])
def test_plain_names_stay(name: str) -> None:
    assert accounts.account_name("bkai-{user}", name) == f"bkai-{name}"


@pytest.mark.parametrize("name", HOSTILE)
def test_others_become_safe(name: str) -> None:
    made = accounts.account_name("bkai-{user}", name)
    assert re.fullmatch(r"bkai-[a-z][a-z0-9_-]*[a-z0-9_]", made)
    assert len(made) <= accounts.LONGEST_ACCOUNT


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_two_names_meet(one: str, other: str) -> None:
    a, b = accounts.slug(one, 27), accounts.slug(other, 27)
    assert (a == b) == (one == other)
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,26}", a)
    # Nobody can call himself what somebody else's name becomes.
    assert a == one or accounts.slug(a, 27) != a


def test_a_home_of_ones_own_under_a_shared_account(tmp_path: Path) -> None:
    ours = [accounts.shared(tmp_path / "homes", name) for name in ("ada", "../ada", "..")]
    homes = [account.home for account in ours]
    assert len(set(homes)) == 3
    assert all(home.parent == tmp_path / "homes" and home.stat().st_mode & 0o777 == 0o700 for home in homes)
    assert all(account.groups is None for account in ours)


@pytest.mark.parametrize("name", ["root", "daemon", "nobody"])
async def test_no_session_runs_as_an_account_of_the_system(name: str) -> None:
    with pytest.raises(accounts.AccountError, match="one of the system's own"):
        await accounts.real(name, create=False)


async def test_a_missing_account_is_not_made_where_it_must_not_be() -> None:
    with pytest.raises(accounts.AccountError, match="There is no account bkai-nobody-has-this"):
        await accounts.real("bkai-nobody-has-this", create=False)
