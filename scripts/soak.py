"""Attacks runspan for a quarter of an hour, says what came of it, and writes that into README.md: `make soak`.

Ends with 1 where a test failed, something was lost or doubled, or the attack was too small to tell; README.md then
stays as it is.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

from scripts.docs import ROOT, placed
from tests import figures

# The fuzzing stands first: of the longest tests, none is to be begun last.
ATTACKS = (
    "tests/unit/test_unsound_bodies.py",
    "tests/unit/test_unsound_lists.py",
    "tests/unit/test_large_bodies.py",
    "tests/acceptance/chaos",
)
PROCESSES_PER_CORE = 2
"""The chaos tests wait for half of their time."""
LEAST = {"kills": 200, "faults": 200, "cases": 100_000, "runs": 1000}
NEVER = ("lost", "doubled")
NAMES = {
    "kills": "kill -9 survived",
    "faults": "faults of platforms and destination met",
    "cases": "spoiled and made-up answers read",
    "runs": "runs judged",
    "lost": "runs lost",
    "doubled": "spans doubled",
    "repeats": "spans sent again after an unconfirmed delivery, the same bytes each time",
}


def attack(arguments: list[str]) -> int:
    """Run the tests in their long form; pytest's exit code."""
    processes = PROCESSES_PER_CORE * cores()
    command = [sys.executable, "-m", "pytest", "-q", f"-n{processes}", "--dist=load", "--durations=10", *ATTACKS]
    environ = os.environ | {"RUNSPAN_SOAK": "1"}
    return subprocess.run([*command, *arguments], cwd=ROOT, env=environ, check=False).returncode  # noqa: S603


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def complaints(exit_code: int, found: Counter[str]) -> Iterator[str]:
    """What is wrong with this soak."""
    if exit_code:
        yield f"pytest ended with {exit_code}"
    for name, least in LEAST.items():
        if found[name] < least:
            yield f"{NAMES[name]}: {found[name]:,}, and at least {least:,} are needed to say anything"
    for name in NEVER:
        if found[name]:
            yield f"{NAMES[name]}: {found[name]:,}"


def table(found: Counter[str], seconds: float) -> str:
    """The figures for README.md."""
    rows = [f"| {text} | {found[name]:,} |" for name, text in NAMES.items()]
    return "\n".join([f"| in {seconds / 60:.0f} minutes on {cores()} cores | |", "| --- | ---: |", *rows])


def main() -> int:
    """Attack, sum up, and write it down if all is well."""
    shutil.rmtree(figures.FOLDER, ignore_errors=True)
    began = time.monotonic()
    exit_code = attack(sys.argv[1:])
    seconds = time.monotonic() - began
    found = figures.total()
    print(table(found, seconds))
    wrong = list(complaints(exit_code, found))
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    if wrong:
        return 1
    readme = ROOT / "README.md"
    readme.write_text(placed(readme.read_text(), "soak", table(found, seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
