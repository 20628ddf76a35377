"""A job's program with the package `spiffe`; prints what `workload_identity.rs` prints."""

import queue

from cryptography.x509.verification import PolicyBuilder, Store
from spiffe import JwtSvid, WorkloadApiClient
from spiffe.errors import PySpiffeError

AUDIENCE = "registry.example.org"


def say(*words):
    print(*words, flush=True)


def verify(svid, bundles):
    roots = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain).x509_authorities
    verifier = PolicyBuilder().store(Store(list(roots))).build_client_verifier()
    verifier.verify(svid.leaf, svid.cert_chain[1:])


def main():
    contexts = queue.Queue()
    with WorkloadApiClient() as client:
        # Outside of a job this says so; the stream would try again.
        client.fetch_x509_context()
        subscription = client.stream_x509_contexts(contexts.put, contexts.put)
        context = contexts.get()
        if isinstance(context, Exception):
            raise context
        # The package tells no hints: the order is the answer's, the default first.
        default, pool = context.x509_svids
        for name, svid in (("default", default), ("pool", pool)):
            verify(svid, context.x509_bundle_set)
            say(name, svid.spiffe_id)
        token = client.fetch_jwt_svid({AUDIENCE}).token
        bundles = client.fetch_jwt_bundles()
        bundle = bundles.get_bundle_for_trust_domain(default.spiffe_id.trust_domain)
        say("jwt", JwtSvid.parse_and_validate(token, bundle, {AUDIENCE}).spiffe_id)
        try:
            JwtSvid.parse_and_validate(token, bundle, {"other.example.org"})
        except PySpiffeError:
            pass
        else:
            raise SystemExit("a token for somebody else")
        say("serial", format(default.leaf.serial_number, "x"))
        rotated = contexts.get()
        if isinstance(rotated, Exception):
            raise rotated
        verify(rotated.default_svid, rotated.x509_bundle_set)
        say("rotated", rotated.default_svid.spiffe_id)
        say("serial", format(rotated.default_svid.leaf.serial_number, "x"))
        subscription.cancel()


if __name__ == "__main__":
    try:
        main()
    except PySpiffeError as error:
        say("failed", error)
        raise SystemExit(1)
