"""Reads a bundle and a JWT-SVID with PyJWT, and writes tokens and keys of its own.

usage: pyjwt.py AUDIENCE KEY_SET_FILE TOKEN_FILE
Standard output: one JSON object: "claims" of the token, "made" with "keys" and "tokens" by algorithm.
"""

import json
import sys

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

# Times are fixed on both sides and not compared with the clock.
NOW = 1_790_000_000

audience, key_set, token = sys.argv[1:]
token = open(token, encoding="ascii").read()
keys = jwt.PyJWKSet.from_dict(json.load(open(key_set, encoding="utf-8")))
key = keys[jwt.get_unverified_header(token)["kid"]]
claims = jwt.decode(
    token,
    key,
    algorithms=["ES256"],
    audience=audience,
    options={"require": ["exp", "iat", "sub", "aud", "jti"], "verify_exp": False, "verify_iat": False},
)

made = {"keys": [], "tokens": {}}
for algorithm in ["ES256", "ES384", "RS256", "RS384", "RS512", "PS256"]:
    if algorithm.startswith("ES"):
        curve = ec.SECP256R1() if algorithm == "ES256" else ec.SECP384R1()
        private = ec.generate_private_key(curve)
        public = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    made["keys"].append({**public, "kid": algorithm, "alg": algorithm, "use": "jwt-svid"})
    payload = {
        "sub": "spiffe://builds.example.org/python",
        "aud": [audience],
        "iat": NOW,
        "exp": NOW + 60,
    }
    made["tokens"][algorithm] = jwt.encode(
        payload, private, algorithm=algorithm, headers={"kid": algorithm}
    )
print(json.dumps({"claims": claims, "made": made}))
