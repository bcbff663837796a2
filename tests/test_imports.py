"""The plan of the house: who may import whom, and how long things may be."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import kodm_lite

PACKAGE = Path(kodm_lite.__file__).parent

#: From the ground up: a module imports from lower floors only.  A folder is one room of its floor.
FLOORS = [
    "circular randomness validation files registry modes scores checks checkpoint_header version",
    "kinds schedules kernels kuramoto memory encoding orientation losses noise gibbs",
    "simulation priors samplers fokker_planck collective data pictures",
    "process euclidean metrics flows",
    "cumulants calibration networks sphere likelihood",
    "mean_field inpainting model",
    "fluctuation checkpoints",
    "objectives training",
    "builtin recipes kodm_lite",
    "reproduce",
    "cli",
    "__main__",
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS, 1) for room in rooms.split()}

LINES, FUNCTION, PARAMETERS = 400, 60, 10


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): ast.parse(path.read_text(), str(path)) for path in PACKAGE.rglob("*.py")}


class Imports(ast.NodeVisitor):
    """What is imported where the program runs: inside functions too, but nothing for type checkers alone."""

    def __init__(self, known):
        self.known, self.found = known, set()

    def visit_If(self, node):
        if "TYPE_CHECKING" in ast.unparse(node.test):
            node = ast.Module(node.orelse, [])
        self.generic_visit(node)

    def visit_Import(self, node):
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node):
        assert node.level == 0, "relative import"
        names = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        self.found |= {full if full in self.known else node.module for full in names.values()}


def imports_of(tree, known):
    visitor = Imports(known)
    visitor.visit(tree)
    return {name for name in visitor.found if name.split(".")[0] == "kodm_lite"}


def room_of(module):
    return module.split(".")[1] if "." in module else module


def arrows_up(modules):
    """Imports from another room that is not on a lower floor."""
    pairs = ((a, b) for a, tree in modules.items() for b in imports_of(tree, modules))
    return [f"{a} imports {b}" for a, b in pairs if room_of(a) != room_of(b) and FLOOR[room_of(a)] <= FLOOR[room_of(b)]]


def circle(modules):
    """The modules of a circle, if there is one."""
    try:
        TopologicalSorter({name: imports_of(tree, modules) for name, tree in modules.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_room_has_a_floor():
    assert {room_of(module) for module in MODULES} == set(FLOOR)
    assert len(FLOORS) <= 12 and sum(len(rooms.split()) for rooms in FLOORS) == len(FLOOR)


def test_imports_go_down():
    assert arrows_up(MODULES) == []


def test_no_module_imports_itself_by_a_detour():
    assert circle(MODULES) == []


@pytest.mark.parametrize(
    ("module", "line", "up"),
    [
        ("kodm_lite.circular", "def f():\n    from kodm_lite.process import STEPS", True),
        ("kodm_lite.samplers", "from kodm_lite import process", True),
        ("kodm_lite.training.loop", "import kodm_lite", True),
        ("kodm_lite.objectives", "import kodm_lite.training.state as s", True),
        ("kodm_lite.process", "if TYPE_CHECKING:\n    from kodm_lite.samplers import Run", False),
        ("kodm_lite.samplers", "if TYPE_CHECKING:\n    from kodm_lite.process import KuramotoProcess", False),
    ],
)
def test_an_arrow_up_is_seen(module, line, up):
    modules = {**MODULES, module: ast.parse(line)}
    assert bool(arrows_up(modules)) == up


def test_a_circle_in_a_room_is_seen():
    back = ast.parse("from kodm_lite.training.loop import fit")
    assert "kodm_lite.training.state" in circle({**MODULES, "kodm_lite.training.state": back})


def test_no_file_is_long():
    lines = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    assert not {name for name, count in lines.items() if count > LINES}


def functions():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text().splitlines()
        for node in ast.walk(ast.parse("\n".join(text))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                reason = any("# " in text[k] for k in (node.lineno - 2, node.lineno - 1))
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", node, reason


def test_no_function_is_long_without_a_reason():
    """Its description counts; the reason is a comment beside or above ``def``."""
    long = {name for name, node, reason in functions() if node.end_lineno - node.lineno >= FUNCTION and not reason}
    assert long == set()


def test_no_function_has_many_parameters_without_a_reason():
    def count(a):
        return len(a.posonlyargs + a.args + a.kwonlyargs) + (a.vararg is not None) + (a.kwarg is not None)

    many = {name for name, node, reason in functions() if count(node.args) > PARAMETERS and not reason}
    assert many == set()
