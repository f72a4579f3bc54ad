"""Hash what a config names by content: files and folders by bytes, a user's code by its source.

So a run keeps its hash when its data move, and gets another one when they change in place. Paths
that a run writes to do not count, nor does a folder that contains the working directory.
"""

import ast
import errno
import glob
import itertools
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab.data.files import data_files, format_of
from alignlab.errors import ConfigError, DataError
from alignlab.files import sha256, sha_of
from alignlab.names import recorded

WRITTEN = ("reference_cache", "memo", "default_root_dir", "save_dir", "dirpath")  # a run's own
MOST_FILES = 10_000  # of a folder that a run depends on
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def by_content(value: Any, experiment: Path = Path()) -> Any:
    """``value`` with the names of files, folders and a user's own code replaced by their hashes.

    Code of installed libraries counts by its name alone, and code of this package by the name that
    records have for it, wherever it has moved since.

    Args:
        value: A config, or a part of one.
        experiment: What ``{experiment}`` stands for in a path.

    Raises:
        ConfigError: A file cannot be read, or a folder holds more than ``MOST_FILES``.
    """
    if isinstance(value, Mapping):
        return {
            key: item if key in WRITTEN else by_content(item, experiment)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [by_content(item, experiment) for item in value]
    if isinstance(value, str) and ("/" in value or "." in value):
        path = Path(value.replace("{experiment}", str(experiment)))
        try:
            if path.is_file() or ("/" in value and path.is_dir() and not _holds_all(path)):
                _check_size(path)
                script = path.suffix == ".py" and path.is_file()
                return {"sha256": _sources(path) if script else fingerprint(path)}
            if glob.has_magic(value) and format_of(path):  # a pattern of data files
                return {"sha256": [sha256(file) for file in data_files(path) or ()]}
        except DataError:  # nothing readable matches; the stage will report it
            return value
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # a text that is no file's name
                raise ConfigError(f"{value}: {error.strerror}. Check the path.") from None
        if _DOTTED.fullmatch(value) and (source := source_of(value)) is not None:
            return {"code": value, "sha256": source}
        return recorded(value)
    return value


def fingerprint(path: Path) -> str:
    """sha256 of a file's bytes, or of a folder's file names and their sha256."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return sha_of({p.relative_to(path).as_posix(): sha256(p) for p in files})
    return sha256(path)


def _holds_all(folder: Path) -> bool:
    return Path.cwd().is_relative_to(folder.resolve())


def _check_size(path: Path) -> None:
    files = (name for _, _, names in os.walk(path) for name in names)  # of a file: none
    if next(itertools.islice(files, MOST_FILES, None), None) is not None:
        raise ConfigError(
            f"{path}: a folder of more than {MOST_FILES:,} files, too many to check for changes. "
            "Name the file or folder that is read."
        )


def source_of(name: str) -> str | None:
    """Hash of the file that defines ``package.module.Name``, and of the user's code it imports.

    ``None`` if the name is not in the user's own code.
    """
    seen = _with_imports({}, [name.rpartition(".")[0]])
    return sha_of(seen) if seen else None


def _sources(script: Path) -> str:
    """Hash of a Python file that is named by its path, and of the user's code it imports."""
    return sha_of(_with_imports({"": sha256(script)}, list(_imports(script, ""))))


def _with_imports(seen: dict[str, str], waiting: list[str]) -> dict[str, str]:
    """Add to ``seen`` the hashes of the user's modules in ``waiting``, and of their imports."""
    while waiting:
        module = waiting.pop()
        path = _own_file(module)
        if path is not None and module not in seen:
            seen[module] = sha256(path)
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            waiting += _imports(path, package)
    return seen


def _imports(path: Path, package: str) -> Iterator[str]:
    """Modules that a file may import; of ``from a import b`` both ``a`` and ``a.b``."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # only its hash is needed; a syntax error shows when it runs
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = [*(parents if node.level else []), *([node.module] if node.module else [])]
            base = ".".join(parts)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _own_file(module: str) -> Path | None:
    """The file of a module that is neither this package's nor an installed library's."""
    parts = module.split(".")
    if parts[0] in _NOT_OWN:
        return None
    roots = [str(Path.cwd()), *sys.path]
    for root in roots:  # not with importlib, which would run the code of parent packages
        base = Path(root).joinpath(*parts)
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if path.is_file() and not any(r in path.resolve().parents for r in _LIBRARIES):
                return path
    return None


_NOT_OWN = {"", "alignlab", *sys.stdlib_module_names, *sys.builtin_module_names}
_LIBRARIES = {
    Path(path).resolve()
    for path in (
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    )
}
