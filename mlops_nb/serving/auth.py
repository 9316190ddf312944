"""Say who may ask: keys, tokens of our own, or tokens of Microsoft Entra."""

import asyncio
import hmac
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlops_nb.serving.route import Refused

log = logging.getLogger("front")
KNOWN = 1000  # accepted tokens that are remembered, so that each is verified once in a while only
REMEMBER = 300.0  # seconds
MOST = 100  # tokens that wait to be verified
REFRESH = 10.0  # seconds at least between two fetches of the signing keys
AUDIENCE = "https://ml.azure.com"


class Authentication:
    """The door's keys, read again whenever their file changes, so a rotation refuses nobody who has a valid one."""

    def __init__(self, path: str = "keys.json"):
        self.path = path
        self.stamp: tuple[int, int, int] | None = None
        self.keys: list[bytes] = []
        self.signing = ""
        self.mode, self.audience = "key", ""
        self.properties: dict[str, str] = {}
        self.known: dict[bytes, float] = {}  # accepted token -> until (wall clock)
        self.refused: dict[bytes, float] = {}
        self.thread: ThreadPoolExecutor | None = None
        self.client: Any = None
        self.fetched = self.failed = self.told = float("-inf")
        self.verifying = 0

    def follow(self, endpoint: dict[str, Any]) -> None:
        """Take over how the endpoint authenticates."""
        mode, properties = endpoint.get("auth_mode", "key"), endpoint.get("properties") or {}
        if (mode, properties) != (self.mode, self.properties):
            self.known.clear()
            self.refused.clear()
            self.client = None
        self.mode, self.properties = mode, properties
        self.audience = f"{endpoint['environment']}/{endpoint['name']}"

    def _read(self) -> None:
        """Read the keys if their file is another than before; without the file nobody has a key."""
        try:
            found = os.stat(self.path)
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp == self.stamp:
                return
            with open(self.path, "rb") as file:
                told = json.loads(file.read())
        except (OSError, ValueError) as problem:
            if self.stamp is not None:
                log.error("%s cannot be read (%s).", self.path, problem)
            self.stamp, self.keys, self.signing = None, [], ""
            return
        self.stamp = stamp
        self.keys = [told[which].encode() for which in ("primary", "secondary") if told.get(which)]
        self.signing = told.get("signing", "")
        self.known.clear()

    def allows(self, header: bytes) -> bool | None:
        """Check an Authorization header; None: it has to be asked with `allows_later`."""
        scheme, _, bearer = header.partition(b" ")
        bearer = bearer.strip()
        if scheme.lower() != b"bearer" or not bearer:
            return False
        if self.mode == "aad_token":
            if self.known.get(bearer, 0.0) > time.time():
                return True
            return None if len(bearer) < 16_384 else False
        self._read()
        if self.mode == "aml_token":
            return self.known.get(bearer, 0.0) > time.time() or self._signed_here(bearer)
        found = False
        for key in self.keys:
            found |= hmac.compare_digest(key, bearer)
        return found

    async def allows_later(self, header: bytes) -> bool:
        """Verify an Entra token in a thread: its keys may have to be fetched."""
        bearer = header.partition(b" ")[2].strip()
        if self.refused.get(bearer, 0.0) > time.time():
            return False
        if self.verifying >= MOST:
            raise Refused(503, "Busy", "Too many tokens are being verified. Send it again later.")
        self.thread = self.thread or ThreadPoolExecutor(1, thread_name_prefix="token")
        self.verifying += 1
        try:
            until = await asyncio.get_running_loop().run_in_executor(self.thread, self._signed_by_entra, bearer.decode("latin-1"))
        except Exception as problem:  # of PyJWT, of the network, of a token that is none
            if time.monotonic() - self.told > 1:  # whoever sends many fills no disk
                self.told = time.monotonic()
                log.warning("A token is refused: %s: %s", type(problem).__name__, problem)
            _remember(self.refused, bearer, time.time() + REFRESH)
            return False
        finally:
            self.verifying -= 1
        _remember(self.known, bearer, until)
        return True

    def _signed_here(self, bearer: bytes) -> bool:
        import jwt

        if not self.signing:
            return False
        try:
            claims = jwt.decode(bearer, self.signing, algorithms=["HS256"], audience=self.audience, issuer="mlops-nb",
                                options={"require": ["exp", "aud", "iss"]})
        except jwt.PyJWTError:
            return False
        _remember(self.known, bearer, min(claims["exp"], time.time() + REMEMBER))
        return True

    def _signed_by_entra(self, token: str) -> float:
        """Verify signature, issuer, audience and time; returns until when it need not be verified again."""
        import jwt

        tenant = self.properties.get("mlops_nb.tenant", "")
        both = [f"https://sts.windows.net/{tenant}/", f"https://login.microsoftonline.com/{tenant}/v2.0"]
        issuer = self.properties.get("mlops_nb.issuer") or (both if tenant else None)
        if not issuer:
            raise ValueError("the endpoint names no issuer: set the property mlops_nb.tenant, or mlops_nb.issuer and mlops_nb.jwks_uri")
        claims = jwt.decode(token, self._signing_key(token), algorithms=["RS256"], issuer=issuer,
                            audience=self.properties.get("mlops_nb.audience", AUDIENCE), options={"require": ["exp", "aud", "iss"]})
        return min(claims["exp"], time.time() + REMEMBER)

    def _signing_key(self, token: str) -> Any:
        """Find the key that signed a token; the keys are fetched anew for an unknown one, but not too often."""
        import jwt

        header = jwt.get_unverified_header(token)
        if header.get("alg") != "RS256":
            raise ValueError(f"signed with {header.get('alg')!r}, not with RS256")
        if self.client is None:
            uri = self.properties.get("mlops_nb.jwks_uri") or (
                f"https://login.microsoftonline.com/{self.properties['mlops_nb.tenant']}/discovery/v2.0/keys")
            self.client = jwt.PyJWKClient(uri, lifespan=3600, timeout=5)
        client, name = self.client, header.get("kid")
        if time.monotonic() - self.failed < REFRESH:
            raise ValueError("the signing keys could not be fetched a moment ago")
        for again in (False, True):
            if again and time.monotonic() - self.fetched < REFRESH:
                break
            if again:
                self.fetched = time.monotonic()
            try:
                keys = client.get_signing_keys(refresh=again)
            except jwt.PyJWKClientConnectionError:
                self.failed = time.monotonic()
                raise
            for key in keys:
                if key.key_id == name:
                    return key.key
        raise ValueError(f"no signing key {name!r}")


def _remember(tokens: dict[bytes, float], token: bytes, until: float) -> None:
    """Keep a token, and the whole within bounds."""
    if len(tokens) >= KNOWN:
        for old in list(tokens)[:KNOWN // 2]:
            del tokens[old]
    tokens[token] = until
