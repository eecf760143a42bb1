"""The file of `runspan backfill --ids-file`."""

from pathlib import Path

import pytest

from runspan.cli.backfill import read_ids
from runspan.errors import ConfigError
from runspan.model import Locator


def read(text: str, folder: Path) -> tuple[tuple[str, Locator], ...]:
    file = folder / "ids"
    file.write_text(text)
    return read_ids(file)


def test_ids_are_bare_or_objects_and_each_counts_once(tmp_path: Path) -> None:
    text = 'run_1\n\n  run 2  \n{"id": "run_3", "agent": "a", "room": "r"}\n{"id": "run_4"}\nrun_1\n"run 5"\n'
    assert read(text, tmp_path) == (
        ("run_1", Locator()),
        ("run 2", Locator()),
        ("run_3", Locator(agent_id="a", room="r")),
        ("run_4", Locator()),
        ("run 5", Locator()),
    )


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    assert read("\ufeffrun_1\r\nrun_2\r\n", tmp_path) == (("run_1", Locator()), ("run_2", Locator()))


OBJECT = "write a bare id, or an object with id, agent and room"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("run_1\n{'id': 2}\n", f" line 2: not JSON; {OBJECT}"),
        ("{" * 100_000, f" line 1: not JSON; {OBJECT}"),
        ('{"id": ' + "[" * 100_000, f" line 1: not JSON; {OBJECT}"),
        ('{"run": "r"}', f" line 1: {OBJECT}, all of them texts"),
        ('{"id": "r", "extra": 1}', f" line 1: {OBJECT}, all of them texts"),
        ('"run', f" line 1: not JSON; {OBJECT}"),
        ('{"id": 7}', f" line 1: {OBJECT}, all of them texts"),
        ('{"id": "a", "room": 7}', f" line 1: {OBJECT}, all of them texts"),
        ('{"id": "\\ud800"}', " line 1: holds control characters or broken ones, which no id can have"),
        ('{"id": "a", "room": "\\u0000"}', " line 1: holds control characters or broken ones, which no id can have"),
        ("run_\x1b[31m", " line 1: holds control characters or broken ones, which no id can have"),
        ("\n \n", " holds no run id"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path)
    assert str(caught.value) == f"--ids-file {tmp_path / 'ids'}{complaint}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read --ids-file .*: No such file or directory"):
        read_ids(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_ids(tmp_path / "binary")
    with pytest.raises(ConfigError, match=r"cannot read --ids-file /dev/zero: it has more than 67,108,864 bytes"):
        read_ids(Path("/dev/zero"))
