#!/usr/bin/env bash
# Installs the programs that make test needs on Debian and says what it installs. Without root it prints the command and fails.
# Requirements that FLEET_ALLOW_SKIP names are left out.
set -euo pipefail

# name in FLEET_ALLOW_SKIP (- for none), program, Debian package
requirements='
- java openjdk-17-jdk-headless
- mvn maven
- gcc gcc
- npm npm
- curl curl
- ip iproute2
redis redis-server redis-server
prometheus promtool prometheus
alertmanager amtool prometheus-alertmanager
chromium chromium chromium
tools pdftotext poppler-utils
'

packages=()
while read -r name program package; do
  allowed=${FLEET_ALLOW_SKIP:-}
  if [[ -n $program && ",${allowed// /}," != *",$name,"* ]] && ! command -v "$program" >/dev/null; then
    echo "make test needs $program, which is missing: Debian package $package"
    packages+=("$package")
  fi
done <<<"$requirements"
[[ " ${packages[*]} " == *" gcc "* ]] && packages+=(libc6-dev)
if ((!${#packages[@]})); then
  exit 0
fi

command="apt-get install -y --no-install-recommends ${packages[*]}"
if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
  echo "Install them, on Debian by: sudo $command" >&2
  echo "Or let the tests skip them: make test FLEET_ALLOW_SKIP=redis,chromium,…" >&2
  exit 1
fi
echo "Installing: $command"
apt-get update -q
DEBIAN_FRONTEND=noninteractive $command
