from __future__ import annotations

import threading
import uuid

import httpx
import pytest

from tests.app.conftest import Api, fields, problem


def test_a_project_is_created_once_shown_listed_and_deleted(client: httpx.Client, project: str) -> None:
    """201, then 409 for the same name; 204, then 404."""
    name = project.split("/")[-1]
    assert client.get(project).json()["name"] == name
    assert name in [item["name"] for item in client.get("/v1/projects?limit=1000").json()["items"]]
    problem(client.post("/v1/projects", json={"name": name}), 409)
    client.put(f"{project}/runs/r", json={"name": "r"})
    assert client.delete(project).status_code == 204
    problem(client.get(project), 404)
    problem(client.delete(project), 404)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 101, "a\n", 5, None, True])
def test_a_projects_name_is_checked(client: httpx.Client, name: object) -> None:
    """Names are letters, digits, dot, underscore and dash, at most a hundred of them."""
    assert fields(client.post("/v1/projects", json={"name": name})) == ["name"]


def test_without_a_known_key_there_is_nothing(api: Api, project: str) -> None:
    """No key and an unknown key are 401 with a challenge, before anything is told of what exists."""
    for key in (None, "isl_unknown", '"'):
        for path in (project, "/v1/projects/gone", "/v1/keys", "/v1/laws", f"{project}/runs/r/points"):
            response = api.client(key).get(path)
            problem(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
    problem(api.client(None).post(f"{project}/runs/r/points", json={"step": [1]}), 401)
    basic = httpx.get(f"{api.url}{project}", auth=("user", "secret"), trust_env=False)
    problem(basic, 401)


def test_scopes_say_what_a_key_may_do(api: Api, client: httpx.Client, project: str) -> None:
    """read sees, write also changes, admin also manages keys."""
    reader, writer = (
        api.client(client.post("/v1/keys", json={"name": scope, "scopes": [scope]}).json()["key"])
        for scope in ("read", "write")
    )
    assert reader.get(project).status_code == 200
    problem(reader.put(f"{project}/runs/r", json={"name": "r"}), 403)
    problem(reader.post(f"{project}/runs/r/points", json={"step": [1], "loss": [1]}), 403)
    problem(reader.post("/v1/projects", json={"name": "mine"}), 403)
    assert writer.put(f"{project}/runs/r", json={"name": "r"}).status_code == 201
    assert writer.get(f"{project}/runs/r").status_code == 200
    problem(writer.get("/v1/keys"), 403)
    problem(writer.post("/v1/keys", json={"name": "more", "scopes": ["admin"]}), 403)


def test_a_key_of_one_project_sees_no_other(api: Api, client: httpx.Client, project: str) -> None:
    """Another project's things answer 404, whether they are there or not, and keys stay out of reach."""
    client.post("/v1/projects", json={"name": "island"})
    body = {"name": "k", "scopes": ["read", "write", "admin"], "project": "island"}
    made = client.post("/v1/keys", json=body).json()
    assert made["project"] == "island"
    limited = api.client(made["key"])
    assert limited.get("/v1/projects/island").status_code == 200
    assert [item["name"] for item in limited.get("/v1/projects").json()["items"]] == ["island"]
    client.put(
        f"{project}/runs/r",
        json={"name": "r", "schedule": {"kind": "constant", "total_steps": 9, "peak_lr": 1}},
    )
    fit = client.post(f"{project}/fits", json={"law": "lr_annealing", "select": {"all": True}}).json()
    for path in (project, "/v1/projects/gone", f"{project}/runs/r", f"{project}/fits/{fit['id']}"):
        problem(limited.get(path), 404)
    problem(limited.get(f"/v1/projects/island/fits/{fit['id']}"), 404)
    problem(limited.get(f"/v1/jobs/{fit['job_id']}"), 404)
    problem(limited.post(f"/v1/jobs/{fit['job_id']}/cancel"), 404)
    assert limited.get("/v1/jobs").json()["items"] == []
    problem(limited.post(f"{project}/runs/r/points", json={"step": [1], "loss": [1]}), 404)
    problem(limited.post("/v1/projects", json={"name": "mine"}), 403)
    problem(limited.get("/v1/keys"), 403)


def test_keys_are_shown_once_listed_and_revoked(api: Api, client: httpx.Client) -> None:
    """The secret is in the creating answer alone; a revoked key opens nothing."""
    made = client.post("/v1/keys", json={"name": "ci", "scopes": ["read"]}).json()
    listed = client.get("/v1/keys", params={"limit": 1000}).json()["items"]
    mine = next(item for item in listed if item["id"] == made["id"])
    assert mine == {
        "id": made["id"],
        "name": "ci",
        "scopes": ["read"],
        "project": None,
        "created_at": mine["created_at"],
    }
    assert api.client(made["key"]).get("/v1/laws").status_code == 200
    assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    problem(api.client(made["key"]).get("/v1/laws"), 401)
    problem(client.delete(f"/v1/keys/{made['id']}"), 404)
    problem(client.delete("/v1/keys/nonsense"), 404)
    problem(client.post("/v1/keys", json={"name": "x", "scopes": ["read"], "project": "gone"}), 404)
    for bad in ({"scopes": []}, {"scopes": ["root"]}, {"scopes": "read"}):
        assert fields(client.post("/v1/keys", json={"name": "x", **bad}))[0].startswith("scopes")


def test_the_same_creating_request_is_done_once(api: Api, client: httpx.Client, project: str) -> None:
    """With an Idempotency-Key a repeated POST gets the first answer again, a new key's secret too."""
    client.put(
        f"{project}/runs/r",
        json={"name": "r", "schedule": {"kind": "constant", "total_steps": 9, "peak_lr": 1}},
    )
    requests = [
        ("/v1/projects", {"name": uuid.uuid4().hex}),
        ("/v1/keys", {"name": "twice", "scopes": ["read"]}),
        (f"{project}/fits", {"law": "lr_annealing", "select": {"all": True}}),
    ]
    for path, body in requests:
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        first, second = (client.post(path, json=body, headers=headers) for _ in range(2))
        assert first.is_success
        assert (first.status_code, first.content) == (second.status_code, second.content)
        assert second.headers["idempotency-replayed"] == "true"
        assert fields(client.post(path, json={**body, "name": "other"}, headers=headers))
    assert len(client.get(f"{project}/fits").json()["items"]) == 1


def test_a_failed_creation_does_not_use_the_key_up(client: httpx.Client) -> None:
    """A request that was refused can be sent again with its Idempotency-Key once it can succeed."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"name": "k", "scopes": ["read"], "project": uuid.uuid4().hex}
    problem(client.post("/v1/keys", json=body, headers=headers), 404)
    client.post("/v1/projects", json={"name": body["project"]})
    assert client.post("/v1/keys", json=body, headers=headers).status_code == 201


def test_one_creating_request_sent_twice_at_once_is_done_once(api: Api, client: httpx.Client) -> None:
    """Requests with one Idempotency-Key that overlap wait for each other."""
    headers, body = {"Idempotency-Key": uuid.uuid4().hex}, {"name": uuid.uuid4().hex}
    answers: list[httpx.Response] = []

    def send() -> None:
        answers.append(api.client(api.key).post("/v1/projects", json=body, headers=headers))

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 3
    assert len({answer.content for answer in answers}) == 1
