"""Would the tests notice? A seeded sample of small faults in the code that decides the numbers, each against its
module's own tests.

    python tests/campaigns/mutants.py --count 300 --seed 1 --jobs 2

Each fault (mutant) is put into a copy of the project; a process that has imported the libraries already is forked and
runs the module's tests until the first fails. Prints the share of mutants killed by module, and every survivor. Those
that cannot be told from the original, or that change nothing anybody relies on, stand with their reasons in
`known_survivors.yaml`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KNOWN = Path(__file__).with_name("known_survivors.yaml")
SETTLING = 5.0  # times a module's own tests' time, after which a mutant counts as one that hangs: killed
LEAST_SECONDS = 60.0

TESTS: dict[str, tuple[str, ...]] = {
    "biggan/objective/losses.py": ("biggan/objective/test_objectives.py", "biggan/training/test_step.py"),
    "biggan/networks/spectral_norm.py": (
        "biggan/networks/test_normalization.py",
        "biggan/networks/test_batched_spectral_norm.py",
        "biggan/training/test_step.py",
        "biggan/distributed/test_collectives.py",
    ),
    "biggan/networks/batched_spectral_norm.py": (
        "biggan/networks/test_batched_spectral_norm.py",
        "biggan/networks/test_normalization.py",
    ),
    "biggan/objective/weight_penalties.py": (
        "biggan/objective/test_objectives.py",
        "biggan/networks/test_sigma_control.py",
        "biggan/networks/test_warm_starts.py",
    ),
    "biggan/objective/gradient_penalties.py": ("biggan/objective/test_objectives.py", "biggan/training/test_step.py"),
    "biggan/evaluation/scores.py": ("biggan/evaluation/test_scores.py",),
    "biggan/evaluation/memorization.py": ("biggan/evaluation/test_memorization.py",),
    "biggan/run/retention.py": ("biggan/run/test_checkpoint.py", "biggan/observers/test_evaluation.py"),
    "biggan/run/session.py": (
        "biggan/run/test_resume.py",
        "biggan/data/test_training_on_files.py",
        "interventions/branch/test_branch.py",
        "biggan/distributed/test_ranks.py",
    ),
    "interventions/compare/statistics.py": (
        "interventions/compare/test_statistics.py",
        "interventions/compare/test_pairs.py",
    ),
    "interventions/compare/permutation.py": ("interventions/compare/test_permutation.py",),
    "interventions/compare/lifetimes.py": (
        "interventions/compare/test_statistics.py",
        "interventions/compare/test_pairs.py",
    ),
    "spectra/linalg/certificate.py": ("spectra/linalg/test_certificate_bound.py",),
    "spectra/detect/collapse.py": ("spectra/detect/test_collapse.py",),
    "spectra/detect/loss.py": ("spectra/detect/test_detect.py",),
    "spectra/detect/sigma.py": ("spectra/detect/test_detect.py",),
}
"""The modules whose mutants are drawn, all alike often, and their own tests."""

COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*", ast.MatMult: "*"}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "amax": "amin", "amin": "amax", "nanmean": "mean"}


@dataclass(frozen=True)
class Mutant:
    """One fault: the text between two offsets of a file, and what takes its place."""

    path: str
    where: str
    line: int
    begin: int
    end: int
    original: str
    mutated: str

    @property
    def key(self) -> str:
        """Names it as long as its function stays as it is."""
        return f"{self.path}:{self.where}: {self.original} -> {self.mutated}"


def mutants(path: str) -> list[Mutant]:
    """All mutants of a file, in the order of its lines."""
    source = (ROOT / path).read_text(encoding="utf-8")
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    encoded = source.encode()

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + column

    found = []
    for where, node, text in _faults(tree, source):
        begin, end = offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)
        original = encoded[begin:end].decode()
        if text != original:
            found.append(Mutant(path, where, node.lineno, begin, end, original, text))
    return found


def _faults(tree: ast.Module, source: str) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """(qualified name of the function, node, text that replaces it)."""

    def walk(node: ast.AST, where: str) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
        for child in ast.iter_child_nodes(node):
            if _is_left_alone(child, node):
                continue
            inside = where
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inside = f"{where}.{child.name}".lstrip(".")
            if isinstance(child, ast.expr):
                for text in _expression(child):
                    yield where, child, f"({text})"
            elif isinstance(child, ast.stmt):
                for text in _statement(child):
                    yield where, child, text
            yield from walk(child, inside)

    yield from walk(tree, "")


def _is_left_alone(node: ast.AST, parent: ast.AST) -> bool:
    """Types, texts, messages, imports, decorators: no number depends on them."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.JoinedStr | ast.arg | ast.Assert):
        return True
    if isinstance(parent, ast.keyword) and parent.arg in ("strict",):
        return True
    if isinstance(parent, ast.If) and node is parent.test and ast.unparse(node) == "TYPE_CHECKING":
        return True
    if isinstance(node, ast.expr):
        annotation = getattr(parent, "annotation", None) is node or getattr(parent, "returns", None) is node
        return annotation or node in getattr(parent, "decorator_list", [])
    return False


