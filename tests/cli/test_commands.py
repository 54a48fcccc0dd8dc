from __future__ import annotations

import json

import httpx
import pytest

from isoloss.laws import LAWS

FIT = {
    "id": "f1",
    "job_id": "j1",
    "law": "power_law",
    "status": "succeeded",
    "verdict": "sound",
    "reasons": ["all starts agree"],
    "parameters": [
        {
            "name": "L0",
            "symbol": "L_0",
            "unit": "nats",
            "value": 2.34567,
            "std_error": 0.012,
            "interval": [2.32, 2.37],
            "at_bound": False,
        },
        {
            "name": "alpha",
            "symbol": "a",
            "unit": "",
            "value": 0.5,
            "std_error": 0.1,
            "interval": [0.4, 0.6],
            "at_bound": True,
        },
    ],
    "holdout": {
        "runs": {"wsd": {"mae": 0.004, "rmse": 0.005, "r2": 0.99, "max_relative_error": 0.0071}},
        "mean": None,
    },
    "left_out": [{"run_id": "short", "reason": "it has 3 points"}],
    "provenance": {"options": {"level": 0.9}},
}
UNIDENTIFIED = {
    **FIT,
    "verdict": "unidentified",
    "reasons": ["one constant learning rate says nothing of annealing"],
    "parameters": [
        {"name": "C", "symbol": "C", "unit": "", "value": None, "std_error": None, "interval": None}
    ],
    "holdout": None,
    "left_out": [],
}
FIT_ROUTES = {
    "POST /v1/projects/p/fits": httpx.Response(202, json={"id": "f1", "job_id": "j1", "status": "queued"}),
    "GET /v1/projects/p/fits/f1": FIT,
    "GET /v1/jobs/j1": {"id": "j1", "status": "succeeded", "progress": 1.0},
}
RUN = {
    "run_id": "r[1]",
    "name": "r",
    "status": "finished",
    "last_step": 5000,
    "schedule": {"kind": "wsd"},
    "tags": ["a"],
}
PREDICTION = {
    "quantity": "loss",
    "unit": "nats",
    "steps": list(range(1, 101)),
    "value": [3.0] * 100,
    "lower": [2.9] * 100,
    "upper": ["Infinity"] * 100,
    "level": 0.9,
    "interval": "new_run",
    "extrapolation": {"steps": 1.5},
}


def test_a_list_of_runs_is_a_narrow_table_in_which_names_are_no_markup(invoke):
    result = invoke(
        "run", "list", "-p", "p", routes={"GET /v1/projects/p/runs": {"items": [RUN], "next_cursor": None}}
    )
    assert result.exit_code == 0, result.output
    header, row = result.stdout.splitlines()
    assert header.split() == ["run", "status", "last", "step", "schedule", "recipe", "tags"]
    assert row.split() == ["r[1]", "finished", "5,000", "wsd", "-", "a"]


