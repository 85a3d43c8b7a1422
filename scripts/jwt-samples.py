"""Writes gateway/src/access/samples.json: keys and tokens made by PyJWT, an implementation that the gateway does not use.

Run by scripts/jwt-samples.sh. Private keys are thrown away: the samples are only ever read. Tokens hold until 2100.
"""

import base64
import hashlib
import hmac
import json
import sys

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

EXPIRES = 4102444800
SECRET = "correct horse battery staple, thirty-two bytes"
CLAIMS = {
    "iss": "https://id.example",
    "aud": ["roomcast", "other"],
    "sub": "ann@example.org",
    "name": "Ann Ünal",
    "exp": EXPIRES,
    "iat": 1700000000,
    "rooms": {"join": ["lobby", "team-*"], "publish": ["team-*"], "history": ["lobby"]},
    "info": {"avatar": "https://a.example/ann.png", "level": 7},
}


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def confused(public_pem):
    """A token signed by HMAC with the text of a public key: what is public is no secret."""
    parts = [json.dumps({"typ": "JWT", "alg": "HS256"}), json.dumps(CLAIMS)]
    message = ".".join(base64url(part.encode()) for part in parts)
    return message + "." + base64url(hmac.new(public_pem.encode(), message.encode(), hashlib.sha256).digest())


def main(path):
    keys = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    p384 = ec.generate_private_key(ec.SECP384R1())
    jwks = []
    for name, key in keys.items():
        algorithm = jwt.get_algorithm_by_name(name)
        jwk = algorithm.to_jwk(key.public_key(), as_dict=True)
        jwks.append({**jwk, "kid": "key-" + name, "use": "sig", "alg": name})
    other = keys["ES256"].public_key()
    strangers = [
        {"kty": "oct", "kid": "secret", "k": base64url(SECRET.encode())},
        {"kty": "ML-DSA", "kid": "future", "alg": "ML-DSA-44", "pub": "AA"},
        {"kty": "EC", "kid": "no-point", "crv": "P-256", "x": "AA", "y": "AA"},
        {**jwt.get_algorithm_by_name("ES256").to_jwk(other, as_dict=True), "kid": "for-encryption", "use": "enc"},
        {**jwt.get_algorithm_by_name("ES384").to_jwk(p384.public_key(), as_dict=True), "kid": "p384"},
        {**jwt.get_algorithm_by_name("RS256").to_jwk(small.public_key(), as_dict=True), "kid": "small"},
        {"kid": 7},
        "nonsense",
    ]
    tokens = {name: jwt.encode(CLAIMS, key, algorithm=name, headers={"kid": "key-" + name}) for name, key in keys.items()}
    tokens["HS256"] = jwt.encode(CLAIMS, SECRET, algorithm="HS256")
    attacks = {
        "none": jwt.encode(CLAIMS, None, algorithm="none"),
        "RS256 key as secret": confused(pem(keys["RS256"])),
        "ES256 key as secret": confused(pem(keys["ES256"])),
        "PS256 by the RSA key": jwt.encode(CLAIMS, keys["RS256"], algorithm="PS256", headers={"kid": "key-RS256"}),
        "RS512 by the RSA key": jwt.encode(CLAIMS, keys["RS256"], algorithm="RS512", headers={"kid": "key-RS256"}),
        "HS512 by the secret": jwt.encode(CLAIMS, SECRET + SECRET, algorithm="HS512"),
        "another's RS256 key": jwt.encode(
            CLAIMS, rsa.generate_private_key(public_exponent=65537, key_size=2048), algorithm="RS256", headers={"kid": "key-RS256"}
        ),
    }
    samples = {
        "secret": SECRET,
        "pem": {name: pem(key) for name, key in keys.items()},
        "badPem": {"RSA of 1024 bits": pem(small), "P-384": pem(p384)},
        "jwks": {"keys": jwks + strangers},
        "tokens": tokens,
        "attacks": attacks,
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(samples, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
