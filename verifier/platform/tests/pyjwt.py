"""Writes a key set and tokens as GitHub, GitLab and Buildkite do, with PyJWT.

usage: pyjwt.py AUDIENCE NOW
Standard output: one JSON object: "keys" is the key set, "tokens" has a token by system, and "tampered" one
whose payload was changed after it was signed.
"""

import json
import sys

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from jwt.utils import base64url_encode

audience, now = sys.argv[1], int(sys.argv[2])
commit = "9f3182061f1e2cca4702c368cbc039b7dc9d4485"
common = {"aud": audience, "iat": now, "nbf": now - 5, "exp": now + 300, "jti": "1", "sub": "s"}
claims = {
    "github": {
        "iss": "https://token.actions.githubusercontent.com",
        "repository": "acme/app",
        "ref": "refs/heads/main",
        "sha": commit,
        "workflow_ref": "acme/app/.github/workflows/ci.yml@refs/heads/main",
        "run_id": "42",
        "run_attempt": "1",
    },
    "gitlab": {
        "iss": "https://gitlab.com",
        "project_path": "acme/app",
        "ref": "main",
        "sha": commit,
        "pipeline_id": "42",
        "job_id": "43",
    },
    "buildkite": {
        "iss": "https://agent.buildkite.com",
        "organization_slug": "acme",
        "pipeline_slug": "app",
        "build_branch": "main",
        "build_tag": None,
        "build_commit": commit,
        "build_number": 42,
        "job_id": "43",
    },
}
private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
tokens = {
    system: jwt.encode({**common, **own}, private, algorithm="RS256", headers={"kid": "k"})
    for system, own in claims.items()
}
header, _, signature = tokens["github"].split(".")
payload = json.dumps({**common, **claims["github"], "repository": "acme/other"}).encode()
tampered = ".".join([header, base64url_encode(payload).decode(), signature])
keys = {"keys": [{**public, "kid": "k", "alg": "RS256", "use": "sig"}]}
print(json.dumps({"keys": keys, "tokens": tokens, "tampered": tampered}))
