"""What is read from squeue, scontrol and sacct, without a SLURM."""

from __future__ import annotations

import pytest

from reproduce.errors import UserError
from reproduce.run.backends import slurm_queue
from reproduce.run.backends.slurm_queue import NoAnswer, Queue, Queued, parse, state_of

ANSWER = """\
12_3|PENDING|reproduce-0a1b|JobArrayTaskLimit
12_0|RUNNING|reproduce-0a1b|None
13|PENDING|reproduce-0a1c|BeginTime
14|PENDING|somebody's|job|held|JobHeldUser
slurm_load_jobs error: something else
"""
SCONTROL = "JobId=14 ArrayJobId=12 ArrayTaskId=2 JobName=reproduce-0a1b JobState=CANCELLED Reason=None Requeue=1\n"


def dumb(_words: list[str]) -> str:
    raise NoAnswer("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")


def test_the_queue_is_read_line_by_line() -> None:
    found = parse(ANSWER)
    assert list(found) == ["12_3", "12_0", "13", "14"]
    assert found["12_0"] == Queued(job="12_0", state="RUNNING", name="reproduce-0a1b", reason="None")
    assert parse("") == {}


def test_a_job_is_found_by_its_id_and_by_its_name() -> None:
    queue = Queue(lambda _: ANSWER)
    by_id, by_name, single = queue.find("12_3"), queue.find("reproduce-0a1b_3"), queue.find("reproduce-0a1c")
    assert by_id is not None and by_id == by_name
    assert single is not None and single.job == "13"
    assert queue.find("12_1") is queue.find("reproduce-0a1b") is queue.find("1") is None


def test_only_what_waits_for_more_than_its_turn_is_stuck() -> None:
    found = parse("1|PENDING|a|PartitionTimeLimit\n2|PENDING|a|Resources\n3|RUNNING|a|None\n4|PENDING|a|BeginTime")
    assert [entry.job for entry in found.values() if entry.stuck] == ["1"]


def test_no_job_is_gone_because_squeue_does_not_answer() -> None:
    answers = [ANSWER]
    queue = Queue(lambda words: answers.pop() if answers else dumb(words), every=0.0)
    assert queue.find("12_0") is not None
    assert queue.find("12_0") is not None and not answers
    queue.add([Queued(job="20", state="PENDING", name="new", reason="None")])
    assert queue.find("20") is not None


def test_a_cluster_that_never_answered_is_one_line() -> None:
    with pytest.raises(UserError, match=r"SLURM does not answer: .*Unable to contact"):
        Queue(dumb).jobs()


def test_squeue_is_not_asked_each_time() -> None:
    calls: list[list[str]] = []

    def once(words: list[str]) -> str:
        calls.append(words)
        return ANSWER

    queue = Queue(once, every=60.0)
    assert queue.find("12_0") and queue.find("13") and not queue.find("99")
    assert len(calls) == 1 and calls[0][0] == "squeue"


@pytest.mark.parametrize(
    ("scontrol", "sacct", "state"),
    [
        (SCONTROL, None, "CANCELLED"),
        (None, None, ""),
        (None, "CANCELLED by 1000\n", "CANCELLED"),
        (None, "", ""),
        ("", "TIMEOUT\n", "TIMEOUT"),
    ],
)
def test_what_became_of_a_job(scontrol: str | None, sacct: str | None, state: str) -> None:
    """sacct is asked only where scontrol no longer knows, and neither has to answer."""

    def run(words: list[str]) -> str:
        answer = {"scontrol": scontrol, "sacct": sacct}[words[0]]
        return dumb(words) if answer is None else answer

    assert state_of(run, "12_2") == state


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ("Reason=None ExitCode=0:15 EndTime=2026-11-22T00:43:55 PreemptTime=None", "CANCELLED"),
        ("Reason=None Restarts=1 EndTime=Unknown PreemptTime=None", "REQUEUED"),
        ("Reason=TimeLimit ExitCode=0:15 EndTime=2026-11-22T00:43:55 PreemptTime=None", "TIMEOUT"),
        ("Reason=None EndTime=2026-11-22T00:43:55 PreemptTime=2026-11-22T00:43:55", "PREEMPTED"),
    ],
)
def test_why_a_job_is_ending(fields: str, state: str) -> None:
    """What scontrol printed of real jobs while their processes ended; the last one follows its manual."""
    assert state_of(lambda _: f"JobId=7 JobName=x JobState=COMPLETING {fields} Partition=main\n", "7") == state


def test_a_command_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match="needs SLURM's no-such-command in PATH"):
        slurm_queue.command(["no-such-command"])


def test_a_command_that_fails_says_its_first_line() -> None:
    with pytest.raises(NoAnswer, match=r"^no$"):
        slurm_queue.command(["sh", "-c", "echo no >&2; echo more >&2; exit 1"])
