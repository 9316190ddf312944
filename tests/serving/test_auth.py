"""Who may ask: keys and their rotation, tokens of the endpoint's own, and Entra tokens checked against published keys."""

import base64
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

AUDIENCE = "https://ml.azure.com"
SIGNING = "a-key-for-signing-of-32-letters!"


@pytest.fixture(scope="module")
def shop(lay_once: Any) -> Any:
    return lay_once({"blue": {}}).start().until_ready()


def test_both_keys_open_the_door_and_nothing_else_does(shop: Any) -> None:
    for key in ("first-key", "second-key"):
        assert shop.ask(b"[]", key=key).status == 200
    for key in ("", "third-key", "first-key ", "first-keyx", "irst-key", SIGNING, "kéy".encode().decode("latin-1")):
        refused = shop.ask(b"[]", key=key)
        assert refused.status == (200 if key.strip() == "first-key" else 401), key
    assert refused.json["error"]["code"] == "Unauthorized"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert shop.ask(b"[]", key="", Authorization="Basic first-key").status == 401
    assert shop.ask(b"[]", key="", Authorization="bearer first-key").status == 200  # a scheme's name has no case
    assert shop.ask(b"[]", key="", x_api_key="first-key").status == 401


def test_a_rotation_refuses_nobody_who_has_a_valid_key(shop: Any) -> None:
    seen: Counter[int] = Counter()
    current = ["second-key"]
    ended = threading.Event()

    def ask() -> None:
        connection = shop.connect()
        while not ended.is_set():
            seen[shop.ask(b"[]", key=current[0], connection=connection).status] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    for turn in range(20):  # everybody moves to the one key, then the other is made anew
        shop.keys(primary="shared", secondary=current[0], signing=SIGNING)
        current[0] = "shared"
        moved = seen.total()
        while thread.is_alive() and seen.total() < moved + 2:
            time.sleep(0.002)
        shop.keys(primary="shared", secondary=f"secondary-{turn}", signing=SIGNING)
        current[0] = f"secondary-{turn}"
        assert shop.ask(b"[]", key=current[0]).status == 200  # at once
    ended.set()
    thread.join()
    assert set(seen) == {200}
    shop.keys(primary="new", secondary="second-key", signing=SIGNING)
    assert shop.ask(b"[]", key="first-key").status == 401  # at once, too
    (shop.folder / "keys.json").unlink()
    assert shop.ask(b"[]", key="new").status == 401  # without keys nobody has one
    shop.keys(primary="first-key", secondary="second-key", signing=SIGNING)


def own(secret: str = SIGNING, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"iss": "mlops-nb", "aud": "dev/shop", "exp": time.time() + 600} | claims, secret, algorithm)


def test_a_token_of_the_endpoint_opens_it_until_it_expires(shop: Any) -> None:
    shop.save(auth_mode="aml_token")
    assert shop.ask(b"[]", key=own()).status == 200
    for seconds in (2, 4, 8, 16, 32):  # on a slow machine the first ones have expired when they arrive
        end = time.time() + seconds
        short = own(exp=end)
        if accepted := shop.ask(b"[]", key=short).status == 200:
            break
    assert accepted
    wrong = [own(exp=time.time() - 1), own(aud="dev/other"), own(iss="somebody"), own("another-key-for-signing-of-32-ch"),
             jwt.encode({"iss": "mlops-nb", "aud": "dev/shop"}, SIGNING), own("", "none"), "first-key", own()[:-2]]  # fmt: skip
    assert [shop.ask(b"[]", key=token).status for token in wrong] == [401] * len(wrong)
    time.sleep(max(0.0, end - time.time()))
    assert shop.ask(b"[]", key=short).status == 401
    shop.save(auth_mode="key")
    assert shop.ask(b"[]", key=own()).status == 401


KEYS = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in ("one", "two", "stranger")}


class Published(BaseHTTPRequestHandler):
    """A server of signing keys."""

    names = ("one",)
    fetched = 0

    def do_GET(self) -> None:
        Published.fetched += 1
        keys = [json.loads(RSAAlgorithm.to_jwk(KEYS[name].public_key())) | {"kid": name, "use": "sig"} for name in Published.names]
        content = json.dumps({"keys": keys}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def published() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Published)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/keys"
    server.shutdown()
    server.server_close()


def entra(signer: str = "one", kid: str = "one", **claims: Any) -> str:
    told = {"iss": "https://issuer/", "aud": AUDIENCE, "exp": time.time() + 600, "oid": "ada"} | claims
    return jwt.encode(told, KEYS[signer], "RS256", headers={"kid": kid})


def signed_with_the_public_key(claims: dict[str, Any]) -> str:
    """Sign with what everybody knows, as PyJWT refuses to."""
    public = KEYS["one"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256", "kid": "one"}, claims)]
    signature = hmac.digest(public, b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_an_entra_token_is_verified_against_the_published_keys(shop: Any, published: str) -> None:
    shop.save(auth_mode="aad_token", properties={"mlops_nb.jwks_uri": published, "mlops_nb.issuer": "https://issuer/"})
    good = entra()
    assert [shop.ask(b"[]", key=good).status for _ in range(5)] == [200] * 5
    claims = {"iss": "https://issuer/", "aud": AUDIENCE, "exp": time.time() + 600}
    wrong = {
        "expired": entra(exp=time.time() - 1), "another audience": entra(aud="https://management.azure.com"),
        "another issuer": entra(iss="https://sts.windows.net/stranger/"), "a stranger's signature": entra("stranger"),
        "an unknown key": entra("stranger", "stranger"), "no signature": jwt.encode(claims, "", "none"),
        "the public key as a secret": signed_with_the_public_key(claims),
        "no end": jwt.encode({"iss": "https://issuer/", "aud": AUDIENCE}, KEYS["one"], "RS256", headers={"kid": "one"}),
        "no token": "first-key", "cut": good[:-3],
    }  # fmt: skip
    assert {why: shop.ask(b"[]", key=token).status for why, token in wrong.items()} == dict.fromkeys(wrong, 401)
    assert Published.fetched <= 2  # whoever sends unknown keys does not make us fetch again and again
    assert shop.ask(b"[]", key=good).status == 200


def test_keys_that_cannot_be_fetched_hold_up_nobody_else(shop: Any) -> None:
    nowhere = "http://127.0.0.1:9/keys"
    shop.save(auth_mode="aad_token", properties={"mlops_nb.jwks_uri": nowhere, "mlops_nb.issuer": "https://issuer/"})
    assert shop.ask(b"[]", key=entra()).status == 401
    assert shop.ask(b"", "/health", "GET").status == 200
    shop.save(properties={})
    assert shop.ask(b"[]", key=entra()).status == 401  # no issuer is named
