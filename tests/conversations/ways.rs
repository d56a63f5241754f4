//! Ways to the forge as people have them: an authority of their own, a proxy
//! (found.md H21 and H22). The API and git go the same way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::world::{Kind, World, WorldOptions};

/// Stands before the forge and passes on what comes, with TLS or without.
struct Before {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Before {
    async fn stand(forge: &str, tls: Option<TlsAcceptor>) -> Self {
        let forge = forge.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (forge, tls, counted) = (forge.clone(), tls.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(forge).await?;
                    match tls {
                        Some(tls) => {
                            let mut client = tls.accept(client).await?;
                            counted.fetch_add(1, Ordering::SeqCst);
                            tokio::io::copy_bidirectional(&mut client, &mut server).await
                        }
                        None => {
                            let mut client = client;
                            counted.fetch_add(1, Ordering::SeqCst);
                            tokio::io::copy_bidirectional(&mut client, &mut server).await
                        }
                    }
                });
            }
        });
        Self { address, connections, task }
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A world whose daemon does not run yet, with these lines in place of its `[forge] url`.
async fn world_that_goes(name: &str, lines: impl FnOnce(&World) -> String) -> World {
    let world = World::with(name, WorldOptions { start: false, reconcile: "1s", ..WorldOptions::default() }).await;
    let text = std::fs::read_to_string(&world.installation().config).unwrap();
    let before = format!("url = {:?}\n", world.server().url());
    assert!(text.contains(&before), "{text}");
    std::fs::write(&world.installation().config, text.replacen(&before, &lines(&world), 1)).unwrap();
    world
}

async fn a_cell_starts_and_its_work_leaves(world: &mut World) {
    let init = world.init();
    assert!(init.status.success(), "{}", init.all());
    world.daemon().start().await;
    let doctor = world.cli(&["doctor"]);
    assert!(!doctor.all().contains("certificate"), "{}", doctor.all());
    let issue = world.reader().open_issue("By this way", "and back").await;
    world.director().comment(issue, "/summon scribe").await;
    let cell = world.wait_for_comment(issue, Kind::SpawnLog, |_| true).await.cell();
    world.wait_for_state(issue, &cell, &["idle"]).await;
    world.director().comment(issue, "/close").await;
    let log = world.wait_for_comment(issue, Kind::CloseLog, |_| true).await;
    assert!(log.says(&["pull request"]), "{}", log.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forge_with_an_authority_of_its_own_is_reached_by_api_and_git() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));

    let mut before = None;
    let mut world = world_that_goes("own-authority", |_| "url = \"https://127.0.0.1:1\"\n".to_owned()).await;
    before.replace(Before::stand(&world.server().url(), Some(tls)).await);
    let front = before.as_ref().unwrap();
    let config = world.installation().config.clone();
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("https://127.0.0.1:1", &format!("https://{}", front.address), 1);
    // Nobody whom this machine knows vouches for it.
    std::fs::write(&config, &text).unwrap();
    let doctor = world.cli(&["doctor"]);
    assert!(!doctor.status.success() && doctor.all().contains("forge.ca_file"), "{}", doctor.all());
    assert_eq!(front.connections.load(Ordering::SeqCst), 0, "a certificate was believed that nobody vouched for");

    // A file that holds none is refused by its name.
    let file = world.place().join("authority.pem");
    std::fs::write(&file, "none\n").unwrap();
    let text = text.replacen("[forge]\n", "[forge]\nca_file = \"authority.pem\"\n", 1);
    std::fs::write(&config, &text).unwrap();
    let doctor = world.cli(&["doctor"]);
    assert!(doctor.all().contains("authority.pem") && doctor.all().contains("no certificate"), "{}", doctor.all());

    std::fs::write(&file, made.cert.pem()).unwrap();
    a_cell_starts_and_its_work_leaves(&mut world).await;
    assert!(front.connections.load(Ordering::SeqCst) > 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forge_behind_a_proxy_is_reached_by_api_and_git() {
    // The name of this forge is known to the proxy alone.
    let mut world = world_that_goes("by-proxy", |_| "url = \"http://forge.example.test\"\n".to_owned()).await;
    let doctor = world.installation().run_with(&["doctor"], &[("HTTPS_PROXY", "http://127.0.0.1:9")]);
    assert!(doctor.all().contains("forge.proxy"), "{}", doctor.all());

    let proxy = Before::stand(&world.server().url(), None).await;
    let config = world.installation().config.clone();
    let text = std::fs::read_to_string(&config).unwrap();
    let line = format!("[forge]\nproxy = \"http://{}\"\n", proxy.address);
    std::fs::write(&config, text.replacen("[forge]\n", &line, 1)).unwrap();
    a_cell_starts_and_its_work_leaves(&mut world).await;
    assert!(proxy.connections.load(Ordering::SeqCst) > 2);
    world.finish().await;
}