def test_json_is_one_document_on_stdout_and_nothing_else(invoke):
    routes = {"GET /v1/projects/p/runs": {"items": [RUN], "next_cursor": None}}
    result = invoke("run", "list", "-p", "p", "--json", routes=routes)
    assert json.loads(result.stdout) == [RUN]
    assert result.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["project", "create", "p"],
        ["project", "show", "p"],
        ["project", "delete", "p", "--yes"],
        ["run", "show", "r", "-p", "p"],
        ["run", "delete", "r", "-p", "p", "--yes"],
        ["run", "rewind", "r", "100", "-p", "p"],
        ["run", "points", "r", "-p", "p"],
        ["fit", "create", "power_law", "--all", "-p", "p"],
        ["fit", "show", "f1", "-p", "p"],
        ["predict", "f1", "-p", "p"],
        ["job", "show", "j1"],
        ["job", "cancel", "j1"],
        ["job", "wait", "j1"],
        ["key", "create", "ci", "--scope", "read"],
        ["key", "delete", "k"],
        ["laws"],
        ["laws", "power_law"],
        ["health"],
    ],
    ids=" ".join,
)
def test_every_command_prints_exactly_one_json_document(invoke, arguments):
    routes = {
        **FIT_ROUTES,
        "POST /v1/projects": httpx.Response(201, json={"name": "p"}),
        "GET /v1/projects/p": {"name": "p"},
        "DELETE /v1/projects/p": httpx.Response(204),
        "GET /v1/projects/p/runs/r": RUN,
        "DELETE /v1/projects/p/runs/r": httpx.Response(204),
        "POST /v1/projects/p/runs/r/rewind": {"last_step": 100},
        "GET /v1/projects/p/runs/r/points": {"step": [1], "loss": ["NaN"]},
        "POST /v1/projects/p/fits/f1/predictions": PREDICTION,
        "POST /v1/jobs/j1/cancel": {"id": "j1", "status": "running"},
        "POST /v1/keys": {"id": "k", "key": "secret"},
        "DELETE /v1/keys/k": httpx.Response(204),
        "GET /healthz": {"status": "alive"},
        "GET /readyz": {"status": "ready"},
    }
    result = invoke(*arguments, "--json", routes=routes)
    assert result.exit_code == 0, result.output
    json.loads(result.stdout)
    assert result.stdout.endswith("\n")


def test_a_problem_is_one_sentence_on_stderr(invoke):
    problem = httpx.Response(404, json={"title": "Not found", "detail": "There is no run 'r'.\nNone."})
    result = invoke("run", "show", "r", "-p", "p", routes={"GET /v1/projects/p/runs/r": problem})
    assert result.exit_code == 1
    assert (result.stdout, result.stderr) == ("", "Error: There is no run 'r'. None.\n")


def test_a_problem_in_json_is_the_services_own(invoke):
    document = {"type": "x", "title": "Not found", "status": 404, "detail": "There is no run 'r'."}
    problem = {"GET /v1/projects/p/runs/r": httpx.Response(404, json=document)}
    result = invoke("run", "show", "r", "-p", "p", "--json", routes=problem)
    assert result.exit_code == 1
    assert (result.stdout, json.loads(result.stderr)) == ("", document)


def test_a_service_that_is_not_there_is_one_sentence(invoke):
    result = invoke("project", "list", routes={"GET /v1/projects": httpx.ConnectError("refused")})
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: The service at http://service.test cannot be reached: refused; "
        "start it with `isoloss up`, or set ISOLOSS_URL\n"
    )


def test_the_key_comes_from_a_file_and_never_from_the_command_line(invoke, tmp_path):
    (tmp_path / "key").write_text("from-file\n")
    requests: list[httpx.Request] = []
    routes = {"GET /v1/projects": {"items": [], "next_cursor": None}}
    invoke(
        "project",
        "list",
        "--api-key-file",
        str(tmp_path / "key"),
        "--url",
        "http://x.test",
        routes=routes,
        requests=requests,
    )
    assert requests[0].headers["Authorization"] == "Bearer from-file"
    assert requests[0].url.host == "x.test"
    assert invoke("project", "list", "--api-key", "k").exit_code == 2


def test_the_laws_are_told_without_a_service(invoke):
    requests: list[httpx.Request] = []
    listed = json.loads(invoke("laws", "--json", requests=requests).stdout)
    assert listed == [law.describe() for law in LAWS.values()]
    assert json.loads(invoke("laws", "chinchilla", "--json").stdout) == LAWS["chinchilla"].describe()
    assert "config.n_tokens" in invoke("laws").stdout
    assert "exponent of the model size" in invoke("laws", "chinchilla", requests=requests).stdout
    assert requests == []
    unknown = invoke("laws", "moore")
    assert (unknown.exit_code, unknown.stderr) == (1, "Error: There is no law 'moore'.\n")
    assert invoke("laws", "--url", "http://x.test").exit_code == 2


