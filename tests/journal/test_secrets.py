"""Secrets become placeholders, and come back for tools."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dionysus.journal.holding import Holder
from dionysus.journal.secrets import Secrets, named_secrets

SHAPES = {
    "openai-key": "sk-proj-" + "aB3_" * 10,
    "github-token": "ghp_" + "a1B2" * 9,
    "gitlab-token": "glpat-" + "x" * 20,
    "aws-key": "AKIA" + "ABCD1234EFGH5678",
    "google-key": "AIza" + "x" * 35,
    "slack-token": "xoxb-1234567890-abcdefghij",
    "huggingface-token": "hf_" + "aB" * 17,
    "npm-token": "npm_" + "a1" * 18,
    "stripe-key": "sk_live_" + "a1" * 12,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlX2hlcmU",
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize(("kind", "secret"), SHAPES.items())
def test_well_known_shapes_are_hidden_and_restored(kind: str, secret: str) -> None:
    secrets = Secrets()
    hidden = secrets.hide(f"before {secret} after")
    assert hidden == f"before <secret:{kind}:1> after"
    assert secrets.hide(secret) == f"<secret:{kind}:1>"
    assert secrets.restore_in({"a": [hidden]}) == {"a": [f"before {secret} after"]}


def test_logins_in_urls_and_known_values_are_hidden() -> None:
    secrets = Secrets(["my own pass phrase"])
    text = secrets.hide("https://ada:hunter22@example.org/x, my own pass phrase")
    assert text == "https://<secret:url-login:2>@example.org/x, <secret:known:1>"
    assert secrets.hide("https://example.org:80/a@b") == "https://example.org:80/a@b"
    assert "token" not in secrets.hide("https://sometoken@example.org")
    assert "word" not in secrets.hide("redis://:password@localhost")


def test_a_shape_within_a_name_is_seen() -> None:
    assert Secrets().hide(f"key_{SHAPES['aws-key']}_old") == "key_<secret:aws-key:1>_old"


def test_placeholders_of_other_processes_are_left_alone() -> None:
    before, now = Secrets(tag="aaaa-"), Secrets(tag="bbbb-")
    kept = before.hide(SHAPES["aws-key"])
    now.hide(SHAPES["aws-key"].replace("A", "B", 1).replace("BKIA", "AKIA").replace("5678", "0000"))
    assert kept == "<secret:aws-key:aaaa-1>"
    assert now.restore_in(kept) == kept


def test_variables_named_like_secrets_are_known() -> None:
    environment = {
        "OPENAI_API_KEY": "x" * 12,
        "DB_PASSWORD": "y" * 12,
        "GH_TOKEN": "short",
        "KEYBOARD_LAYOUT": "us-intl-long",
        "HF_TOKEN_PATH": "/home/ada/token",
        "HOME": "/home/ada",
    }
    assert named_secrets(environment) == ["x" * 12, "y" * 12]


@pytest.mark.parametrize("text", ["sketch the task-list", "the key is lost", "a.b.c", "skating", "eyJ", "hf_model"])
def test_ordinary_words_stay(text: str) -> None:
    assert Secrets().hide(text) == text


@given(st.text(), st.sampled_from(sorted(SHAPES.values())), st.text())
def test_hiding_twice_changes_nothing_more(before: str, secret: str, after: str) -> None:
    secrets = Secrets()
    once = secrets.hide(f"{before} {secret} {after}")
    assert secret not in once
    assert secrets.hide(once) == once


HOLD = """
import sys
from pathlib import Path
from dionysus.journal.holding import Holder
holder = Holder(Path(sys.argv[1]))
print(holder.claim(), flush=True)
sys.stdin.read()
"""


def test_a_holder_lives_as_long_as_its_process(tmp_path: Path) -> None:
    store = tmp_path / "mind.db"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    held = process.stdout.readline().strip()
    mine = Holder(store)
    assert mine.is_alive(held)
    assert not mine.is_alive("0123456789abcdef")
    assert not mine.is_alive(None)
    process.kill()
    process.communicate()
    assert not mine.is_alive(held)
    assert os.listdir(tmp_path / "mind.db-locks") == []
    assert mine.is_alive(mine.claim())
    mine.release()
    assert os.listdir(tmp_path / "mind.db-locks") == []
