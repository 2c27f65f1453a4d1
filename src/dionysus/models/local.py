"""Language models in this process, by llama.cpp: one server per model file, shared by all agents.

llama.cpp's server also listens on a free port of the loopback; it is given a key that nobody is told.
"""

import atexit
import ctypes
import os
import platform
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from smolagents import ChatMessage, Model
from smolagents.models import MessageRole, TokenUsage

from dionysus.errors import BadInput, MissingExtra, ModelError
from dionysus.models.gguf import Head, read_head
from dionysus.models.offered import role_of, text_of
from dionysus.models.weights import find_weights

MAX_TOKENS = 1024
"""Of one answer, where nothing else is said."""
_LEAST_CONTEXT, _MOST_CONTEXT = 256, 16384
"""Tokens of context, where nothing else is said and the model takes as many: more costs memory."""
_CACHE_SHARE = 4
"""What part of the free memory may hold prompts that agents come back to; llama.cpp's own bound is 8 GiB."""
_NEEDED_OF_CPU = frozenset("avx avx2 bmi2 f16c fma".split())
"""What llama.cpp's wheel for x86-64 is built for: without it, the process dies of an illegal instruction."""
_SPINS = "1000"
"""How often an OpenMP thread looks for work before it sleeps: figures in docs/decisions/0016."""
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as Python writes it: no tokens for white space, and what was answered is found in the prefix cache as it was."""
_MIB = 2**20
_PROBE_S = 120
_LEAVE_S = 20.0
"""How long a process that ends waits for a call to notice: at most a batch of prompt tokens."""


class LocalModel(Model):
    """A GGUF model by llama.cpp: usage, cached tokens and speed are what llama.cpp counts.

    It answers greedily: the same prompt, the same answer, as far as the arithmetic of the machine goes.
    """

    free = True

    def __init__(
        self,
        name: str,
        *,
        context: int | None = None,
        threads: int | None = None,
        max_tokens: int = MAX_TOKENS,
        timeout_s: float = 120.0,
    ) -> None:
        """Looks at the file; llama.cpp loads it at the first call.

        Args:
            name: As `find_weights` takes it.
            context: Tokens of prompt and answer together; default: what the model takes, up to 16,384.
            threads: Default: the cores that this process may use.
            max_tokens: Of one answer.
            timeout_s: How long one call may take.

        Raises:
            BadInput: No prompt fits into such a context.
            MissingExtra: llama.cpp is not installed.
            ModelError: No such file, none that can be read, or a processor or memory that is not up to it.
        """
        super().__init__(model_id=Path(name).stem, flatten_messages_as_text=True)
        if find_spec("xllamacpp") is None:
            raise MissingExtra(f"the model local:{name}", "local")
        self.spec = f"local:{name}"
        self.weights = find_weights(name).resolve()
        self.head = read_head(self.weights)
        if context is not None and context < _LEAST_CONTEXT:
            raise BadInput(f"a context of {context} tokens holds no prompt; it is at least {_LEAST_CONTEXT}")
        self.context = min(context or usual_context(self.head), self.head.context)
        self.threads = threads or usable_cores()
        self.max_tokens = max_tokens
        self._timeout_s = timeout_s
        self._server: _Server | None = None
        lacking = lacking_of_cpu(_cpu_flags())
        if lacking:
            raise ModelError(
                f"this processor cannot run llama.cpp's wheel: it has no {', '.join(lacking)}; build xllamacpp from "
                "source, or use a server of your own (--model openai:NAME --api-base URL)"
            )

    def generate(
        self,
        messages: list[ChatMessage],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, Any] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        """One chat completion; `raw` is llama.cpp's response, `timings` included.

        Args:
            response_format: OpenAI's form; a JSON schema is enforced, token by token.
            tools_to_call_from: Handed to the model's chat template; most small models' templates pass over them.

        Raises:
            ModelError: The prompt does not fit the context, the answer overflowed it, or took too long.
        """
        if any(part.get("type") == "image" for message in messages for part in _parts(message)):
            raise ModelError(f"{self.spec} reads no images; leave them out, or use a hosted model")
        whole = [  # smolagents would take the first part of each message only
            ChatMessage(role=role_of(message), content=[{"type": "text", "text": text_of(message)}])
            for message in messages
        ]
        request = self._prepare_completion_kwargs(
            messages=whole,
            stop_sequences=stop_sequences,
            response_format=response_format,
            tools_to_call_from=tools_to_call_from,
            custom_role_conversions=_ROLES,
            **kwargs,
        )
        schema = (response_format or {}).get("json_schema", {}).get("schema")
        if schema is not None:
            del request["response_format"]
            request["grammar"] = _llama().json_schema_to_grammar({**_with_ends(schema), "x-guidance": _COMPACT})
        if "max_tokens" not in request:
            request["max_tokens"] = self.max_tokens
        raw = self._loaded().complete({"temperature": 0.0, **request}, timeout_s=self._timeout_s)
        said, usage = raw["choices"][0]["message"], raw["usage"]
        if raw["choices"][0]["finish_reason"] == "length" and usage["total_tokens"] >= self.context:
            why = f"the prompt has {usage['prompt_tokens']:,} tokens and the answer filled the rest"
            raise _overflow(self.spec, self.context, self.head.context, why)
        if schema is not None and not said["content"].startswith(("{", "[")) and schema.get("type") == "object":
            raise ModelError(f"llama.cpp did not hold {self.spec} to the schema: it does not take all of it")
        return ChatMessage(
            role=MessageRole.ASSISTANT,
            content=said.get("content") or "",
            tool_calls=ChatMessage.from_dict({**said, "raw": None}).tool_calls if said.get("tool_calls") else None,
            raw=raw,
            token_usage=TokenUsage(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"]),
        )

    def _loaded(self) -> "_Server":
        if self._server is None or self._server.process != os.getpid():
            self._server = _server_of(self)
        return self._server


def _with_ends(schema: Any) -> Any:
    """The same, with numbers that come to an end: a small model writes digits until it is cut off."""
    if isinstance(schema, list):
        return [_with_ends(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    ends = {"multipleOf": 1e-9, "minimum": -1e15, "maximum": 1e15} if schema.get("type") == "number" else {}
    return {**ends, **{k: v if k in ("enum", "const") else _with_ends(v) for k, v in schema.items()}}


def _overflow(spec: str, context: int, most: int, why: str) -> ModelError:
    cure = f"raise DIONYSUS_CONTEXT (it takes {most:,}), " if most > context else ""
    return ModelError(
        f"the context of {spec} is too small: it holds {context:,} tokens, {why}; {cure}give it less to read, or use a "
        "model with a longer context"
    )


_ROLES = {MessageRole.TOOL_CALL: MessageRole.ASSISTANT, MessageRole.TOOL_RESPONSE: MessageRole.USER}


def _parts(message: Any) -> list[dict[str, Any]]:
    content = message.get("content") if isinstance(message, dict) else message.content
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


class _Server:
    """llama.cpp's server for one file; calls wait for each other."""

    def __init__(self, model: LocalModel, llama: Any) -> None:
        self.process = os.getpid()
        self._spec, self._context, self._most = model.spec, model.context, model.head.context
        params = llama.CommonParams()
        for name, value in _settings(model).items():
            setattr(params, name, value)
        params.model.path = str(model.weights)
        for part in (params.cpuparams, params.cpuparams_batch):
            part.n_threads = model.threads
        self._server = llama.Server(params)

    def complete(self, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """A completion, whole.

        llama.cpp works in a thread of its own and streams: so the call can be left, by a signal or because it takes too
        long, and stops at its next token.

        Raises:
            ModelError: See `LocalModel.generate`.
        """
        heard = _Heard()
        streamed = {**request, "stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
        threading.Thread(target=self._work, args=(streamed, heard), daemon=True, name=self._spec).start()
        try:
            came = heard.done.wait(timeout_s)
        finally:
            heard.is_left = True
        if not came:
            raise ModelError(
                f"{self._spec} did not answer within {timeout_s:g} s: raise DIONYSUS_MODEL_TIMEOUT_S, lower "
                "DIONYSUS_MAX_TOKENS, or give it less to read"
            )
        if heard.failure is not None:
            raise ModelError(f"llama.cpp refuses the request for {self._spec}: {heard.failure}") from heard.failure
        if heard.error is not None:
            if heard.error.get("type") == "exceed_context_size_error":
                asked = f"the prompt has {heard.error['n_prompt_tokens']:,}"
                raise _overflow(self._spec, self._context, self._most, asked)
            raise ModelError(f"llama.cpp gave no answer for {self._spec}: {heard.error.get('message')}")
        return heard.answer(self._spec)

    def _work(self, request: dict[str, Any], heard: "_Heard") -> None:
        _RUNNING.add(heard)
        try:
            self._server.handle_chat_completions(request, heard.take)
        except Exception as error:  # noqa: BLE001 – raised by who waits
            heard.failure = error
        finally:
            _RUNNING.discard(heard)
            heard.done.set()


class _Heard:
    """What llama.cpp said of one call, piece by piece."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._text: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._reason: str | None = None
        self.error: dict[str, Any] | None = None
        self.failure: Exception | None = None
        self.is_left = False
        """Nobody waits for it any more."""
        self.done = threading.Event()

    def take(self, piece: Any) -> bool:
        """Takes a piece in; True stops the answer. What is raised here, llama.cpp's binding would drop."""
        if not self.is_left:
            try:
                self._take(piece)
            except Exception as error:  # noqa: BLE001 – raised by who waits
                self.failure = error
        return self.is_left or self.failure is not None

    def _take(self, piece: dict[str, Any]) -> None:
        if "error" in piece:
            self.error = piece["error"]
            return
        for choice in piece.get("choices", ()):
            self._reason = choice.get("finish_reason") or self._reason
            delta = choice.get("delta", {})
            self._text.append(delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                known = self._calls.setdefault(call["index"], {"id": None, "type": "function", "function": {}})
                known["id"] = call.get("id") or known["id"]
                for name, text in call.get("function", {}).items():
                    known["function"][name] = known["function"].get(name, "") + (text or "")
        if "usage" in piece:
            self._last = piece

    def answer(self, spec: str) -> dict[str, Any]:
        """In the form of an answer that was not streamed."""
        if not self._last or self._reason is None:
            raise ModelError(f"llama.cpp broke off in the middle of its answer for {spec}")
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._text)}
        if self._calls:
            message["tool_calls"] = [self._calls[i] for i in sorted(self._calls)]
        choice = {"index": 0, "finish_reason": self._reason, "message": message}
        return {**self._last, "object": "chat.completion", "choices": [choice]}


_SERVERS: "WeakValueDictionary[tuple[Any, ...], _Server]" = WeakValueDictionary()
"""Those that some model of this process still uses."""
_LOADING = threading.Lock()
_RUNNING: set[_Heard] = set()
"""Calls that llama.cpp works on."""
_FORKED = False
"""Whether this process is a child of one that had llama.cpp loaded: its threads are not here."""


@atexit.register
def _leave() -> None:
    """A process that ends stops its calls first: a thread within llama.cpp would take it down."""
    for heard in list(_RUNNING):
        heard.is_left = True
    for heard in list(_RUNNING):
        heard.done.wait(_LEAVE_S)


def _forked() -> None:
    """In a child process. The parent's servers must not be taken down here, so they are never let go."""
    global _FORKED, _LOADING
    _LOADING = threading.Lock()
    _FORKED = _FORKED or bool(_SERVERS)
    for server in list(_SERVERS.values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))
    _SERVERS.clear()
    _RUNNING.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _server_of(model: LocalModel) -> _Server:
    """The server of this file with these settings: one that is running, or a new one.

    Raises:
        ModelError: It cannot be loaded; with the reason.
    """
    if _FORKED:
        raise ModelError(
            f"{model.spec} cannot be used here: this process was forked from one that had llama.cpp loaded, and its "
            "threads stayed there; start processes with 'spawn', or load the model only after the fork"
        )
    key = (os.getpid(), model.weights, model.context, model.threads)
    with _LOADING:
        running = _SERVERS.get(key)
        if running is not None:
            return running
        llama = _llama()
        free = None if _has_gpu(llama) else _free_memory()
        needed = model.head.memory(model.context)
        if free is not None and needed > free:
            raise ModelError(
                f"{model.spec} does not fit into memory: with a context of {model.context:,} tokens it takes about "
                f"{needed // _MIB:,} MiB, and {free // _MIB:,} MiB are free; use a smaller model, or lower "
                f"DIONYSUS_CONTEXT ({model.head.bytes_per_token:,} bytes a token)"
            )
        try:
            made = _Server(model, llama)
        except RuntimeError as error:
            raise ModelError(f"llama.cpp cannot load {model.spec}: {_reason(model)}") from error
        _SERVERS[key] = made
        return made