def test_a_fit_sends_what_was_asked_for(invoke):
    requests: list[httpx.Request] = []
    arguments = (
        "fit create power_law -p p --tag a --tag b --fix L0=2 --bounds alpha=0:1 --bounds A=1: "
        "--expr beta=alpha/2 --bootstrap 50 --level 0.8 --seed 3 --holdout wsd "
        "--skip-steps 100 --target val_loss --no-wait --resample runs --convention own --prior alpha=0.3:0.2 "
        "--prior L0=none --prior-strength 0.01 --no-profile --backend torch"
    )
    assert invoke(*arguments.split(), routes=FIT_ROUTES, requests=requests).exit_code == 0
    assert json.loads(requests[0].content) == {
        "law": "power_law",
        "select": {"tags": ["a", "b"]},
        "options": {
            "fix": {"L0": 2.0},
            "bounds": {"alpha": [0.0, 1.0], "A": [1.0, None]},
            "expr": {"beta": "alpha/2"},
            "bootstrap": 50,
            "level": 0.8,
            "seed": 3,
            "holdout": {"run_ids": ["wsd"]},
            "skip_steps": 100,
            "target": "val_loss",
            "resample": "runs",
            "convention": "own",
            "priors": {"alpha": [0.3, 0.2], "L0": None},
            "prior_strength": 0.01,
            "profile": False,
            "backend": "torch",
        },
    }


def test_a_fit_shows_its_verdict_its_intervals_and_what_was_left_out(invoke):
    result = invoke("fit", "create", "power_law", "--all", "-p", "p", routes=FIT_ROUTES)
    assert result.exit_code == 0, result.output
    for part in (
        "SOUND",
        "all starts agree",
        "90% interval",
        "2.346",
        "[2.320, 2.370]",
        "at its bound",
        "0.71%",
        "Left out short",
    ):
        assert part in result.stdout


def test_an_unidentified_fit_is_no_error_but_loud(invoke):
    routes = {**FIT_ROUTES, "GET /v1/projects/p/fits/f1": UNIDENTIFIED}
    result = invoke("fit", "show", "f1", "-p", "p", routes=routes)
    assert result.exit_code == 0
    assert "UNIDENTIFIED" in result.stdout
    assert "one constant learning rate" in result.stdout
    assert "not determined" in result.stdout


def test_notes_of_many_runs_are_told_once_and_conditions_as_they_are(invoke):
    notes = [f"run r{one}: {one} of its points left out: outside steps 1..400" for one in range(1, 123)]
    fit = {**UNIDENTIFIED, "reasons": ["the cause", *notes], "select": {"where": "config.width = 32"}}
    result = invoke("fit", "show", "f1", "-p", "p", routes={"GET /v1/projects/p/fits/f1": fit})
    assert "of the runs with config.width = 32" in " ".join(result.stdout.split())
    assert "run r1: 1 of its points left out: outside steps 1..400 (and so of 121 more runs)" in " ".join(
        result.stdout.split()
    )
    assert "r2" not in result.stdout


@pytest.mark.parametrize("command", [["predict", ""], ["fit", "show", " "], ["fit", "unfollow", ""]])
def test_an_empty_fit_id_is_told(invoke, command):
    result = invoke(*command, "-p", "p")
    assert result.exit_code == 2
    assert "no fit id given" in result.stderr


