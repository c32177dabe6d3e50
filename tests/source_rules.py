"""What modules import, reach for and how large their functions are, read off their source."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "corrsteer"

# Modules by which a power is had, methods of any object, and functions (`open`, `os.remove`).
POWERS = {
    "files": (
        {"fileinput", "filelock", "mmap", "pyarrow.parquet", "shutil", "sqlite3", "tempfile"}
        | {"gzip", "tarfile", "zipfile"},
        {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "rmdir", "unlink"}
        | {"touch", "rename", "iterdir", "rglob", "symlink_to", "hardlink_to", "chmod"}
        | {"exists", "is_file", "is_dir", "from_pretrained", "save_pretrained"},
        {"open", "os.open", "os.fdopen", "os.link", "os.listdir", "os.makedirs", "os.mkdir"}
        | {"os.remove", "os.rename", "os.replace", "os.scandir", "os.unlink", "os.walk"},
    ),
    "processes": (
        {"concurrent.futures", "multiprocessing", "pty", "subprocess"},
        {"create_subprocess_exec", "create_subprocess_shell"},
        {"os.execv", "os.fork", "os.kill", "os.killpg", "os.popen", "os.spawnv", "os.system"},
    ),
    "network": (
        {"aiohttp", "asyncio", "datasets", "ftplib", "gradio", "http", "httpx"}
        | {"huggingface_hub", "ray", "requests", "smtplib", "socket", "socketserver", "ssl"}
        | {"urllib.request", "urllib3", "uvicorn", "webbrowser", "websockets"},
        {"push_to_hub", "snapshot_download", "hf_hub_download"},
        set(),
    ),
}


def powers(code: str) -> set[str]:
    """Which of `POWERS` a module reaches for."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        for power, (modules, methods, functions) in POWERS.items():
            if isinstance(node, ast.Import | ast.ImportFrom):
                if any(_within(name, modules) for name in _imported(node)):
                    found.add(power)
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                method = called.rpartition(".")[2] if isinstance(node.func, ast.Attribute) else ""
                opens = power == "files" and method == "open" and _opens_a_file(node)
                if called in functions or method in methods or opens:
                    found.add(power)
    return found


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """`a.b` of `import a.b`, `a` and `a.b` of `from a import b`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module or ""
    return [module, *(f"{module}.{alias.name}" for alias in node.names)]


def _within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _opens_a_file(call: ast.Call) -> bool:
    """Whether `x.open(..)` can be a path's: without arguments, or with a mode first."""
    mode = call.args[0] if call.args else None
    return mode is None or (
        isinstance(mode, ast.Constant) and isinstance(mode.value, str) and set(mode.value) <= _MODES
    )


_MODES = set("rwaxbt+")


def imports_among(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, also inside functions and for types alone.

    Args:
        sources: code by the module's full name.
    """
    graph = {}
    for module, code in sources.items():
        nodes = [
            node
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        named = set()
        for node in nodes:
            home, *members = _imported(node)
            if isinstance(node, ast.Import):
                named |= {home, *members}
            else:  # a member that is no module is of its home
                named |= {member if member in sources else home for member in members}
        graph[module] = (named & set(sources)) - {module}
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules of which each imports the next and the last the first; empty if there are none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if found := visit(other, [*path, module]):
                return found
        done.add(module)
        return []

    for module in sorted(graph):
        if found := visit(module, []):
            return found
    return []


@dataclass(frozen=True)
class Size:
    """How large a function is.

    Attributes:
        name: of the function, with its class.
        lines: from `def` to its last.
        parameters: without self and cls, and without `*` and `**`.
    """

    name: str
    lines: int
    parameters: int


def sizes(code: str) -> Iterator[Size]:
    """Every function and method of a module."""
    yield from _sizes_within(ast.parse(code), "")


def _sizes_within(parent: ast.AST, prefix: str) -> Iterator[Size]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef):
            yield from _sizes_within(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            own = [name for name in names if name not in ("self", "cls")]
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Size(prefix + node.name, lines, len(own))
            yield from _sizes_within(node, f"{prefix}{node.name}.")
        else:
            yield from _sizes_within(node, prefix)
