"""`python -m bench.peers.install`: the peers' own dependencies, where the machine has what they need."""

from __future__ import annotations

import shutil
import subprocess
import sys

from bench.peers.gateways import DIRECTORY, MERCURE, PYTHON, SPRING


def main() -> None:
    _install_python()
    if shutil.which("npm"):
        subprocess.run(["npm", "ci", "--silent", "--ignore-scripts"], cwd=DIRECTORY, check=True)
    else:
        print("orderbell: no npm here: ws and Socket.IO are left out", file=sys.stderr)
    if not shutil.which("nginx"):
        print("orderbell: no nginx here: Nchan is left out (Debian: libnginx-mod-nchan)", file=sys.stderr)
    if shutil.which("go"):
        subprocess.run(["go", "build", "-o", MERCURE.name, "."], cwd=MERCURE.parent, check=True)
    else:
        print("orderbell: no Go here: Mercure is left out", file=sys.stderr)
    if shutil.which("mvn"):
        subprocess.run(["mvn", "-q", "-B", "package"], cwd=SPRING.parent.parent, check=True)
    else:
        print("orderbell: no Maven here: Spring's simple broker is left out", file=sys.stderr)


def _install_python() -> None:
    """Into an environment of their own: what they need is not what we need."""
    directory = PYTHON.parent.parent
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([*pip, "--requirement", str(DIRECTORY / "requirements.lock")], check=True)


if __name__ == "__main__":
    main()
