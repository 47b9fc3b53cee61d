"""Fields of a preset by their names in YAML, as ``--set`` takes them: ``timing.rounds=3``, ``training.loop=5,8``."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from harness.config.spec import ExperimentSpec
from harness.errors import UsageError, did_you_mean
from harness.storage.documents import parse_yaml

Schema = Mapping[str, Any]  # the annotation of each field
EXAMPLE = "for example --set timing.rounds=3"


def assigned(texts: Sequence[str]) -> dict[str, Any]:
    """Overrides of a preset, with sections as nested dictionaries. Raises :class:`UsageError` on an unknown or repeated field.

    A value is text, which the preset's schema converts; commas separate the entries of a list, ``null`` stands for none, and
    what begins with a bracket is YAML.

    >>> assigned(["samples=64", "timing.rounds=3"])
    {'samples': '64', 'timing': {'rounds': '3'}}
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign:
            raise UsageError(expected="FIELD=VALUE after --set", got=repr(text), remedy=EXAMPLE)
        section, _, field = name.strip().rpartition(".")
        place = found.setdefault(section, {}) if section else found
        if field in place:
            raise UsageError(expected=f"--set {name.strip()} once", got="twice", remedy="leave one of them out")
        place[field] = _value(value.strip(), _annotation(name.strip()), text)
    return found


def joined(options: Mapping[str, Any], set_: Mapping[str, Any]) -> dict[str, Any]:
    """Both; a section is joined field by field. Raises :class:`UsageError` where both say something about one field."""
    found = dict(options)
    for name, value in set_.items():
        if isinstance(value, dict) and isinstance(found.get(name, {}), dict):
            found[name] = joined(found.get(name, {}), value)
        elif name in found:
            raise UsageError(expected=f"{name} once", got="an option and --set", remedy="leave one of them out")
        else:
            found[name] = value
    return found


def field_names() -> list[str]:
    """Every name that can be assigned."""
    return [*_schema(""), *(f"{section}.{name}" for section in ("timing", "training") for name in _schema(section))]


def _annotation(name: str) -> Any:
    section, _, field = name.rpartition(".")
    schema = _schema(section) if section in ("", "timing", "training") else {}
    if field in schema:
        return schema[field]
    known = field_names()
    sections = [full for full in known if full.rpartition(".")[2] == field]
    hint = f"did you mean {' or '.join(sections)}? " if sections else did_you_mean(name, known)
    raise UsageError(expected=f"a field of a preset: {', '.join(known)}", got=repr(name), remedy=f"{hint}{EXAMPLE}")


def _schema(section: str) -> Schema:
    if section == "training":
        from ilf.settings import FORMS, IlfSettings

        own = IlfSettings.__pydantic_fields__  # type: ignore[attr-defined]
        return {"form": Literal[tuple(FORMS)], **{name: field.annotation for name, field in own.items()}}
    model: Any = ExperimentSpec.model_fields["timing"].annotation if section else ExperimentSpec
    assert issubclass(model, BaseModel)
    return {name: field.annotation for name, field in model.model_fields.items()}


def _value(text: str, annotation: Any, whole: str) -> Any:
    members = list(_members(annotation))
    sequence = any(get_origin(member) in (tuple, list) for member in members)
    if text == "null" and type(None) in members:
        return None
    if text[:1] in ("[", "{") or (not sequence and any(get_origin(member) is dict for member in members)):
        try:
            return parse_yaml(text.encode())
        except ValueError as error:
            raise UsageError(expected=f"YAML in --set {whole}", got=str(error), remedy="close every bracket") from error
    if sequence and ("," in text or not any(member is str or get_origin(member) is Literal for member in members)):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _members(annotation: Any) -> Iterator[Any]:
    """The alternatives of a type, without what they are annotated with."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation
