//! Plain requests, the token, and what is on record.

use super::*;
use lazarus::egress::{LINE_MAX, Refusal};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\nConnection: x-private\r\nX-Private: 1\r\nX-Public: 1\r\n\r\nhello";

#[tokio::test]
async fn a_request_is_sent_on_alone_and_without_what_is_the_proxys() {
    let served = serve(&["www.example.org"]).await;
    let (server, seen) = web_server(OK).await;
    served.world.place("93.184.216.34:80", server);
    let answer = served
        .raw(
            "GET http://WWW.example.org/path?q=1 HTTP/1.1\r\nHost: www.example.org:80\r\n{auth}TE: trailers\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nConnection: close, X-Mine, Host\r\nX-Mine: 1\r\nX-Kept: 1\r\n\r\n",
        )
        .await;
    assert_eq!(status(&answer), 200, "{answer}");
    let answer = answer.to_ascii_lowercase();
    assert!(answer.ends_with("hello") && answer.contains("x-public"), "{answer}");
    assert!(!answer.contains("x-private") && !answer.contains("keep-alive"), "{answer}");
    let seen = seen.lock().unwrap().clone();
    let [request] = seen.as_slice() else { panic!("{seen:?}") };
    let request = request.to_ascii_lowercase();
    assert!(request.starts_with("get /path?q=1 http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: www.example.org\r\n") && request.contains("x-kept"), "{request}");
    for gone in ["proxy-", "lazarus", "te:", "keep-alive", "x-mine", "basic"] {
        assert!(!request.contains(gone), "{gone} in {request}");
    }
    let count = served.record.report().hosts["www.example.org:80"];
    assert!(count.connections == 1 && count.bytes_out > 20 && count.bytes_in > 20, "{count:?}");
}

#[tokio::test]
async fn bodies_go_through_chunked_or_not() {
    let served = serve(&["www.example.org"]).await;
    let (server, seen) = web_server(OK).await;
    served.world.place("93.184.216.34:80", server);
    for body in ["Content-Length: 6\r\n\r\nabcdef", "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n"] {
        let request = format!(
            "POST http://www.example.org/ HTTP/1.1\r\nHost: www.example.org\r\n{{auth}}Connection: close\r\n{body}"
        );
        assert_eq!(status(&served.raw(request).await), 200);
    }
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() == 2 && seen.iter().all(|request| request.contains("abcdef")), "{seen:?}");
}

