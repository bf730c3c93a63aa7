//! Who they are is true, and what they want is not theirs.

use super::*;

#[test]
fn nobody_gives_what_they_do_not_have() {
    let service = Service::start();
    // Who creates a call may see it and keep its members, and no more.
    let grants = json!({
        "user": ["create-call", "read-call"], "host": ["read-call", "update-call-member"], "call_member": ["read-call"],
        "admin": ["read-call", "end-call", "start-transcription-call"],
    });
    service.ok("POST", "/api/v2/video/calltypes", "", &json!({"name": "small", "grants": grants}));
    service.ok("POST", "/api/v2/users", "", &json!({"users": {"alice": {"id": "alice", "role": "user"}}}));
    let call = "/video/call/small/a";
    let me = |role: &str| json!([{"user_id": "eve", "role": role}]);
    let before = contents(&service);
    for data in [
        json!({"members": me("admin")}),
        json!({"members": [{"user_id": "eve", "role": "host"}, {"user_id": "friend", "role": "admin"}]}),
        json!({"settings_override": {"transcription": {"mode": "auto-on"}}}),
    ] {
        assert_eq!(service.refused("POST", call, "eve", &json!({"data": data})).0, 17, "{data}");
    }
    assert_eq!(contents(&service), before);
    let data = json!({
        "members": me("host"), "created_by_id": "alice", "created_by": {"id": "alice", "role": "admin"}, "role": "admin",
        "user": {"id": "eve", "role": "admin"}, "custom": {"role": "admin", "own_capabilities": ["end-call"]},
        "own_capabilities": ["end-call"], "grants": {"user": ["end-call"]},
    });
    let made = service.ok(
        "POST",
        call,
        "eve",
        &json!({"data": data, "user_id": "alice", "user": {"id": "alice", "role": "admin"}}),
    );
    assert_eq!(made["call"]["created_by"]["id"], "eve");
    assert_eq!(made["own_capabilities"], json!(["create-call", "read-call", "update-call-member"]));
    let before = contents(&service);
    for (method, path, body) in [
        ("POST", "/members", json!({"update_members": me("admin")})),
        ("POST", "/user_permissions", json!({"user_id": "eve", "grant_permissions": ["end-call"]})),
        ("POST", "/mark_ended", json!({"user_id": "alice"})),
        ("POST", "/start_transcription", json!({"user_id": "alice", "role": "admin"})),
        ("PATCH", "", json!({"custom": {"role": "admin"}})),
        ("PATCH", "", json!({"settings_override": {"transcription": {"mode": "auto-on"}}})),
    ] {
        assert_eq!(service.refused(method, &format!("{call}{path}"), "eve", &body).0, 17, "{path} {body}");
    }
    assert_eq!(contents(&service), before);
    let alice = |name: &str| service.ok("GET", "/api/v2/users", "", &json!({}))["users"][0][name].clone();
    assert_eq!((alice("id"), alice("role")), (json!("alice"), json!("user")));
    service.ok("POST", &format!("{call}/members"), "eve", &json!({"update_members": me("host")}));

    // What one says of oneself is no role.
    let mut socket = service.connect("/video/connect?role=admin");
    let details =
        json!({"id": "eve", "name": "Eve", "role": "admin", "teams": ["theirs"], "custom": {"role": "admin"}});
    socket.say(&json!({"token": token("eve"), "user_details": details, "role": "admin", "user": {"role": "admin"}}));
    let me = socket.next().unwrap();
    assert_eq!((&me["me"]["role"], &me["me"]["teams"]), (&json!("user"), &json!([])));
    assert_eq!(service.refused("POST", &format!("{call}/mark_ended"), "eve", &json!({})).0, 17);
}

#[test]
fn nobody_watches_what_they_may_not_see_or_with_somebody_elses_connection() {
    let service = Service::start();
    world(&service);
    service.ok("POST", "/api/v2/video/call/default/open", "", &json!({"data": {"created_by_id": "alice"}}));
    let (mut alices, alice) = service.watch("alice", "");
    let (mut eves, eve) = service.watch("eve", "");
    let wanted = json!({"watch": true, "filter_conditions": {"cid": {"$in": ["locked:a", "default:open"]}}});
    for (method, path, body) in [
        ("GET", "/video/call/default/open", json!({})),
        ("POST", "/video/call/default/open", json!({})),
        ("POST", "/video/calls", wanted.clone()),
        ("POST", "/video/calls", json!({})),
        ("POST", "/video/call/default/open/mark_ended", json!({})),
        ("GET", "/video/call/default/open/transcriptions", json!({})),
        ("GET", "/video/call/default/open/closed_captions", json!({})),
    ] {
        let path = format!("{path}?connection_id={alice}");
        assert_eq!(service.refused(method, &path, "eve", &body).0, 46, "{path}");
    }
    assert_eq!(service.refused("GET", &format!("{C}?connection_id={eve}"), "eve", &json!({})).0, 17);
    assert_eq!(service.refused("POST", &format!("{C}?connection_id={eve}"), "eve", &json!({})).0, 17);
    let found = service.ok("POST", &format!("/video/calls?connection_id={eve}"), "eve", &wanted);
    assert_eq!(found["calls"].as_array().unwrap().len(), 1, "{found}");
    service.ok("PATCH", &format!("/api/v2{C}"), "", &json!({"custom": {"secret": 1}}));
    service.ok("PATCH", "/api/v2/video/call/default/open", "", &json!({"custom": {"x": 1}}));
    let event = eves.next().unwrap();
    assert_eq!((&event["type"], &event["call_cid"]), (&json!("call.updated"), &json!("default:open")));
    assert!(alices.is_silent(Duration::from_millis(200)), "alice watches nothing: others' requests did not make her");
    assert!(eves.is_silent(Duration::from_millis(200)));
}

