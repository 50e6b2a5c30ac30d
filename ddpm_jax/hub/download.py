"""Fetch files of one hub repository into huggingface_hub's cache.

The file list is requested first. Then only the chosen files are fetched, all from one commit. If
the hub cannot be reached, a repository that was fetched before is read from the cache. Every
failure is one sentence.

`huggingface_hub` is imported only inside the functions, because loading a local folder needs
neither the package nor a network. `HF_ENDPOINT` is read at each call.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ddpm_jax.hub.files import first_line

Choose = Callable[[Sequence[str]], list[str]]
"""Selects the wanted file names from all names of a repository ("/" between folders). ValueError if
one is missing."""


class HubError(OSError):
    """Files could not be fetched from the hub. The message says why, and what to do."""


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

    Raises:
        HubError: the repository is not on the hub, or access is denied; it is gated; it does not
            have the revision; or neither the hub nor the cache has the files.
        ValueError: `choose` raises it.
    """
    from huggingface_hub import errors

    cache = None if cache_dir is None else Path(cache_dir)
    if local_files_only:
        return _cached(repo, choose, revision, cache, "local_files_only is set")
    try:
        return _download(repo, choose, revision, cache, token)
    except errors.GatedRepoError:
        raise HubError(
            f"{repo} is gated: accept its terms at {_page(repo)}, "
            "then log in with `hf auth login` or pass token="
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(
            f"{repo} has no revision {revision!r}: no such branch, tag or commit"
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"there is no local folder {repo!r}, and {_page(repo)} does not exist or is private "
            "(for a private one pass token=)"
        ) from None
    except ValueError:
        raise
    except Exception as error:  # errors of requests are OSErrors, errors of httpx are not
        where = f"{repo}, revision {revision}," if revision else repo
        reason = f"{where} could not be fetched ({first_line(error)})"
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

    # By commit: all files are from one commit, and cached files are not requested again.
    paths = [get(file, info.sha) for file in files]
    # By name: the cache then records the branch's commit, for a later run without a network.
    get(files[0], revision)
    return paths[0].parents[files[0].count("/")]


def _cached(
    repo: str, choose: Choose, revision: str | None, cache: Path | None, reason: str
) -> Path:
    """The snapshot in the cache. HubError if it lacks files that `choose` wants."""
    from huggingface_hub import errors, snapshot_download

    try:
        found = snapshot_download(repo, revision=revision, cache_dir=cache, local_files_only=True)
    except errors.LocalEntryNotFoundError:
        at = f" at revision {revision}" if revision else ""
        raise HubError(
            f"{reason}, and {repo} is not in the cache{at}: fetch it once with a network"
        ) from None
    folder = Path(found)
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    try:
        choose(names)
    except ValueError as error:
        raise HubError(f"{reason}, and the cached copy of {repo} is incomplete: {error}") from None
    return folder


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _page(repo: str) -> str:
    return f"{_endpoint() or 'https://huggingface.co'}/{repo}"
