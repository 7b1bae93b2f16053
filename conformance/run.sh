#!/usr/bin/env bash
# Builds Weir, fetches the real clients at the versions pinned here and in go.mod and package-lock.json, and runs them
# against a server of its own on free loopback ports. Needs Go, node, npm and curl. What it fetches stays in .bin and
# node_modules, so only the first run is slow.
set -euo pipefail
cd "$(dirname "$0")"

natscli=v0.5.1
bin=$PWD/.bin
mkdir -p "$bin"

# again <command>: tries five times what needs the network, which fails now and then.
again() {
  local try
  for try in 1 2 3 4; do
    "$@" && return
    echo "conformance: failed, tried again in $((try * 10)) s: $*" >&2
    sleep $((try * 10))
  done
  "$@"
}

for program in go node npm curl; do
  command -v "$program" >/dev/null || { echo "conformance: $program is missing: install it and run this again" >&2; exit 1; }
done

if [[ "$("$bin/nats" --version 2>/dev/null || true)" != "$natscli" ]]; then
  GOBIN=$bin CGO_ENABLED=0 again go install "github.com/nats-io/natscli/nats@$natscli"
fi
(cd .. && CGO_ENABLED=0 go build -o "$bin/weir" ./cmd/weir)
CGO_ENABLED=0 go build -o "$bin/conformance" .
CGO_ENABLED=0 go test -c -o "$bin/openai-go-tests" github.com/openai/openai-go/v3

if ! cmp -s package-lock.json node_modules/.installed-lock; then
  again npm ci --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.installed-lock
fi

# The engine: llama.cpp as npm has it prebuilt, 66 MB, for Linux on x64. Without its optional packages, which are for other
# machines and large, and without its install script, which would look for a compiler.
engine=
if [[ "$(uname -sm)" == "Linux x86_64" ]]; then
  engine=engine/server.mjs
  if ! cmp -s engine/package-lock.json engine/node_modules/.installed-lock; then
    # Not npm ci, which insists on an optional package that the registry does not have. This keeps to the lock file as well.
    (cd engine && again npm install --no-save --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp engine/package-lock.json engine/node_modules/.installed-lock
  fi
fi

# The current SDK needs Node 22, which npm has as a package for Linux; the one before it runs on whatever is installed.
node22=node
for candidate in node_modules/node-linux-*/bin/node; do
  if [[ -x $candidate ]]; then node22=$candidate; fi
done

exec "$bin/conformance" --weir "$bin/weir" --nats "$bin/nats" --openai-go-tests "$bin/openai-go-tests" --node22 "$node22" --node node --engine "$engine" "$@"
