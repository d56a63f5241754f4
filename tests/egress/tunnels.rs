//! Tunnels: what they carry, what they count, how they end.

use super::*;
use lazarus::egress::Count;
use tokio::sync::mpsc;

#[tokio::test]
async fn a_tunnel_carries_tls_for_the_host_that_it_names_and_counts_it() {
    let served = serve(&["api.example.org"]).await;
    served.world.place("93.184.216.34:443", echo_server().await);
    let hello = client_hello("api.example.org");
    // In capitals it is the same name.
    let (status, mut stream) = served.tunnel("API.Example.ORG:443").await;
    assert_eq!(status, 200);
    stream.write_all(&hello).await.unwrap();
    expect(&mut stream, &hello).await;
    stream.write_all(b"whatever follows").await.unwrap();
    expect(&mut stream, b"whatever follows").await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    let bytes = hello.len() as u64 + 16;
    let counted = Count { connections: 1, bytes_out: bytes, bytes_in: bytes };
    assert_eq!(served.record.report().hosts["api.example.org:443"], counted);
}

#[tokio::test]
async fn megabytes_go_both_ways_and_a_slow_reader_loses_nothing() {
    let served = serve(&["api.example.org:22 plain"]).await;
    served.world.place("93.184.216.34:22", echo_server().await);
    let (_, stream) = served.tunnel("api.example.org:22").await;
    let (mut read, mut write) = stream.into_split();
    let sent: Vec<u8> = (0..8_000_000u32).map(|i| (i % 251) as u8).collect();
    let expected = sent.clone();
    tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut got = vec![];
    timeout(CEILING, read.read_to_end(&mut got)).await.unwrap().unwrap();
    assert!(got == expected, "{} of {} bytes, or others", got.len(), expected.len());
}

#[tokio::test]
async fn a_hello_that_was_sent_before_the_answer_is_looked_at_as_well() {
    let served = serve(&["api.example.org"]).await;
    served.world.place("93.184.216.34:443", echo_server().await);
    for (name, goes) in [("api.example.org", true), ("evil.example.org", false)] {
        let hello = client_hello(name);
        let mut stream = served.client().await;
        let head_and_hello =
            [format!("CONNECT api.example.org:443 HTTP/1.1\r\n{}\r\n", served.authorization()).as_bytes(), &hello]
                .concat();
        stream.write_all(&head_and_hello).await.unwrap();
        assert_eq!(head(&mut stream).await.0, 200);
        if goes {
            expect(&mut stream, &hello).await;
        } else {
            rest(&mut stream).await;
            served.until_refused(Reason::ServerName, 1).await;
        }
    }
}

#[tokio::test]
async fn a_hello_in_small_pieces_arrives_whole() {
    let served = serve(&["api.example.org"]).await;
    served.world.place("93.184.216.34:443", echo_server().await);
    let hello = client_hello("api.example.org");
    let (_, mut stream) = served.tunnel("api.example.org:443").await;
    stream.set_nodelay(true).unwrap();
    for piece in hello.chunks(7) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    expect(&mut stream, &hello).await;
}

