"""Secrets become placeholders, and come back for tools."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dionysus.errors import BadInput, StoreError
from dionysus.journal.holding import Holder
from dionysus.journal.secrets import Secrets, key_beside, named_secrets

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
    assert re.fullmatch(rf"before <secret:{kind}:[0-9a-f]{{10}}> after", hidden)
    assert f"before {secrets.hide(secret)} after" == hidden
    assert secrets.restore_in({"a": [hidden]}) == {"a": [f"before {secret} after"]}


def test_logins_in_urls_and_known_values_are_hidden() -> None:
    secrets = Secrets(["my own pass phrase"])
    text = secrets.hide("https://ada:hunter22@example.org/x, my own pass phrase")
    assert re.fullmatch(r"https://<secret:url-login:\w+>@example.org/x, <secret:other:\w+>", text)
    assert secrets.hide("https://example.org:80/a@b") == "https://example.org:80/a@b"
    assert "token" not in secrets.hide("https://sometoken@example.org")
    assert "word" not in secrets.hide("redis://:password@localhost")


def test_a_shape_within_a_name_is_seen() -> None:
    assert re.fullmatch(r"key_<secret:aws-key:\w+>_old", Secrets().hide(f"key_{SHAPES['aws-key']}_old"))


def test_a_secret_has_the_same_placeholder_in_every_process_of_a_store(tmp_path: Path) -> None:
    store = tmp_path / "mind.db"
    before, now, elsewhere = (Secrets(key=key_beside(path)) for path in (store, store, tmp_path / "other.db"))
    kept = before.hide(SHAPES["aws-key"])
    assert now.restore_in(kept) == kept  # it does not know it yet
    assert now.placeholders([kept], known=False) == {kept}
    assert now.hide(SHAPES["aws-key"]) == kept
    assert now.restore_in(kept) == SHAPES["aws-key"]
    assert elsewhere.hide(SHAPES["aws-key"]) != kept
    assert (tmp_path / "mind.db-key").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 2


def test_a_key_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mind.db-key").write_text("my diary")
    with pytest.raises(StoreError, match="is none that Dionysus made; move it away"):
        key_beside(tmp_path / "mind.db")
    assert (tmp_path / "mind.db-key").read_text() == "my diary"


@pytest.mark.parametrize(
    "text",
    [
        '{"password": "hunter22x"}',
        "API_KEY=a1b2c3d4e5",
        "Authorization: Bearer a1b2c3d4e5f6",
        "DB_PASSWORD: 'abc12345'",
    ],
)
def test_what_is_assigned_to_a_name_like_password_is_hidden(text: str) -> None:
    secrets = Secrets()
    hidden = secrets.hide(text)
    assert not re.search(r"hunter22x|a1b2|abc12345", hidden)
    assert secrets.hide(hidden) == hidden
    assert secrets.restore_in(hidden) == text


def test_an_assigned_value_is_hidden_wherever_it_is_said_again() -> None:
    secrets = Secrets()
    hidden = secrets.hide("hunter22x: the password = 'hunter22x'")
    assert "hunter22x" not in hidden
    assert secrets.hide(hidden) == hidden
    assert "hunter22x" not in str(secrets.hide_in_plain({"k": ["logged in with hunter22x"]}))


@pytest.mark.parametrize(
    "text", ["password = getpass()", "the secret: nobody knows", "token = settings.token", "api: v2"]
)
def test_code_and_words_beside_such_a_name_stay(text: str) -> None:
    assert Secrets().hide(text) == text


def test_a_pattern_of_ones_own() -> None:
    secrets = Secrets(pattern=r"EMP-\d{6}")
    assert secrets.restore_in(secrets.hide("ask EMP-123456")) == "ask EMP-123456" != secrets.hide("ask EMP-123456")
    with pytest.raises(BadInput, match="no regular expression"):
        Secrets(pattern="(")


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
from dionysus.errors import BadInput, StoreError
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


def test_a_record_from_elsewhere_says_what_stands_for_a_secret() -> None:
    there, here = Secrets(), Secrets()
    secret, other = SHAPES["aws-key"], SHAPES["openai-key"]
    recorded = {"task": there.hide(f"use {secret} and {other}."), "size": 3}
    here.align(recorded, {"task": f"use {secret} and {other}.", "size": 3})
    assert here.hide(f"again {secret}") == f"again {there.hide(secret)}"
    assert here.restore_in(recorded["task"]) == f"use {secret} and {other}."
    here.align("use <secret:aws-key:0000000000>", "something else")
    assert here.hide("something else") == "something else"
