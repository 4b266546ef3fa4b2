"""A folder of images onto the Hugging Face Hub."""

from pathlib import Path

from genaug.core.errors import GenaugError, boundary

SPLITS = ["train/*", "validation/*", "test/*"]
"""What an upload replaces: the images of an earlier one would otherwise stand among the new ones."""
REFUSED = (
    "If it refuses you, log in with `hf auth login` and see that you may write there; if the connection broke, run the same "
    "command again."
)


def open_repository(repository: str, private: bool = True) -> str:
    """Make a data set repository if it is not there; its address.

    Args:
        repository: ``owner/name``.
        private: whether nobody else may see it.

    Raises:
        GenaugError: if the Hub refuses it, or it is there and not as private as is asked for, or more.
    """
    from huggingface_hub import HfApi

    with boundary(f"{repository} cannot be opened on the Hub", REFUSED):
        address = HfApi().create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        found = HfApi().dataset_info(repository)
    if private and not found.private:
        raise GenaugError(f"{repository} is there and everybody may see it: add --public, or name another repository.")
    if found.private and not private:
        raise GenaugError(
            f"{repository} is there and private: leave --public out, or open it to everybody on the Hub first."
        )
    return str(address)


def push(folder: Path, repository: str) -> None:
    """Upload a folder into a data set repository in one commit. Its splits replace those of an earlier upload.

    Raises:
        GenaugError: if the Hub refuses it, or the connection breaks.
    """
    from huggingface_hub import HfApi

    with boundary(f"{folder} cannot be pushed to {repository} on the Hub", REFUSED):
        HfApi().upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type="dataset",
            commit_message="Images made with genaug",
            delete_patterns=SPLITS,
        )
