"""The set-up of a fresh machine, with stand-ins for the machine's own commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).parents[3] / "tools/bootstrap.sh"
#: What every Debian has and the script uses for real.
ESSENTIAL = ("sh", "env", "mkdir", "flock", "chmod", "cat", "true", "sed")
LOCK = """one==1.0 \\
    --hash=sha256:11
uv==0.9 \\
    --hash=sha256:22 \\
    --hash=sha256:33
zwei==2.0 \\
    --hash=sha256:44
"""
OLD_PYTHON = "#!/bin/sh\nexit 1\n"


@dataclass
class Machine:
    """A folder as checkout, and another as the only one on the path."""

    folder: Path
    uid: int = 1000
    has_sudo: bool = False
    installed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.checkout = self.folder / "checkout"
        self.bin = self.folder / "bin"
        for made in (self.checkout, self.bin):
            made.mkdir()
        for name in ESSENTIAL:
            program = shutil.which(name)
            assert program is not None
            (self.bin / name).symlink_to(program)

    def add(self, name: str, script: str) -> None:
        """Puts a command on the path."""
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def add_debian(self) -> None:
        """The commands of Debian, which record what they are called to install."""
        note = f'#!/bin/sh\necho "$DEBIAN_FRONTEND $0 $*" >> {self.folder}/asked\n'
        self.add("apt-get", note.replace("$0", "apt-get"))
        self.add("id", f"#!/bin/sh\necho {self.uid}\n")
        self.add("sudo", '#!/bin/sh\nshift\nexec "$@"\n' if self.has_sudo else "#!/bin/sh\nexit 1\n")
        known = " | ".join(self.installed) or "none"
        self.add(
            "dpkg-query",
            f"#!/bin/sh\nfor last; do :; done\ncase $last in {known}) printf installed ;; *) exit 1 ;; esac\n",
        )

    def add_python(self, name: str = "python3", *, has_ensurepip: bool = True, is_optimized: bool = True) -> None:
        """The interpreter of the tests under ``name``, quick to make environments, with itself as their python.

        Debian's has no ensurepip before its package is installed.
        """
        lacks = "" if has_ensurepip else f'[ -e {self.folder}/asked ] || case "$2" in *ensurepip*) exit 1 ;; esac'
        plain = f'case "$2" in *CONFIG_ARGS*) exit {"0" if is_optimized else "1"} ;; esac'
        self.add(
            name,
            f"""#!/bin/sh
{lacks}
{plain}
if [ "$1 $2 $3" = "-m venv --clear" ]; then
    mkdir -p "$4/bin"
    printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' >"$4/bin/python"
    chmod +x "$4/bin/python"
    exit
fi
exec {sys.executable} "$@"
""",
        )

    def add_environment(self, pip_configuration: str = "", *, uv_status: int | None = None) -> Path:
        """An environment whose pip and uv record what they install and from where; pip brings a uv with it that ends
        with ``uv_status``, or none.
        """
        programs = self.checkout / "venv/bin"
        programs.mkdir(parents=True)
        brings = "" if uv_status is None else f"cp {self.folder}/uv {programs}/uv"
        scripts = {
            programs / "python": f"""#!/bin/sh
case "$*" in
    *'config list') printf '%s' "{pip_configuration}" ;;
    *' /dev/stdin') echo "pip $*" >> {self.folder}/asked; cat >> {self.folder}/asked; {brings} ;;
    *) echo "pip $*" >> {self.folder}/asked ;;
esac
""",
            self.folder / "uv": f"""#!/bin/sh
echo "uv $*" >> {self.folder}/asked
env | grep -E '^(UV_|SSL_CERT_FILE)' | sort >> {self.folder}/asked
exit {uv_status}
""",
        }
        for path, script in scripts.items():
            path.write_text(script)
            path.chmod(0o755)
        for name in ("cp", "grep", "sort"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        (self.checkout / "lock").write_text(LOCK)
        return programs

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BOOTSTRAP), *arguments],
            cwd=self.checkout,
            env={"PATH": str(self.bin), **env},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def asked(self) -> list[str]:
        """The recorded calls of Debian's commands."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []


