#!/usr/bin/env bash
# Installs the public packages that the interop cases run, at fixed versions, into target/interop:
# Python (venv/) and Node packages (node/), what stands in for S3 and Azure (moto/, azurite/; apart, so that
# the SDKs get the dependencies which they ask for). Called by run.py before every run; does nothing when the pins
# below are what is installed.
#
# First, by apt, what these need and is missing (Debian and its kin):
#   python3-venv        virtual environments with pip
#   nodejs, npm         Node 18 or later
#   mosquitto-clients   command-line clients, run as they are
#   chromium            the browser of the pages
#   openssl             makes certificates of devices
set -euo pipefail
cd "$(dirname "$0")/../.."
home=target/interop
mkdir -p "$home"

system_packages() {
  local missing=() as_root=()
  # A venv without pip is all that Debian's python3 can make by itself.
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
  command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v openssl >/dev/null || missing+=(openssl)
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    echo "setup: please install: ${missing[*]} (no apt-get here to do it)" >&2
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setup: run this as root, or install: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  echo "setup: installing ${missing[*]}" >&2
  install() { DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null; }
  install 2>/dev/null || { "${as_root[@]}" apt-get update >/dev/null && install; }
}
system_packages

# paho-mqtt is the version that azure-iot-device asks for; the raw MQTT cases use the same one.
# websocket-client is what azure-eventhub needs for WebSocket and doesn't ask for, as ws (Node) for @azure/event-hubs.
# six is imported by azure-iot-hub but not declared by it.
python_pins="azure-iot-device==2.14.0 azure-iot-hub==2.7.0 paho-mqtt==1.6.1 requests==2.34.2 six==1.17.0 azure-eventhub==5.15.1 websocket-client==1.9.2"
moto_pins="moto[s3]==5.2.5 flask==3.1.3 flask-cors==6.0.5"
node_pins="azure-iot-device@1.18.4 azure-iot-device-mqtt@1.16.4 azure-iot-device-http@1.14.4 azure-iothub@1.16.6 azure-iot-device-amqp@1.14.4 @azure/event-hubs@6.0.4 ws@8.23.0"
azurite_pins="azurite@3.35.0"
# Clients of realtime hubs, and what drives Chromium.
realtime_pins="@microsoft/signalr@10.0.11 @microsoft/signalr-protocol-msgpack@10.0.11 playwright-core@1.64.1"
realtime_python_pins="signalrcore==1.0.2"

installed() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

# python_packages FOLDER PINS
python_packages() {
  installed "$home/$1/.pins" "$2" && return
  echo "setup: Python packages ($1)" >&2
  rm -rf "${home:?}/$1"
  python3 -m venv "$home/$1"
  # shellcheck disable=SC2086
  "$home/$1/bin/pip" install --quiet --disable-pip-version-check $2 >&2
  echo "$2" >"$home/$1/.pins"
}
python_packages venv "$python_pins"
python_packages moto "$moto_pins"
python_packages realtime-venv "$realtime_python_pins"

# node_packages FOLDER PINS
node_packages() {
  installed "$home/$1/.pins" "$2" && return
  echo "setup: Node packages ($1)" >&2
  rm -rf "${home:?}/$1"
  mkdir -p "$home/$1"
  echo '{"private":true}' >"$home/$1/package.json"
  # shellcheck disable=SC2086
  (cd "$home/$1" && npm install --silent --no-audit --no-fund --save-exact $2 >&2)
  echo "$2" >"$home/$1/.pins"
}
node_packages node "$node_pins"
node_packages azurite "$azurite_pins"
node_packages realtime "$realtime_pins"
# What functions run with.
broker/workers/setup.sh "$PWD/target/workers" >&2
