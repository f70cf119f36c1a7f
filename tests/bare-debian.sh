#!/bin/sh
# Runs the README's two commands as a newcomer would, in a Debian that has make, Python and nothing else, and prints
# the seconds each took: tests/bare-debian.sh root|user [up|test|both]
#
# Needs root and mmdebstrap. Of this machine it takes over the certificate bundle and the settings of the package
# clients, without which a closed network could not be crossed; nothing of what is installed here. Everything runs
# in namespaces of its own: when it ends, so does all it started. BKAI_BARE=FOLDER keeps the system for the next run.
set -eu

as=${1:-root}
what=${2:-both}
here=$(cd "$(dirname "$0")/.." && pwd)

if [ "${BKAI_BARE_INSIDE:-}" != 1 ]; then
  base=${BKAI_BARE:-$(mktemp -d)}
  mkdir -p "$base"
  [ -n "${BKAI_BARE:-}" ] || trap 'rm -rf "$base"' EXIT
  [ -f "$base/bare.tar" ] || TMPDIR=$base mmdebstrap --quiet --mode=root --variant=minbase \
    --include=make,python3,python3-venv,ca-certificates "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$base/bare.tar" \
    "${BKAI_BARE_SOURCES:-/etc/apt/sources.list.d/debian.sources}"
  rm -rf "$base/root"
  mkdir "$base/root"
  tar -xf "$base/bare.tar" -C "$base/root"
  BKAI_BARE_INSIDE=1 unshare --mount --pid --fork "$0" "$as" "$what" "$base/root"
  exit
fi

root=$3
for each in dev sys; do mount --rbind "/$each" "$root/$each"; done
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
cp -r /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/" 2>/dev/null || true

home=/root
if [ "$as" = user ]; then
  chroot "$root" useradd --create-home --shell /bin/bash newcomer
  home=/home/newcomer
fi
[ ! -f "$HOME/.npmrc" ] || cp "$HOME/.npmrc" "$root$home/.npmrc"
git clone --quiet "$here" "$root$home/jupyterhub-bkai"
[ "$as" = root ] || chroot "$root" chown -R newcomer: "$home"

cat >"$root/measure" <<'MEASURE'
import os, re, signal, socket, subprocess, sys, time, urllib.request

with socket.socket() as probe:  # the network is this machine's, and so are its ports
    probe.bind(("127.0.0.1", 0))
    port = f"ARGS=--port {probe.getsockname()[1]}"

def wait_for_hub(log, process):
    """The seconds until the printed address answers."""
    begun = time.monotonic()
    while time.monotonic() - begun < 900:
        if process.poll() is not None:
            sys.exit(f"`make up` ended with {process.returncode}:\n{open(log).read()[-5000:]}")
        address = re.search(r"http://127\.0\.0\.1:\d+\S*", open(log).read())
        if address:
            try:
                urllib.request.urlopen(address[0].rstrip("/") + "/hub/api", timeout=2)
                return time.monotonic() - begun
            except OSError:
                pass
        time.sleep(0.05)
    sys.exit("The hub did not come up in 900 s.")

def up(name):
    log = f"/tmp/{name}.log"
    process = subprocess.Popen(["make", "up", port], stdout=open(log, "w"), stderr=subprocess.STDOUT, start_new_session=True)
    seconds = wait_for_hub(log, process)
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does: the whole foreground group
    code = process.wait(60)
    print(f"{name}: {seconds:.1f} s to the hub's answer; Ctrl-C: {time.monotonic() - begun:.1f} s, exit {code}", flush=True)
    print("".join(f"    {line}" for line in open(log).readlines()[-25:]), flush=True)

if sys.argv[1] in ("up", "both"):
    up("first make up")
    up("second make up")
if sys.argv[1] in ("test", "both"):
    begun = time.monotonic()
    code = subprocess.run(["make", "test"]).returncode
    print(f"make test: {time.monotonic() - begun:.0f} s, exit {code}")
    sys.exit(code)
MEASURE

bundle=/etc/ssl/certs/ca-certificates.crt
run="cd ~/jupyterhub-bkai && export LANG=C.UTF-8 SSL_CERT_FILE=$bundle PIP_CERT=$bundle NODE_EXTRA_CA_CERTS=$bundle"
run="$run && exec python3 /measure $what"
# Not exec: this shell is the first process here and buries what others leave behind, as init does elsewhere.
if [ "$as" = user ]; then
  chroot "$root" su - newcomer -c "$run" &
else
  chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "$run" &
fi
wait $!
