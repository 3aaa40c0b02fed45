# shellcheck shell=bash
# Sourced by run.sh: what a bare machine needs before it can run the guide's commands, and how it is left.
# No host name stands here: packages come from wherever this machine's apt and pip are set to get them.

PACKAGES="podman buildah runc netavark aardvark-dns fuse-overlayfs slirp4netns iptables debootstrap curl python3-venv"
PODMAN_COMPOSE=1.6.0 # Debian 12's own knows no profiles
BASE_CACHE=${COMPOSE_BASE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/triton-repo/compose-base}
SUITE=bookworm

say() { printf '== %s (%s s)\n' "$*" "$SECONDS"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

install_packages() {
  [[ $(id -u) == 0 ]] || die "make compose-test needs root"
  local missing=() package
  for package in $PACKAGES; do
    dpkg-query --show --showformat='${Status}' "$package" 2> /dev/null | grep -q ' installed$' || missing+=("$package")
  done
  [[ ${#missing[@]} == 0 ]] && return
  say "apt-get install ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
}

# A storage, networks and settings of our own: nothing of the machine's containers is seen or touched.
prepare_work() {
  work=$(mktemp -d /var/tmp/compose-test.XXXXXX)
  chmod 755 "$work"
  trap clean_up EXIT
  trap "exit 130" INT
  trap "exit 143" TERM
  mkdir "$work/networks" "$work/tmp"
  export TMPDIR=$work/tmp
  cat > "$work/containers.conf" << CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
lock_type = "file"
events_logger = "file"
tmp_dir = "$work/libpod"
[network]
network_backend = "netavark"
network_config_dir = "$work/networks"
CONF
  cat > "$work/storage.conf" << CONF
[storage]
driver = "overlay"
graphroot = "$work/storage"
runroot = "$work/run"
CONF
  if [[ $(stat --file-system --format %T "$work") == overlayfs ]]; then # a container: overlay does not lie on overlay
    printf '[storage.options.overlay]\nmount_program = "%s"\n' "$(command -v fuse-overlayfs)" >> "$work/storage.conf"
  fi
  export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf
  [[ -d /run/systemd/system ]] || export DISABLE_HC_SYSTEMD=true # podman's health checks are systemd timers
}

clean_up() {
  local status=$?
  trap - EXIT
  if ((status)); then podman ps --all || true; podman logs --latest 2>&1 | tail -n 40 || true; fi
  # podman itself first, so that mounts, network rules and name servers go too.
  podman pod rm --all --force > /dev/null 2>&1 || true
  podman rm --all --force --time 5 > /dev/null 2>&1 || true
  podman network prune --force > /dev/null 2>&1 || true
  podman rmi --all --force > /dev/null 2>&1 || true
  umount "$work/storage/overlay" 2> /dev/null || true
  rm -rf "$work"
  exit "$status"
}

# podman-compose, and a client for this side. pip's settings for the build: one file, and mounts of what it names.
prepare_python() {
  say "podman-compose and tritonclient"
  "${PYTHON:-python3}" -m venv "$work/venv"
  "$work/venv/bin/pip" install -qq --constraint constraints.txt \
    "podman-compose==$PODMAN_COMPOSE" onnx 'tritonclient[grpc,http]'
  build_args=$("$work/venv/bin/python" tests/compose/pip_mounts.py "$work/pip.conf")
  build_args+=" --network host"
}

# debootstrap's smallest Debian, from the mirror in this machine's apt sources, with its apt settings for reaching it.
import_base() {
  local archive=$BASE_CACHE/$SUITE.tar
  if [[ ! -e $archive ]]; then
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $SUITE" | head -n 1)
    [[ -n $mirror ]] || die "this machine's apt sources have no $SUITE"
    say "debootstrap $SUITE"
    debootstrap --variant=minbase "$SUITE" "$work/rootfs" "$mirror" > "$work/debootstrap.log" 2>&1 ||
      { tail "$work/debootstrap.log" >&2; die "debootstrap failed"; }
    { apt-config dump | grep -E '^Acquire::(https?::Proxy|Check-)' || true; } > "$work/rootfs/etc/apt/apt.conf.d/99machine"
    rm -rf "$work"/rootfs/var/cache/apt/archives/*.deb "$work"/rootfs/var/lib/apt/lists/*
    mkdir -p "$BASE_CACHE"
    tar --directory "$work/rootfs" --create --file "$archive.$$" . && mv "$archive.$$" "$archive"
    rm -rf "$work/rootfs"
  fi
  say "import the base image"
  podman import --quiet "$archive" localhost/compose-base:$SUITE > /dev/null
  export BASE_IMAGE=localhost/compose-base:$SUITE
}

# Docker Compose itself, to read the file: the machine's, or Debian 13's package unpacked (one program, needs no daemon).
# Prints the command; nothing where there is neither.
docker_compose_v2() {
  if command docker compose version > /dev/null 2>&1; then echo "command docker compose"; return; fi
  local plugin=$BASE_CACHE/docker-compose apt=$work/apt
  if [[ ! -x $plugin ]]; then
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/unpacked" "$BASE_CACHE"
    # This machine's own mirror, with the next suite's name.
    apt-get indextargets --format 'deb $(REPO_URI) trixie main' \
      'Created-By: Packages' "Codename: $SUITE" | head -n 1 > "$apt/sources.list"
    local options=(-o "Dir::State::lists=$apt/lists" -o "Dir::Cache::archives=$apt/archives" -o "Dir::Etc::sourceparts=-"
      -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
    { apt-get "${options[@]}" -qq update && cd "$apt" && apt-get "${options[@]}" -qq download docker-compose; } \
      > "$apt/log" 2>&1 || return 0
    dpkg --extract "$apt"/docker-compose_*.deb "$apt/unpacked"
    cp "$apt/unpacked/usr/libexec/docker/cli-plugins/docker-compose" "$plugin.$$" && mv "$plugin.$$" "$plugin"
  fi
  "$plugin" version > /dev/null 2>&1 && echo "$plugin"
}

free_ports() {
  "$work/venv/bin/python" - "$1" << 'CODE'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in held))
CODE
}
