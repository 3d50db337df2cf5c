# SPDX-License-Identifier: Apache-2.0
"""Certificates like those that Swarm gives its nodes."""

from __future__ import annotations

import subprocess
from pathlib import Path

MANAGER, WORKER = "swarm-manager", "swarm-worker"


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    command = ["openssl", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A Swarm's certificate authority."""

    def __init__(self, directory: Path, swarm_id: str) -> None:
        self.directory, self.swarm_id = directory, swarm_id
        directory.mkdir()
        self.key, self.certificate = directory / "ca.key", directory / "ca.crt"
        files = ("-keyout", str(self.key), "-out", str(self.certificate))
        openssl("req", "-x509", *NEW_KEY, *files, "-subj", "/CN=swarm-ca", "-days", "2")

    def issue(
        self, node_id: str, role: str = MANAGER, *, days: int = 1, swarm_id: str = ""
    ) -> Path:
        """A directory with a node's files, named and shaped as dockerd writes them."""
        home = self.directory / f"{node_id}-{role}-{days}-{swarm_id}"
        home.mkdir(exist_ok=True)
        subject = f"/O={swarm_id or self.swarm_id}/OU={role}/CN={node_id}"
        request = openssl("req", *NEW_KEY, "-keyout", str(home / "plain"), "-subj", subject)
        extensions = home / "extensions"
        extensions.write_text(
            f"subjectAltName=DNS:{role},DNS:{node_id}\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        signer = ("-CA", str(self.certificate), "-CAkey", str(self.key), "-CAcreateserial")
        validity = ("-days", str(days), "-extfile", str(extensions))
        signed = openssl("x509", "-req", *signer, *validity, stdin=request)
        (home / "swarm-node.crt").write_bytes(signed)
        (home / "swarm-root-ca.crt").write_bytes(self.certificate.read_bytes())
        (home / "swarm-node.key").write_bytes(self._swarms_key(home / "plain"))
        return home

    @staticmethod
    def _swarms_key(plain: Path) -> bytes:
        """Swarm's kind of key: of the curve's own type, with headers of Swarm's own."""
        lines = openssl("ec", "-in", str(plain)).splitlines(keepends=True)
        return b"".join([lines[0], b"kek-version: 0\nraft-dek: EAESKA==\n\n", *lines[1:]])
