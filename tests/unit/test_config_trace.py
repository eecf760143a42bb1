"""What shapes traces, from the file to the settings: [content], [source.content], [prices], a source's own keys."""

from decimal import Decimal
from pathlib import Path

import pytest

from runspan.config import loader
from runspan.errors import ConfigError
from runspan.pipeline.assembly import projection_settings
from runspan.projection.settings import ProjectionSettings
from runspan.sources import platforms

SOURCE = """
[[source]]
name = "a"
platform = "casedev"
api_key = "env:KEY"
"""


def settings(text: str, tmp_path: Path, **environ: str) -> ProjectionSettings:
    path = tmp_path / "config.toml"
    path.write_text(text)
    config = loader.load(path, platforms=platforms(), environ=environ)
    return projection_settings(config, config.source[0])


def refused(text: str, tmp_path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        settings(text, tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(str(tmp_path / "config.toml"))


def test_content_is_off_and_all_kinds_are_in_it(tmp_path: Path) -> None:
    plain = settings(SOURCE, tmp_path)
    assert plain.capture_content is False
    assert plain.content == ProjectionSettings(source="a").content
    assert plain.tool_content is False
    assert settings(f"[content]\ncapture = true\n{SOURCE}", tmp_path).tool_content is True


def test_a_sources_own_keys_win_key_by_key(tmp_path: Path) -> None:
    general = """
    [content]
    capture = true
    reasoning = false
    deny_keys = ["SSN"]
    mask = ['PAT-\\d+']
    max_bytes = "2KB"
    """
    own = """
    [source.content]
    reasoning = true
    prompts = false
    deny_keys = []
    allow_keys = ["Id"]
    """
    rules = settings(general + SOURCE + own, tmp_path).content
    assert (rules.reasoning, rules.prompts, rules.messages, rules.max_bytes) == (True, False, True, 2000)
    assert (rules.keys.allowed, rules.keys.denied) == ({"id"}, frozenset())
    assert [pattern.pattern for pattern in rules.masks] == [r"PAT-\d+"]
    assert settings(general + SOURCE, tmp_path).content.keys.denied == {"ssn"}
    off = "[source.content]\ncapture = false"
    assert settings(general + SOURCE + off, tmp_path).capture_content is False
    assert settings(SOURCE + "[source.content]\ncapture = true", tmp_path).capture_content is True


def test_the_environment_sets_lists_and_tables_too(tmp_path: Path) -> None:
    found = settings(
        SOURCE,
        tmp_path,
        RUNSPAN_CONTENT__CAPTURE="true",
        RUNSPAN_CONTENT__MASK='["PAT-[0-9]+", "x"]',
        RUNSPAN_PRICES__MODELS='{"gpt": {"input": 1}}',
    )
    assert found.capture_content
    assert [pattern.pattern for pattern in found.content.masks] == ["PAT-[0-9]+", "x"]
    assert found.prices.table["gpt"].input == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[content]\nmask = ["ok", "[a"]', "line 2: `mask.1` in [content]: '[a' is not a regular expression:"),
        ('[content]\nmask = ["(a+)+"]', "line 2: `mask.0` in [content]: '(a+)+' repeats a group"),
        ("[content]\nmask = [3]", "line 2: `mask.0` in [content]: write a regular expression"),
        ('[content]\nprompt = "x"', "line 2: unknown key `prompt` in [content]; did you mean `prompts`?"),
        ('[content]\nmax_bytes = "0B"', "line 2: `max_bytes` in [content]: at least one byte"),
        (f"{SOURCE}[source.content]\nlog = true", "unknown key `content.log` in [[source]] a; did you mean `logs`?"),
        ("[prices.models.gpt]\ninptu = 1.0", "unknown key `models.gpt.inptu` in [prices]; did you mean `input`?"),
        ("[prices.models.gpt]\ncache_read = 1.0", "`models.gpt.input` in [prices]: missing: write what"),
        ("[prices.models.gpt]\ninput = -1", "line 2: `models.gpt.input` in [prices]: input should be greater"),
        ("[prices.models.gpt]\ninput = nan", "line 2: `models.gpt.input` in [prices]: "),
        ('[prices]\nuse = "genai"', "line 2: `use` in [prices]: "),
        (f"{SOURCE}credit_rate = -0.1", "`credit_rate` in [[source]] a: input should be greater"),
        (f"{SOURCE}keep_success = 1.5", "`keep_success` in [[source]] a: input should be less than or equal to 1"),
        (f'{SOURCE}statuses = ["ok"]', "`statuses.0` in [[source]] a: write success, failed, timeout or cancelled"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refused(text, tmp_path)


def test_prices_are_exact_and_have_a_currency(tmp_path: Path) -> None:
    text = """
    [prices]
    currency = "eur"
    models = { "gpt-*" = { input = 0.1, output = "0.30" }, other = { input = 1, currency = "usd" } }
    """
    table = settings(text + SOURCE + "credit_rate = 0.01", tmp_path).prices.table
    assert (table["gpt-*"].input, table["gpt-*"].output) == (Decimal("0.1"), Decimal("0.30"))
    assert (table["gpt-*"].currency, table["other"].currency) == ("eur", "usd")
    assert settings(text + SOURCE + "credit_rate = 0.01", tmp_path).credit_rate == Decimal("0.01")


def test_published_prices_are_those_of_the_version_that_is_named(tmp_path: Path) -> None:
    assert settings('[prices]\nuse = "genai-prices"' + SOURCE, tmp_path).prices.published is not None
    assert "is installed" in refused('[prices]\nuse = "genai-prices==0.0.1"' + SOURCE, tmp_path)
