"""`TreeSpawner`: a session as a tree of processes of this machine, under a keeper.

Owns how a session is launched, found again, asked about and stopped, and what of the machine it gets to see.
Knows nothing of leases but the id that marks every process. Built on the Hub's `Spawner` itself: of
`LocalProcessSpawner` nothing would remain, since it knows a session by a bare pid, runs code between fork and exec
of the hub, takes the hub's environment along, and signals one process where a session is a tree.
"""

import asyncio
import contextlib
import grp
import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, NoReturn

from jupyterhub.spawner import Spawner
from traitlets import Bool, Enum, Float, Integer, List, Unicode, default

from bkaispawner import accounts, keeper, ports
from bkaispawner.accounts import Account, AccountError
from bkaispawner.refusal import NotStarted
from jupyterhub_bkai.fences import private, proctable
from jupyterhub_bkai.fences.process import MARKER, Identity, ProcessFence, process_identity

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
LOOK_EVERY_S = 0.02
#: what the keeper needs beyond its grace to end what is left of a session
KEEPER_EXTRA_S = 5.0
#: where the keeper finds itself and the process table
PACKAGES = (str(Path(keeper.__file__).parents[1]), str(Path(proctable.__file__).parents[2]))


class TreeSpawner(Spawner):
    """Runs each session in an account, a home folder and an environment of its own, as far as we may."""

    log_folder = Unicode(config=True, help="The folder for the sessions' logs, one file per lease.")
    homes_folder = Unicode(
        config=True, help="The folder for home folders, where sessions have no accounts of their own."
    )
    real_accounts = Bool(
        config=True,
        help="Each Hub user's sessions run as a Linux account of their own. Needs root; the default where we are.",
    )
    account_template = Unicode(
        "bkai-{user}",
        config=True,
        help="The account's name; `{user}` is the Hub user's, made safe. Accounts of the system are refused.",
    )
    create_accounts = Bool(True, config=True, help="Make accounts that are missing, on first use.")
    supplementary_groups = List(
        Unicode(),
        config=True,
        help="Names of Linux groups that every session is in, beside the account's own.",
    )
    session_module = Unicode(
        "jupyterhub_bkai.singleuser", config=True, help="The Python module that is a session's server."
    )
    kernel_transport = Enum(
        ["ipc", "tcp"],
        "ipc",
        config=True,
        help="How the server talks to kernels. `ipc`: sockets in a folder that only this user can enter. With `tcp` "
        "every user of the machine can listen to what kernels print.",
    )
    umask = Integer(0o022, config=True, help="The permissions that new files in a session do not get.")
    oom_score_adj = Integer(
        300,
        min=0,
        max=1000,
        config=True,
        help="When the machine has no memory left, sessions go before the hub: from 0 (they do not) to 1000.",
    )
    pids_limit = Integer(
        8192, min=0, config=True, help="The most processes of one session, where cgroups count them; 0: any."
    )
    stop_grace = Float(
        10, min=0, config=True, help="Seconds a server gets to end by itself when it is stopped."
    )

    #: the lease id, which marks every process of the session
    marker = ""
    #: the session's interpreter, and the folder whose programs it finds first
    python = ""
    environment_folder = ""
    #: (name, path) of the folders shown in the home folder
    links: Sequence[tuple[str, str]] = ()

    identity: Identity | None = None
    exit_code: int | None = None
    account: Account | None = None
    _child: "Popen[bytes] | None" = None
    _exit_handle: int | None = None

    @default("env_keep")
    def _hardly_anything_of_the_hubs(self) -> list[str]:
        return ["LANG", "LC_ALL", "TZ"]

    @default("real_accounts")
    def _where_we_are_root(self) -> bool:
        return os.geteuid() == 0

    # -- what the Hub calls ------------------------------------------------------------------

    async def start(self) -> str:
        """Launch the keeper and return at once; it starts the server only when `open_gate` is called."""
        if self.internal_ssl:
            _refuse("Process sessions cannot be had with internal_ssl: the administrator has to choose.")
        try:
            self.account = await self._find_account()
            self.port = ports.free_port(self.ip)
            self._launch(self.account)
        except OSError as error:
            self.log.exception("lease %s: cannot be launched", self.marker)
            _refuse(f"The session cannot be launched ({error.strerror}): the hub's log says where.")
        return f"http://{self.ip}:{self.port}"

    async def poll(self) -> int | None:
        """None while the session runs, else its exit code (0 where only a former hub could know it)."""
        if self._child is not None:
            self.exit_code = self._child.poll()
            return self.exit_code
        return None if self.identity is not None and self.identity.alive() else 0

    async def stop(self, now: bool = False) -> None:
        """End the server, then everything that came out of it; returns when all of it is gone."""
        self._close_gate()
        if self.identity is None:
            return
        marker = self.marker
        self.identity.signal(signal.SIGUSR1 if now else signal.SIGTERM)
        if not await self._ended_within(KEEPER_EXTRA_S + (0 if now else self.stop_grace)):
            self.log.warning("lease %s: the session does not stop and is killed", marker)
        # The keeper leaves nothing. But it may have been killed itself, and then nobody ended the rest.
        # Its cgroup stays: the service reads what the kernel counted there, and removes it.
        if not await asyncio.to_thread(partial(fence().end, marker, 0, tidy=False)):
            self.log.error("lease %s: something of the session cannot be killed", marker)
        await self._ended_within(1)

    def get_state(self) -> dict[str, Any]:
        """Who the keeper is, and where the server listens."""
        state: dict[str, Any] = super().get_state()
        if self.identity:
            state["process"] = {**self.identity._asdict(), "port": self.port, "marker": self.marker}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Find the keeper that a former hub started."""
        super().load_state(state)
        if saved := state.get("process"):
            self.identity = Identity(saved["boot_id"], saved["pid"], saved["start_time"])
            self.port, self.marker = saved["port"], saved["marker"]

    def clear_state(self) -> None:
        """Forget the session. Its private folder goes when the service has seen that nothing of it is alive."""
        super().clear_state()
        self._close_gate()
        self._child, self.identity, self.marker, self.port = None, None, "", 0

    def get_env(self) -> dict[str, str]:
        """The server's environment: of the hub's own only what `env_keep` names."""
        env: dict[str, str] = super().get_env()
        if self.account is None:
            return env
        return {
            "LANG": "C.UTF-8",
            **env,
            "HOME": str(self.account.home),
            "USER": self.account.name,
            "LOGNAME": self.account.name,
            "SHELL": self.account.shell,
            "PATH": f"{self.environment_folder}/bin:{SYSTEM_PATH}",
            "JUPYTER_RUNTIME_DIR": private.path(self.marker),
            MARKER: self.marker,
        }

    def start_polling(self) -> None:
        """Beside the Hub's polling, have the kernel say at once when the session ends."""
        super().start_polling()
        self._unwatch()
        if self.identity is None:
            return
        with contextlib.suppress(OSError):  # gone already, or an old kernel: the Hub's polling finds out
            self._exit_handle = os.pidfd_open(self.identity.pid)
            asyncio.get_running_loop().add_reader(self._exit_handle, self._ended)

    def stop_polling(self) -> None:
        """Neither of the two any more."""
        super().stop_polling()
        self._unwatch()

    # -- launching ---------------------------------------------------------------------------

    async def _find_account(self) -> Account:
        try:
            if not self.real_accounts:
                return accounts.shared(Path(self.homes_folder), self.user.name)
            name = accounts.account_name(self.account_template, self.user.name)
            return await accounts.real(name, create=self.create_accounts)
        except AccountError as error:
            _refuse(str(error))

    def _launch(self, account: Account) -> None:
        """Start the keeper, marked and in its cgroup, waiting at its gate. Never waits itself."""
        own = None if account.groups is None else (account.uid, account.gid)
        try:
            private.make(self.marker, own)
        except private.NotOurs as error:
            _refuse(str(error))
        specification = os.memfd_create("session")
        log = self._open_log()
        try:
            os.write(specification, json.dumps(self._specify(account)).encode())
            os.lseek(specification, 0, os.SEEK_SET)
            self._child = Popen(
                [sys.executable, "-I", "-S", "-c", keeper.COMMAND, str(specification), *PACKAGES],
                env={MARKER: self.marker},
                cwd="/",
                stdin=PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                pass_fds=(specification,),
                start_new_session=True,
            )
        finally:
            os.close(specification)
            os.close(log)
        self.identity = process_identity(self._child.pid)
        self._enter_cgroup(self._child.pid)
        self.log.info("lease %s: keeper %i launched as %s", self.marker, self._child.pid, account.name)

    def _specify(self, account: Account) -> dict[str, Any]:
        """What the keeper turns into the server."""
        transport = [f"--KernelManager.transport={self.kernel_transport}"]
        groups = account.groups
        if groups is not None:
            groups = (*groups, *map(_group, self.supplementary_groups))
        return {
            # -P: a file json.py in somebody's home folder must not be taken for the library's
            "argv": [self.python, "-P", "-m", self.session_module, *transport, *self.get_args()],
            "env": self.get_env(),
            "cwd": str(account.home),
            "uid": account.uid,
            "gid": account.gid,
            "groups": groups,
            "umask": self.umask,
            "oom_score_adj": self.oom_score_adj,
            "links": [(name, path) for name, path in self.links if _is_plain(name)],
            "grace_s": self.stop_grace,
        }

    def _open_log(self) -> int:
        folder = Path(self.log_folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(folder / f"{self.marker}.log", flags, 0o600)

    def _enter_cgroup(self, pid: int) -> None:
        groups = fence().groups
        if groups is None:
            return
        try:
            groups.create(self.marker, pids_limit=self.pids_limit)
            groups.enter(self.marker, pid)
        except OSError:
            # The marker and the keeper still prove what is alive.
            self.log.exception("lease %s: no cgroup for the session", self.marker)

    def open_gate(self) -> None:
        """Let the keeper start the server: from here on the session lives by itself."""
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(b"\n")
            self._close_gate()

    def _close_gate(self) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()

    def owns_port(self) -> bool:
        """True when it is this session, and nobody else, that listens on its port."""
        found = ports.listeners(self.ip, self.port)
        # Of a keeper that has ended nobody but root may look at the files: it would count as "may not look".
        if not found or self.identity is None or not self.identity.alive():
            return False
        if self.account is not None and {uid for uid, _ in found} != {self.account.uid}:
            return False
        family = proctable.descendants(proctable.table(), {self.identity.pid})
        return all(ports.holds(family, inode) is not False for _, inode in found)

    # -- ending ------------------------------------------------------------------------------

    async def _ended_within(self, seconds: float) -> bool:
        deadline = asyncio.get_running_loop().time() + seconds
        while await self.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    def _ended(self) -> None:
        self._unwatch()
        self._noticing = asyncio.create_task(self._notice(), name=f"end of {self._log_name}")

    async def _notice(self) -> None:
        # The Hub adds its callback only after these, and says so to nobody.
        while self._spawn_pending or self._check_pending:  # noqa: ASYNC110
            await asyncio.sleep(5 * LOOK_EVERY_S)
        if self._poll_callback is not None and not self._stop_pending:
            await self.poll_and_notify()

    def _unwatch(self) -> None:
        if self._exit_handle is not None:
            asyncio.get_running_loop().remove_reader(self._exit_handle)
            os.close(self._exit_handle)
            self._exit_handle = None


@cache
def fence() -> ProcessFence:
    """The fence of this machine."""
    return ProcessFence.of_this_machine()


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        _refuse(f"There is no Linux group {name} (supplementary_groups): the administrator has to make it.")


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..")


def _refuse(message: str) -> NoReturn:
    raise NotStarted(message, reason="configuration")
