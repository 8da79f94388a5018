"""Installs the platform into .venv: `python3 install.py`, or `python3 install.py --tests` with what the tests need.
`python3 install.py --deploy` installs the tools of the tests of deploy/ into an environment of their own, .venv/deploy.

It needs Python 3.11 or newer and nothing else. Everything that it installs is pinned in requirements.lock (with tests:
requirements-tests.lock; the tools: requirements-deploy.lock). `make` calls it. A killed or half-made .venv is made anew.
"""

# Nothing that Python 3.6 lacks: an old one must get to the message that says which is needed.
import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time

NEEDED = (3, 11)
# Measured on Linux: what .venv takes, and what is needed while a package is unpacked.
PLATFORM_MB, TESTS_MB, DEPLOY_MB, SPARE_MB = 1500, 2500, 400, 1000
EVERY_SECONDS = 5.0
DEPLOY = "requirements-deploy.lock"
MARKS = {"requirements.lock": "installed", "requirements-tests.lock": "tests", DEPLOY: "tools"}


class InstallError(Exception):
    """The message says what is wrong and what to do."""


def check_python(version):
    """Raise InstallError if the interpreter is too old."""
    if tuple(version[:2]) < NEEDED:
        raise InstallError(
            f"Python 3.11 or newer is needed, and this is {version[0]}.{version[1]}. Name a newer one: "
            "make PYTHON=python3.12 demo"
        )


def check_place(folder, needed_mb):
    """Raise InstallError unless `folder` can be written to and has room."""
    if not os.access(folder, os.W_OK):
        raise InstallError(f"The folder {folder} cannot be written to: clone the repository into one that is yours.")
    free_mb = shutil.disk_usage(folder).free // 2**20
    if free_mb < needed_mb:
        raise InstallError(
            f"{free_mb} MB are free in {folder} and about {needed_mb} MB are needed: make room, or clone to another disk."
        )


def mirrors(config):
    """Variables for uv that say what pip is configured to use. `config`: what `pip config list` prints."""
    found = {}
    for line in config.splitlines():
        name, _, value = line.partition("=")
        found[name.rsplit(".", 1)[-1]] = value.strip("'\"")
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
    return {variable: found[name] for name, variable in names.items() if name in found and variable not in os.environ}


def size_mb(folder):
    """The size of the files below `folder`."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                total += os.lstat(os.path.join(top, name)).st_size
    return total // 2**20


class Venv:
    """A virtual environment of a checkout."""

    def __init__(self, root, name=".venv"):
        self.root = root
        self.name = name
        self.folder = os.path.join(root, name)
        self._unfinished = os.path.join(self.folder, "unfinished")
        scripts = "Scripts" if os.name == "nt" else "bin"
        self.python = os.path.join(self.folder, scripts, "python")
        self._own_uv = os.path.join(self.folder, scripts, "uv")

    def is_usable(self):
        """Whether the last installation came to its end and the interpreter still works."""
        if not os.path.exists(self.python) or os.path.exists(self._unfinished):
            return False
        return subprocess.call([self.python, "-c", ""], stderr=subprocess.DEVNULL) == 0

    def is_current(self, lock):
        """Whether what `lock` names was installed after the last change of it."""
        mark = os.path.join(self.folder, MARKS[lock])
        if not self.is_usable() or not os.path.exists(mark):
            return False
        inputs = [os.path.join(self.root, name) for name in (lock, "pyproject.toml")]
        return all(os.path.getmtime(mark) >= os.path.getmtime(path) for path in inputs)

    def make(self, uv):
        """Make .venv anew unless it is usable."""
        if self.is_usable():
            return
        if os.path.exists(self.folder):
            say(f"The folder {self.name} is not complete: it is made anew.")
            shutil.rmtree(self.folder)
        command = [uv, "venv", "--quiet", "--python", sys.executable, self.folder] if uv else None
        made = subprocess.run(
            command or [sys.executable, "-m", "venv", self.folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if made.returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            said = made.stdout.decode(errors="replace").strip()
            if "ensurepip" in said:
                raise InstallError(
                    "Python's module venv is not complete here. On Debian and Ubuntu: sudo apt install python3-venv"
                )
            raise InstallError(f"No virtual environment could be made:\n{said}")

    def install(self, lock, uv):
        """Install what `lock` names, and, but for the tools, the project itself."""
        with open(self._unfinished, "w"):
            pass
        environment = dict(os.environ)
        if not uv:
            pip = [self.python, "-m", "pip", "--disable-pip-version-check"]
            run([*pip, "install", "--quiet", pin_of("uv", os.path.join(self.root, "requirements-tests.lock"))])
            environment.update(mirrors(subprocess.check_output([*pip, "config", "list"]).decode()))
        install = [uv or self._own_uv, "pip", "install", "--python", self.python]
        run([*install, "--requirements", os.path.join(self.root, lock)], environment)
        if lock != DEPLOY:
            run([*install, "--no-deps", "--editable", self.root], environment)
        os.remove(self._unfinished)
        for name, mark in MARKS.items():
            # The tests' lock has everything that the platform's has.
            if name == lock or (lock == "requirements-tests.lock" and name == "requirements.lock"):
                with open(os.path.join(self.folder, mark), "w"):
                    pass


def pin_of(package, lock):
    """The line of a lock that pins a package."""
    with open(lock) as lines:
        return next(line.split(" ")[0].strip() for line in lines if line.startswith(package + "=="))


def run(command, environment=None):
    """Run a command that may take minutes, and show what it says, without its list of 160 packages. Raises InstallError if it
    fails."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, universal_newlines=True, bufsize=1)
    for line in process.stderr:
        if line.strip() and not line.startswith((" + ", " - ", " ~ ")):
            say("  " + line.rstrip())
    if process.wait():
        raise InstallError(
            f"The command failed: {' '.join(command)}\nIf it could not download, look at the network and pip's settings, "
            "then run this again: what was downloaded is kept."
        )


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell_progress(folder, expected_mb, done):
    """Say every few seconds how much is there, until `done` is set."""
    began = time.time()
    while not done.wait(EVERY_SECONDS):
        say(f"  {time.time() - began:3.0f} s, {size_mb(folder)} of about {expected_mb} MB installed")


def main(arguments, root):
    lock, expected_mb, name = "requirements.lock", PLATFORM_MB, ".venv"
    if arguments == ["--tests"]:
        lock, expected_mb = "requirements-tests.lock", TESTS_MB
    elif arguments == ["--deploy"]:
        lock, expected_mb, name = DEPLOY, DEPLOY_MB, os.path.join(".venv", "deploy")
    elif arguments:
        say(__doc__)
        return 2
    done = threading.Event()
    try:
        check_python(sys.version_info)
        venv = Venv(root, name)
        if venv.is_current(lock):
            return 0
        check_place(root, max(expected_mb - size_mb(venv.folder), 0) + SPARE_MB)
        say(f"Installing into {name}, about {expected_mb} MB, a minute, once ...")
        teller = threading.Thread(target=tell_progress, args=(venv.folder, expected_mb, done))
        teller.daemon = True
        teller.start()
        uv = shutil.which("uv")
        venv.make(uv)
        venv.install(lock, uv)
    except InstallError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Stopped. Run the same command again: it begins anew.")
        return 130
    finally:
        done.set()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.path.dirname(os.path.abspath(__file__))))
