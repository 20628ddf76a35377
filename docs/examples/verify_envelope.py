#!/usr/bin/env python3
"""Verifies a signed document with securesystemslib, independently of Assay.

    pip install 'securesystemslib[crypto]'
    verify_envelope.py ENVELOPE PAYLOAD_TYPE THRESHOLD KEY.pem...

Prints the files of the keys that signed; exits with 1 where they are fewer than THRESHOLD.
"""

import hashlib
import json
import sys

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey


def load(path):
    """A key under the identifier that Assay gives it: SHA-256 of its SPKI."""
    with open(path, "rb") as file:
        key = load_pem_public_key(file.read())
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SSlibKey.from_crypto(key, keyid="sha256:" + hashlib.sha256(spki).hexdigest())


def main(envelope_path, payload_type, threshold, *key_paths):
    with open(envelope_path, encoding="utf-8") as file:
        envelope = Envelope.from_dict(json.load(file))
    if envelope.payload_type != payload_type:
        sys.exit(f"the envelope is for {envelope.payload_type}, not for {payload_type}")
    names = {}
    keys = []
    for path in key_paths:
        key = load(path)
        names[key.keyid] = path
        keys.append(key)
    try:
        accepted = envelope.verify(keys, int(threshold))
    except VerificationError as error:
        sys.exit(f"not approved: {error}")
    for keyid in sorted(accepted):
        print(f"signed by {names[keyid]} ({keyid})")


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
