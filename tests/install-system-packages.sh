#!/bin/sh
# Installs what the suite uses beyond Python, on Debian and Ubuntu and as root. Anywhere else it changes nothing and
# says what is missing: the tests that need it are then skipped with the reason, and fail under CI=true.
set -eu

missing=""
have() { command -v "$1" >/dev/null 2>&1; }
want() { # want PACKAGE COMMAND...: any of the commands will do
  package=$1
  shift
  for each in "$@"; do
    if have "$each"; then return 0; fi
  done
  missing="$missing $package"
}

want chromium chromium chromium-browser google-chrome
# Debian keeps the server programs away from PATH.
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || want postgresql postgres
# Debian keeps what a C program starts with apart from the compiler.
if [ -e /usr/include/stdio.h ]; then want gcc gcc cc; else missing="$missing gcc libc6-dev"; fi
want git git

[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && have apt-get; then
  echo "Installing for the tests:$missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update --quiet --quiet
  # shellcheck disable=SC2086 # a list of words on purpose
  apt-get install --quiet --quiet --yes --no-install-recommends $missing >/dev/null
else
  echo "Not installed here, the tests that need them say so:$missing" >&2
fi
