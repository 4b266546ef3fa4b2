"""A folder of images onto the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from genaug.core.errors import boundary


def push(folder: Path, repository: str, private: bool = True, api: Any = None) -> str:
    """Upload a folder as a data set repository, made if it is not there; its address.

    Args:
        repository: ``owner/name``.
        api: what talks to the Hub; ``huggingface_hub.HfApi()`` with the token of ``hf auth login`` without.

    Raises:
        GenaugError: if the Hub refuses it.
    """
    from huggingface_hub import HfApi

    api = HfApi() if api is None else api
    what = f"{folder} cannot be pushed to {repository} on the Hub"
    with boundary(what, "Log in with `hf auth login`, and see that you may write there."):
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            folder_path=str(folder), repo_id=repository, repo_type="dataset", commit_message="Images made with genaug"
        )
    return f"https://huggingface.co/datasets/{repository}"
