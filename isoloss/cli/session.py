"""What every command shares: the connection to the service, the form of the output, one-sentence errors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec

import typer

from isoloss.cli.arguments import BadArgument
from isoloss.cli.output import Output
from isoloss.errors import IsolossError

if TYPE_CHECKING:
    from isoloss.client import Client

RETRIES = 3
FAILURE, USAGE = 1, 2

Arguments = ParamSpec("Arguments")
Project = Annotated[
    str, typer.Option("--project", "-p", envvar="ISOLOSS_PROJECT", help="The project.", show_default=False)
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.", show_default=False)
]


class Session:
    """A command's connection and output; the client is made when it is first asked for."""

    def __init__(self, output: Output, url: str | None = None, api_key_file: Path | None = None) -> None:
        self.output = output
        self._url = url
        self._api_key_file = api_key_file
        self._client: Client | None = None

    @property
    def named_url(self) -> str | None:
        """The service as the command line names it, None where the environment or the credentials do."""
        return self._url

    @property
    def client(self) -> Client:
        if self._client is None:
            from isoloss.client import Client

            self._client = Client(self._url, self._read_key(), retries=RETRIES)
        return self._client

    def _read_key(self) -> str | None:
        if self._api_key_file is None:
            return None
        try:
            return self._api_key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            reason = f"{self._api_key_file}: {error.strerror}"
            raise BadArgument(field="--api-key-file", reason=reason) from error
        except UnicodeDecodeError as error:
            reason = f"{self._api_key_file} is not UTF-8 text"
            raise BadArgument(field="--api-key-file", reason=reason) from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _shared(
    as_json: AsJson = False,
    url: Annotated[str | None, typer.Option("--url", help="The service.", show_default="ISOLOSS_URL")] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", help="A file that holds the key.", show_default="ISOLOSS_API_KEY"),
    ] = None,
) -> None: ...


def _json_alone(as_json: AsJson = False) -> None: ...


def command(
    app: typer.Typer, name: str, *, asks_service: bool = True
) -> Callable[
    [Callable[Concatenate[Session, Arguments], None]], Callable[Concatenate[Session, Arguments], None]
]:
    """Add a function to the application as a command that gets a Session and takes the shared options.

    One that does not ask the service takes none that say where it is.
    """
    shared = _shared if asks_service else _json_alone

    def add(
        function: Callable[Concatenate[Session, Arguments], None],
    ) -> Callable[Concatenate[Session, Arguments], None]:
        app.command(name)(_with_session(function, shared))
        return function

    return add


def _with_session(
    function: Callable[Concatenate[Session, Arguments], None], options_of: Callable[..., None]
) -> Callable[..., None]:
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(options_of, eval_str=True).parameters.values())

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        given = {parameter.name: kwargs.pop(parameter.name) for parameter in shared}
        output = Output(as_json=bool(given["as_json"]))
        session = Session(output, _text(given.get("url")), _path(given.get("api_key_file")))
        with _reported(output):
            try:
                function(session, *args, **kwargs)
            finally:
                session.close()

    options = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*own, *shared]]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _path(value: object) -> Path | None:
    return value if isinstance(value, Path) else None


@contextmanager
def _reported(output: Output) -> Iterator[None]:
    try:
        yield
    except IsolossError as error:
        output.fail(error)
        raise typer.Exit(USAGE if isinstance(error, BadArgument) else FAILURE) from error
