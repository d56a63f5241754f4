//! Line 20 of the threats: network by address, by IPv6, by DNS, by another
//! host's name behind an allowed one, redirects to private addresses, NUL and
//! trailing dots in names, metadata addresses. Denied unless named.

use super::tunnels::{answering, server_hello};
use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Asks for a host both ways, and expects neither to lead anywhere.
async fn leads_nowhere(served: &Served, host: &str) {
    let connect = served.raw(format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n{{auth}}\r\n")).await;
    assert!([400, 403].contains(&status(&connect)), "CONNECT {host}: {connect}");
    let get = served.get(&format!("http://{host}/"), host).await;
    assert!([400, 403].contains(&status(&get)), "GET {host}: {get}");
    assert_eq!(served.world.dialled(), [""; 0], "{host}");
}

#[tokio::test]
async fn threat_20_by_address_in_every_form() {
    let served = serve(&["api.example.org", "*.example.org"]).await;
    let (server, _) = web_server(OK).await;
    served.world.place("93.184.216.34:80", server);
    served.world.place("93.184.216.34:443", server);
    for host in [
        "93.184.216.34",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "93.184.216.34.",
        "1572395042",
        "0x5db8d822",
        "127.0.0.0x1",
    ] {
        leads_nowhere(&served, host).await;
    }
    assert!(served.world.looked_up.lock().unwrap().is_empty(), "an address was looked up as a name");
}

#[tokio::test]
async fn threat_20_by_ipv6() {
    let served = serve(&["api.example.org"]).await;
    for host in [
        "[::1]",
        "[::]",
        "[2606:2800:220:1:248:1893:25c8:1946]",
        "[::ffff:127.0.0.1]",
        "[::ffff:93.184.216.34]",
        "[::7f00:1]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fd00:ec2::254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "::1",
    ] {
        leads_nowhere(&served, host).await;
    }
}

#[tokio::test]
async fn threat_20_by_a_name_that_leads_to_an_address_that_is_not_everybodys() {
    let served = serve(&["api.example.org"]).await;
    for address in [
        "127.0.0.1",
        "10.0.0.5",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.1.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fd12::1",
        "ff02::1",
        "::ffff:10.0.0.5",
        "::ffff:127.0.0.1",
        "::10.0.0.5",
        "64:ff9b::a00:5",
        "2002:a00:5::1",
        "2001:db8::1",
        "2001::1",
    ] {
        // Alone, and among good ones, whichever stands first.
        for answer in [&[address][..], &[PUBLIC, address], &[address, PUBLIC]] {
            served.world.name("api.example.org", &[answer]);
            leads_nowhere(&served, "api.example.org").await;
        }
    }
    assert!(served.refusals().contains("\"address\":\"169.254.1.1\",\"detail\":\"link-local\""));
}

#[tokio::test]
async fn threat_20_metadata_services_by_name_and_by_address() {
    // Not even a policy that allows the ranges that they lie in.
    let mut rules = rules(&["metadata.example.org"]);
    for range in ["169.254.0.0/16", "100.64.0.0/10", "fd00::/8"] {
        rules.allow_addresses.push(range.parse().unwrap());
    }
    let served = serve_with(rules, ProxyLimits::default()).await;
    for address in
        ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"]
    {
        served.world.name("metadata.example.org", &[&[address]]);
        leads_nowhere(&served, "metadata.example.org").await;
        let literal = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        leads_nowhere(&served, &literal).await;
    }
    leads_nowhere(&served, "metadata.google.internal").await;
}

#[tokio::test]
async fn threat_20_by_dns_that_changes_its_mind_after_the_check() {
    let served = serve(&["api.example.org"]).await;
    let (server, seen) = web_server(OK).await;
    served.world.place("93.184.216.34:80", server);
    // What a second look-up would find.
    served.world.place("127.0.0.1:80", server);
    served.world.name("api.example.org", &[&[PUBLIC], &["127.0.0.1"]]);
    assert_eq!(status(&served.get("http://api.example.org/", "api.example.org").await), 200);
    assert_eq!(served.world.looked_up.lock().unwrap().len(), 1, "it was looked up again after the check");
    assert_eq!(served.world.dialled(), ["93.184.216.34:80"]);
    assert_eq!(status(&served.get("http://api.example.org/", "api.example.org").await), 403);
    assert_eq!(served.world.dialled().len(), 1);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn threat_20_by_names_that_are_not_in_the_rules_nothing_is_even_looked_up() {
    let served = serve(&["api.example.org", "*.example.net:8443"]).await;
    for host in
        ["evil.test", "example.org", "xapi.example.org", "api.example.org.evil.test", "a.b.example.net", "localhost"]
    {
        leads_nowhere(&served, host).await;
    }
    for port in ["22", "25", "8443", "444"] {
        assert_eq!(served.tunnel(&format!("api.example.org:{port}")).await.0, 403, "{port}");
    }
    assert!(served.world.looked_up.lock().unwrap().is_empty());
}

#[tokio::test]
async fn threat_20_by_another_hosts_name_in_the_tls_behind_an_allowed_one() {
    let served = serve(&["api.example.org"]).await;
    let server = web_server(OK).await;
    served.world.place("93.184.216.34:443", server.0);
    let cases: [(Vec<u8>, Reason); 9] = [
        (client_hello("evil.example.org"), Reason::ServerName),
        (client_hello("api.example.org.evil.test"), Reason::ServerName),
        // An address is no server name, so there is none.
        (client_hello("93.184.216.34"), Reason::NoServerName),
        (made_hello(&[], &[]), Reason::NoServerName),
        (made_hello(&["api.example.org", "evil.example.org"], &[]), Reason::BadHello),
        (made_hello(&["api.example.org\0.evil.test"], &[]), Reason::BadHello),
        (made_hello(&["api.example.org"], &[0xfe0d]), Reason::EncryptedName),
        (b"GET / HTTP/1.1\r\nHost: evil.example.org\r\n\r\n".to_vec(), Reason::NotTls),
        (b"SSH-2.0-x\r\n".to_vec(), Reason::NotTls),
    ];
    let mut times: HashMap<Reason, u64> = HashMap::new();
    for (first, reason) in cases {
        let (status, mut stream) = served.tunnel("api.example.org:443").await;
        assert_eq!(status, 200);
        stream.write_all(&first).await.unwrap();
        rest(&mut stream).await;
        let times = times.entry(reason).or_default();
        *times += 1;
        served.until_refused(reason, *times).await;
    }
    let count = served.record.report().hosts["api.example.org:443"];
    assert_eq!(count.bytes_out, 0, "something was sent on");
    assert!(server.1.lock().unwrap().iter().all(String::is_empty));
}

const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

#[tokio::test]
async fn threat_20_by_another_hosts_name_in_a_second_hello() {
    let before = [20, 3, 3, 0, 1, 1];
    for (second, goes) in [("api.example.org", true), ("evil.example.org", false)] {
        // The usual way; and a server's hello cut so that nobody knows.
        for answer in [server_hello(&RETRY), [&[22, 3, 3, 0, 2, 2, 0][..], &[22, 3, 3, 0, 1, 0]].concat()] {
            let served = serve(&["api.example.org"]).await;
            let mut hears = answering(&served, answer.clone()).await;
            let (_, mut stream) = served.tunnel("api.example.org:443").await;
            stream.write_all(&client_hello("api.example.org")).await.unwrap();
            expect(&mut stream, &answer).await;
            let hello = client_hello(second);
            stream.write_all(&[&before[..], &hello].concat()).await.unwrap();
            let mut heard = vec![];
            if goes {
                while heard.len() < before.len() + hello.len() {
                    heard.extend(timeout(CEILING, hears.recv()).await.unwrap().unwrap());
                }
                assert_eq!(heard, [&before[..], &hello].concat());
            } else {
                served.until_refused(Reason::ServerName, 1).await;
                while let Some(bytes) = hears.recv().await {
                    heard.extend(bytes);
                }
                assert!(before.starts_with(&heard), "{heard:?}");
            }
        }
    }
}

#[tokio::test]
async fn threat_20_by_another_hosts_name_in_a_second_hello_that_is_sent_in_advance() {
    for answer in [server_hello(&RETRY), [&[22, 3, 3, 0, 2, 2, 0][..], &[22, 3, 3, 0, 1, 0]].concat()] {
        let served = serve(&["api.example.org"]).await;
        let mut hears = answering(&served, answer).await;
        let (_, mut stream) = served.tunnel("api.example.org:443").await;
        let first = client_hello("api.example.org");
        stream.write_all(&[&first[..], &client_hello("evil.example.org")].concat()).await.unwrap();
        served.until_refused(Reason::ServerName, 1).await;
        let mut heard = vec![];
        while let Some(bytes) = hears.recv().await {
            heard.extend(bytes);
        }
        assert!(first.starts_with(&heard), "more than the first was sent on");
    }
}

#[tokio::test]
async fn threat_20_by_another_hosts_name_in_the_host_header() {
    let served = serve(&["www.example.org"]).await;
    let (server, seen) = web_server(OK).await;
    served.world.place("93.184.216.34:80", server);
    for hosts in [
        "Host: evil.example.org\r\n",
        "Host: www.example.org:8080\r\n",
        "Host: 127.0.0.1\r\n",
        "Host: \r\n",
        "",
        "Host: www.example.org\r\nHost: evil.example.org\r\n",
        "Host: www.example.org, evil.example.org\r\n",
        "Host: evil@www.example.org\r\n",
        "Host: www.example.org.\r\n",
    ] {
        let request = format!("GET http://www.example.org/ HTTP/1.1\r\n{hosts}{{auth}}Connection: close\r\n\r\n");
        assert_eq!(status(&served.raw(request).await), 400, "{hosts}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn threat_20_a_redirect_to_a_private_address_leads_nowhere() {
    let served = serve(&["www.example.org"]).await;
    let (server, _) = web_server(
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    served.world.place("93.184.216.34:80", server);
    // The proxy does not follow it, and refuses the client that does.
    let answer = served.get("http://www.example.org/", "www.example.org").await;
    assert_eq!(status(&answer), 302, "{answer}");
    assert_eq!(served.world.dialled().len(), 1);
    let answer = served.get("http://169.254.169.254/latest/meta-data/", "169.254.169.254").await;
    assert_eq!(status(&answer), 403);
    assert_eq!(served.world.dialled().len(), 1);
}

#[tokio::test]
async fn threat_20_by_nul_dots_and_other_letters_in_names() {
    let served = serve(&["api.example.org"]).await;
    for host in [
        "api.example.org\0",
        "api.example.org\0.evil.test",
        "api.example.org%00.evil.test",
        "api.example.org.",
        "api.example.org..",
        ".api.example.org",
        "api..example.org",
        "api%2eexample%2eorg",
        "api.example.org%2e",
        "api\u{3002}example.org",
        "\u{ff41}pi.example.org",
        "api.example.org\t",
        "api.example.org,evil.test",
        "",
    ] {
        leads_nowhere(&served, host).await;
    }
    assert!(served.world.looked_up.lock().unwrap().is_empty());
}

#[tokio::test]
async fn threat_20_by_a_users_name_in_front_of_the_host() {
    let served = serve(&["api.example.org"]).await;
    for host in
        ["api.example.org@evil.test", "evil.test@api.example.org", "user:secret@api.example.org", "@api.example.org"]
    {
        leads_nowhere(&served, host).await;
    }
    assert!(!served.refusals().contains("secret"));
}

#[tokio::test]
async fn threat_20_by_requests_that_are_not_a_proxys() {
    let served = serve(&["www.example.org"]).await;
    let (server, seen) = web_server(OK).await;
    served.world.place("93.184.216.34:80", server);
    served.world.place("93.184.216.34:443", server);
    for request in [
        "GET / HTTP/1.1\r\nHost: www.example.org\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: www.example.org\r\n",
        "GET https://www.example.org/ HTTP/1.1\r\nHost: www.example.org\r\n",
        "GET ftp://www.example.org/ HTTP/1.1\r\nHost: www.example.org\r\n",
        "GET file:///etc/passwd HTTP/1.1\r\nHost: www.example.org\r\n",
        "GET www.example.org:80 HTTP/1.1\r\nHost: www.example.org\r\n",
        "CONNECT www.example.org HTTP/1.1\r\n",
        "CONNECT www.example.org: HTTP/1.1\r\n",
        "CONNECT www.example.org:0 HTTP/1.1\r\n",
        "CONNECT www.example.org:65979 HTTP/1.1\r\n",
        "CONNECT http://www.example.org:80/ HTTP/1.1\r\n",
        "CONNECT /www.example.org:80 HTTP/1.1\r\n",
        "CONNECT www.example.org:443 HTTP/1.1\r\nContent-Length: 3\r\n",
        "CONNECT www.example.org:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
        "GET http://www.example.org/ HTTP/1.1\r\nHost: www.example.org\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
        "GET http://www.example.org/ HTTP/1.1\r\nHost: www.example.org\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
    ] {
        let answer = served.raw(format!("{request}{{auth}}\r\n")).await;
        assert_eq!(status(&answer), 400, "{request}{answer}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn threat_20_by_a_request_smuggled_within_another() {
    // Whatever is left after the first request is not waited for.
    let limits = ProxyLimits { head: Duration::from_millis(300), ..ProxyLimits::default() };
    let served = serve_with(rules(&["www.example.org"]), limits).await;
    let (server, seen) = web_server(OK).await;
    served.world.place("93.184.216.34:80", server);
    let mut shown = 0;
    let hidden = "GET http://www.example.org/hidden HTTP/1.1\r\nHost: evil.example.org\r\nX: ";
    let start = "POST http://www.example.org/shown HTTP/1.1\r\nHost: www.example.org\r\n{auth}";
    for (framing, body) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n", format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding: gzip, chunked\r\n", format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n", format!("0\r\n\r\n{hidden}")),
        ("Content-Length: 5\r\nContent-Length: 90\r\n", format!("0\r\n\r\n{hidden}")),
        ("Content-Length: +5\r\n", format!("0\r\n\r\n{hidden}")),
        ("Transfer-Encoding: chunked\r\n", format!("0;x=\n\r\n\r\n{hidden}")),
        ("Transfer-Encoding: chunked\r\n", format!("0x0\r\n\r\n{hidden}")),
        ("Transfer-Encoding: chunked\r\n", format!("-0\r\n\r\n{hidden}")),
        ("Transfer-Encoding: chunked\r\n", format!("fffffffffffffffff0\r\n\r\n{hidden}")),
        ("Connection: content-length\r\nContent-Length: 5\r\n", format!("0\r\n\r\n{hidden}")),
    ] {
        served.raw_to_the_end(format!("{start}{framing}\r\n{body}")).await;
        for request in seen.lock().unwrap().drain(..) {
            shown += usize::from(request.starts_with("POST /shown "));
            assert!(!request.contains("hidden"), "{framing}{body} sent on {request}");
            // One framing is left, whichever it is.
            let request = request.to_ascii_lowercase();
            let framings = request.matches("content-length").count() + request.matches("transfer-encoding").count();
            assert!(framings <= 1, "{framing} sent on {request}");
        }
    }
    assert!(shown > 0, "nothing was sent on, so nothing was shown");
    // Nothing stays behind for whoever comes next.
    let answer = served.get("http://www.example.org/next", "www.example.org").await;
    assert_eq!(status(&answer), 200);
    assert!(seen.lock().unwrap()[0].starts_with("GET /next"));
}

#[tokio::test]
async fn threat_20_policy_may_name_a_network_of_ones_own() {
    let mut rules = rules(&["git.example.org", "ip:10.1.2.3"]);
    rules.allow_addresses = vec!["10.0.0.0/8".parse().unwrap(), "192.168.7.7".parse().unwrap()];
    let served = serve_with(rules, ProxyLimits::default()).await;
    let (server, _) = web_server(OK).await;
    for (address, expected) in
        [("10.1.2.3", 200), ("::ffff:10.1.2.3", 200), ("192.168.7.7", 200), ("192.168.7.8", 403), ("127.0.0.1", 403)]
    {
        served.world.name("git.example.org", &[&[address]]);
        served.world.place(&format!("{}:80", address.trim_start_matches("::ffff:")), server);
        let answer = served.get("http://git.example.org/", "git.example.org").await;
        assert_eq!(status(&answer), expected, "{address}: {answer}");
    }
    // By its address alone it is not named, whatever a rule says.
    assert_eq!(status(&served.get("http://10.1.2.3/", "10.1.2.3").await), 403);
}