#[tokio::test]
async fn every_request_of_a_connection_is_checked_anew() {
    let served = serve(&["www.example.org"]).await;
    let (server, seen) = web_server(OK).await;
    served.world.place("93.184.216.34:80", server);
    let answer = served
        .raw_to_the_end(
            "GET http://www.example.org/ HTTP/1.1\r\nHost: www.example.org\r\n{auth}\r\n\
             GET http://evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\n{auth}\r\n\
             GET http://www.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\n{auth}\r\n\
             GET http://www.example.org/ HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n",
        )
        .await;
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|a| &a[..3]).collect();
    assert_eq!(statuses, ["200", "403", "400", "407"], "{answer}");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn without_the_token_there_is_nothing_and_with_a_wrong_one_a_refusal() {
    let served = serve(&["api.example.org"]).await;
    let asked = served.raw("CONNECT api.example.org:443 HTTP/1.1\r\n\r\n").await;
    assert_eq!(status(&asked), 407);
    assert!(asked.to_ascii_lowercase().contains("proxy-authenticate: basic"), "{asked}");
    // As git does: the first time without, then with it, on the same connection.
    let mut stream = served.client().await;
    stream.write_all(b"GET http://evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n").await.unwrap();
    assert_eq!(head(&mut stream).await.0, 407);
    assert_eq!((served.record.report().asked_for_token, served.refused(Reason::Token)), (2, 0));
    let twice = format!("{{auth}}{}", served.authorization());
    for wrong in ["Proxy-Authorization: Basic bGF6YXJ1czp4\r\n", "Proxy-Authorization: Bearer x\r\n", &twice] {
        let answer = served.raw(format!("CONNECT api.example.org:443 HTTP/1.1\r\n{wrong}\r\n")).await;
        assert_eq!(status(&answer), 407, "{wrong}");
    }
    assert_eq!(served.refused(Reason::Token), 3);
    assert!(served.world.looked_up.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_host_that_cannot_be_found_or_reached_is_no_refusal() {
    let served = serve(&["api.example.org", "lost.example.org"]).await;
    served.world.name("lost.example.org", &[&[]]);
    for host in ["api.example.org", "lost.example.org"] {
        assert_eq!(served.tunnel(&format!("{host}:443")).await.0, 502);
    }
    let report = served.record.report();
    assert_eq!((report.failed, report.refused_in_all()), (2, 0));
}

#[tokio::test]
async fn the_next_address_is_tried_where_one_does_not_answer() {
    let served = serve(&["api.example.org"]).await;
    served.world.name("api.example.org", &[&["93.184.216.1", "93.184.216.1", "2606:2800:220::1", PUBLIC]]);
    served.world.place("93.184.216.34:443", echo_server().await);
    assert_eq!(served.tunnel("api.example.org:443").await.0, 200);
    assert_eq!(served.world.dialled(), ["93.184.216.1:443", "[2606:2800:220::1]:443", "93.184.216.34:443"]);
}

#[tokio::test]
async fn a_refusal_says_what_was_asked_and_no_more() {
    let served = serve(&["api.example.org"]).await;
    let answer = served
        .raw("GET http://evil.example.org/secret-path?key=secret HTTP/1.1\r\nHost: evil.example.org\r\nAuthorization: Bearer secret\r\n{auth}Connection: close\r\n\r\n")
        .await;
    assert_eq!(status(&answer), 403);
    assert!(answer.contains("`evil.example.org:80` is not among the hosts"), "{answer}");
    assert!(answer.contains("lazarus-refused: not_named"), "{answer}");
    let lines = served.refusals();
    let refusal: Refusal = serde_json::from_str(lines.trim_end()).unwrap();
    assert_eq!((refusal.host.as_deref(), refusal.port), (Some("evil.example.org"), Some(80)));
    assert!(!lines.contains("secret") && !lines.contains(served.token.expose()), "{lines}");
}

#[tokio::test]
async fn whatever_is_asked_the_lines_are_short_and_json() {
    let served = serve(&["api.example.org"]).await;
    let long = format!("{}b", "a.".repeat(126));
    for host in ["\u{1b}[31m.example", "\"},{\"", "a\\nb", &long, &format!("{long}.c"), &"x".repeat(3000)] {
        served.raw(format!("CONNECT {host}:443 HTTP/1.1\r\n{{auth}}\r\n")).await;
        served.raw(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{{auth}}Connection: close\r\n\r\n")).await;
    }
    let lines = served.refusals();
    assert_eq!(lines.lines().count() as u64, served.record.report().refused_in_all());
    assert_eq!(lines.lines().count(), 12, "{lines}");
    for line in lines.lines() {
        assert!(line.len() < LINE_MAX, "{line}");
        serde_json::from_str::<Refusal>(line).unwrap();
    }
}

#[tokio::test]
async fn heads_that_are_huge_or_garbage_are_refused_and_others_served_meanwhile() {
    let served = serve(&["api.example.org"]).await;
    served.world.place("93.184.216.34:443", echo_server().await);
    let huge = format!("CONNECT api.example.org:443 HTTP/1.1\r\n{{auth}}X: {}\r\n\r\n", "x".repeat(9000));
    assert_ne!(status(&served.raw(huge).await), 200);
    served.until_refused(Reason::HeadTooLarge, 1).await;
    let garbage: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x05\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"CONNECT api.example.org:443 HTTP/9.9\r\n\r\n",
        &[0xff; 5000],
    ];
    for bytes in garbage {
        assert_ne!(status(&served.raw_to_the_end(bytes).await), 200);
    }
    assert_eq!(served.tunnel("api.example.org:443").await.0, 200);
    assert_eq!(served.world.dialled().len(), 1);
}

#[tokio::test]
async fn a_slow_head_is_not_waited_for() {
    let limits = ProxyLimits { head: Duration::from_millis(150), ..ProxyLimits::default() };
    let served = serve_with(rules(&["api.example.org"]), limits).await;
    let mut stream = served.client().await;
    stream.write_all(b"CONNECT api.exam").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"));
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_or_hangs_up_is_a_bad_gateway() {
    for answer in ["", "SSH-2.0-x\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"]
    {
        let served = serve(&["www.example.org"]).await;
        let (server, _) = web_server(answer).await;
        served.world.place("93.184.216.34:80", server);
        assert_eq!(status(&served.get("http://www.example.org/", "www.example.org").await), 502, "{answer:?}");
    }
}
