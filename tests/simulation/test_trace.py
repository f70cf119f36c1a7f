"""Traces: what is written is read again, and what cannot be read is said with its line and column."""

from fractions import Fraction

import pytest

from jupyterhub_bkai.errors import SettingsError
from jupyterhub_bkai.model import Wish
from jupyterhub_bkai.simulation import trace
from jupyterhub_bkai.simulation.trace import Job

JOBS = [
    Job(0.0, "ada", "vision", "default", 500, 1024, None, None, 12.5),
    Job(1.25, "bob", None, "lab, the large", 4000, 65536, Wish("cuda", 2), 3600, 3600.0, 50, 30.0),
    Job(3.0, "ada", "vision", "default", 1000, 2048, Wish("cuda", 1, Fraction(1, 3)), 60, 7.0),
    Job(9.0, 'x"y', None, "default", 1000, 2048, Wish("cuda", 1, Fraction(1), "1g.18gb"), None, 0.0),
]
HEAD = "asked_s,user,group,cpu,memory_mib,took_s\n"


def test_what_is_written_is_read() -> None:
    assert trace.read(trace.write(JOBS)) == JOBS


def test_numbers_in_place_of_names() -> None:
    found = trace.anonymous(JOBS)
    assert [job.user for job in found] == ["1", "2", "1", "3"]
    assert [job.project for job in found] == ["1", None, "1", None]
    assert "ada" not in trace.write(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "t.csv: it is empty; its first line names the columns: asked_s"),
        (HEAD, "t.csv: it has no sessions"),
        (
            HEAD + "0,ada,default,1,1024,abc\n",
            "t.csv, line 2, column took_s: “abc” is not a number of seconds.",
        ),
        (
            HEAD + "0,ada,default,1,1024,60\n\n-1,ada,default,1,1024,60\n",
            "t.csv, line 4, column asked_s: “-1” is not",
        ),
        (HEAD + "0,,default,1,1024,60\n", "t.csv, line 2, column user: it is empty; expected a name."),
        (HEAD + "0,ada,default,1,1024\n", "t.csv, line 2: it has 5 cells, but there are 6 columns."),
        (HEAD + "0,ada,default,0,1024,60\n", "t.csv, line 2, column cpu: “0” is not a number of processors"),
        (
            HEAD + "nan,ada,default,1,1024,60\n",
            "t.csv, line 2, column asked_s: “nan” is not a number of seconds.",
        ),
        (HEAD.replace("took_s", "tok_s"), "t.csv, line 1: there is no column “tok_s”; did you mean took_s?"),
        (HEAD.replace("took_s", "when"), "t.csv, line 1: there is no column “when”; known are asked_s"),
        (HEAD.replace(",took_s", ""), "t.csv, line 1: the column took_s is missing"),
        (HEAD.replace("took_s", "user"), "t.csv, line 1: the column user is there twice."),
        (HEAD + '0,"ada,default,1,1024,60\n', "t.csv: this is not CSV: unexpected end of data."),
        (
            HEAD.strip() + ",share\n0,a,default,1,1024,60,3/2\n",
            "column share: “3/2” is not a part such as 1/4",
        ),
        (
            HEAD.strip() + ",priority\n0,a,default,1,1024,60,101\n",
            "“101” is not a whole number from 0 to 100.",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        trace.read(text, "t.csv")
    assert str(caught.value).startswith(said) or said in str(caught.value)
    assert len(caught.value.problems) == 1
