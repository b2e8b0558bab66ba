"""The benchmark's numbers as tables."""

from __future__ import annotations

from typing import Any


def print_one(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
    table = Table(title=f"{found['preset']} on {found['device']}, {threads}, torch {found['torch']}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for row in _rows(found):
        table.add_row(*row)
    table.caption = f"images/s are real images that D sees. Data: {found['data']}."
    Console().print(table)


def _rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    giga, milli = 1e9, 1e-3
    steps = "1 D step" if found["d_steps"] == 1 else f"{found['d_steps']} D steps"
    workers = "1 worker" if found["workers"] == 1 else f"{found['workers']} workers"
    rows = [
        ("images/s", f"{found['images_per_second']:,.1f}", f"{found['timed_steps']} steps, batch {found['batch']}"),
        ("D step", f"{found['seconds_D'] / milli:,.1f} ms", "median"),
        ("G step", f"{found['seconds_G'] / milli:,.1f} ms", "median, averaging included"),
        ("whole step", f"{found['step_seconds'] / milli:,.1f} ms", f"mean: {steps}, G step, data"),
        (
            "work per step",
            f"{found['flop_step'] / giga:,.2f} GFLOP",
            f"counted: D {found['flop_D'] / giga:,.2f}, G {found['flop_G'] / giga:,.2f}",
        ),
        ("achieved", f"{found['flop_per_second'] / giga:,.1f} GFLOP/s", "waiting for data left out"),
        (
            "matrix product",
            f"{found['matrix_flop_per_second'] / giga:,.1f} GFLOP/s",
            f"float32, best at {found['matrix_size']} x {found['matrix_size']}",
        ),
        ("achieved / matrix product", f"{found['of_matrix_rate']:.1%}", ""),
        ("data loader", f"{found['loader_images_per_second']:,.0f} images/s", f"alone, {workers}"),
        ("data loader / training", f"{found['loader_headroom']:,.1f} x", "above 1: it keeps up"),
        ("waiting for data", f"{found['waiting_share']:.2%}", "of a whole step"),
        ("peak memory", f"{found['peak_process_bytes'] / 2**20:,.0f} MiB", "this process and its libraries"),
    ]
    if "peak_gpu_bytes" in found:
        rows.append(("peak GPU memory", f"{found['peak_gpu_bytes'] / 2**20:,.0f} MiB", "allocated by torch"))
    return rows


CLOCKS = {"cpu": "this process's CPU time", "wall": "wall time"}


def print_ablation(found: dict[str, Any]) -> None:
    """A table for each case, plain networks first."""
    for case in found["cases"]:
        _print_case(case)


def _print_case(case: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{case['preset']}, batch {case['batch']}, {_steps(case)}, on {_where(case)}"
    table = Table(title=title)
    table.add_column("speed", no_wrap=True)
    for name in ("images/s", "ms", "CPU ms", "faster", "of mm", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in case["variants"].items():
        table.add_row(
            name,
            f"{one['images_per_second']:#.3g}",
            f"{1e3 * one['step_seconds']:,.0f}",
            f"{1e3 * one['cpu_seconds']:,.0f}",
            f"{one['faster']:.2f}",
            f"{one['of_matrix_rate']:.0%}",
            "" if one["peak_bytes"] is None else f"{one['peak_bytes'] / 2**20:,.0f}",
        )
    table.caption = (
        f"Medians of {case['rounds']} rounds, variants in turns; rates by {CLOCKS[case['clock']]}. of mm: the plain "
        f"networks' {case['flop_step'] / 1e9:,.1f} GFLOP over the machine's float32 matrix products, "
        f"{case['matrix_flop_per_second'] / 1e9:,.1f} GFLOP/s. MiB: peak memory of a step's tensors, without what is "
        f"allocated before. Best in float32: {case['best']}."
    )
    Console().print(table)


def _steps(found: dict[str, Any]) -> str:
    return "1 D step" if found["d_steps"] == 1 else f"{found['d_steps']} D steps"


def _where(found: dict[str, Any]) -> str:
    threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
    return f"{found['device']}, {threads}, torch {found['torch']}"


def print_growth(found: dict[str, Any]) -> None:
    """A row for each width and resolution, a column for each batch."""
    from rich.console import Console
    from rich.table import Table

    batches = sorted({cell["batch"] for cell in found["cells"]})
    table = Table(title=f"seconds a step (1 D step, 1 G step), {found['preset']} on {_where(found)}")
    for name in ("ch", "resolution", *(f"batch {batch}" for batch in batches)):
        table.add_column(name, justify="right")
    by_size = {(cell["ch"], cell["resolution"], cell["batch"]): cell for cell in found["cells"]}
    for ch, resolution in sorted({key[:2] for key in by_size}):
        cells = [by_size[ch, resolution, batch] for batch in batches]
        shown = (cell.get("left_out") or f"{cell['step_seconds']:,.3g}" for cell in cells)
        table.add_row(str(ch), str(resolution), *shown)
    laws = {name: law for name, law in found["exponents"].items() if law}
    table.caption = "; ".join(
        f"{name.removesuffix('_seconds')} ~ " + " ".join(f"{size}^{value:.2f}" for size, value in law.items())
        for name, law in laws.items()
    )
    Console().print(table)


def print_gpu(found: dict[str, Any]) -> None:
    """Time against batch beside the roofline, then what watching and determinism cost."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found['preset']}, {found['speed']['precision']}, {_steps(found)}, on {_where(found)}")
    for name in ("batch", "images/s", "ms", "ms, FLOP", "ms, bytes", "of mm", "GiB"):
        table.add_column(name, justify="right")
    for step in found["batches"]:
        if "left_out" in step:
            table.add_row(str(step["batch"]), step["left_out"])
            continue
        table.add_row(
            str(step["batch"]),
            f"{step['images_per_second']:,.1f}",
            *(f"{1e3 * step[key]:,.1f}" for key in ("step_seconds", "seconds_of_operations", "seconds_of_bytes")),
            f"{step['of_matrix_rate']:.1%}",
            "" if step["peak_bytes"] is None else f"{step['peak_bytes'] / 2**30:,.2f}",
        )
    rates = ", ".join(f"{name} {rate / 1e12:,.2f}" for name, rate in found["matrix_flop_per_second"].items())
    table.caption = (
        f"ms, FLOP and ms, bytes: a step's operations and traffic at the device's own rates. Products, TFLOP/s: "
        f"{rates}. Copies: {found['copied_bytes_per_second'] / 1e9:,.0f} GB/s. An image of a "
        f"step: {found['flop_per_image'] / 1e9:,.1f} GFLOP (plain networks), {found['bytes_per_image'] / 1e9:,.2f} GB "
        f"read and written. A monitor at every 10 steps: {found['watching']['share']:.1%} of the time. Deterministic "
        f"algorithms: {found['deterministic']['price']:+.1%}."
    )
    Console().print(table)


def print_watching(found: dict[str, Any]) -> None:
    """A line for each kind of monitor, and what its schedule costs."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What a monitor adds to a step: this process's CPU time, steps taking turns")
    table.add_column(no_wrap=True)
    for heading in ("step", "added", "in the monitor"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in found["kinds"].items():
        added = "" if name == "no monitor" else f"{row['added']:+.1%}"
        table.add_row(name, f"{1e3 * row['seconds']:,.1f} ms", added, f"{1e3 * row['inside']:,.1f} ms")
    table.caption = (
        f"Medians; the last column is a mean. The schedule, certified at every {found['schedule']} steps, takes "
        f"{found['scheduled_share']:.2%} of the time."
    )
    Console().print(table)
