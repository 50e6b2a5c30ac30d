"""Files of one hub repository, fetched into huggingface_hub's cache.

The listing is asked for first, and only the chosen files are fetched, all of one commit. A
repository that was fetched before is read from the cache where the hub cannot be reached. Every
failure is one sentence.

`huggingface_hub` is imported here, inside the functions, and nowhere else: whoever loads a local
folder needs neither the package nor a network. `HF_ENDPOINT` is read at each call.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

Choose = Callable[[Sequence[str]], list[str]]
"""From all file names of a repository ("/" between folders) to those wanted; ValueError where one
is missing."""

# Files that tell where a repository lies in the cache: every layout that is read has one of them.
LANDMARKS = (
    "model_index.json",
    "config.json",
    "scheduler_config.json",
    "unet/config.json",
    "scheduler/scheduler_config.json",
)


class HubError(OSError):
    """A model could not be had from the hub."""


class NoSuchRepository(HubError):
    """The hub has no such repository, or hides it from this token."""


class GatedRepository(HubError):
    """The repository's owner asks for terms to be accepted first."""


class NoSuchRevision(HubError):
    """The repository has no such branch, tag or commit."""


class NotCached(HubError):
    """The hub was not asked or did not answer, and the cache lacks the files."""


def fetch(
    repo: str,
    choose: Choose,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder (a snapshot in the cache) with the files of `repo` that `choose` wants.

    Raises NoSuchRepository, GatedRepository, NoSuchRevision or NotCached, and ValueError where
    `choose` does.
    """
    from huggingface_hub import errors

    # What a network that is down raises differs between the HTTP clients that huggingface_hub has
    # used (requests, then httpx), but its own HTTP error has always derived from the client's.
    clients = cast(tuple[type[Exception], ...], errors.HfHubHTTPError.__bases__)
    unreachable: tuple[type[Exception], ...] = (OSError, *clients)
    where = f"{repo}, revision {revision}," if revision else repo
    cache = None if cache_dir is None else Path(cache_dir)
    if local_files_only:
        return _cached(repo, choose, revision, cache, "local_files_only is set")
    try:
        return _download(repo, choose, revision, cache, token)
    except errors.GatedRepoError as error:
        raise GatedRepository(
            f"{repo} is gated: accept its terms at {_page(repo)}, "
            "then log in with `hf auth login` or pass token="
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NoSuchRevision(
            f"{repo} has no revision {revision!r}: no such branch, tag or commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NoSuchRepository(
            f"there is no local folder {repo!r}, and {_page(repo)} does not exist or is private "
            "(for a private one pass token=)"
        ) from error
    except unreachable as error:
        reason = f"{where} could not be fetched ({_first_line(error)})"
        return _cached(repo, choose, revision, cache, reason)


def _download(
    repo: str,
    choose: Choose,
    revision: str | None,
    cache: Path | None,
    token: str | bool | None,
) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    endpoint = _endpoint()
    info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, token=token)
    try:
        files = choose([sibling.rfilename for sibling in info.siblings or ()])
    except ValueError as error:
        raise ValueError(f"{repo}: {error}") from None

    def get(file: str, commit: str | None) -> Path:
        path = hf_hub_download(
            repo, file, revision=commit, cache_dir=cache, token=token, endpoint=endpoint
        )
        return Path(path)

    # By commit: no file can come from another commit, and what is in the cache is not asked for
    # again.
    paths = [get(file, info.sha) for file in files]
    # By name: writes down which commit the branch stands at, for a later run without a network.
    get(files[0], revision)
    return paths[0].parents[files[0].count("/")]


def _cached(
    repo: str,
    choose: Choose,
    revision: str | None,
    cache: Path | None,
    reason: str,
) -> Path:
    from huggingface_hub import try_to_load_from_cache

    for landmark in LANDMARKS:
        path = try_to_load_from_cache(repo, landmark, cache_dir=cache, revision=revision)
        if not isinstance(path, str):
            continue
        folder = Path(path).parents[landmark.count("/")]
        names = [
            file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
        ]
        try:
            choose(names)
        except ValueError as error:
            raise NotCached(
                f"{reason}, and the cached copy of {repo} is not enough: {error}"
            ) from error
        return folder
    at = f" at revision {revision}" if revision else ""
    raise NotCached(f"{reason}, and {repo} is not in the cache{at}: fetch it once with a network")


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _page(repo: str) -> str:
    return f"{_endpoint() or 'https://huggingface.co'}/{repo}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
