"""The version of the distribution that these packages are in."""

from __future__ import annotations

from pathlib import Path


def package_version() -> str:
    """The version of the source where this is run from one, else of the installed distribution."""
    import tomllib
    from importlib.metadata import packages_distributions, version

    package = Path(__file__).resolve().parent
    try:
        project = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        project = {}
    if package.name in project.get("scripts", {}) and "version" in project:
        return str(project["version"])
    for distribution in packages_distributions().get(package.name, ()):
        return version(distribution)
    return "unknown: neither installed nor run from its source"
