# SPDX-License-Identifier: LGPL-2.1-or-later
"""Certificates of a test's own, made by certtool(1) when it runs."""

import pathlib
import subprocess

EXPIRED = 'activation_date = "2020-01-01 00:00:00"\nexpiration_date = "2020-02-01 00:00:00"\n'
VALID = "expiration_days = 30\n"
# What a client's certificate is for.
CLIENT = "signing_key\ntls_www_client\n"
SERVER = "signing_key\ntls_www_server\n"


def certtool(*arguments):
    done = subprocess.run(["certtool", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 0, done.stderr


class Authority:
    """Issues certificates into its directory: NAME.crt and NAME.key."""

    def __init__(self, directory, name="authority"):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(exist_ok=True)
        self.crt, self.key = self.directory / "ca.crt", self.directory / "ca.key"
        self.crl_path = self.directory / "ca.crl"
        self._key(self.key)
        certtool("--generate-self-signed", f"--load-privkey={self.key}", f"--outfile={self.crt}",
                 self._template("ca", f'cn = "{name}"\nca\ncert_signing_key\ncrl_signing_key\n{VALID}'))
        self.revoke()

    def _template(self, name, text):
        path = self.directory / f"{name}.template"
        path.write_text(text)
        return f"--template={path}"

    @staticmethod
    def _key(path):
        certtool("--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", f"--outfile={path}")
        path.chmod(0o600)

    def issue(self, name, *, cn=None, uri=None, dns=None, purpose=CLIENT, validity=VALID, extra=""):
        """Returns the paths of the certificate and of its key."""
        crt, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        self._key(key)
        text = f'cn = "{cn or name}"\n{purpose}{validity}{extra}'
        text += f'uri = "{uri}"\n' if uri else ""
        text += f'dns_name = "{dns}"\n' if dns else ""
        certtool("--generate-certificate", f"--load-privkey={key}", f"--load-ca-certificate={self.crt}",
                 f"--load-ca-privkey={self.key}", f"--outfile={crt}", self._template(name, text))
        return crt, key

    def server(self, name="server", **options):
        return self.issue(name, dns="localhost", purpose=SERVER, extra='ip_address = "127.0.0.1"\n', **options)

    def revoke(self, *names):
        """The list of revoked certificates names these, and no others."""
        revoked = [f"--load-certificate={self.directory / name}.crt" for name in names]
        certtool("--generate-crl", f"--load-ca-certificate={self.crt}", f"--load-ca-privkey={self.key}",
                 f"--outfile={self.crl_path}", *revoked,
                 self._template("crl", "crl_next_update = 30\ncrl_number = 1\n"))