def test_a_fit_that_failed_is_an_error(invoke):
    job = {"id": "j1", "status": "failed", "message": "no run has a learning rate"}
    result = invoke(
        "fit", "create", "power_law", "--all", "-p", "p", routes={**FIT_ROUTES, "GET /v1/jobs/j1": job}
    )
    assert result.exit_code == 1
    assert result.stderr == "Error: Fit f1 failed: no run has a learning rate\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit create x -p p", "exactly one of"),
        ("fit create x -p p --all --run r", "exactly one of"),
        ("fit create x -p p --all --fix a", "'a' is not name=value"),
        ("fit create x -p p --all --fix a=b", "'a=b'"),
        ("fit create x -p p --all --bounds a=1", "low:high"),
        ("fit create x -p p --all --holdout r --holdout-fraction 0.1", "not both"),
        ("predict f -p p --steps 1:2", "start:stop:count"),
        ("predict f -p p --steps 5:2:3", "names no steps"),
        ("predict f -p p --steps a", "no whole number"),
        ("predict f -p p --schedule {", "not JSON"),
        ("predict f -p p --schedule []", "JSON object"),
        ("predict f -p p --schedule @/nowhere/x.json", "No such file"),
        ("predict f -p p --interval wide", "--interval"),
        (
            "project list --api-key-file /nowhere/key",
            "Error: --api-key-file: /nowhere/key: No such file or directory\n",
        ),
        ("fit create x -p p --all --bounds alpha=1:0", "'alpha=1:0': reversed; write 0:1"),
        ("fit create x --all", "--project"),
    ],
)
def test_arguments_that_make_no_sense_end_with_code_2(invoke, arguments, message):
    result = invoke(*arguments.split())
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_prediction_sends_steps_and_configuration_and_shows_intervals(invoke, tmp_path):
    (tmp_path / "schedule.json").write_text('{"kind": "constant"}')
    requests: list[httpx.Request] = []
    result = invoke(
        *("predict", "f1", "-p", "p", "--schedule", f"@{tmp_path}/schedule.json", "--steps", "100:300:3"),
        *(
            "--config",
            "n_params=7e9",
            "--config",
            "optimizer=adamw",
            "--level",
            "0.5",
            "--interval",
            "new_run",
        ),
        routes={"POST /v1/projects/p/fits/f1/predictions": PREDICTION},
        requests=requests,
    )
    assert json.loads(requests[0].content) == {
        "schedule": {"kind": "constant"},
        "config": {"n_params": 7e9, "optimizer": "adamw"},
        "steps": [100, 200, 300],
        "level": 0.5,
        "interval": "new_run",
    }
    assert "[2.9000, open]" in result.stdout
    assert "90% interval of one more run" in result.stdout
    assert "25 of 100 steps" in result.stdout


