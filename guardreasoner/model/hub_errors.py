"""Why a model of a hub could not be loaded, in one line, with what to do about it."""

from pathlib import Path

from guardreasoner.errors import InputError

_FOLDERS = ("models", "checkpoints")
"""First parts of paths that are meant as folders here, not as ids of a hub."""


def hub_error(path: str, error: BaseException) -> InputError | None:
    """Return the error that tells a user why the hub did not give a model; None if the hub is not the reason.

    Args:
        path: hub id of the model.
        error: what the library raised while it loaded the model.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if Path(path).exists():
        return None
    name = path if len(Path(path).parts) == 2 and Path(path).parts[0] not in _FOLDERS else "OWNER/NAME"
    get = f"or download it where you have access (hf download {name} --local-dir FOLDER) and pass that folder"
    cause: BaseException | None = error
    seen = set[int]()  # causes may form a cycle
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, GatedRepoError):
            status = getattr(cause.response, "status_code", None)
            what = "no token was sent" if status == 401 else "the account of your token has no access yet"
            return InputError(
                f"{path}: a gated model, whose licence must be accepted first; {what}",
                f"accept it at https://huggingface.co/{path}, then `hf auth login` or set HF_TOKEN; {get}",
            )
        if isinstance(cause, RepositoryNotFoundError):
            return InputError(
                f"{path}: no such folder here, and no such model on the hub, or a private one",
                f"for a private one: `hf auth login` or set HF_TOKEN; {get}",
            )
        cause = cause.__cause__ or cause.__context__
    if "connect" in str(error):
        return InputError(f"{path}: no such folder here, and the hub cannot be reached to load it", get[3:])
    return None
