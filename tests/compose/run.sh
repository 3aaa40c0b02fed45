#!/usr/bin/env bash
# make compose-test: the commands of docs/guides/containers.md under podman, on a bare Debian machine, as root.
#
# Installs podman by apt if it is missing, makes a base image with debootstrap from the machine's own mirror (cached), and
# runs everything in a storage of its own that is gone at the end. The machine's pip settings reach the build as mounts.
#   COMPOSE_BASE_CACHE  where the base image is kept (default ~/.cache/triton-repo/compose-base)
#   PYTHON              for the client on this side (default python3)
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/compose/machine.sh
source tests/compose/machine.sh
GUIDE=docs/guides/containers.md

# `docker compose` in the guide's commands is podman-compose here.
docker() {
  [[ $1 == compose ]] || die "not a command of the guide: docker $*"
  "$work/venv/bin/podman-compose" "--podman-build-args=$build_args" "${@:2}"
}

# The guide's block of that name, at the ports of this run.
guide() {
  say "guide: $1"
  local commands
  commands=$(awk -v mark="<!-- run by make compose-test: $1 -->" '
    $0 == mark { found = 1; next } found && /^```bash/ { inside = 1; next } inside && /^```/ { exit } inside' "$GUIDE")
  [[ -n $commands ]] || die "$GUIDE has no block '$1'"
  sed 's/^/  $ /' <<< "$commands"
  eval "${commands//localhost:8000/localhost:$HTTP_PORT}" > "$work/$1.log" 2>&1 ||
    { tail -n 60 "$work/$1.log" >&2; die "the guide's block '$1' failed"; }
}

check_file() {
  local compose profile
  compose=$(docker_compose_v2) || true
  if [[ -z $compose ]]; then say "no Docker Compose to be had: the file was read by podman-compose only"; return; fi
  say "Docker Compose reads the file: $($compose version --short)"
  for profile in gpu cpu perf '*'; do $compose --profile "$profile" config --quiet; done
}

container() { podman ps --quiet --filter "label=com.docker.compose.service=$1"; }

check_confined() {
  say "not root, nothing writable but /tmp, healthy by its own check"
  local id users
  id=$(container cpu)
  users=$(podman top "$id" user | tail -n +2 | sort -u)
  [[ $users == 1000 ]] || die "processes of the cpu container run as: $users"
  [[ $(podman exec "$id" id -u) == 1000 ]] || die "a command in the cpu container is not user 1000"
  [[ $(podman inspect --format '{{range .Mounts}}{{if eq .Destination "/models"}}{{.RW}}{{end}}{{end}}' "$id") == false ]] ||
    die "/models is not mounted read-only"
  local target
  for target in /models/x /x /opt/triton-repo/x; do
    podman exec "$id" sh -c ": > $target" 2> /dev/null && die "$target can be written"
  done
  podman exec "$id" sh -c ': > /tmp/x' || die "/tmp cannot be written"
  podman exec "$id" grep -q '^CapEff:\s*0*$' /proc/self/status || die "the container has capabilities"
  podman healthcheck run "$id" || die "the health check fails on a ready server"
}

check_offline() {
  say "without any network"
  podman run --rm --network none --read-only --tmpfs /tmp "$IMAGE" \
    python -c 'from serving import find_runtime; from perf.binary import find_binary
print(find_runtime().describe()); print(find_binary().origin)'
}

check_stop() {
  say "SIGTERM is enough"
  local id
  id=$(container cpu)
  podman stop --time 40 "$id" > /dev/null
  local status
  status=$(podman inspect --format '{{.State.ExitCode}}' "$id")
  [[ $status == 0 || $status == 143 ]] || die "the server ended with status $status after SIGTERM"
}

check_gone() {
  say "nothing is left"
  [[ -z $(podman ps --all --quiet) ]] || die "containers are left: $(podman ps --all)"
  [[ -z $(podman pod ps --quiet) ]] || die "pods are left: $(podman pod ps)"
  if curl --silent --max-time 2 "localhost:$HTTP_PORT/v2/health/live"; then die "something still answers"; fi
}

main() {
  install_packages
  prepare_work
  prepare_python
  import_base
  "$work/venv/bin/python" tests/compose/small_repository.py make "$work/models"
  export MODEL_REPOSITORY=$work/models
  read -r HTTP_PORT GRPC_PORT METRICS_PORT < <(free_ports 3)
  export HTTP_PORT GRPC_PORT METRICS_PORT
  IMAGE=$(sed -n 's/^TRITON_REPO_IMAGE=//p' .env)

  docker compose --profile cpu --profile perf --profile gpu config --quiet
  check_file
  guide build
  guide ready
  guide look
  grep -q '"name":"scale".*"state":"READY"' "$work/look.log" || die "the model is not ready: $(cat "$work/look.log")"
  say "a call over HTTP and gRPC from this side"
  "$work/venv/bin/python" tests/compose/small_repository.py call "localhost:$HTTP_PORT" "localhost:$GRPC_PORT"
  curl --fail --silent "localhost:$METRICS_PORT/metrics" | grep -q '^nv_inference_request_success{model="scale"' ||
    die "no metrics of the model"
  check_confined
  guide bench
  cat "$work/bench.log"
  grep -q '^scale  *4 ' "$work/bench.log" || die "bench-repo measured nothing"
  check_offline
  check_stop
  guide down
  check_gone
}

main
say "compose-test passed in $SECONDS s"
