"""Writes what the docs take from the program: `make docs`. With --check it only says what is stale (`make check`).

Generated are config.example.toml, docs/attributes.md and the parts of README.md between `<!-- NAME -->` and
`<!-- /NAME -->`, but for the figures of the soak, which `scripts/soak.py` leaves there.
"""

import io
import json
import re
import sys
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from types import SimpleNamespace

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from rich.console import Console

from runspan.cli.waterfall import Waterfall
from runspan.config import Config, SourceConfig
from runspan.config.example import example
from runspan.model import Locator, RunBody, RunRef
from runspan.otlp.presets import PRESETS
from runspan.projection import ProjectionSettings, project
from runspan.projection.conventions import table
from runspan.sources import platforms, registry

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "tests/fixtures/runtype/ideal-tree.json"


def waterfall() -> str:
    """The picture: a real trace, drawn by the code behind `runspan show`."""
    fixture = json.loads(PICTURE.read_text())
    kind = registry()["runtype"]
    config = kind.config_type(name="runtype-prod", platform="runtype", base_url=kind.default_base_url)
    source = kind(config, SimpleNamespace(origin=kind.default_base_url))
    ref = RunRef("runtype", source.tenant, fixture["run_id"], Locator(**fixture["locator"]))
    trace = project(source.read(RunBody(ref, fixture["documents"])), ProjectionSettings(source="runtype-prod"))
    console = Console(file=io.StringIO(), width=112, no_color=True, highlight=False)
    console.print(Waterfall(trace))
    text = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
    return f"```\n{text}\n```"


def config_keys() -> str:
    """A table of every configuration key."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in Config.model_fields.items():
        if name != "source":
            rows += key_rows(f"[{name}]", field.annotation)
    rows += key_rows("[[source]]", SourceConfig)
    for platform, info in platforms().items():
        rows += key_rows(f"[[source]] {platform}", info.config_type, without=SourceConfig.model_fields.keys())
    return "\n".join(rows)


def key_rows(table: str, model: type[BaseModel], *, without: Container[str] = ()) -> Iterator[str]:
    """One row a key of a table."""
    for key, field in model.model_fields.items():
        if key not in without:
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            yield f"| `{table} {key}` | {default_of(field)} | {meaning} |"


def default_of(field: FieldInfo) -> str:
    """The default as it would stand in the file; empty where there is none, or where it depends on something."""
    if field.is_required() or "Default:" in (field.description or ""):
        return ""
    value = TypeAdapter(field.rebuild_annotation()).dump_python(
        field.get_default(call_default_factory=True), mode="json"
    )
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def presets() -> str:
    """A table of what is known of each backend."""
    rows = [
        "| preset | names, beside our own | longest attribute | largest trace | too old to be found | a repeat is |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for preset in PRESETS.values():
        age = preset.max_span_age_seconds
        rows.append(
            f"| `{preset.name}` | {', '.join(preset.conventions)} | {size_of(preset.attribute_bytes)} |"
            f" {size_of(preset.trace_bytes)} | {'no rule known' if age is None else f'after {age // 3600} h'} |"
            f" {REPEATS[preset.collapses_repeats]} |"
        )
    return "\n".join(rows)


REPEATS = {
    "at write": "collapsed at write",
    "at read": "collapsed at read",
    "not at all": "**shown twice**",
    "unknown": "depends on the backend",
}


def size_of(count: int) -> str:
    """A number of bytes as one says it."""
    for size, unit in ((2**20, "MiB"), (10**6, "MB"), (2**10, "KiB")):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} bytes"


WHOSE = {
    "runspan": ("Our own", "Always there. They change only together with the version of the instrumentation scope."),
    "opentelemetry": ("OpenTelemetry, in general", "Always there; stable names."),
    "gen_ai": (
        "OpenTelemetry GenAI (`gen_ai`)",
        "Always there, by the newest names; all of these conventions are in development.",
    ),
    "openinference": ("OpenInference (`openinference`)", "With preset `phoenix`, or by `[destination] conventions`."),
    "langfuse": ("Langfuse (`langfuse`)", "With preset `langfuse`, or by `[destination] conventions`."),
}


def attributes() -> str:
    """docs/attributes.md: every attribute by whose name it is."""
    parts = [ATTRIBUTES_HEAD]
    for whose, (title, note) in WHOSE.items():
        rows = [f"## {title}", "", note, "", "| attribute | type | on | meaning |", "| --- | --- | --- | --- |"]
        for row in table.ATTRIBUTES:
            if row.whose == whose:
                where = ", ".join(row.where).replace(", ".join(table.SPANS), "every span")
                meaning = f"*Content.* {row.meaning}" if row.is_content else row.meaning
                rows.append(f"| `{row.name}` | {row.type} | {where} | {meaning} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


ATTRIBUTES_HEAD = """\
# Attributes

Everything that a trace of runspan may carry, beside the resource attributes of your own configuration and what a
plug-in adds. What a platform does not tell is left out. `<n>` stands for a number, `<unit>` for what a cost is in:
`usd`, `credits`, another currency, or `amount` where nobody tells.

Where an attribute stands: on the resource; on the run's own span (root); on the span of an iteration, a model call
(chat), embeddings, a tool call, a call to the platform's services (api), or of any other row that took time (note); on
the event of a row that took none (event); on a link. *Content* is there only where capture is on, redacted and cut.

Tokens and costs are never counted twice: add up any of their names over all spans of a trace, and the sum is at most
the platform's total, `runspan.run.*`."""


PARTS: dict[str, Callable[[], str]] = {"waterfall": waterfall, "presets": presets, "config-keys": config_keys}


def placed(text: str, name: str, part: str) -> str:
    """The text with this part between its marks."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    assert begin in text, f"README.md has no place for {name}"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{part}\n{end}", text, flags=re.DOTALL)


def readme() -> str:
    """README.md with its generated parts as they should be."""
    text = (ROOT / "README.md").read_text()
    for name, make in PARTS.items():
        text = placed(text, name, make())
    return text


def main() -> int:
    """Write, or with --check name what is stale."""
    wanted = {
        ROOT / "README.md": readme(),
        ROOT / "config.example.toml": example(platforms()),
        ROOT / "docs/attributes.md": attributes(),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: `make docs` writes it anew", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
