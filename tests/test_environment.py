"""One environment, written in several files that must agree; and installing it must not move what is already there."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from chapters import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13")
#: By hand only: with the torch that is pinned here, the network of the extra [fid] cannot be imported.
INSTALLED = {extra: lines for extra, lines in PROJECT["optional-dependencies"].items() if extra != "fid"}


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *INSTALLED.values()]
    return [Requirement(line) for group in groups for line in group]


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf8").split()
    return {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines)}


def test_constraints_satisfy_the_requirements():
    pins = constraints()
    for requirement in requirements():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_lowest_versions_are_the_lower_bounds():
    """``make test-lowest`` tests what is declared."""
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf8").splitlines()
    needed = map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
    assert lines == sorted({f"{one.name}=={bound.version}" for one in needed for bound in one.specifier})


def test_constraints_are_exact_and_say_nothing_of_the_machine():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines():
        assert re.fullmatch(r"[\w.-]+==[\w.!]+", line), line
    assert canonicalize_name(PROJECT["name"]) not in constraints()


def test_the_package_moves_nothing_that_is_recent_enough():
    """Its own dependencies have lower bounds only."""
    for line in PROJECT["dependencies"]:
        assert {bound.operator for bound in Requirement(line).specifier} == {">="}, line


def test_the_modules_import_what_is_declared():
    lines = PROJECT["dependencies"] + INSTALLED["data"] + INSTALLED["netcdf"]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    # None: there in every notebook
    distributions = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn"}
    distributions |= {"IPython": None, "ipywidgets": None}
    for path in (ROOT / "kodm_lite").rglob("*.py"):
        for name in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(encoding="utf8"), flags=re.MULTILINE):
            name = distributions.get(name, name)
            if name and name not in sys.stdlib_module_names and name != "kodm_lite":
                assert canonicalize_name(name) in declared, f"{path.name} imports {name}"


def test_conda_environment_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf8"))
    python, pip, nested = environment["dependencies"]
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip"
    extras = ",".join(INSTALLED)
    assert nested == {"pip": ["-c constraints.txt", f"-e .[{extras}]"]}


def test_declared_pythons():
    declared = SpecifierSet(PROJECT["requires-python"])
    assert [python for python in ("3.10", *PYTHONS, "3.14") if f"{python}.0" in declared] == list(PYTHONS)


def test_every_package_folder_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (ROOT / "kodm_lite").rglob("*.py")}
    assert set(listed) == {folder.relative_to(ROOT).as_posix().replace("/", ".") for folder in folders}


def stub(folder: Path, name: str, number: str) -> Path:
    """A wheel that claims to be a package: enough for pip, which is what is tested."""
    information = f"{name}-{number}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = {number!r}\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{information}/RECORD"))
    wheel = folder / f"{name}-{number}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{information}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


def test_installing_as_in_colab_moves_neither_torch_nor_numpy(tmp_path):
    """A real installation beside another torch and an older numpy, as a hosted notebook has them."""
    others = {"torch": "2.9.1", "scipy": "1.15.3", "matplotlib": "3.9.4", "scikit_image": "0.25.0", "tqdm": "4.67.0"}
    numpy = "2.0.2" if sys.version_info < (3, 13) else "2.1.3"
    assert {"torch": others["torch"], "numpy": numpy} != {name: version(name) for name in ("torch", "numpy")}
    wheels = [stub(tmp_path, name, number) for name, number in others.items()]

    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    prepared = subprocess.run([*pip, "--no-deps", *wheels, f"numpy=={numpy}"], capture_output=True, text=True)
    if prepared.returncode:
        pytest.skip(f"numpy {numpy} cannot be installed here: {prepared.stderr.strip().splitlines()[-1]}")

    source = tmp_path / "source"  # a copy, so that building leaves nothing in the repository
    modules = [path.relative_to(ROOT) for path in (ROOT / "kodm_lite").rglob("*.py")]
    for name in ("pyproject.toml", "README.md", "LICENSE", "kodm_lite/py.typed", *modules):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, source], check=True, cwd=tmp_path)

    # The stand-in for torch has no tensors, so the package is found but not imported.
    report = "from importlib.metadata import version as v; import numpy; "
    report += "print(v('torch'), v('numpy'), numpy.__version__, v('kodm_lite'))"
    seen = subprocess.run([python, "-c", report], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert seen.split() == [others["torch"], numpy, numpy, PROJECT["version"]]
