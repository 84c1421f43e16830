#!/bin/sh
# Sets up the requirements of the Makefile's targets. Standard output stays empty.
#
#   bootstrap.sh venv FOLDER                a virtual environment
#   bootstrap.sh requirements FOLDER FILE   the locked packages of FILE in it, checked against their hashes
#   bootstrap.sh folder FOLDER FILE TARGET  these packages alone, by that environment, in the folder TARGET
#   bootstrap.sh project FOLDER             this project in it, editable
#   bootstrap.sh debian FILE                the Debian packages that FILE lists
#   bootstrap.sh go FILE FOLDER             the programs that FILE lists, built with Go in FOLDER
#   bootstrap.sh go-module SOURCE FOLDER    the programs of the Go module in SOURCE, as its go.sum locks it, in FOLDER
#
# Run from the checkout. A repeat is safe and quick. PYTHON chooses the interpreter.
set -eu

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# Installs the Debian packages $2..., or prints the command for it; $1 is their purpose.
install_debian() {
    purpose=$1
    shift
    if ! command -v apt-get >/dev/null; then
        fail "$purpose requires these packages, by their Debian names: $*"
    elif [ "$(id -u)" = 0 ]; then
        as_root='env'
    elif sudo -n true 2>/dev/null; then
        as_root='sudo -n env'
    else
        say "$purpose requires Debian packages, and this user may not install them. Run this, then the same command again:"
        fail "sudo apt-get update && sudo apt-get install --yes --no-install-recommends $*"
    fi
    say "Installing Debian packages: $*"
    $as_root apt-get update -qq >&2
    $as_root DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends "$@" >&2
}

is_installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null
}

# Those of distributions are compiled with optimizations; one from source only on request: pyenv's need up to a third more
# time.
is_optimized() {
    "$1" -c 'import sys, sysconfig; options = sysconfig.get_config_var("CONFIG_ARGS") or ""; sys.exit(sys.base_prefix != "/usr" and "--enable-optimizations" not in options)' 2>/dev/null
}

# Debian has these two in a separate package.
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Prints the interpreter to use: the first on the path that is optimized and complete, else the first.
choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_supported "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.10 to 3.14"
        printf '%s\n' "$PYTHON"
        return
    fi
    first=
    IFS=:
    for name in python3 python3.13 python3.12 python3.11 python3.14 python3.10; do
        for folder in $PATH; do
            candidate=$folder/$name
            [ -x "$candidate" ] && is_supported "$candidate" || continue
            first=${first:-$candidate}
            if is_optimized "$candidate" && has_venv "$candidate"; then
                printf '%s\n' "$candidate"
                return
            fi
        done
    done
    [ -n "$first" ] || fail "no Python 3.10 to 3.14 is on the path. Install one (Debian 12, Ubuntu 22.04 and later: apt-get install python3), or name one: make PYTHON=/path/to/python3"
    printf '%s\n' "$first"
}

make_venv() {
    ! "$1/bin/python" -m pip --version >/dev/null 2>&1 || return 0
    python=$(choose_python)
    if ! has_venv "$python"; then
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        install_debian 'A virtual environment' "$version-venv"
    fi
    say "Creating a virtual environment with $("$python" --version), $python"
    "$python" -m venv --clear "$1"
}

# uv installs in a tenth of pip's time: it is the first package of the file, and pip installs it.
install_requirements() {
    say "Installing the packages of $2"
    if [ ! -x "$1/bin/uv" ]; then
        sed -n '/^uv==/,/[^\\]$/p' "$2" | with_pip "$1" --require-hashes --requirement /dev/stdin || true
    fi
    with_uv_or_pip "$1" --require-hashes --requirement "$2"
}

install_in_folder() {
    say "Installing the packages of $2 in $3"
    rm -rf "$3"
    with_uv_or_pip "$1" --no-deps --target "$3" --require-hashes --requirement "$2"
}

install_project() { with_uv_or_pip "$1" --no-deps --no-build-isolation --editable .; }

# Installs $2... in the environment $1; by pip where uv does not run or finds less than pip does.
with_uv_or_pip() {
    if [ -x "$1/bin/uv" ]; then
        if with_uv "$@"; then return; fi
        say 'uv could not install them, pip tries'
    fi
    with_pip "$@"
}

with_pip() {
    environment=$1
    shift
    "$environment/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"
}

# In a subshell: what is exported is for uv alone. Nothing is compiled that is never imported.
with_uv() (
    environment=$1
    shift
    pip_configuration=$("$environment/bin/python" -m pip --disable-pip-version-check config list)
    case $pip_configuration in *.no-index=*) return 1 ;; esac
    pass_on index-url UV_DEFAULT_INDEX
    pass_on extra-index-url UV_INDEX
    pass_on find-links UV_FIND_LINKS ,
    pass_on trusted-host UV_INSECURE_HOST
    pass_on cert SSL_CERT_FILE
    "$environment/bin/uv" pip install --quiet --python "$environment/bin/python" --index-strategy unsafe-best-match "$@"
)

# Exports what pip is configured to have for $1 as $2, unless the user has set that. $3 separates several.
pass_on() {
    value=
    for section in global install :env:; do # the later wins, as for pip
        found=$(printf '%s\n' "$pip_configuration" | sed -n "s/^$section\.$1=['\"]\(.*\)['\"]\$/\1/p")
        [ -z "$found" ] || value=$found
    done
    value=$(printf '%s' "$value" | sed "s/\\\\n/ /g; s/^ *//; s/ *\$//; s/  */${3:- }/g")
    eval "kept=\${$2:-}"
    [ -z "$value" ] || [ -n "$kept" ] || export "$2=$value"
}

install_listed() {
    missing=
    while read -r package; do
        case $package in '' | '#'*) continue ;; esac
        is_installed "$package" || missing="$missing $package"
    done <"$1"
    # shellcheck disable=SC2086  names of packages have no blanks
    [ -z "$missing" ] || install_debian 'The tests' $missing
}

# An absolute folder is what Go installs into; the programs themselves depend on no C library.
build_go() {
    command -v go >/dev/null || fail "The container clients are built with Go, which is not on the path (https://go.dev/dl/)"
    mkdir -p "$2"
    folder=$(cd "$2" && pwd)
    while read -r program; do
        case $program in '' | '#'*) continue ;; esac
        say "Building $program"
        CGO_ENABLED=0 GOBIN=$folder GOFLAGS=-buildvcs=false go install "$program" </dev/null
    done <"$1"
}

build_go_module() {
    command -v go >/dev/null || fail "The receivers are built with Go, which is not on the path (https://go.dev/dl/)"
    mkdir -p "$2"
    folder=$(cd "$2" && pwd)
    say "Building the programs of $1"
    (cd "$1" && CGO_ENABLED=0 GOBIN=$folder go install -buildvcs=false ./...)
}

# Two commands at once in one checkout take turns.
mkdir -p .local
exec 9>.local/bootstrap.lock
flock 9

task=$1
shift
case $task in
    venv) make_venv "$@" ;;
    requirements) install_requirements "$@" ;;
    folder) install_in_folder "$@" ;;
    project) install_project "$@" ;;
    debian) install_listed "$@" ;;
    go) build_go "$@" ;;
    go-module) build_go_module "$@" ;;
    *) fail "unknown task $task" ;;
esac
