#!/usr/bin/env python3
"""Uses a job's identities from Python, and follows their rotation.

    pip install spiffe
    SPIFFE_ENDPOINT_SOCKET=unix:///run/assay/workload.sock workload_identity.py --audience NAME

Prints one line for each thing it was given: the X.509-SVID, the bundles, a JWT-SVID for the audience
and who it is of; that nobody else accepts the token; then, if asked to, rotations and the end of the
job's permit.
"""

import argparse
import threading
import time

from spiffe import WorkloadApiClient, X509Source
from spiffe.workloadapi.errors import FetchX509SvidError, ValidateJwtSvidError


def say(*words):
    print(*words, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audience", required=True, help="who the token is for")
    parser.add_argument("--rotations", type=int, default=0, help="how many to wait for")
    parser.add_argument("--until-end", action="store_true", help="wait for the permit's end")
    arguments = parser.parse_args()

    with WorkloadApiClient() as client:
        context = client.fetch_x509_context()
        say("x509", context.default_svid.spiffe_id)
        for bundle in context.x509_bundle_set.bundles:
            say("bundle", bundle.trust_domain, len(bundle.x509_authorities))
        token = client.fetch_jwt_svid({arguments.audience})
        say("jwt", token.spiffe_id, *sorted(token.audience))
        say("validated", client.validate_jwt_svid(token.token, arguments.audience).spiffe_id)
        try:
            client.validate_jwt_svid(token.token, "other.example.org")
        except ValidateJwtSvidError:
            say("refused", "other.example.org")

        if arguments.rotations:
            follow(arguments.rotations)
        while arguments.until_end:
            try:
                client.fetch_x509_context()
            except FetchX509SvidError as error:
                if "PERMISSION_DENIED" not in str(error):
                    raise
                say("ended", "PERMISSION_DENIED")
                break
            time.sleep(0.05)


def current(source):
    return source.get_x509_context().default_svid


def follow(rotations):
    changed = threading.Semaphore(0)
    with X509Source() as source:
        source.subscribe_for_updates(changed.release)
        last = current(source)
        say("watching", last.spiffe_id)
        for _ in range(rotations):
            # The first message may be told about as well.
            while current(source).leaf == last.leaf:
                changed.acquire()
            last = current(source)
            say("rotated", last.spiffe_id)


if __name__ == "__main__":
    main()