def test_a_prediction_shows_only_what_the_law_reads(invoke):
    """What has no effect is no column of the table; a warning names it."""
    warning = "optimal_lr does not read batch_tokens: without effect"
    told = {
        "quantity": "peak_lr", "unit": "1", "steps": None, "value": [1e-3], "lower": [9e-4], "upper": [2e-3],
        "level": 0.9, "interval": "mean", "extrapolation": {"not_read": ["batch_tokens"], "warnings": [warning]},
    }  # fmt: skip
    result = invoke(
        "predict", "f1", "-p", "p", "--config", "n_params=7e9", "--config", "batch_tokens=123456",
        routes={"POST /v1/projects/p/fits/f1/predictions": httpx.Response(200, json=told)},
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "7e+09" in result.stdout
    assert "123456" not in result.stdout.replace(",", "")
    assert warning in result.stdout


def test_leaving_a_wait_says_that_the_fit_goes_on(invoke, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("isoloss.client.fits.Fits.wait", interrupted)
    result = invoke("fit", "create", "power_law", "--all", "-p", "p", routes=FIT_ROUTES)
    assert result.exit_code == 130
    assert "isoloss fit show f1 --project p" in result.stderr


def test_deleting_asks_first(invoke):
    requests: list[httpx.Request] = []
    result = invoke("project", "delete", "p", input="n\n", requests=requests)
    assert result.exit_code == 1
    assert requests == []


def test_a_run_is_put_from_a_file_or_standard_input(invoke):
    requests: list[httpx.Request] = []
    routes = {"PUT /v1/projects/p/runs/r": RUN}
    result = invoke(
        "run", "put", "r", "-", "-p", "p", input='{"recipe": "base"}', routes=routes, requests=requests
    )
    assert result.exit_code == 0, result.output
    assert json.loads(requests[0].content) == {"name": "r", "recipe": "base"}


def test_points_are_written_as_csv_as_the_service_wrote_them(invoke, tmp_path):
    routes = {"GET /v1/projects/p/runs/r/points": httpx.Response(200, text="step,loss\r\n1,9.5\r\n")}
    result = invoke("run", "points", "r", "-p", "p", "--out", str(tmp_path / "out.csv"), routes=routes)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.csv").read_bytes() == b"step,loss\r\n1,9.5\r\n"


def test_an_import_tells_what_was_sent_and_what_was_skipped(invoke, tmp_path):
    (tmp_path / "good.csv").write_text("it,nll\n1,9\n2,8\n")
    (tmp_path / "bad.csv").write_text("it,nll\n1,oops\n")
    routes = {
        "POST /v1/projects": httpx.Response(201, json={"name": "p"}),
        "PUT /v1/projects/p/runs/good": RUN,
        "POST /v1/projects/p/runs/good/points": {"accepted": 2, "duplicates": 0, "last_step": 2},
    }
    files = [str(tmp_path / "good.csv"), str(tmp_path / "bad.csv")]
    result = invoke(
        "import", "csv", *files, "-p", "p", "--map", "it=step", "--map", "nll=loss", routes=routes
    )
    assert result.exit_code == 1
    assert "good" in result.stdout
    assert "'nll' is no metric: it holds 'oops', which is no number" in result.stderr


def test_a_job_that_did_not_succeed_ends_with_code_1(invoke):
    assert (
        invoke("job", "wait", "j1", routes={"GET /v1/jobs/j1": {"id": "j1", "status": "failed"}}).exit_code
        == 1
    )


def test_a_service_that_is_not_ready_ends_with_code_1(invoke):
    result = invoke("health", routes={"GET /healthz": {}, "GET /readyz": httpx.Response(503)})
    assert result.exit_code == 1
    assert "not ready" in result.stdout


@pytest.mark.parametrize(("last_step", "said"), [(100, "ends at step 100 now"), (None, "has no points now")])
def test_a_rewound_run_ends_where_the_service_says(invoke, last_step, said):
    routes = {"POST /v1/projects/p/runs/r/rewind": {"last_step": last_step}}
    assert said in invoke("run", "rewind", "r", "150", "-p", "p", routes=routes).stdout


def test_an_import_says_that_it_made_the_project_and_names_a_missing_file_once(invoke, tmp_path):
    routes = {
        "POST /v1/projects": httpx.Response(201, json={"name": "nope2"}),
        "PUT /v1/projects/nope2/runs/good": RUN,
        "POST /v1/projects/nope2/runs/good/points": {"accepted": 1, "duplicates": 0, "last_step": 1},
    }
    good, missing = tmp_path / "good.csv", tmp_path / "nofile.csv"
    good.write_text("step,loss\n1,9\n")
    result = invoke("import", "csv", str(missing), str(good), "-p", "nope2", routes=routes)
    assert result.exit_code == 1
    assert "Project nope2 was created." in result.stdout
    assert result.stderr.count("nofile.csv") == 1


@pytest.mark.parametrize("said", ["This needs a key", "The key is not known"])
def test_a_key_that_does_not_open_is_told_in_the_words_of_the_command_line(invoke, said):
    refused = httpx.Response(
        401, json={"title": "x", "detail": f"{said}: send `Authorization: Bearer <key>`."}
    )
    result = invoke("project", "list", routes={"GET /v1/projects": refused})
    assert result.stderr == (
        f"Error: {said}: set ISOLOSS_API_KEY, or name a file that holds the key with --api-key-file\n"
    )


def test_a_law_that_predicts_from_a_schedule_asks_for_the_option(invoke):
    problem = {"title": "x", "detail": "schedule: the law lr_annealing predicts from one"}
    routes = {"POST /v1/projects/p/fits/f1/predictions": httpx.Response(422, json=problem)}
    result = invoke("predict", "f1", "-p", "p", routes=routes)
    assert result.exit_code == 2
    assert result.stderr == "Error: --schedule is needed: the law lr_annealing predicts from one\n"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("running", "cancelling was asked for; it is running still"),
        ("cancelled", "cancelled"),
        ("succeeded", "it has ended already, succeeded"),
    ],
)
def test_cancelling_a_job_says_what_came_of_it(invoke, status, said):
    routes = {"POST /v1/jobs/j1/cancel": {"id": "j1", "status": status}}
    assert invoke("job", "cancel", "j1", routes=routes).stdout == f"Job j1: {said}.\n"


