"""Our processes run our packages, even in directories and environments with packages of the same names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import orderbell_start
from tests.machine import not_run
from tests.processes import REPOSITORY, clean_environment


def run(directory: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env={**clean_environment(), "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory that somebody works in, with a package of a name that we use."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").write_text("raise RuntimeError('not Orderbell, but theirs')\n")
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("service", ["sender", "receiver"])
def test_service_is_ours_in_a_directory_with_a_shared_of_its_own(project: Path, service: str) -> None:
    done = run(project, "-m", service)
    assert done.returncode == 2
    assert "orderbell: ORDERBELL_API_KEYS: missing" in done.stderr  # so far it came, and needed our `shared`
    assert "theirs" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("module", ["sender", "receiver", "receiver.serving.worker"])
def test_processes_that_we_start_are_ours_whatever_their_directory_has(project: Path, module: str) -> None:
    for name in ("sender", "receiver", "click", "structlog"):
        shutil.copytree(project / "shared", project / name)
    done = run(project, *orderbell_start.command(module)[1:], "--help")
    assert "theirs" not in done.stderr
    if module == "receiver.serving.worker":
        assert "invalid literal for int()" in done.stderr  # our worker wants numbers
    else:
        assert done.returncode == 0, done.stderr
        assert "--port" in done.stdout


def test_console_script_is_ours_in_an_environment_with_another_shared(project: Path) -> None:
    """It is found before ours, like one that is installed beside an editable Orderbell."""
    script = "import sys; from orderbell_start import main; sys.argv[1:] = ['--version']; main()"
    done = run(project, "-c", script, PYTHONPATH=f"{project}:{REPOSITORY}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("orderbell, version")


def test_console_script_is_declared_so() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"orderbell": "orderbell_start:main"}


@pytest.mark.parametrize("name", orderbell_start.PACKAGES)
def test_package_that_was_installed_over_ours_is_one_line(tmp_path: Path, name: str) -> None:
    for package in orderbell_start.PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    shutil.copy(REPOSITORY / "orderbell_start.py", tmp_path)
    (tmp_path / name / "__init__.py").write_text('"""Our common things."""\n')
    done = run(tmp_path, "-c", "import orderbell_start", PYTHONPATH="")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"orderbell: {tmp_path}/{name} is another package's")
    assert "pipx install" in line


def test_another_shared_that_was_imported_before_is_one_line(project: Path) -> None:
    (project / "shared" / "__init__.py").write_text("")
    done = run(project, "-c", "import shared, orderbell_start", PYTHONPATH=f"{project}:{REPOSITORY}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"orderbell: {project}/shared is another package's")


def test_our_packages_name_orderbell() -> None:
    for name in orderbell_start.PACKAGES:
        assert "Orderbell" in (REPOSITORY / name / "__init__.py").read_text(encoding="utf-8")


def test_console_script_of_this_environment_runs_from_any_directory(tmp_path: Path) -> None:
    """As `make` installed it, editable: a copy of the file would look for its neighbours beside itself."""
    script = Path(sys.executable).parent / "orderbell"
    if not script.exists():
        not_run("Orderbell is not installed in this environment: make .venv/run.stamp")
    done = subprocess.run(
        [script, "--version"], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "orderbell,"), done.stderr
