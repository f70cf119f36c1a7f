"""What people are told: percentages from what can be counted, and one sentence for each way to fail."""

import pytest

from jupyterhub_bkai.builds import failure, lock, progress
from jupyterhub_bkai.builds.progress import Downloads, Phase, Progress


def test_downloads_are_counted_in_mib() -> None:
    downloads = Downloads()
    for line in (
        "Using Python 3.11.2 environment at: x",
        "Downloading scipy (30.0MiB)",
        "Downloading numpy (10.0MiB)",
        "Downloading tiny (512.0KiB)",
        " Downloaded numpy",
    ):
        downloads.hear(line)
    assert downloads.progress(120) == Progress(18, "Fetching 120 packages (10 of 40 MiB here)")
    downloads.hear(" Downloaded scipy")
    downloads.hear(" Downloaded tiny")
    assert downloads.progress(120).percent == progress.DOWNLOAD.last


def test_percent_never_leaves_its_phase() -> None:
    phase = Phase(60, 70)
    assert [phase.at(done, 10) for done in (-1, 0, 5, 10, 11)] == [60, 60, 65, 70, 70]
    assert phase.at(0, 0) == 60
    assert progress.installing(42, 87) == Progress(64, "Installing 87 packages (42 done)")
    assert progress.compiling(5, 10).message == "Preparing for a quick start (5 of 10 files)"


NO_SOLUTION = [
    "  × No solution found when resolving dependencies:",
    "  ╰─▶ Because there is no version of scikit-learn==99.1 and you require",
    "      scikit-learn==99.1, we can conclude that your requirements are",
    "      unsatisfiable.",
]


@pytest.mark.parametrize(
    ("tail", "reason", "part"),
    [
        (NO_SOLUTION, "unresolvable", "there is no version of scikit-learn==99.1 (the service"),
        (
            [
                "× No solution found when resolving dependencies:",
                "╰─▶ Because zzz was not found in the package registry and you require zzz==1, we can",
            ],
            "unresolvable",
            "zzz was not found in the package registry (",
        ),
        (
            [
                "error: Request failed after 3 retries",
                "Caused by: Failed to fetch: `https://packages.example/simple/x/`",
                "Caused by: dns error",
            ],
            "no-network",
            "the packages' server does not answer",
        ),
        (["error: failed to write", "No space left on device (os error 28)"], "disk-full", "the disk is full"),
        (["HTTP status client error (403 Forbidden) for url"], "no-access", "refuses us"),
        (["error: No interpreter found for Python 3.19 in managed installations"], "no-python", "the Python it needs"),
        (["Failed to download `https://x.example/cpython-3.12.tar.gz`", "cause: dns error"], "no-python", "nor to"),
        (["× Failed to build `foo==1.0`", "  hint: gcc"], "unbuildable", "its package foo cannot be built here"),
        (["error: new at https://x.example/a in /root/secret/place"], "build-failed", "error: new at … in … ("),
        ([], "build-failed", "it said nothing"),
    ],
)  # fmt: skip
def test_the_installers_failures(tail: list[str], reason: str, part: str) -> None:
    error = failure.of_tool("sklearn/1.7", tail)
    assert error.reason == reason
    assert part in error.message
    assert error.message.startswith("Image version sklearn/1.7 cannot be made")
    assert error.message.endswith(".")
    assert "://" not in error.message
    assert "/root" not in error.message


def test_a_failed_check() -> None:
    error = failure.of_verify("a/1", ["noise", "the label says a 1, but importing a gives 2.", ""])
    assert error.reason == "unverified"
    assert "fails its own check: the label says a 1, but importing a gives 2 (" in error.message


LOCK = """\
anyio==4.16.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
jupyterhub==6.1.1 \\
    --hash=sha256:cc
jupyterhub-bkai[singleuser] @ file:///srv/x/jupyterhub_bkai-0.1.0-py3-none-any.whl \\
    --hash=sha256:dd
jupyterlab-server==2.28.1 \\
    --hash=sha256:ee
"""


def test_a_lock_names_no_place() -> None:
    kept = lock.kept(LOCK, "0.1.0")
    assert "jupyterhub-bkai==0.1.0 \\\n    --hash=sha256:dd\n" in kept
    assert "file:" not in kept
    assert lock.count(LOCK) == lock.count(kept) == 4


def test_a_given_lock_decides_all_but_the_foundation() -> None:
    left = lock.constraints(lock.kept(LOCK, "0.1.0"))
    assert left == (
        "anyio==4.16.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "jupyterlab-server==2.28.1 \\\n    --hash=sha256:ee\n"
    )