def _expression(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            yield f"{ast.unparse(left)} {COMPARISONS[type(op)]} {ast.unparse(right)}"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC and not _is_text(node):
            yield f"({ast.unparse(left)}) {ARITHMETIC[type(op)]} ({ast.unparse(right)})"
        case ast.BoolOp(op=op, values=values):
            word = " or " if isinstance(op, ast.And) else " and "
            yield word.join(f"({ast.unparse(value)})" for value in values)
            yield from (ast.unparse(value) for value in values[:1])
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield ast.unparse(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield f"{ast.unparse(orelse)} if {ast.unparse(test)} else {ast.unparse(body)}"
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() as value):
            yield str(value + 1)
        case ast.Constant(value=float() as value):
            yield repr(value * 2 if value else 1.0)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name) as func) if name in CALLS:
            prefix = f"{ast.unparse(func.value)}." if isinstance(func, ast.Attribute) else ""
            arguments = [ast.unparse(a) for a in node.args] + [ast.unparse(k) for k in node.keywords]
            yield f"{prefix}{CALLS[name]}({', '.join(arguments)})"


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
               for part in ast.walk(node))  # fmt: skip


def _statement(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.Continue():
            yield "break"
        case ast.Return(value=ast.Name() | ast.Attribute() | ast.Call()) if node.value is not None:
            yield "return None"


def draw(count: int, seed: int, paths: Sequence[str]) -> list[Mutant]:
    """About `count` mutants, as many of each file, no two at one place before all places have had one."""
    chosen = []
    for path in paths:
        mine = mutants(path)
        random.Random(f"{seed} {path}").shuffle(mine)
        chosen += mine[: -(-count // len(paths))]
    return chosen


class Workshop:
    """A copy of the project in which one process at a time tries mutants."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mutants-"))
        skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*", "runs", "build", "dist")
        shutil.copytree(ROOT, self.folder, ignore=skipped, dirs_exist_ok=True)
        for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):  # a stale .pyc would hide a mutant of the same second
            os.environ[name] = "1" if name.startswith("PYTHOND") else str(self.folder)
        sys.dont_write_bytecode = True
        sys.path[:] = [str(self.folder), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
        os.chdir(self.folder)
        self.seconds: dict[tuple[str, ...], float] = {}

    def baseline(self, tests: tuple[str, ...]) -> float:
        """How long the tests take on the original. Raises `RuntimeError` where they fail there."""
        if tests not in self.seconds:
            begin = time.monotonic()
            if not self._passes(tests, 1200):
                raise RuntimeError(f"{', '.join(tests)} fail without any mutant")
            self.seconds[tests] = time.monotonic() - begin
        return self.seconds[tests]

    def survives(self, mutant: Mutant) -> bool:
        """Whether its tests pass in spite of the mutant."""
        tests, file = TESTS[mutant.path], self.folder / mutant.path
        limit = max(SETTLING * self.baseline(tests), LEAST_SECONDS)
        original = file.read_bytes()
        try:
            file.write_bytes(original[: mutant.begin] + mutant.mutated.encode() + original[mutant.end :])
            return self._passes(tests, limit)
        finally:
            file.write_bytes(original)

    def _passes(self, tests: tuple[str, ...], limit: float) -> bool:
        child = os.fork()
        if child == 0:
            os.setpgrp()
            devnull = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(devnull, stream)
            import pytest

            paths = [str(self.folder / "tests" / name) for name in tests]
            options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "--rootdir", str(self.folder)]
            code = 1
            try:
                code = int(pytest.main([*options, *paths]))
            finally:
                os._exit(code)
        until = time.monotonic() + limit
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False


def preload() -> None:
    """Import the libraries, and none of the project: a forked process then begins at once."""
    import hypothesis  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.ipc  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.svm  # noqa: F401
    import torch
    import torchmetrics.image  # noqa: F401

    torch.set_num_threads(1)


def work(share: list[Mutant], place: int, jobs: int, results: Path) -> None:
    """Try every `jobs`-th mutant, and append what became of it to a file."""
    workshop = Workshop()
    try:
        for mutant in share[place::jobs]:
            survived = workshop.survives(mutant)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": mutant.key, "line": mutant.line, "survived": survived}) + "\n")
    finally:
        shutil.rmtree(workshop.folder, ignore_errors=True)


def known_survivors() -> dict[str, str]:
    """Mutants that no test should kill, with the reasons."""
    import yaml

    return yaml.safe_load(KNOWN.read_text(encoding="utf-8")) or {} if KNOWN.is_file() else {}


def run(chosen: list[Mutant], jobs: int, results: Path) -> None:
    """Try the mutants in `jobs` processes; those already in `results` are not tried again."""
    done = {row["key"] for row in read(results)}
    rest = [mutant for mutant in chosen if mutant.key not in done]
    random.Random(0).shuffle(rest)  # so that slow modules are shared out
    preload()
    children = []
    for place in range(jobs):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(rest, place, jobs, results)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise RuntimeError("a process that tried mutants has failed: see its message above")


def read(results: Path) -> list[dict]:
    """What is known so far."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    return [json.loads(line) for line in lines]


def table(chosen: list[Mutant], results: Path) -> tuple[str, float]:
    """By module: tried, killed, equivalent, survived; then the survivors; and the share killed of the others."""
    outcome, known = {row["key"]: row["survived"] for row in read(results)}, known_survivors()
    lines, totals = [f"{'module':36}{'tried':>7}{'killed':>8}{'excused':>9}{'left':>6}"], [0, 0, 0, 0]
    left: list[Mutant] = []
    for path in dict.fromkeys(mutant.path for mutant in chosen):
        mine = [mutant for mutant in chosen if mutant.path == path and mutant.key in outcome]
        survivors = [mutant for mutant in mine if outcome[mutant.key]]
        excused = [mutant for mutant in survivors if mutant.key in known]
        counts = [len(mine), len(mine) - len(survivors), len(excused), len(survivors) - len(excused)]
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
        lines.append(f"{path:36}{counts[0]:7}{counts[1]:8}{counts[2]:9}{counts[3]:6}")
        left += [mutant for mutant in survivors if mutant.key not in known]
    share = totals[1] / max(totals[0] - totals[2], 1)
    lines.append(f"{'all':36}{totals[0]:7}{totals[1]:8}{totals[2]:9}{totals[3]:6}   {share:.1%} killed of the others")
    lines += [f"{mutant.path}:{mutant.line}: {mutant.key}" for mutant in left]
    return "\n".join(lines), share


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="how many mutants (300)")
    parser.add_argument("--seed", type=int, default=1, help="which ones are drawn (1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--only", action="append", choices=list(TESTS), help="a module (all)")
    parser.add_argument("--results", type=Path, help="a file to go on from, one JSON object a line")
    options = parser.parse_args()
    chosen = draw(options.count, options.seed, options.only or list(TESTS))
    with tempfile.TemporaryDirectory() as folder:
        results = options.results.resolve() if options.results else Path(folder) / "results.jsonl"
        run(chosen, options.jobs, results)
        print(table(chosen, results)[0])


if __name__ == "__main__":
    main()
