"""`python -m bench.peers.install`: the peers' own dependencies, where the machine has what they need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from bench.peers.gateways import CENTRIFUGO, DIRECTORY, GO, MERCURE, PYTHON, SPRING

_CENTRIFUGO = "github.com/centrifugal/centrifugo/v6@v6.9.1"


def main() -> None:
    _install_python()
    if shutil.which("npm"):
        subprocess.run(["npm", "ci", "--silent", "--ignore-scripts"], cwd=DIRECTORY, check=True)
    else:
        print("orderbell: no npm here: ws and Socket.IO are left out", file=sys.stderr)
    if not shutil.which("nginx"):
        print("orderbell: no nginx here: Nchan is left out (Debian: libnginx-mod-nchan)", file=sys.stderr)
    if shutil.which("go"):
        for program in (GO, MERCURE):
            subprocess.run(["go", "build", "-o", program.name, "."], cwd=program.parent, check=True)
        environment = {**os.environ, "GOBIN": str(CENTRIFUGO.parent)}
        subprocess.run(["go", "install", _CENTRIFUGO], env=environment, check=True)
    else:
        print("orderbell: no Go here: a gateway in Go, Centrifugo and Mercure are left out", file=sys.stderr)
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
