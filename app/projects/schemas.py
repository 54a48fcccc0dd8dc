"""Projects as the API shows them."""

from __future__ import annotations

from pydantic import Field

from app.schemas import Document, Name, Time


class NewProject(Document):
    """A project to create."""

    name: Name = Field(
        description="Letters, digits, `.`, `_` and `-`; at most 100, and neither `.` nor `..`."
    )


class ProjectDocument(Document):
    """A project: runs, fits and jobs are kept apart from those of others."""

    name: Name = Field(description="The project's name.")
    created_at: Time = Field(description="When it was created.")
