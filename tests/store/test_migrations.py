from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from isoloss.errors import NewerDatabase
from store import advice, alarms, fits, forecasts, jobs, keys, migrate, projects, queue, runs, watch, webhooks
from store.engine import create_engine, create_sessions
from store.tables import Base, Fit, Point, PointChunk, Project, Run


def _fill(url: str) -> None:
    """A row in every table, and one in the queue."""
    engine = create_engine(url)
    with create_sessions(engine).begin() as session:
        project = projects.create(session, "pilot")
        parent, _ = runs.put(session, project.id, "parent", runs.Specification(name="p"))
        runs.put(session, project.id, "branch", runs.Specification(name="b", parent=("parent", 3)))
        fit = fits.create(session, project.id, "lr_annealing", {"all": True}, {})
        fit.job.queue_id = queue.defer(session, "fit", {"job_id": str(fit.job_id)})
        fits.save(session, fit.id, {"verdict": "sound"}, {"theta": [1.0]})
        advice.create(session, project.id, "pareto", {"all": True}, {"target_loss": 2.1})
        jobs.create(session, "compact")
        keys.create(session, "k", ["read"], project.id)
        session.add(Point(run=parent.id, step=1, loss=2.5, free=[1.0, None]))
        webhooks.create(session, project.id, "http://hooks.test", ["diverged"])
        alarms.sound(session, parent, "diverged", "the run has diverged")
        forecasts.keep(session, project.id, "kind", "data", {}, None)
        forecasts.save(session, forecasts.Said(parent.id, 1, None, "too few runs"))
        watch.look(session, watch.Watching())
        chunk = {"name": "loss", "first_step": 2, "last_step": 3, "n_points": 2, "data": b"x"}
        session.add(PointChunk(run=parent.id, **chunk))
    engine.dispose()


def test_migrations_go_up_and_down_with_rows_in_every_table(empty_database_url: str) -> None:
    """Every migration can be undone and done again over tables that hold something."""
    url = empty_database_url
    assert migrate.current(url) is None
    for _ in range(2):
        migrate.upgrade(url)
        assert migrate.current(url) == migrate.head()
        migrate.upgrade(url)  # again: nothing to do
        _fill(url)
        migrate.downgrade(url, "-1")
        migrate.upgrade(url)
        migrate.downgrade(url, "base")
        assert migrate.current(url) is None


def test_downgrading_one_step_keeps_the_rows_of_the_others(empty_database_url: str) -> None:
    """Taking the queue out and putting it in again loses no run and no fit."""
    migrate.upgrade(empty_database_url)
    _fill(empty_database_url)
    migrate.downgrade(empty_database_url, "0001")
    migrate.upgrade(empty_database_url)
    engine = create_engine(empty_database_url)
    with create_sessions(engine)() as session:
        assert session.scalars(sa.select(Run.run_id).order_by(Run.id)).all() == ["parent", "branch"]
        assert session.scalar(sa.select(Project.name)) == "pilot"
        assert session.scalar(sa.select(Point.loss)) == 2.5
    engine.dispose()


def test_fits_of_an_older_database_are_at_their_first_revision(empty_database_url: str) -> None:
    """A result that was stored before results were counted is the first, of the time when its job ended."""
    migrate.upgrade(empty_database_url)
    _fill(empty_database_url)
    migrate.downgrade(empty_database_url, "0002")
    migrate.upgrade(empty_database_url)
    engine = create_engine(empty_database_url)
    with create_sessions(engine)() as session:
        fit = session.scalars(sa.select(Fit)).one()
        assert (fit.follow, fit.revision, fit.refits_skipped, fit.refit_job_id) == (False, 1, 0, None)
        assert fit.updated_at == fit.job.finished_at
        assert fit.result == {"verdict": "sound"}
    engine.dispose()


@pytest.mark.parametrize("move", [migrate.upgrade, lambda url: migrate.downgrade(url, "base")])
def test_a_database_of_a_newer_version_is_refused_in_one_sentence_and_kept(
    empty_database_url: str, move: Callable[[str], None]
) -> None:
    """An older checkout says what it found and what to do, and touches nothing."""
    migrate.upgrade(empty_database_url)
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE public.alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerDatabase) as refused:
        move(empty_database_url)
    assert migrate.current(empty_database_url) == "9999"
    assert str(refused.value) == (
        f"The database is of a newer Isoloss: its schema is 9999, the last known here is {migrate.head()}. "
        "Update Isoloss."
    )
    engine.dispose()


def test_migrations_make_the_tables_that_the_code_declares(database_url: str) -> None:
    """The migrated schema and `store/tables.py` are the same."""
    nameless = {"options": "-c search_path=pg_catalog"}  # so that every schema is named
    url = migrate.normalise_url(database_url)
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=nameless)
    with engine.connect() as connection:
        options = {
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == "public",
            "include_object": lambda item, name, kind, *_: name != "alembic_version",
            "compare_server_default": False,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_two_services_that_migrate_at_once_migrate_once(empty_database_url: str) -> None:
    """Services that start together on one database wait for each other's migration."""
    command = [sys.executable, "-c", "import sys; from store.migrate import upgrade; upgrade(sys.argv[1])"]
    services = [subprocess.Popen([*command, empty_database_url]) for _ in range(2)]
    assert [service.wait() for service in services] == [0, 0]
    assert migrate.current(empty_database_url) == migrate.head()
