from __future__ import annotations

import pickle

import httpx
import pytest

from isoloss import errors
from isoloss.client.errors import BY_STATUS, ApiError, ServerError, class_for, from_problem

PROBLEM = {
    "type": "https://isoloss.test/problems/invalid",
    "title": "Invalid input",
    "status": 422,
    "detail": "The run is refused.",
    "errors": [{"field": "config.peak_lr", "reason": "must be positive"}],
}


@pytest.mark.parametrize("status", sorted(BY_STATUS))
def test_every_status_has_its_exception_with_the_fields_of_the_problem(status):
    error = from_problem(status, {**PROBLEM, "status": status})
    assert type(error) is BY_STATUS[status]
    assert (error.status, error.title, error.detail) == (status, "Invalid input", "The run is refused.")
    assert error.problem() == {**PROBLEM, "status": status}


def test_the_message_is_the_detail_with_the_fields_at_fault():
    assert str(from_problem(422, PROBLEM)) == "The run is refused. (config.peak_lr: must be positive)"


def test_braces_in_a_message_stay_as_they_are():
    assert str(from_problem(422, {"detail": "expr {lambda} is refused"})) == "expr {lambda} is refused"


@pytest.mark.parametrize("status", [*sorted(BY_STATUS), 418, 500])
def test_an_error_survives_pickling(status):
    error = from_problem(status, PROBLEM, retry_after=3.0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert (copy.status, copy.errors, copy.retry_after) == (status, error.errors, 3.0)


def test_the_librarys_errors_catch_the_services():
    families = {404: errors.NotFound, 409: errors.Conflict, 422: errors.InvalidInput, 503: errors.Unavailable}
    for status, family in families.items():
        assert issubclass(class_for(status), family)
        assert issubclass(class_for(status), ApiError)


def test_an_answer_that_is_no_problem_document_gives_an_error_too(scripted):
    client, _ = scripted(httpx.Response(500, text="<html>"))
    with pytest.raises(ServerError, match="HTTP 500"):
        client.projects.get("p")


def test_success_that_is_no_json_is_told_as_unavailable(scripted):
    client, _ = scripted(httpx.Response(200, text="<html>a proxy's page</html>"))
    with pytest.raises(errors.Unavailable, match="not JSON"):
        client.projects.get("p")
