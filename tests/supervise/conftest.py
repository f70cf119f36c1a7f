"""Fixtures of the supervisor's tests.

running      a site with tiny sessions and the dummy login, not started yet; ended after the test
kept         the same, started, shared by a module whose tests leave it as they found it
"""

from collections.abc import Callable, Iterator

import pytest

from tests.chain.site import Site
from tests.supervise.running import TINY, Running


@pytest.fixture
def running(a_site: Callable[..., Site]) -> Iterator[Running]:
    one = Running(a_site(more=TINY))
    yield one
    one.end()


@pytest.fixture(scope="module")
def kept(a_site: Callable[..., Site]) -> Iterator[Running]:
    one = Running(a_site(more=TINY))
    try:
        one.up()
        yield one
    finally:
        one.end()
