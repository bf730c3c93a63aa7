//! Ports that participants' audio comes on by RTP.
//!
//! In: what a platform agreed with its media server. Out: the port, served from now on.

use std::net::{IpAddr, SocketAddr};

use cuewire::audio::MAX_CHANNELS;
use cuewire::audio::rtp::{RtpCodec, RtpFormat};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ApiError, App, Code, Operation, check_user_id, input, read, short};
use crate::api::models::user_id;
use crate::api::schema::{self, Described, integer, one_of, request, text};
use crate::call::Cid;
use crate::ingest::rtp::{Agreed, Speaker, serve};
use crate::wire::request::carrier;
use crate::wire::token::{Token, UserToken};

/// What RFC 3551, 6 says of the payload types of which it says something.
const STATIC: [(u8, RtpCodec, u32, usize); 4] = [
    (0, RtpCodec::Pcmu, 8_000, 1),
    (8, RtpCodec::Pcma, 8_000, 1),
    (10, RtpCodec::L16, 44_100, 2),
    (11, RtpCodec::L16, 44_100, 1),
];
/// Whom a server vouches for has this role where it says so, as with a call token.
const VOUCHED_ROLE: &str = "call_member";

#[derive(Deserialize)]
struct Body {
    user_id: Option<String>,
    payload_type: u8,
    ssrc: Option<u32>,
    codec: Option<String>,
    clock_rate: Option<u32>,
    channels: Option<usize>,
    from: Option<String>,
}

fn name(codec: RtpCodec) -> &'static str {
    match codec {
        RtpCodec::Opus => "opus",
        RtpCodec::Pcmu => "pcmu",
        RtpCodec::Pcma => "pcma",
        RtpCodec::L16 => "L16",
    }
}

/// Codec, clock rate and channels; of a static payload type they may be left out.
fn format_of(body: &Body) -> Result<RtpFormat, ApiError> {
    let payload_type = body.payload_type;
    if payload_type > 127 || (64..96).contains(&payload_type) {
        return input(format!("payload_type is {payload_type}: allowed are 0 – 63 and 96 – 127"));
    }
    let known = STATIC.iter().find(|(known, ..)| *known == payload_type);
    let codec = match (body.codec.as_deref().map(str::to_ascii_lowercase).as_deref(), known) {
        (None, Some((_, codec, ..))) => *codec,
        (Some("opus"), _) => RtpCodec::Opus,
        (Some("pcmu"), _) => RtpCodec::Pcmu,
        (Some("pcma"), _) => RtpCodec::Pcma,
        (Some("l16"), _) => RtpCodec::L16,
        (Some(other), _) => return input(format!("codec is `{}`: allowed are opus, pcmu, pcma, L16", short(other))),
        (None, None) => return input("codec is missing: allowed are opus, pcmu, pcma, L16"),
    };
    let usual = match (known, codec) {
        (Some((_, _, rate, channels)), _) => Some((*rate, *channels)),
        (None, RtpCodec::Opus) => Some((48_000, 2)),
        (None, RtpCodec::Pcmu | RtpCodec::Pcma) => Some((8_000, 1)),
        (None, RtpCodec::L16) => None,
    };
    let Some(clock_rate) = body.clock_rate.or(usual.map(|(rate, _)| rate)) else {
        return input("clock_rate is missing: L16 needs one");
    };
    let channels = body.channels.or(usual.map(|(_, channels)| channels)).unwrap_or(1);
    if let Some((_, known, rate, most)) =
        known.filter(|known| (known.1, known.2, known.3) != (codec, clock_rate, channels))
    {
        let (codec, known) = (name(codec), name(*known));
        return input(format!(
            "payload_type {payload_type} with {codec}/{clock_rate}/{channels}: it is {known}/{rate}/{most} (RFC 3551)"
        ));
    }
    RtpFormat::new(codec, clock_rate, channels).map_err(|error| ApiError::new(Code::Input, error.to_string()))
}

/// An address, with its port or without.
fn sender_of(from: &str) -> Result<(IpAddr, Option<u16>), ApiError> {
    let with_port = from.parse::<SocketAddr>().map(|addr| (addr.ip(), Some(addr.port())));
    let (ip, port) = with_port.or_else(|_| from.parse::<IpAddr>().map(|ip| (ip, None))).map_err(|_| {
        let why = format!("from is `{}`: allowed is 192.0.2.1, 192.0.2.1:5004 or [2001:db8::1]:5004", short(from));
        ApiError::new(Code::Input, why)
    })?;
    Ok((ip.to_canonical(), port))
}

/// What opening and closing a port take and answer.
pub(super) fn described(operation: Operation) -> Described {
    if operation == Operation::CloseRtp {
        return Described::new("Closes a port: its participant leaves", schema::object(json!({})));
    }
    let port = || integer(1..=65535);
    let codec = || one_of([RtpCodec::Opus, RtpCodec::Pcmu, RtpCodec::Pcma, RtpCodec::L16].map(name));
    let ssrc = || integer(0..=u32::MAX.into());
    let orless = |schema: Value| json!({"anyOf": [schema, {"type": "null"}]});
    let (rate, channels) = (|| integer(1..=i64::from(u32::MAX)), || integer(1..=MAX_CHANNELS as i64));
    let fields = json!({
        "user_id": user_id(), "payload_type": integer(0..=127), "ssrc": ssrc(), "codec": text(), "clock_rate": rate(),
        "channels": channels(), "from": text(),
    });
    let answer = json!({
        "port": port(), "rtcp_port": port(), "address": text(), "user_id": text(), "payload_type": integer(0..=127),
        "ssrc": orless(ssrc()), "codec": codec(), "clock_rate": rate(), "channels": channels(), "from": orless(text()),
    });
    Described::new("Opens a port that a participant's RTP may come on", schema::object(answer))
        .body(request(&["payload_type"], fields))
}

