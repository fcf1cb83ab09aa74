from __future__ import annotations

from tare.client.errors import ApiError


def test_an_api_error_reads_as_docker_prints_it() -> None:
    error = ApiError(404, "No such container: x")
    assert (str(error), error.status, error.message) == (
        "Error response from daemon: No such container: x",
        404,
        "No such container: x",
    )
