#!/usr/bin/env python3
"""Verifies a result, independently of Assay.

    pip install -r requirements.txt
    verify.py FOLDER
"""

import base64
import json
import pathlib
import sys

import rfc3161_client
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from google.protobuf import json_format
from in_toto_attestation.predicates.scai.v0 import scai_pb2
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

PREDICATES = {
    "https://slsa.dev/verification_summary/v1": vsa_pb2.VerificationSummary,
    "https://in-toto.io/attestation/scai/v0.3": scai_pb2.AttributeReport,
}


def chain(authority):
    certificates = authority["certChain"]["certificates"]
    return [
        x509.load_der_x509_certificate(base64.b64decode(c["rawBytes"], validate=True))
        for c in certificates
    ]


def proven_time(bundle, root, signature):
    """When the signature existed, by every time stamp and every authority."""
    stamps = bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    times = []
    for stamp in stamps:
        response = rfc3161_client.decode_timestamp_response(
            base64.b64decode(stamp["signedTimestamp"], validate=True)
        )
        authority, *between, anchor = chain(root["timestampAuthorities"][0])
        builder = rfc3161_client.VerifierBuilder().tsa_certificate(authority)
        for certificate in between:
            builder = builder.add_intermediate_certificate(certificate)
        builder.add_root_certificate(anchor).build().verify_message(response, signature)
        times.append(response.tst_info.gen_time)
    return min(times)


def verify_leaf(leaf, root, time, identity):
    *between, anchor = chain(root["certificateAuthorities"][0])
    builder = PolicyBuilder().store(Store([anchor])).time(time)
    verified = builder.build_client_verifier().verify(leaf, between)
    if verified.subjects != [x509.UniformResourceIdentifier(identity)]:
        sys.exit(f"signed by {verified.subjects}, not by {identity}")
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.CODE_SIGNING not in usages:
        sys.exit("the certificate is not for signing")


def verify_statement(envelope, key):
    signed = Envelope.from_dict(envelope)
    (signature,) = signed.signatures.values()
    signed.verify([SSlibKey.from_crypto(key, keyid=signature.keyid)], 1)
    if signed.payload_type != "application/vnd.in-toto+json":
        sys.exit(f"not a statement: {signed.payload_type}")
    parsed = json_format.Parse(signed.payload, statement_pb2.Statement())
    statement = Statement.copy_from_pb(parsed)
    statement.validate()
    predicate = PREDICATES[parsed.predicate_type]()
    body = json.loads(signed.payload)["predicate"]
    # As SLSA's text has them; in-toto's schema knows no versions, and one level instead of a list.
    body.get("verifier", {}).pop("version", None)
    if not isinstance(body.pop("verifiedLevels", []), list):
        sys.exit("verifiedLevels is not a list")
    # Strict: any other field that the schema does not have is an error.
    json_format.ParseDict(body, predicate)


def main(folder):
    folder = pathlib.Path(folder)
    bundle = json.loads((folder / "bundle.json").read_text())
    root = json.loads((folder / "trusted_root.json").read_text())
    identity = (folder / "identity").read_text()
    material = bundle["verificationMaterial"]
    leaf = x509.load_der_x509_certificate(
        base64.b64decode(material["certificate"]["rawBytes"], validate=True)
    )
    envelope = bundle.get("dsseEnvelope")
    text = envelope["signatures"][0]["sig"] if envelope else bundle["messageSignature"]["signature"]
    signature = base64.b64decode(text, validate=True)
    time = proven_time(bundle, root, signature)
    verify_leaf(leaf, root, time, identity)
    if envelope:
        verify_statement(envelope, leaf.public_key())
    else:
        artifact = (folder / "artifact").read_bytes()
        leaf.public_key().verify(signature, artifact, ec.ECDSA(SHA256()))
    print(f"verified: signed {time} by {identity}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