def test_without_any_python_the_message_says_which_is_required(tmp_path: Path) -> None:
    done = Machine(tmp_path).run("venv", ".local/venv")
    assert done.returncode != 0
    assert "no Python 3.10 to 3.14" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_a_newer_python_beside_an_old_python3_is_found(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("python3", OLD_PYTHON)
    machine.add_python("python3.12")
    done = machine.run("venv", ".local/venv")
    assert done.returncode == 0, done.stderr
    assert (machine.checkout / ".local/venv/bin/python").exists()
    assert done.stdout == ""


@pytest.mark.parametrize("lacks", [{"is_optimized": False}, {"has_ensurepip": False}], ids=["optimizations", "venv"])
def test_an_optimized_python_further_on_the_path_is_preferred(tmp_path: Path, lacks: dict[str, bool]) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder in (first, second):
        folder.mkdir()
    machine = Machine(first)
    machine.add_python(**lacks)
    other = Machine(second)
    other.add_python()
    done = machine.run("venv", ".local/venv", PATH=f"{machine.bin}:{other.bin}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith(str(other.bin / "python3"))


def test_without_an_optimized_python_the_first_is_used(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_python(is_optimized=False)
    machine.add_python("python3.12", is_optimized=False)
    done = machine.run("venv", ".local/venv")
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith(str(machine.bin / "python3"))


def test_a_python_that_is_requested_and_too_old_is_refused_by_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("python3.9", OLD_PYTHON)
    machine.add_python()
    done = machine.run("venv", ".local/venv", PYTHON="python3.9")
    assert done.returncode != 0
    assert "PYTHON=python3.9 is not" in done.stderr


@pytest.mark.slow
def test_an_environment_that_works_is_kept(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_python()
    machine.run("venv", ".local/venv")
    kept = machine.checkout / ".local/venv/kept"
    kept.touch()
    assert machine.run("venv", ".local/venv").returncode == 0
    assert kept.exists()


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_python()
    machine.run("venv", ".local/venv")
    (machine.checkout / ".local/venv/bin/python").unlink()
    assert machine.run("venv", ".local/venv").returncode == 0
    assert (machine.checkout / ".local/venv/bin/python").exists()


def test_pip_installs_uv_of_the_lock_and_uv_the_rest(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_environment(uv_status=0)
    assert machine.run("requirements", "venv", "lock").returncode == 0
    first, *block, second = machine.asked
    assert first.startswith("pip -m pip install")
    assert first.endswith("--require-hashes --requirement /dev/stdin")
    assert block == LOCK.splitlines()[2:5]
    assert second.startswith("uv pip install --quiet --python venv/bin/python")
    assert second.endswith("--require-hashes --requirement lock")
    machine.run("project", "venv")
    assert machine.asked[5].endswith("--no-deps --no-build-isolation --editable .")


def test_uv_finds_packages_where_pip_is_configured_to(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    configured = """:env:.index-url='https://one/simple'
:env:.timeout='7'
global.cert='/ca.pem'
global.extra-index-url='\\nhttps://two/simple\\nhttps://three/simple'
global.index-url='https://overridden/simple'
install.find-links='/a /b'
"""
    machine.add_environment(configured, uv_status=0)
    machine.run("requirements", "venv", "lock", UV_FIND_LINKS="/mine")
    assert machine.asked[5:] == [
        "SSL_CERT_FILE=/ca.pem",
        "UV_DEFAULT_INDEX=https://one/simple",
        "UV_FIND_LINKS=/mine",
        "UV_INDEX=https://two/simple https://three/simple",
    ]
    (tmp_path / "asked").unlink()
    machine.run("requirements", "venv", "lock")
    assert machine.asked[3] == "UV_FIND_LINKS=/a,/b"


@pytest.mark.parametrize(
    ("configured", "uv_status"),
    [("", None), ("", 1), ("global.no-index='true'\n", 0)],
    ids=["no uv", "fails", "offline"],
)
def test_pip_installs_what_uv_does_not(tmp_path: Path, configured: str, uv_status: int | None) -> None:
    machine = Machine(tmp_path)
    machine.add_environment(configured, uv_status=uv_status)
    assert machine.run("requirements", "venv", "lock").returncode == 0
    assert machine.asked[-1].startswith("pip -m pip install")
    assert machine.asked[-1].endswith("--require-hashes --requirement lock")


@pytest.mark.parametrize(("uid", "has_sudo"), [(0, False), (1000, True)])
def test_a_user_with_the_right_gets_debians_venv_package(tmp_path: Path, uid: int, has_sudo: bool) -> None:
    machine = Machine(tmp_path, uid=uid, has_sudo=has_sudo)
    machine.add_debian()
    machine.add_python(has_ensurepip=False)
    done = machine.run("venv", ".local/venv")
    assert done.returncode == 0, done.stderr
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    assert machine.asked == [
        " apt-get update -qq",
        f"noninteractive apt-get install --yes -qq --no-install-recommends {package}",
    ]


def test_a_user_without_the_right_gets_the_command(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_debian()
    machine.add_python(has_ensurepip=False)
    done = machine.run("venv", ".local/venv")
    assert done.returncode != 0
    assert machine.asked == []
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    assert f"sudo apt-get update && sudo apt-get install --yes --no-install-recommends {package}" in done.stderr


def test_only_missing_packages_of_a_list_are_installed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uid=0, installed=["jq"])
    machine.add_debian()
    (machine.checkout / "list").write_text("# why\n\njq\nskopeo\nrunc\n")
    assert machine.run("debian", "list").returncode == 0
    assert machine.asked[-1].endswith("--no-install-recommends skopeo runc")


def test_nothing_is_requested_when_all_of_a_list_exists(tmp_path: Path) -> None:
    machine = Machine(tmp_path, installed=["jq", "runc"])
    machine.add_debian()
    (machine.checkout / "list").write_text("jq\nrunc\n")
    assert machine.run("debian", "list").returncode == 0
    assert machine.asked == []


def test_where_there_is_no_apt_get_the_packages_are_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.checkout / "list").write_text("jq\nrunc\n")
    done = machine.run("debian", "list")
    assert done.returncode != 0
    assert "jq runc" in done.stderr


def test_go_builds_what_is_listed_in_the_given_folder(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.checkout / "list").write_text("# why\n\nexample.org/one@v1.0.0\nexample.org/two@v2.0.0\n")
    machine.add("go", f'#!/bin/sh\necho "$* in $GOBIN" >> {tmp_path}/asked\ncat\n')
    done = machine.run("go", "list", ".local/go/bin")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    folder = machine.checkout / ".local/go/bin"
    assert folder.is_dir()
    assert machine.asked == [f"install example.org/{name} in {folder}" for name in ("one@v1.0.0", "two@v2.0.0")]


def test_a_program_that_cannot_be_built_ends_the_set_up(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.checkout / "list").write_text("example.org/one@v1.0.0\nexample.org/two@v2.0.0\n")
    machine.add("go", f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\nexit 1\n')
    assert machine.run("go", "list", ".local/go/bin").returncode != 0
    assert machine.asked == ["install example.org/one@v1.0.0"]


def test_without_go_the_message_says_what_is_missing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.checkout / "list").write_text("example.org/one@v1.0.0\n")
    done = machine.run("go", "list", ".local/go/bin")
    assert done.returncode != 0
    assert "built with Go, which is not on the path" in done.stderr
