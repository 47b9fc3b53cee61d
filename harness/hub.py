"""Models and data sets from the Hugging Face hub, with every foreseen refusal named.

``OWNER/NAME`` may be followed by ``@REVISION``. Files land in the hub's own cache and are not loaded twice. Where
``HF_HUB_OFFLINE`` is set nothing but that cache is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub

from harness.errors import ArtifactError, UsageError

PREFIX = "hub:"
TRANSPORT: type[Exception] = getattr(hub, "HTTPError", OSError)  # the base class of whichever HTTP client the hub's has


def is_offline() -> bool:
    """Whether the user has switched the network off for the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def split_revision(name: str) -> tuple[str, str | None]:
    """``owner/name@revision`` as (``owner/name``, revision or None)."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def fetch_model(name: str, patterns: Sequence[str]) -> Path:
    """The folder of a model repository, with the files that match ``patterns`` downloaded where they are not cached.

    Raises :class:`ArtifactError` where the repository cannot be had, :class:`UsageError` where the name is malformed.
    """
    repository, revision = split_revision(name)
    with explained(name, "model"):
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), local_files_only=is_offline()
        )
    return Path(folder)


def fetch_dataset_file(name: str, file: str) -> Path:
    """One file of a data-set repository. Raises as :func:`fetch_model`."""
    repository, revision = split_revision(name)
    with explained(name, "data set", file):
        path = huggingface_hub.hf_hub_download(
            repository, file, repo_type="dataset", revision=revision, local_files_only=is_offline()
        )
    return Path(path)


@contextmanager
def explained(name: str, what: str = "model", file: str = "") -> Iterator[None]:
    """Turn huggingface_hub's exceptions into one sentence with a remedy; a gated repository is a kind of missing one."""
    repository, revision = split_revision(name)
    download = f"hf download {repository} {file}".rstrip()
    download += f" --revision {revision}" if revision else ""
    local = "or name a local folder: --pipeline FOLDER"
    if what != "model":
        download += " --repo-type dataset"
        local = "or name a local list: --prompts FILE (with random weights presets/speed-prompts.txt will do)"
    try:
        yield
    except hub.HFValidationError as error:
        raise UsageError(expected=f"{PREFIX}OWNER/NAME", got=repr(name), remedy="correct the name") from error
    except hub.GatedRepoError as error:
        raise ArtifactError(
            expected=f"access to the {what} {name}",
            got="a gated repository",
            remedy=f"accept its conditions on huggingface.co, then `hf auth login`; {local}",
        ) from error
    except (hub.RevisionNotFoundError, hub.RemoteEntryNotFoundError) as error:
        raise ArtifactError(
            expected=f"the {what} {name}", got="no such revision or file", remedy="check the part after @ and the path"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise ArtifactError(
            expected=f"the {what} {name}",
            got="no such repository, or a private one",
            remedy=f"check the name, or `hf auth login`; {local}",
        ) from error
    except hub.LocalEntryNotFoundError as error:
        got = "HF_HUB_OFFLINE is set and the cache lacks it" if is_offline() else "no network, and the cache lacks it"
        raise ArtifactError(expected=f"the {what} {name}", got=got, remedy=f"`{download}` with a network, {local}") from error
    except (TRANSPORT, OSError) as error:
        got = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            expected=f"the {what} {name}", got=got, remedy=f"try again: finished files are kept; {local}"
        ) from error
