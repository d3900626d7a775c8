# shellcheck shell=bash
# What the scripts share. To be sourced, from bash, with -euo pipefail in force.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '\n== %s\n' "$*"; }

die() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

# Runs a command as root.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "not root, and there is no sudo: $*" "run this script as root"
  fi
}

# Puts cargo in the PATH, and finds the pinned toolchain under whatever name it is installed.
use_rust() {
  if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  command -v cargo >/dev/null ||
    die "cargo is missing" "install Rust with rustup (https://rustup.rs), then run this again"
  local pinned name
  pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
  if ! rustc --version >/dev/null 2>&1 && command -v rustup >/dev/null; then
    for name in $(rustup toolchain list 2>/dev/null | cut -d' ' -f1); do
      if rustc "+$name" --version 2>/dev/null | grep -q "^rustc $pinned "; then
        export RUSTUP_TOOLCHAIN=$name
      fi
    done
  fi
  rustc --version >/dev/null 2>&1 ||
    die "Rust $pinned is not installed" "rustup toolchain install $pinned"
}

# Where cargo puts what it builds.
target_dir() { echo "${CARGO_TARGET_DIR:-$root/target}"; }

# Where scripts/setup puts the store's server, and which one is shipped. The oldest and the newest that are supported are
# tested as well, and Debian 12's is there to be refused.
readonly NATS_SERVER=2.14.6 NATS_SERVER_OLDEST=2.12.8 NATS_SERVER_NEWEST=2.15.1 NATS_SERVER_DEBIAN=2.9.10
nats_server_path() { echo "$(target_dir)/nats-server-${1:-$NATS_SERVER}/nats-server"; }
