"""Upload an exported folder to the Hugging Face hub."""

from guardreasoner.errors import InputError


def require_upload(repo: str) -> None:
    """Require a valid name of a repository and a token, before the work of an export.

    Raises:
        InputError: one of them is missing.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"--push_to_hub {repo}: {' '.join(str(error).split())}") from None
    if not get_token():
        raise InputError("--push_to_hub: no token of the Hugging Face hub", "log in with: hf auth login")


def upload(folder: str, repo: str, private: bool) -> str:
    """Upload a folder; return the address of the repository.

    Args:
        folder: the folder.
        repo: name of the repository, ``USER/NAME``; made if it does not exist.
        private: whether a new repository is private.

    Raises:
        InputError: the hub cannot be reached, or refuses the upload.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repo, commit_message="Upload an export of guardreasoner")
    except Exception as error:  # of the HTTP library, which differs between versions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"--push_to_hub {repo}: the upload failed: {reason}", f"{folder} is complete; upload it again later"
        ) from None
    return str(address)