def _settings(model: LocalModel) -> dict[str, Any]:
    """llama.cpp's parameters, by its own names."""
    cache = min(8192, max(0, _free_memory()) // _CACHE_SHARE // _MIB)
    return {
        "n_ctx": model.context,
        "n_batch": 512,  # a call that is left notices after so many tokens of its prompt
        "n_parallel": 1,  # prompts of several agents take turns; each finds its own again in the cache
        "cache_ram_mib": int(cache),
        "fit_params": False,  # what does not fit is an error, not a silently shorter context
        "verbosity": 0,
        "ui": False,
        "endpoint_slots": False,
        "api_keys": [secrets.token_urlsafe(32)],
        "cors_origins": "http://127.0.0.1",
    }


def _llama() -> Any:
    """llama.cpp's binding, with threads that do not fight for a busy machine's cores."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    import xllamacpp

    return xllamacpp


def _has_gpu(llama: Any) -> bool:
    """Whether weights may lie elsewhere than in the machine's memory."""
    cpu = llama.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    return any(device["type"] != cpu for device in llama.get_device_info())


def _reason(model: LocalModel) -> str:
    """Why a file cannot be loaded: llama.cpp says so on its standard error only, so another process tries it."""
    script = (
        "import sys, xllamacpp as x; p = x.CommonParams(); p.model.path = sys.argv[1]; p.n_ctx = int(sys.argv[2]); "
        "p.n_parallel = 1; p.fit_params = False; p.verbosity = 1; p.warmup = False; x.Server(p)"
    )
    command = [sys.executable, "-c", script, str(model.weights), str(model.context)]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not say why ({type(error).__name__})"
    if tried.returncode < 0:
        return f"it dies of signal {-tried.returncode} (too little memory, or a processor that it is not built for)"
    said = re.findall(r"^[\d.]+ E \S+ *\S*: (.+)$", tried.stderr, re.M) or tried.stderr.strip().splitlines()
    return said[0] if said else "it does not say why"


def usual_context(head: Head) -> int:
    """Tokens, where nothing else is said."""
    return min(head.context, _MOST_CONTEXT)


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lacking_of_cpu(flags: Sequence[str]) -> list[str]:
    """What llama.cpp's wheel needs and these processor flags lack; no flags: not known, nothing."""
    return sorted(_NEEDED_OF_CPU.difference(flags)) if flags else []


def _cpu_flags() -> list[str]:
    """Of an x86-64 processor under Linux."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return []
    found = re.search(r"^flags\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found[1].split() if found else []


def _free_memory() -> int:
    """Bytes that can still be had: of the machine, of the process, of its control group."""
    import psutil

    free = int(psutil.virtual_memory().available)
    if find_spec("resource") is not None:
        import resource

        allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
        if allowed != resource.RLIM_INFINITY:
            free = min(free, allowed - int(psutil.Process().memory_info().vms))
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        given_back = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.M)
    except OSError:  # no control group, or an older kind of them
        return free
    return free if limit == "max" else min(free, int(limit) - used + int(given_back[1] if given_back else 0))