#[tokio::test]
async fn a_rule_that_says_plain_lets_the_server_speak_first() {
    let served = serve(&["git.example.org:22 plain"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    served.world.place("93.184.216.34:22", listener.local_addr().unwrap());
    let (status, mut stream) = served.tunnel("git.example.org:22").await;
    assert_eq!(status, 200);
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"SSH-2.0-server\r\n").await.unwrap();
    expect(&mut stream, b"SSH-2.0-server\r\n").await;
    stream.write_all(b"SSH-2.0-client\r\n").await.unwrap();
    expect(&mut server, b"SSH-2.0-client\r\n").await;
}

#[tokio::test]
async fn each_side_may_finish_before_the_other() {
    let served = serve(&["git.example.org:22 plain"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    served.world.place("93.184.216.34:22", listener.local_addr().unwrap());
    let (_, mut stream) = served.tunnel("git.example.org:22").await;
    let (mut server, _) = listener.accept().await.unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut server).await, b"question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(rest(&mut stream).await, b"answer");
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_ends() {
    let limits = ProxyLimits { idle: Duration::from_millis(150), ..ProxyLimits::default() };
    let served = serve_with(rules(&["git.example.org:22 plain"]), limits).await;
    served.world.place("93.184.216.34:22", echo_server().await);
    let (_, mut stream) = served.tunnel("git.example.org:22").await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(b"x").await.unwrap();
        expect(&mut stream, b"x").await;
    }
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test]
async fn a_client_that_does_not_begin_is_not_waited_for() {
    let limits = ProxyLimits { head: Duration::from_millis(150), ..ProxyLimits::default() };
    let served = serve_with(rules(&["api.example.org"]), limits).await;
    served.world.place("93.184.216.34:443", echo_server().await);
    let (status, mut stream) = served.tunnel("api.example.org:443").await;
    assert_eq!(status, 200);
    stream.write_all(&client_hello("api.example.org")[..20]).await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test]
async fn connections_above_the_limit_wait_until_one_ends() {
    let limits = ProxyLimits { connections: 3, ..ProxyLimits::default() };
    let served = serve_with(rules(&["git.example.org:22 plain"]), limits).await;
    served.world.place("93.184.216.34:22", echo_server().await);
    let mut open = vec![];
    for _ in 0..3 {
        let (status, stream) = served.tunnel("git.example.org:22").await;
        assert_eq!(status, 200);
        open.push(stream);
    }
    let mut fourth = Box::pin(served.tunnel("git.example.org:22"));
    assert!(timeout(Duration::from_millis(300), &mut fourth).await.is_err(), "the fourth was served");
    open.pop();
    assert_eq!(fourth.await.0, 200);
}

#[tokio::test]
async fn at_the_end_connections_have_a_second() {
    let mut served = serve(&["git.example.org:22 plain"]).await;
    served.world.place("93.184.216.34:22", echo_server().await);
    let (_, mut stream) = served.tunnel("git.example.org:22").await;
    served.stop.take().unwrap().send(()).unwrap();
    stream.write_all(b"still").await.unwrap();
    expect(&mut stream, b"still").await;
    assert_eq!(rest(&mut stream).await, b"");
    timeout(CEILING, &mut served.task).await.expect("it did not end").unwrap();
}

/// A server that takes one ClientHello, answers with those bytes, and hands on
/// whatever comes then.
pub async fn answering(served: &Served, answer: Vec<u8>) -> mpsc::UnboundedReceiver<Vec<u8>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    served.world.place("93.184.216.34:443", listener.local_addr().unwrap());
    let (heard, hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 16_384];
        let mut answer = Some(answer);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if let Some(answer) = answer.take() {
                stream.write_all(&answer).await.unwrap();
            } else {
                heard.send(buffer[..read].to_vec()).unwrap();
            }
        }
    });
    hears
}

/// A ServerHello with that random.
pub fn server_hello(random: &[u8; 32]) -> Vec<u8> {
    let body = [&[3, 3][..], random, &[0, 0x13, 1, 0, 0, 0]].concat();
    let message = [&[2, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 3, 0, message.len() as u8][..], &message].concat()
}

#[tokio::test]
async fn after_a_usual_answer_everything_is_carried() {
    let served = serve(&["api.example.org"]).await;
    let mut hears = answering(&served, server_hello(&[9; 32])).await;
    let (_, mut stream) = served.tunnel("api.example.org:443").await;
    stream.write_all(&client_hello("api.example.org")).await.unwrap();
    expect(&mut stream, &server_hello(&[9; 32])).await;
    // TLS 1.2 goes on with handshake records that are no ClientHello.
    stream.write_all(&[22, 3, 3, 0, 4, 16, 0, 0, 0]).await.unwrap();
    assert_eq!(hears.recv().await.unwrap(), [22, 3, 3, 0, 4, 16, 0, 0, 0]);
}
