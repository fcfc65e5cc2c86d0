"""The request hooks: what is logged, in which order, exactly once."""

from __future__ import annotations

from pathlib import Path

from support import assert_conserved, log_lines


def test_a_request_makes_two_records(make_app) -> None:
    """One line when the request comes in, one when the response goes out, with the wording of Flask's recipe."""
    app, asynclog = make_app()
    app.add_url_rule("/hello/<name>", "hello", lambda name: f"hello {name}")
    response = app.test_client().get("/hello/bob?x=1")
    assert asynclog.flush()
    request_line, response_line = log_lines(Path("app.log"))
    request_id = response.headers["X-Request-ID"]
    assert f" - INFO - Request GET http://localhost/hello/bob?x=1 id={request_id}" in request_line
    assert " - INFO - Response 200 OK GET /hello/bob " in response_line
    assert response_line.endswith(f"ms 9B id={request_id}")
    assert_conserved(asynclog.stats())
