"""The quick launcher starts the same server as the stock one, sooner."""

import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from jupyterhub_bkai.singleuser import __main__ as launcher
from tests.singleuser.servers import OURS, ROOT, STOCK, Server, environment, running
from tests.singleuser.standin import StandIn

#: what the launcher changes on purpose, and what names one process or one start
OURS_ONLY = {"bkaiPages", "extensionManager", "news"}
PER_START = {"token", "appUrl", "cacheFiles"}


def look(server: Server) -> dict[str, Any]:
    """What a browser and a program see of a server."""
    with server.client() as http, server.client("") as stranger:
        page = http.get("lab").text
        config = re.search(
            r'<script id="jupyter-config-data" type="application/json">(.*?)</script>', page, re.S
        )
        assert config
        redirect = stranger.get("lab")
        cookies = [
            re.sub(r"=[^;]*", "=…", cookie.partition(";")[0]) + ";" + cookie.partition(";")[2]
            for cookie in redirect.headers.get_list("set-cookie")
        ]
        return {
            "config": json.loads(config[1]),
            "login": (redirect.status_code, redirect.headers["location"].partition("?")[0]),
            "cookies": sorted(re.sub(r"expires=[^;]*|-[0-9a-f]{6,}", "", cookie) for cookie in cookies),
            "kernelspecs": http.get("api/kernelspecs").json(),
            "answers": {path: status(http, path) for path in PATHS},
            "headers": sorted(http.get("api").headers),
        }


PATHS = [
    "",
    "api",
    "api/contents",
    "api/kernels",
    "api/sessions",
    "api/terminals",
    "api/spec.yaml",
    "api/me",
    "lab",
    "lab/api/settings",
    "lab/api/listings/@jupyterlab/extensionmanager-extension/listings.json",
    "lab/api/translations",
    "lab/api/workspaces",
    "lab/api/themes/@jupyterlab/theme-dark-extension/index.css",
    "lsp/status",
    "nbextensions",
    "nbconvert/html/absent.ipynb",
    "server-proxy/servers-info",
    "metrics",
    "logout",
    "no/such/page",
]


def status(http: httpx.Client, path: str) -> int:
    return http.get(path).status_code


def test_the_same_server_as_the_stock_one(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    seen = []
    for module in (STOCK, OURS):
        (tmp_path / module).mkdir()
        variables = environment(standin, tmp_path / module, free_port())
        with running(module, variables, tmp_path / module, tmp_path / f"{module}.log") as server:
            seen.append(look(server))
    stock, ours = seen
    for one in seen:
        one["config"] = {
            key: value
            for key, value in one["config"].items()
            if key not in OURS_ONLY | PER_START and str(tmp_path) not in str(value)
        }
    configs = stock.pop("config"), ours.pop("config")
    different = {key for key in {*configs[0], *configs[1]} if configs[0].get(key) != configs[1].get(key)}
    assert {key: [config.get(key) for config in configs] for key in different} == {}
    assert ours == stock


def test_lab_shows_what_the_image_holds_and_asks_nobody_for_updates(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with running(OURS, environment(standin, tmp_path, free_port()), tmp_path, tmp_path / "log") as server:
        config = look(server)["config"]
        with server.client() as http:
            notifications = http.get("lab/api/settings/@jupyterlab/apputils-extension:notification").json()
    defaults = {name: of["default"] for name, of in notifications["schema"]["properties"].items()}
    assert (defaults["fetchNews"], defaults["checkForUpdates"]) == ("false", False)
    assert "Extension Manager is 'readonly'" in (tmp_path / "log").read_text()
    assert config["news"] == {"disabled": True}


def test_an_administrators_setting_wins(
    standin: StandIn, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "jupyter_lab_config.json").write_text('{"LabApp": {"extension_manager": "pypi"}}')
    variables = {**environment(standin, tmp_path, free_port()), "JUPYTER_CONFIG_PATH": str(folder)}
    with running(OURS, variables, tmp_path, tmp_path / "log"):
        pass
    assert "Extension Manager is 'pypi'" in (tmp_path / "log").read_text()


def test_what_is_kept_out_is_let_in_again() -> None:
    program = (
        "import gc, sys\n"
        "from jupyterhub_bkai.singleuser import __main__ as launcher\n"
        "from jupyterlab import commands\n"
        "real = commands._yarn_config\n"
        "sys.modules.pop('rfc3987_syntax', None)\n"
        "with launcher.without_collecting(), launcher.without_grammar(), launcher.without_yarn():\n"
        "    assert not gc.isenabled() and commands._yarn_config is not real\n"
        "    try: import rfc3987_syntax\n"
        "    except ImportError: pass\n"
        "    else: raise SystemExit('not blocked')\n"
        "assert gc.isenabled() and commands._yarn_config is real\n"
        "import rfc3987_syntax\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_launcher_imports_nothing_of_jupyter_before_it_may() -> None:
    program = "import sys, jupyterhub_bkai.singleuser.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"jupyter_server", "jupyterlab", "jupyterhub", "jsonschema", "tornado", "httpx"}
    assert launcher.DEFAULTS.is_dir()
    assert gc.isenabled()