/// Opens a port for a participant, who joins with its first packet.
pub(super) async fn open(app: &App, cid: Cid, token: Token, body: Map<String, Value>) -> Result<Value, ApiError> {
    let body: Body = read(body)?;
    let format = format_of(&body)?;
    let from = body.from.as_deref().filter(|from| !from.is_empty()).map(sender_of).transpose()?;
    let is_theirs = token != Token::Server;
    let token = match (token, body.user_id) {
        (Token::User(token), Some(said)) if said != token.user_id => {
            return Err(ApiError::new(Code::Authentication, "the user_id is not the token's"));
        }
        (Token::User(token), _) => token,
        (Token::Server, None) => return input("user_id is missing: who is to speak?"),
        (Token::Server, Some(user_id)) => {
            check_user_id(&user_id)?;
            let (role, call_cids) = (Some(VOUCHED_ROLE.to_string()), vec![cid.to_string()]);
            UserToken { user_id, role, call_cids, expires_at: None }
        }
    };
    let (of, joining) = (cid.clone(), token.clone());
    let could_join = app.host.read(move |change| {
        let actor = change.user_actor(&joining, &of);
        // Also whether there is room: said here, where somebody hears it. Who sends by RTP is told nothing.
        change.could_join(&of, &actor)
    });
    could_join.await?;
    let agreed = Agreed { format, payload_type: body.payload_type, ssrc: body.ssrc, from };
    let speaker = Speaker { cid, token, is_theirs };
    let bound = app.rtp.bind(&speaker)?;
    let answer = json!({
        "port": bound.port,
        "rtcp_port": bound.port + 1,
        "address": app.rtp.address(),
        "user_id": speaker.token.user_id,
        "payload_type": agreed.payload_type,
        "ssrc": agreed.ssrc,
        "codec": name(format.codec()),
        "clock_rate": format.clock_rate(),
        "channels": body.channels.unwrap_or(format.channels()),
        "from": body.from,
    });
    // What it logs has this request's id.
    let carried = carrier();
    app.sockets.spawn(carried(serve(app.host.clone(), bound, agreed, speaker, app.shutdown.clone())));
    Ok(answer)
}

/// Closes a port: its participant leaves.
pub(super) async fn close(app: &App, cid: &Cid, port: &str, token: &Token) -> Result<Value, ApiError> {
    let Ok(port) = port.parse() else {
        return input(format!("the port is `{}`: allowed are 1 – 65535", short(port)));
    };
    let user_id = match token {
        Token::Server => None,
        Token::User(token) => Some(token.user_id.as_str()),
    };
    app.rtp.close(cid, port, user_id).await?;
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn formats_and_senders_are_checked() {
        let parse = |fields: Value| {
            let body: Body = serde_json::from_value(fields).unwrap();
            format_of(&body).map_err(|error| error.message)
        };
        let format = |codec, rate, channels| Ok(RtpFormat::new(codec, rate, channels).unwrap());
        for (fields, expected) in [
            (json!({"payload_type": 0}), format(RtpCodec::Pcmu, 8_000, 1)),
            (
                json!({"payload_type": 8, "codec": "PCMA", "clock_rate": 8_000, "channels": 1}),
                format(RtpCodec::Pcma, 8_000, 1),
            ),
            (json!({"payload_type": 10}), format(RtpCodec::L16, 44_100, 2)),
            (json!({"payload_type": 97, "codec": "opus", "clock_rate": 48_000, "channels": 2}), Ok(RtpFormat::OPUS)),
            (json!({"payload_type": 96, "codec": "L16", "clock_rate": 16_000}), format(RtpCodec::L16, 16_000, 1)),
        ] {
            assert_eq!(parse(fields.clone()), expected, "{fields}");
        }
        for (fields, part) in [
            (json!({"payload_type": 96}), "codec is missing"),
            (json!({"payload_type": 96, "codec": "L16"}), "clock_rate is missing"),
            (json!({"payload_type": 96, "codec": "speex"}), "`speex`"),
            (json!({"payload_type": 72, "codec": "opus"}), "72: allowed are 0 – 63 and 96 – 127"),
            (json!({"payload_type": 200, "codec": "opus"}), "200"),
            (json!({"payload_type": 0, "codec": "pcma"}), "it is pcmu/8000/1"),
            (json!({"payload_type": 11, "clock_rate": 48_000}), "it is L16/44100/1"),
            (json!({"payload_type": 96, "codec": "opus", "clock_rate": 16_000}), "16000"),
        ] {
            let error = parse(fields.clone()).unwrap_err();
            assert!(error.contains(part), "{fields}: {error}");
        }
        assert_eq!(sender_of("192.0.2.1").unwrap(), ("192.0.2.1".parse().unwrap(), None));
        assert_eq!(sender_of("[2001:db8::1]:5004").unwrap(), ("2001:db8::1".parse().unwrap(), Some(5004)));
        assert_eq!(sender_of("::ffff:192.0.2.1").unwrap(), ("192.0.2.1".parse().unwrap(), None));
        assert!(sender_of("localhost:5004").unwrap_err().message.contains("`localhost:5004`"));
    }
}
