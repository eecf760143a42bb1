import json
import os
import pickle
from pathlib import Path

import pytest

from runspan.errors import ConfigError
from runspan.secrets import MASK, Secret, mask, mask_body


@pytest.mark.parametrize("text", ["", "hunter2", "env:", "env:1X", "env:A B", "file:", "ENV:X", "vault:x"])
def test_a_bare_secret_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="env:NAME or file:/path") as refused:
        Secret(text)
    assert not text or text not in str(refused.value).replace("env:NAME or file:/path", "")


def test_the_environment_is_read_when_the_secret_is_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret("env:RUNSPAN_TEST_KEY")
    monkeypatch.setenv("RUNSPAN_TEST_KEY", "first")
    assert secret.reveal() == "first"
    monkeypatch.setenv("RUNSPAN_TEST_KEY", "second")
    assert secret.reveal() == "second"


def test_a_file_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    file = tmp_path / "key"
    secret = Secret(f"file:{file}")
    file.write_text("first\n")
    assert secret.reveal() == "first"
    (tmp_path / "new").write_text("second\n")
    (tmp_path / "new").rename(file)
    assert secret.reveal() == "second"


def test_a_key_in_place_of_a_variable_s_name_is_not_spelled_out() -> None:
    with pytest.raises(ConfigError, match="the name of a variable") as refused:
        Secret("env:sk_live_51H8canary0123456789").reveal()
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("name", ["skSUPERSECRETKEY123", "hunter2", "Key_1"])
def test_what_does_not_look_like_a_variable_is_not_repeated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="the variable named after env: is not set") as refused:
        Secret(f"env:{name}").reveal()
    assert name not in str(refused.value)
    monkeypatch.setenv(name, "value")
    assert Secret(f"env:{name}").reveal() == "value"


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNSPAN_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="RUNSPAN_TEST_KEY is not set"):
        Secret("env:RUNSPAN_TEST_KEY").reveal()
    with pytest.raises(ConfigError, match=f"file:{tmp_path}/none: No such file"):
        Secret(f"file:{tmp_path}/none").reveal()


def test_only_a_small_regular_file_is_read(tmp_path: Path) -> None:
    # Who opened the pipe, or read the device to its end, would never come back.
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"k" * (64 * 1024 + 1))
    for path, reason in (
        (tmp_path / "pipe", "it is no regular file"),
        (tmp_path / "link", "it is no regular file"),
        (Path("/dev/zero"), "it is no regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "large", "it has more than 65,536 bytes"),
    ):
        with pytest.raises(ConfigError, match=rf"^cannot read file:{path}: {reason}"):
            Secret(f"file:{path}").reveal()


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("first")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    assert Secret(f"file:{tmp_path}/link").reveal() == "first"


@pytest.mark.parametrize("content", [b"", b" \n", b"one\ntwo", b"caf\xc3\xa9", b"\xff\xfe", b"nul\0"])
def test_what_no_header_can_carry_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match="put") as refused:
        Secret(f"file:{tmp_path}/key").reveal()
    assert "one" not in str(refused.value).replace("more than one line", "")


def test_a_secret_shows_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSPAN_TEST_KEY", "hunter2hunter2")
    secret = Secret("env:RUNSPAN_TEST_KEY")
    secret.reveal()
    assert (
        f"{secret} {secret!r} {[secret]}" == "Secret('env:RUNSPAN_TEST_KEY') " * 2 + "[Secret('env:RUNSPAN_TEST_KEY')]"
    )
    assert b"hunter2" not in pickle.dumps(secret)


def test_what_was_revealed_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSPAN_TEST_KEY", "swordfish-91")
    assert mask("key swordfish-91!") == "key swordfish-91!"
    Secret("env:RUNSPAN_TEST_KEY").reveal()
    assert mask("key swordfish-91!") == "key [secret]!"


def test_a_secret_too_short_to_be_masked_is_not_spelled_out_by_masking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSPAN_TEST_KEY", "a")
    Secret("env:RUNSPAN_TEST_KEY").reveal()
    assert mask("a banana") == "a banana"


def test_a_body_loses_our_keys_and_no_short_word_that_an_id_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("orchard-0123456789", "prod"):
        monkeypatch.setenv("OURS", text)
        Secret("env:OURS").reveal()
    body = b'{"id": "prod-7", "name": "orchard-0123456789"}'
    assert mask_body(body) == b'{"id": "prod-7", "name": "%s"}' % MASK.encode()


def test_the_longest_secret_is_masked_first_and_within_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("SHORT", "swordfish"), ("LONG", "swordfish-18"), ("QUOTED", 'pass"word\\')):
        monkeypatch.setenv(name, text)
        Secret(f"env:{name}").reveal()
    assert mask('swordfish-18, swordfish, pass"word\\') == f"{MASK}, {MASK}, {MASK}"
    assert mask(json.dumps({"key": 'pass"word\\'})) == json.dumps({"key": MASK})
