"""What the worker answers for jobs that fail before they are confined."""

from __future__ import annotations

from tare.drivers.archive import worker


def test_an_unknown_job_is_an_answer() -> None:
    assert worker._answer({"kind": "dance"}, []) == {"error": "ValueError: unknown job 'dance'", "class": "internal"}


def test_no_job_that_reads_archives_may_administer() -> None:
    assert worker._CAP_SYS_ADMIN not in worker.EXTRACT_CAPABILITIES | worker.PACK_CAPABILITIES
