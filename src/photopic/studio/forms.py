"""The forms of the rooms written by hand, checked before a job is made of one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from photopic.studio.refusals import Refused

Share = Annotated[float, Field(ge=0, le=1)]
Box = tuple[Share, Share, Share, Share]
Words = Annotated[str, Field(min_length=1, max_length=2000)]
F = TypeVar("F", bound="Form")


class Form(BaseModel):
    """A form: no field it does not know, no number that is none."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=False)


class WeightedEdit(Form):
    """An edit of the workspace and how far it goes."""

    name: str
    weight: Share = 1.0


class Start(Form):
    """A picture to start from."""

    picture: str
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    mask: str | None = None


class Region(Form):
    """Where a subject shall be, and the edit that is meant by its words."""

    words: Words
    box: Box
    edit: str | None = None
    strength: Annotated[float, Field(ge=0, le=100)] | None = None
    prompt: str | None = None
    guidance: Annotated[float, Field(ge=1, le=100)] | None = None


class DrawForm(Form):
    """Of the room Draw: what ``photopic generate`` takes."""

    prompt: Words
    negative: str | None = None
    edits: Annotated[list[WeightedEdit], Field(max_length=32)] = []
    overlap: Literal["error", "union", "first", "sum", "ties"] = "error"
    count: Annotated[int, Field(ge=1, le=256)] = 8
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    steps: Annotated[int, Field(ge=1, le=1000)] = 30
    guidance: Annotated[float, Field(ge=1, le=100)] = 5.0
    scheduler: str | None = None
    width: Annotated[int, Field(ge=1, le=4096)] | None = None
    height: Annotated[int, Field(ge=1, le=4096)] | None = None
    batch: Annotated[int, Field(ge=1, le=256)] = 16
    start: Start | None = None
    layout: Annotated[list[Region], Field(max_length=32)] = []
    layout_strength: Annotated[float, Field(ge=0, le=100)] | None = None
    repeats: Annotated[int, Field(ge=1, le=20)] | None = None
    in_region: bool = False
    controls: Annotated[list[str], Field(max_length=16)] = []
    attention: bool = False

    @field_validator("negative", "scheduler", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        """An input left empty is none."""
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("layout", mode="before")
    @classmethod
    def _no_layout(cls, value: Any) -> Any:
        return [] if value is None else value


class SubjectPicture(Form):
    """One picture of a subject: its part that is used, and what it shows."""

    id: str
    crop: Box | None = None
    caption: Annotated[str, Field(max_length=2000)] = ""

    @field_validator("caption", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        return "" if value is None else value


class SubjectForm(Form):
    """Of the room Subject: what ``photopic locate neurons`` takes."""

    pictures: Annotated[list[SubjectPicture], Field(min_length=1, max_length=500)]
    noun: Words
    token: Words = "<mine>"
    output: str = ""
    options: dict[str, Any] = {}
    sample_every: Annotated[int, Field(ge=0, le=10_000)] = 0


class CheckForm(Form):
    """Of the room Guard: which guard to ask about which pictures."""

    guard: str
    pictures: Annotated[list[str], Field(min_length=1, max_length=1000)]


class DemoForm(Form):
    """Of ``photopic demo``."""

    subject: str = "panda"
    seed: Annotated[int, Field(ge=0)] = 0
    steps: Annotated[int, Field(ge=1, le=10_000)] = 50
    tune: Annotated[int, Field(ge=1, le=10_000)] = 150
    pictures: Annotated[int, Field(ge=2, le=64)] = 8
    sampling_steps: Annotated[int, Field(ge=1, le=1000)] = 25
    pair: bool = True


class MethodForm(Form):
    """Of any other method, its fields as ``/api/methods`` lists them."""

    command: str
    fields: dict[str, Any] = {}


def checked(form: type[F], said: Any) -> F:
    """A form that was sent.

    Raises:
        Refused: Names the field, what was expected and what was found.

    Example:
        >>> checked(DrawForm, {"prompt": "a bear", "steps": 0})
        Traceback (most recent call last):
        photopic.studio.refusals.Refused: steps: input should be greater than or equal to 1, found 0
    """
    try:
        return form.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or "form"
        found = repr(first["input"])[:80]
        said_of_it = first["msg"][:1].lower() + first["msg"][1:]
        raise Refused(422, f"{name}: {said_of_it}, found {found}", field=name) from None
