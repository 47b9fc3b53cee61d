"""Uploading a folder to the Hugging Face hub with huggingface_hub's own functions, and what can go wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import huggingface_hub
from huggingface_hub import errors as hub
from huggingface_hub.utils._validators import validate_repo_id

from harness.errors import ArtifactError, HarnessError, UsageError
from harness.hub import TRANSPORT, is_offline
from ilf_bench.publishing import CARD, Upload

if TYPE_CHECKING:
    from huggingface_hub import HfApi

EMPTY = {".gitattributes"}  # what the hub itself puts into a new repository
AGAIN = "the same command goes on where it stopped"
LOGIN = "`hf auth login` with a token that may write, or set HF_TOKEN"


def check_names(repositories: Iterable[str]) -> None:
    """Raise :class:`UsageError` on a name that the hub would not take."""
    for repository in repositories:
        if not all(repository.partition("/")[::2]):
            raise UsageError(expected="OWNER/NAME", got=repr(repository), remedy="name the repository with its owner")
        with explained(f"repository {repository}"):
            validate_repo_id(repository)


def check_ready() -> None:
    """Network switch and token, before anything is made. Raises :class:`UsageError`."""
    if is_offline():
        raise UsageError(expected="a network", got="HF_HUB_OFFLINE is set", remedy="unset it, or look first: --dry-run")
    if huggingface_hub.get_token() is None:
        raise UsageError(expected="a token of the hub", got="none", remedy=LOGIN)


def push(upload: Upload, public: bool) -> str:
    """Create the repository where it is missing, and upload all that is not there yet; the same call takes up a broken one.

    The card goes first: by its tag a repository is known as that of this run or module. Returns the address. Raises
    :class:`UsageError` on a repository of something else, or a public one where ``public`` was not asked for.
    """
    api, name, kind = huggingface_hub.HfApi(), upload.repository, upload.kind
    with explained(f"{kind} {name}"):
        sdk = "static" if kind == "space" else None
        address = api.create_repo(name, repo_type=kind, private=not public, exist_ok=True, space_sdk=sdk)
        _check_ours(api, upload, public)
        card = upload.folder / CARD
        api.upload_file(path_or_fileobj=card, path_in_repo=CARD, repo_id=name, repo_type=kind, commit_message="Card")
        api.upload_folder(folder_path=upload.folder, repo_id=name, repo_type=kind, commit_message="Upload with ilf-bench push")
    return str(address)


def _check_ours(api: HfApi, upload: Upload, public: bool) -> None:
    """An existing repository must be empty or of the same run or module, and no more public than was asked for."""
    info: Any = api.repo_info(upload.repository, repo_type=upload.kind)
    if not info.private and not public:
        raise UsageError(
            expected=f"a private repository {upload.repository}",
            got="a public one",
            remedy="pass --public, make it private on the hub, or choose another name",
        )
    present = {sibling.rfilename for sibling in info.siblings or ()}
    if present - EMPTY and upload.tag not in _card(api, upload, present):
        raise UsageError(
            expected=f"a new repository, or one of {upload.tag}",
            got=f"{upload.repository}, which holds something else",
            remedy="choose another name, or delete that repository on the hub",
        )


def _card(api: HfApi, upload: Upload, present: set[str]) -> str:
    if CARD not in present:
        return ""
    path = api.hf_hub_download(upload.repository, CARD, repo_type=upload.kind)
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn huggingface_hub's exceptions into one sentence with a remedy."""
    try:
        yield
    except HarnessError:
        raise
    except hub.HFValidationError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(expected="OWNER/NAME of the hub", got=reason, remedy="correct the name") from error
    except hub.HfHubHTTPError as error:
        raise _refused(error, what) from error
    except (TRANSPORT, OSError) as error:
        got = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(expected=f"to upload the {what}", got=f"no network: {got}", remedy=f"try again: {AGAIN}") from error
    except (ValueError, RuntimeError) as error:
        got = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(expected=f"to upload the {what}", got=got, remedy=f"try again: {AGAIN}") from error


def _refused(error: hub.HfHubHTTPError, what: str) -> HarnessError:
    """By the status of the answer; the hub's own sentence is passed on."""
    status = error.response.status_code if error.response is not None else 0
    said = (error.server_message or "").strip().splitlines()
    got = f"the hub answered {status}" + (f": {said[0]}" if said else "")
    if status == 401:
        return UsageError(expected=f"a token that may write the {what}", got=got, remedy=LOGIN)
    if status == 403:
        if "storage" in got.lower() or "quota" in got.lower():
            return _full(what, got)
        remedy = f"{LOGIN}; check that you belong to that organisation"
        return UsageError(expected=f"the right to write the {what}", got=got, remedy=remedy)
    if status in (402, 413, 507):
        return _full(what, got)
    if status == 429:
        return ArtifactError(expected=f"to upload the {what}", got=got, remedy=f"wait some minutes: {AGAIN}")
    if status == 400:
        return UsageError(expected=f"a {what} that the hub accepts", got=got, remedy="correct the name or --license")
    return ArtifactError(expected=f"to upload the {what}", got=got, remedy=f"try again: {AGAIN}")


def _full(what: str, got: str) -> HarnessError:
    remedy = f"free or buy storage on the hub, or push --public, whose quota is larger; {AGAIN}"
    return ArtifactError(expected=f"room for the {what}", got=got, remedy=remedy)