def test_a_prediction_says_in_words_how_far_it_reaches(invoke):
    reach = {
        "area_factor": 13.8246,
        "steps_factor": 20.0,
        "n_params_factor": 1.0,
        "peak_lr_factor": 4.0,
        "before_first_point": False,
        "is_extrapolation": True,
        "warnings": ["step 60000 is 20 times the last fitted one, 3000", "no fitted run has this peak"],
    }
    routes = {"POST /v1/projects/p/fits/f1/predictions": {**PREDICTION, "extrapolation": reach}}
    result = invoke("predict", "f1", "-p", "p", routes=routes)
    assert result.stdout.splitlines()[-3:] == [
        "Beyond what was fitted: 13.8 times the sum of learning rates, 20.0 times the steps, "
        "4.00 times away from the fitted peak learning rates",
        "  - step 60000 is 20 times the last fitted one, 3000",
        "  - no fitted run has this peak",
    ]


def test_a_fit_shows_what_was_fitted_how_well_and_every_digit_that_matters(invoke):
    decay = {"name": "lambda", "unit": "1/step", "value": 0.99810243, "std_error": 0.02}
    fit = {
        **FIT,
        "select": {"run_ids": ["a", "b", "c"]},
        "options": {
            "target": "val_loss",
            "bootstrap": 200,
            "bounds": {"alpha": [0.1, None]},
            "holdout": {"run_ids": ["c"]},
        },
        "parameters": [{**decay, "interval": [0.99701, 0.99892]}],
        "metrics": {
            "mean": {"mae": 0.0066, "rmse": 0.009, "r2": 0.996, "max_relative_error": 0.018},
            "runs": {"a": {"max_relative_error": 0.0256}, "b": {"max_relative_error": 0.01}},
        },
        "diagnostics": {"n_points": 171},
        "holdout": {
            "runs": {"c": {"mae": 0.004, "rmse": 0.005, "r2": 0.99, "coverage": 0.87}},
            "mean": None,
            "level": 0.9,
        },
    }
    shown = invoke("fit", "show", "f1", "-p", "p", routes={"GET /v1/projects/p/fits/f1": fit}).stdout
    for part in (
        "Fitted val_loss of a, b\n  bounds: alpha 0.1, open\n  held out: c\n",
        "0.998102  [0.997010, 0.998920]",
        "Error on the 2 fitted runs, 171 points: MAE 0.00660, RMSE 0.00900, R2 0.996, worst point 2.56%",
        "in 90% interval",
        "87%",
    ):
        assert part in shown
    assert "bootstrap" not in shown


@pytest.mark.parametrize("width", [80, 160])
def test_lists_of_fits_and_jobs_show_ids_whole_however_narrow(invoke, monkeypatch, width):
    monkeypatch.setattr("isoloss.cli.output.WIDTH_OF_FILES", width)
    name = "01a20764-f045-7cf9-aded-e4079e94a084"
    fit = {"id": name, "law": "lr_annealing", "status": "succeeded", "verdict": "unidentified"}
    fit |= {"created_at": "2001-11-23T12:53:05.338Z", "select": {"run_ids": ["a", "b", "c", "d"]}}
    job = {"id": name, "kind": "fit", "status": "succeeded", "created_at": "2001-11-23T12:53:05.338Z"}
    routes = {
        "GET /v1/projects/p/fits": {"items": [fit], "next_cursor": None},
        "GET /v1/jobs": {"items": [{**job, "message": "a long story " * 9}], "next_cursor": None},
    }
    fits, jobs = invoke("fit", "list", "-p", "p", routes=routes), invoke("job", "list", routes=routes)
    for shown in (fits.stdout, jobs.stdout):
        assert name in shown
        assert "2001-11-23" in shown
        assert max(map(len, shown.splitlines())) <= width
    assert "loss of a, b, c and 1 more" in fits.stdout


