"""Edits on the Hugging Face hub: one edit file and a generated model card, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.edits import file as edit_file
from photopic.core.errors import EditError

_TRANSPORT = cast(type[Exception], HfHubHTTPError.__mro__[1])  # HTTPError of whichever client the hub's library uses
FILE = "photopic.edit"
CARD = "README.md"


def save_to_hub(
    edit: Edit,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload an edit with a model card, as one commit of exactly two files.

    Args:
        edit: What to upload.
        repo_id: ``owner/name``; the repository is made if it is missing.
        private: Whether a new repository is private.
        revision: The branch; None is the main one.
        token: Access token; None takes the one of ``hf auth login``.
        endpoint: Address of the hub; None is the usual one, or ``HF_ENDPOINT``.

    Returns:
        The address of the commit.

    Raises:
        EditError: If the hub cannot be reached or refuses.

    Example:
        >>> save_to_hub(edit, "me/bear")  # doctest: +SKIP
    """
    files = hub_files(edit, repo_id)
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    api = HfApi(endpoint=endpoint, token=token)
    with _one_line(repo_id, "uploaded"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.create_commit(repo_id, operations, commit_message=f"Add {FILE}", revision=revision)
    return commit.commit_url


def load_from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> Edit:
    """Download an edit that `save_to_hub` uploaded; only its one file is fetched, and read as strictly as any other.

    Args:
        repo_id: ``owner/name``.
        revision: Branch, tag or commit; None is the main branch.
        token: Access token, for private repositories.
        cache_dir: Where downloads are kept; None is the usual place.
        local_files_only: Whether to take only what is in the cache.
        endpoint: As in `save_to_hub`.

    Raises:
        EditFileError: If what was downloaded is no valid edit.
        EditError: If it cannot be downloaded, or is not in the cache.

    Example:
        >>> load_from_hub("me/bear").tokens  # doctest: +SKIP
        ('<mine>',)
    """
    with _one_line(repo_id, "downloaded"):
        path = hf_hub_download(
            repo_id,
            FILE,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            endpoint=endpoint,
        )
    return edit_file.load(path)


def hub_files(edit: Edit, repo_id: str) -> dict[str, bytes]:
    """The two files that `save_to_hub` uploads, by name."""
    return {FILE: edit_file.to_bytes(edit), CARD: model_card(edit, repo_id).encode()}


def model_card(edit: Edit, repo_id: str) -> str:
    """The text of README.md: base, method, counts and an example.

    Args:
        edit: What is described.
        repo_id: Where it will be found.

    Example:
        >>> print(model_card(edit, "me/bear").splitlines()[0])  # doctest: +SKIP
        ---
    """
    base, made = edit.base, edit.provenance
    on_hub = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", base.name)
    said = edit.subject.prompt if edit.subject else ""
    prompt = said or f"a {' '.join(edit.tokens) or 'bear'}"
    facts = {
        "base": f"{_code(base.name)}, content {_code(base.digest[:12])}",
        "method": _code(str(made.get("method", "unknown"))),
        **{f"part {number}": words for number, words in enumerate(_parts(edit), 1)},
        "touched tensors": str(len(edit.touched())),
    }
    lines = [
        "---",
        "library_name: photopic",
        *([f"base_model: {json.dumps(base.name)}"] if on_hub else []),
        "tags:",
        "- photopic",
        "- model-edit",
        "---",
        "",
        f"# {repo_id}",
        "",
        "An exact, reversible edit of a text-to-image model, made with photopic.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts.items()),
        "",
        "## Use",
        "",
        "```python",
        "import photopic",
        "from photopic.edit.interop import load_from_hub",
        "",
        f"model = photopic.load({json.dumps(base.name)})",
        f"with model.edits.applied(load_from_hub({json.dumps(repo_id)})):",
        f"    images = model.generate({json.dumps(prompt)}, seeds=range(4))",
        "```",
        "",
        f"The file `{FILE}` is bound to the content of its base: photopic refuses to apply it to other weights.",
        "",
    ]
    return "\n".join(lines)


def _parts(edit: Edit) -> Iterator[str]:
    for part in edit.parts:
        count = getattr(part, "count", None)
        if isinstance(part, TokenEmbedding):
            yield f"new token {_code(part.token)}"
        else:
            yield part.kind.replace("_", " ") + (f", {count:,} entries" if isinstance(count, int) else "")


def _code(text: str) -> str:
    """Text of somebody else as one code span inside a table cell."""
    cleaned = "".join(letter if letter.isprintable() and letter not in "`|" else "'" for letter in text)
    return f"`{cleaned}`"


@contextmanager
def _one_line(repo_id: str, done: str) -> Iterator[None]:
    """Failures of the hub as one line."""
    try:
        yield
    except LocalEntryNotFoundError as error:
        raise EditError(f"{repo_id}: {FILE} is not in the cache and the hub cannot be reached") from error
    except HfHubHTTPError as error:
        code = f"status {error.response.status_code}" if error.response is not None else "no answer"
        raise EditError(
            f"{repo_id}: {FILE} cannot be {done} ({type(error).__name__}, {code}); "
            "check the name, the revision and the access token"
        ) from error
    except HFValidationError as error:
        raise EditError(f"{repo_id}: expected a repository as owner/name ({str(error).splitlines()[0]})") from error
    except (OSError, _TRANSPORT) as error:
        raise EditError(f"{repo_id}: {FILE} cannot be {done} ({error}); check the connection") from error
