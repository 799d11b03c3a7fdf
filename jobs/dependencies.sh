#!/usr/bin/env bash
# Install what building and testing need and this system lacks (Debian, Ubuntu): as root, or through sudo where it asks for no password.
# Otherwise prints the one line to type and ends with 1.  Packages named as arguments are installed where they can be.
set -euo pipefail

needed=(build-essential cmake pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libzstd-dev zlib1g-dev libcriterion-dev libjansson-dev
  libpcre2-dev libutf8proc-dev libxxhash-dev libyaml-dev)
wished=(libdnnl-dev "$@") # the bench's yardstick, and what the caller wishes

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "This is no Debian or Ubuntu: please install what these packages hold there: ${needed[*]}" >&2
  exit 0
fi

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]; }
known() { [ -n "$(apt-cache madison "$1" 2>/dev/null)" ]; }

missing=()
for package in "${needed[@]}"; do installed "$package" || missing+=("$package"); done
wanted=()
for package in "${wished[@]}"; do installed "$package" || wanted+=("$package"); done

become=()
may_install=yes
if [ "$(id -u)" != 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then become=(sudo); else may_install=no; fi
fi

if [ ${#missing[@]} -gt 0 ] && [ "$may_install" = no ]; then
  echo "Packages are missing and there is neither root nor a sudo that asks for no password. Please type:" >&2
  echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

apt() { "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@"; }
install() { apt install -y --no-install-recommends "$@"; }

if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}" >&2
  lists=fresh
  for package in "${missing[@]}"; do known "$package" || lists=stale; done
  [ "$lists" = fresh ] || apt update
  if ! install "${missing[@]}"; then # lists that name versions which are gone
    apt update
    install "${missing[@]}"
  fi
fi

for package in "${wanted[@]}"; do
  if [ "$may_install" = no ] || ! known "$package"; then continue; fi
  install "$package" || echo "$package could not be installed: the bench will go without it" >&2
done
