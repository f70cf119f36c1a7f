"""The Linux account a session runs as, and its home folder.

As root every Hub user has a real account, made on first use; otherwise all are the one account of the hub and
only have home folders of their own. Hub user names are hostile: they become account and folder names only here.

Guarantees of `slug`
- 1 to `longest` characters of `a-z0-9_-`, the first a letter, never ending in a hyphen;
- names that already are such, without a double hyphen, pass unchanged; all others get a double hyphen and a
  digest, so that no name can be chosen to meet somebody else's.
"""

import asyncio
import hashlib
import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path

FIRST_UID, NOBODY = 1000, 65534
LONGEST_ACCOUNT = 32
COMMENT = "jupyterhub-bkai"
_SAFE = re.compile(r"[a-z](?:[a-z0-9_]|-(?!-))*(?<!-)\Z")
#: useradd edits /etc/passwd, one at a time
_editing = asyncio.Lock()


class AccountError(Exception):
    """There is no account this user's sessions may run as; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a session is on this machine. `groups` is None where the hub cannot change users."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] | None
    home: Path
    shell: str


def slug(name: str, longest: int) -> str:
    """A safe name for a Hub user; see the guarantees above."""
    if len(name) <= longest and _SAFE.match(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
    return f"{words[: longest - 12].rstrip('-') or 'u'}--{digest}"


def account_name(template: str, user: str) -> str:
    """The account's name from a template like `bkai-{user}`."""
    return template.format(user=slug(user, LONGEST_ACCOUNT - len(template.format(user=""))))


def shared(homes: Path, user: str) -> Account:
    """The hub's own account, with a home folder for this user."""
    us = pwd.getpwuid(os.getuid())
    home = homes / slug(user, 64)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Account(us.pw_name, us.pw_uid, us.pw_gid, None, home, us.pw_shell or "/bin/sh")


async def real(name: str, *, create: bool) -> Account:
    """The account of that name, made first where that is allowed; never one of the system's own."""
    async with _editing:
        entry = _find(name)
        if entry is None and create:
            await _add(name)
            entry = _find(name)
    if entry is None:
        raise AccountError(f"There is no account {name} on this machine; the administrator has to make it.")
    if not FIRST_UID <= entry.pw_uid < NOBODY:
        raise AccountError(f"The account {name} is one of the system's own: no session runs as it.")
    home = Path(entry.pw_dir)
    _close(home, entry)
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups, home, entry.pw_shell or "/bin/sh")


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


async def _add(name: str) -> None:
    for _ in range(5):
        process = await asyncio.create_subprocess_exec(
            *("useradd", "--create-home", "--user-group", "--shell", "/bin/bash", "--comment", COMMENT),
            *("--key", "HOME_MODE=0700", "--key", f"UID_MIN={FIRST_UID}", name),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        if process.returncode in (0, 9):  # 9: somebody else was quicker
            return
        if process.returncode != 1:  # 1: another program is editing /etc/passwd just now
            break
        await asyncio.sleep(0.3)
    raise AccountError(
        f"The account {name} could not be made: {errors.decode().strip() or 'useradd failed'}."
    )


def _close(home: Path, entry: pwd.struct_passwd) -> None:
    """Let nobody else into the home folder; one that is somebody else's is not used."""
    try:
        facts = home.lstat()
    except FileNotFoundError:
        raise AccountError(f"The account {entry.pw_name} has no home folder; make it.") from None
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != entry.pw_uid:
        raise AccountError(f"The home folder of the account {entry.pw_name} belongs to somebody else.")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        home.chmod(0o700)
