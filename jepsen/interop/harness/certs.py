"""Device certificates for the X.509 cases, made by openssl."""

import hashlib
import os
import ssl
import subprocess


def self_signed(folder, common_name):
    """A fresh RSA certificate and key. Gives their paths and both thumbprints, in upper-case hex as Azure shows them."""
    os.makedirs(folder, exist_ok=True)
    cert, key = os.path.join(folder, f"{common_name}.pem"), os.path.join(folder, f"{common_name}.key")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            f"/CN={common_name}",
            "-keyout",
            key,
            "-out",
            cert,
        ],
        check=True,
        capture_output=True,
    )
    with open(cert, encoding="ascii") as file:
        der = ssl.PEM_cert_to_DER_cert(file.read())
    return {
        "cert": cert,
        "key": key,
        "sha1": hashlib.sha1(der).hexdigest().upper(),
        "sha256": hashlib.sha256(der).hexdigest().upper(),
    }