TABLE_FIT = {
    **FIT,
    "law": "chinchilla",
    "select": {"all": True},
    "options": {"profile": False, "priors": {"alpha": [0.3, 0.2], "E": None}},
    "parameters": [
        {**FIT["parameters"][1], "profile": [0.38, None]},
        {"name": "A", "symbol": "A", "unit": "", "value": None, "std_error": None, "interval": None},
    ],
    "metrics": {
        "mean": {"mae": 0.0126, "rmse": 0.0126, "r2": None, "max_relative_error": 0.0047},
        "runs": {f"r{n}": {"max_relative_error": 0.01} for n in range(240)},
    },
    "diagnostics": {"n_points": 240},
    "holdout": {
        "predicted": "the largest tenth of the runs",
        "runs": {
            f"r{n}": {"mae": 0.02, "rmse": 0.02, "r2": None, "max_relative_error": 0.01} for n in range(24)
        },
        "mean": {"mae": 0.0229, "rmse": 0.0229, "r2": None, "max_relative_error": 0.0101},
        "others": [
            {
                "predicted": "the 30 next larger runs",
                "n_fitted": 96,
                "mean": {"mae": 0.0086, "rmse": 0.0086, "r2": None, "max_relative_error": 0.0033},
            }
        ],
        "score": 0.00856,
    },
    "left_out": [{"run_id": f"d{n}", "reason": "it diverged"} for n in range(5)],
}


def test_a_fit_of_finished_runs_is_shown_by_its_runs(invoke):
    """Profiles beside intervals; means over many runs instead of a line each; no word of points or R2."""
    shown = invoke("fit", "show", "f1", "-p", "p", routes={"GET /v1/projects/p/fits/f1": TABLE_FIT}).stdout
    for part in (
        "by profile",
        "[0.380, open]",
        "  profile: no",
        "  priors: alpha 0.3, 0.2, E none",
        "Error on the 240 fitted runs: MAE 0.0126, RMSE 0.0126, worst run 1.00%",
        "Predicted from the other runs: the largest tenth of the runs",
        "mean of 24 runs",
        "the 30 next larger runs",
        "Left out d0, d1, d2 and 2 more: it diverged",
    ):
        assert part in shown, shown
    assert "R2" not in shown


def test_a_prediction_of_a_configuration_shows_what_was_asked_for(invoke):
    prediction = {
        **PREDICTION,
        "steps": None,
        "value": [1.97337],
        "lower": [1.93913],
        "upper": [2.00996],
        "interval": "mean",
        "extrapolation": {
            "n_params_factor": 4.33,
            "n_tokens_factor": 1.0,
            "scale_factor": 45.4,
            "warnings": [],
        },
    }
    result = invoke(
        *("predict", "f1", "-p", "p", "--config", "n_params=7e10", "--config", "n_tokens=1.4e12"),
        routes={"POST /v1/projects/p/fits/f1/predictions": prediction},
    )
    header, row, _, reach = result.stdout.splitlines()
    assert header.split() == [
        "n",
        "params",
        "n",
        "tokens",
        "loss",
        "(nats)",
        "90%",
        "interval",
        "of",
        "the",
        "law",
    ]
    assert row.split() == ["7e+10", "1.4e+12", "1.9734", "[1.9391,", "2.0100]"]
    assert reach == "Beyond what was fitted: 4.33 times the model size, 45.4 times the scale of the runs"


