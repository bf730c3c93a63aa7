//! Tokens: forged ones, and good ones of those who have nothing to say.

use super::*;

pub(crate) fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |part: &[u8]| {
        let bits = part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        (0..=part.len()).map(move |i| char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize])).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// What a token's header says and what it is signed with need not be the same.
pub(crate) fn forged(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    format!("{text}.{}", base64url(&sign(text.as_bytes())))
}

pub(crate) fn hs256(secret: &str) -> impl Fn(&[u8]) -> Vec<u8> + '_ {
    move |text| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    }
}

/// With the right secret, as HS256 has it.
pub(crate) fn signed(claims: &Value) -> String {
    forged(&json!({"alg": "HS256", "typ": "JWT"}), claims, hs256(SECRET))
}

/// Tokens that say to be alice's, who may everything in her call, or a server's; and the code of each.
pub(crate) fn tokens() -> Vec<(&'static str, String, i64)> {
    let (alice, server) = (json!({"user_id": "alice"}), json!({"server": true}));
    let seconds = now().as_nanos() / 1_000_000_000;
    let head = |alg: &str| json!({"alg": alg, "typ": "JWT"});
    let with = |field: &str, value: Value| {
        let mut claims = alice.clone();
        claims[field] = value;
        claims
    };
    let header = |field: &str, value: Value| {
        let mut header = head("HS256");
        header[field] = value;
        header
    };
    let hs384 = |text: &[u8]| {
        let mut mac = Hmac::<Sha384>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    };
    let hs512 = |text: &[u8]| {
        let mut mac = Hmac::<Sha512>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    };
    let of_theirs = json!({"kty": "oct", "alg": "HS256", "k": base64url(b"their own")});
    let whole = signed(&alice);
    let swapped = {
        let parts: Vec<_> = whole.split('.').collect();
        format!("{}.{}.{}", parts[0], base64url(server.to_string().as_bytes()), parts[2])
    };
    vec![
        ("none", String::new(), 5),
        ("rubbish", "rubbish".into(), 5),
        ("dots", "..".into(), 5),
        ("with the scheme of others", format!("Bearer {whole}"), 5),
        ("without a signature", whole.rsplit_once('.').unwrap().0.into(), 5),
        ("with an empty signature", format!("{}.", whole.rsplit_once('.').unwrap().0), 43),
        ("with a shorter signature", whole[..whole.len() - 3].into(), 43),
        ("longer than tokens are", signed(&with("x", json!("x".repeat(9000)))), 5),
        ("another secret's", forged(&head("HS256"), &alice, hs256("another")), 43),
        ("a server's, another secret's", forged(&head("HS256"), &server, hs256("another")), 43),
        ("an empty one, another secret's", forged(&head("HS256"), &json!({}), hs256("another")), 43),
        ("signed with the key", forged(&head("HS256"), &server, hs256(KEY)), 43),
        ("signed with nothing", forged(&head("HS256"), &server, hs256("")), 43),
        ("other claims under a signature", swapped, 43),
        ("expired", token_for("alice", -5), 40),
        ("a server's, expired", token_for("", -5), 40),
        ("expired before time", signed(&with("exp", json!(0))), 40),
        ("not yet valid", signed(&with("nbf", json!(seconds + 600))), 41),
        ("a server's, not yet valid", signed(&json!({"nbf": seconds + 600})), 41),
        ("issued in the future", signed(&with("iat", json!(seconds + 600))), 42),
        ("issued never", signed(&with("iat", json!(1e300))), 42),
        ("of a time that is none", signed(&with("exp", json!("never"))), 5),
        ("of a time before time", signed(&with("exp", json!(-1))), 5),
        ("unsigned", forged(&head("none"), &alice, |_| Vec::new()), 5),
        ("a server's, unsigned", forged(&head("none"), &server, |_| Vec::new()), 5),
        ("unsigned, in capitals", forged(&head("NONE"), &server, |_| Vec::new()), 5),
        ("unsigned, with a signature", forged(&head("none"), &server, hs256(SECRET)), 5),
        ("HS384", forged(&head("HS384"), &alice, hs384), 5),
        ("HS512", forged(&head("HS512"), &alice, hs512), 5),
        ("RS256, with the secret as its key", forged(&head("RS256"), &server, hs256(SECRET)), 5),
        ("ES256", forged(&head("ES256"), &server, |_| vec![0; 64]), 5),
        ("without an algorithm", forged(&json!({"typ": "JWT"}), &server, hs256(SECRET)), 5),
        ("with a key of its own", forged(&header("jwk", of_theirs), &server, hs256("their own")), 43),
        (
            "with its key's address",
            forged(&header("jku", json!("http://127.0.0.1:1/jwks")), &server, hs256("another")),
            43,
        ),
        ("with an empty file as its key", forged(&header("kid", json!("../../dev/null")), &server, hs256("")), 43),
        ("with a query as its key", forged(&header("kid", json!("' UNION SELECT 'x")), &server, hs256("x")), 43),
        ("a server's with a user", signed(&json!({"server": true, "user_id": "alice"})), 5),
        ("a user's that says it is no server's", signed(&json!({"server": false, "user_id": "alice"})), 5),
        ("a server's with a role", signed(&json!({"server": true, "role": "admin"})), 5),
        ("a server's with calls", signed(&json!({"server": true, "call_cids": ["locked:a"]})), 5),
        ("a server's as a text", signed(&json!({"server": "true"})), 5),
        ("a role's", signed(&json!({"role": "admin"})), 5),
        ("calls'", signed(&json!({"call_cids": ["locked:a"], "role": "admin"})), 5),
        ("nobody's", signed(&json!({"user_id": null})), 5),
        ("an empty user's", signed(&json!({"user_id": ""})), 5),
        ("several users'", signed(&json!({"user_id": ["alice"]})), 5),
        ("a user's with a line in it", signed(&json!({"user_id": "alice\n"})), 5),
        ("of calls that are none", signed(&with("call_cids", json!("locked:a"))), 5),
        ("a list's", signed(&json!(["alice"])), 5),
    ]
}

/// Tokens as they should be, of those who have nothing to say in alice's call.
pub(crate) fn strangers() -> Vec<(&'static str, String)> {
    let other = |claims: Value| signed(&claims);
    vec![
        ("without the grant", token("eve")),
        ("a guest", token("guest")),
        ("a role without a call", other(json!({"user_id": "eve", "role": "admin"}))),
        ("another call's", other(json!({"user_id": "eve", "role": "speaker", "call_cids": ["locked:b"]}))),
        (
            "many calls' that are not this one",
            other(json!({"user_id": "eve", "role": "admin", "call_cids":
                ["locked:*", "*", "locked:", ":a", "a", "locked:A", "locked:a ", "locked:a\u{0}", "default:a", "locked:a,b"]})),
        ),
        ("a role that nothing is granted", other(json!({"user_id": "eve", "role": "no", "call_cids": ["locked:a"]}))),
        ("a user of the same name in capitals", token("ALICE")),
    ]
}