#[test]
fn what_is_asked_for_is_no_part_of_the_query() {
    let service = Service::start();
    world(&service);
    let before = contents(&service);
    let refused = [
        json!({"filter_conditions": {"id' OR 1=1 --": "x"}}),
        json!({"filter_conditions": {"id\" OR 1=1 --": "x"}}),
        json!({"filter_conditions": {"state": "x"}}),
        json!({"filter_conditions": {"": "x"}}),
        json!({"filter_conditions": {"custom.": "x"}}),
        json!({"filter_conditions": {"custom.x'); DROP TABLE calls; --": 1}}),
        json!({"filter_conditions": {"custom.$.created_by": "x"}}),
        json!({"filter_conditions": {"custom.a.b": "x"}}),
        json!({"filter_conditions": {"custom.a[0]": "x"}}),
        json!({"filter_conditions": {"custom.a\u{0}": "x"}}),
        json!({"filter_conditions": {format!("custom.{}", "x".repeat(65)): "x"}}),
        json!({"filter_conditions": {"id": {"$eq' OR '1'='1": "x"}}}),
        json!({"filter_conditions": {"id": {"$regex": ".*"}}}),
        json!({"filter_conditions": {"id": {"$in": [{"$gt": ""}]}}}),
        json!({"filter_conditions": {"id": {"$in": "locked:a"}}}),
        json!({"filter_conditions": {"id": [1]}}),
        json!({"filter_conditions": {"$where": "1"}}),
        json!({"filter_conditions": {"$or": "1=1"}}),
        json!({"filter_conditions": {"$or": [["id"]]}}),
        json!({"filter_conditions": {"created_at": {"$gt": "' OR 1=1"}}}),
        json!({"filter_conditions": {"ongoing": "1 OR 1"}}),
        json!({"filter_conditions": ["id"]}),
        json!({"sort": [{"field": "id; DROP TABLE calls", "direction": 1}]}),
        json!({"sort": [{"field": "id", "direction": "1; DROP TABLE calls"}]}),
        json!({"sort": [{"field": "members"}]}),
        json!({"sort": "id"}),
        json!({"limit": "1; DROP TABLE calls"}),
        json!({"limit": -1}),
        json!({"limit": 1e300}),
        json!({"limit": 18_446_744_073_709_551_615_u64}),
        json!({"next": "p0 UNION SELECT 1"}),
        json!({"next": "p-1"}),
        json!({"prev": "p99999999999999999999"}),
    ];
    for body in &refused {
        assert_eq!(service.refused("POST", "/video/calls", "eve", body).0, 4, "{body}");
        let mut members = body.clone();
        (members["type"], members["id"]) = (json!("locked"), json!("a"));
        let (status, answer) = service.request("POST", "/video/call/members", "alice", &members);
        assert!(status == 400 || answer["members"].is_array(), "{body}: {status} {answer}");
        let payload: String = form_urlencoded::byte_serialize(body.to_string().as_bytes()).collect();
        let (status, answer) = service.request("GET", &format!("/api/v2/users?payload={payload}"), "", &json!({}));
        assert!(status == 400 || answer["users"].is_array(), "{body}: {status} {answer}");
    }
    for filter in [
        json!({"id": "a' OR '1'='1"}),
        json!({"id": "a\u{0}"}),
        json!({"id": "%"}),
        json!({"cid": {"$in": ["' UNION SELECT state FROM users --", "*"]}}),
        json!({"members": {"$in": ["' OR 1=1 --"]}}),
        json!({"custom.x": {"$gt": 1e308}}),
        json!({"id": {"$in": []}}),
    ] {
        let found = service.ok("POST", "/api/v2/video/calls", "", &json!({"filter_conditions": filter}));
        assert_eq!(found["calls"], json!([]), "{filter}");
    }
    for payload in ["", "%00", "%5b", "null", "%7b%22filter_conditions%22:", "%ff"] {
        let (status, answer) = service.request("GET", &format!("/api/v2/users?payload={payload}"), "", &json!({}));
        assert!(status < 500, "{payload}: {answer}");
    }
    for query in
        ["since='--", "since=%00", "limit=-1", "limit=99999999999999999999", "next=0%20OR%201", "limit=0", "since=1e99"]
    {
        assert_eq!(
            service.refused("GET", &format!("{C}/closed_captions?{query}"), "alice", &json!({})).0,
            4,
            "{query}"
        );
    }
    assert_eq!(contents(&service), before);
}