def test_a_law_that_predicts_from_a_configuration_asks_for_what_is_missing(invoke):
    problem = {"title": "x", "detail": "config.n_tokens: the law chinchilla predicts from it"}
    routes = {"POST /v1/projects/p/fits/f1/predictions": httpx.Response(422, json=problem)}
    result = invoke("predict", "f1", "-p", "p", "--config", "n_params=7e9", routes=routes)
    assert result.exit_code == 2
    assert result.stderr == "Error: --config n_tokens=... is needed: the law chinchilla predicts from it\n"


def test_a_table_of_runs_is_imported_by_the_map_of_fields(invoke, tmp_path):
    """--map is FIELD=COLUMN; the report says what was sent, and a refused row by its run."""
    path = tmp_path / "runs.csv"
    path.write_text("N,D,nll\n1e7,2e8,4.1\n3e7,2e8,3.7\n")
    requests: list[httpx.Request] = []
    put = "PUT /v1/projects/p/runs/row-000"
    routes = {
        "POST /v1/projects": {"name": "p"},
        f"{put}1": {"run_id": "row-0001"},
        f"{put}2": httpx.Response(422, json={"title": "x", "detail": "config.n_params: no"}),
    }
    maps = ("--map", "n_params=N", "--map", "n_tokens=D", "--map", "final_loss=nll")
    more = ("--config", "weight_decay=0.1", "--tag", "t", "--recipe", "r")
    result = invoke("import", "table", str(path), "-p", "p", *maps, *more, routes=routes, requests=requests)
    assert result.exit_code == 1
    assert "Project p was created.\nRuns of runs.csv: 1 new\n" in result.stdout
    assert "Skipped row-0002: config.n_params: no" in result.stderr
    [first] = [one for one in requests if one.url.path.endswith("row-0001")]
    assert json.loads(first.content) == {
        "name": "row-0001",
        "status": "finished",
        "recipe": "r",
        "tags": ["t"],
        "config": {"weight_decay": 0.1, "n_params": 1e7, "n_tokens": 2e8},
        "summary": {"final_loss": 4.1},
    }


def test_a_fit_that_follows_its_runs_is_asked_for_shown_and_let_go(invoke):
    """--follow is sent; the revision is shown, and why the last refit failed; unfollow keeps it."""
    requests: list[httpx.Request] = []
    fit = {
        **FIT,
        "follow": True,
        "revision": 3,
        "updated_at": "2026-03-01T12:00:00.000Z",
        "refit_error": "no run",
    }
    routes = {**FIT_ROUTES, "GET /v1/projects/p/fits/f1": fit}
    arguments = ("fit", "create", "power_law", "--all", "-p", "p", "--follow")
    shown = invoke(*arguments, routes=routes, requests=requests).stdout
    assert json.loads(requests[0].content)["follow"] is True
    assert "  follows its runs: revision 3 of " in shown
    assert "  its last refit failed: no run" in shown
    left = {"POST /v1/projects/p/fits/f1/unfollow": {**fit, "follow": False}}
    assert invoke("fit", "unfollow", "f1", "-p", "p", routes=left).stdout == "Fit f1 stays at revision 3.\n"


@pytest.mark.parametrize(
    ("kind", "maps", "reason"),
    [
        ("table", ("n_params=N", "n_params=D"), "'n_params' is given twice"),
        ("csv", ("a=loss", "b=loss"), "columns 'a' and 'b' are both loss"),
        ("csv", ("a=loss", "a=step"), "'a' is given twice"),
        ("table", ("foo=N",), "'foo' is no field that a column can be"),
    ],
)
def test_a_map_that_says_two_things_is_refused_before_anything_is_sent(invoke, tmp_path, kind, maps, reason):
    """Of two columns for one field neither is quietly taken."""
    path = tmp_path / "runs.csv"
    path.write_text("N,D,loss,a,b\n1e7,2e8,4.1,1,2\n")
    requests = []
    given = [part for one in maps for part in ("--map", one)]
    result = invoke("import", kind, str(path), "-p", "p", *given, requests=requests)
    assert result.exit_code != 0
    assert reason in result.stderr
    assert requests == []
