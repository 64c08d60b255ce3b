#!/usr/bin/env bash
# Installs the public packages that the interop cases run, at fixed versions, into target/interop:
# a Python environment (venv/), Node packages (node/) and, by apt, mosquitto's command-line clients.
# Called by run.py before every run; does nothing when the pins below are what is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
home=target/interop
mkdir -p "$home"

# paho-mqtt is the version that azure-iot-device asks for; the raw MQTT cases use the same one.
# six is imported by azure-iot-hub but not declared by it.
python_pins="azure-iot-device==2.14.0 azure-iot-hub==2.7.0 paho-mqtt==1.6.1 requests==2.34.2 six==1.17.0"
node_pins="azure-iot-device@1.18.4 azure-iot-device-mqtt@1.16.4 azure-iot-device-http@1.14.4 azure-iothub@1.16.6"

installed() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

if ! installed "$home/venv/.pins" "$python_pins"; then
  echo "setup: Python packages" >&2
  rm -rf "$home/venv"
  python3 -m venv "$home/venv"
  # shellcheck disable=SC2086
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check $python_pins >&2
  echo "$python_pins" >"$home/venv/.pins"
fi

if ! installed "$home/node/.pins" "$node_pins"; then
  echo "setup: Node packages" >&2
  rm -rf "$home/node"
  mkdir -p "$home/node"
  echo '{"private":true}' >"$home/node/package.json"
  # shellcheck disable=SC2086
  (cd "$home/node" && npm install --silent --no-audit --no-fund --save-exact $node_pins >&2)
  echo "$node_pins" >"$home/node/.pins"
fi

if ! command -v mosquitto_pub >/dev/null || ! command -v openssl >/dev/null; then
  echo "setup: mosquitto-clients, openssl" >&2
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  install() { DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y --no-install-recommends mosquitto-clients openssl >/dev/null; }
  install 2>/dev/null || { "${as_root[@]}" apt-get update >/dev/null && install; }
fi
