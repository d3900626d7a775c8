use std::cell::{Cell, RefCell};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use nix::errno::Errno;
use ployz_engine::{Description, PeerDescription, PeerSnapshot, PublicKey, Update};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::*;
use crate::uapi::{InterfaceDescription, InterfaceError};

#[tokio::test]
async fn answers_every_operation_on_one_connection() {
    let directory = TempDir::new("operations");
    let interface = Fake::default();
    let server = Server::bind(&directory.0, "wg0").await.unwrap();
    during(&server, &interface, async {
        let mut client = connect(&server).await;
        assert_eq!(
            ask(&mut client, "set=1\nlisten_port=77\n\n").await,
            "errno=0\n\n"
        );
        assert_eq!(
            ask(&mut client, "get=1\n\n").await,
            "listen_port=77\nerrno=0\n\n"
        );
        assert_eq!(
            ask(&mut client, "status=1\n\n").await,
            "backend=fake\nerrno=0\n\n"
        );
        // Two in one write are answered in order.
        client
            .write_all(b"set=1\nlisten_port=78\n\nget=1\n\n")
            .await
            .unwrap();
        assert_eq!(answer(&mut client).await, "errno=0\n\n");
        assert_eq!(answer(&mut client).await, "listen_port=78\nerrno=0\n\n");
    })
    .await;
}

#[tokio::test]
async fn a_refused_request_changes_nothing_and_keeps_the_connection() {
    let directory = TempDir::new("refused");
    let interface = Fake::default();
    let server = Server::bind(&directory.0, "wg0").await.unwrap();
    during(&server, &interface, async {
        let mut client = connect(&server).await;
        assert_eq!(
            ask(&mut client, "set=1\nlisten_port=77\nfwmark=x\n\n").await,
            "errno=-22\n\n"
        );
        assert_eq!(ask(&mut client, "get=1\nx=y\n\n").await, "errno=22\n\n");
        assert_eq!(
            ask(&mut client, &format!("set=1\n{}\n\n", "x".repeat(1 << 20))).await,
            "errno=-71\n\n"
        );
        assert_eq!(ask(&mut client, "get=1\n\n").await, "errno=0\n\n");
        interface.refuse.set(Some(Errno::EADDRINUSE));
        assert_eq!(
            ask(&mut client, "set=1\nlisten_port=77\n\n").await,
            "errno=-98\n\n"
        );
        assert_eq!(ask(&mut client, "get=1\n\n").await, "errno=98\n\n");
    })
    .await;
    assert_eq!(interface.listen_port.get(), 0);
}

#[tokio::test]
async fn half_a_request_is_no_request() {
    let directory = TempDir::new("half");
    let interface = Fake::default();
    let server = Server::bind(&directory.0, "wg0").await.unwrap();
    during(&server, &interface, async {
        let mut client = connect(&server).await;
        client.write_all(b"set=1\nlisten_port=77\n").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    })
    .await;
    assert_eq!(interface.listen_port.get(), 0);
}

#[tokio::test]
async fn a_large_interface_is_set_and_shown() {
    let directory = TempDir::new("large");
    let interface = Fake::default();
    let server = Server::bind(&directory.0, "wg0").await.unwrap();
    let prefixes: String = (0..130_000u32)
        .map(|i| {
            format!(
                "allowed_ip={}/32\n",
                std::net::Ipv4Addr::from_bits(0x0a00_0000 + i)
            )
        })
        .collect();
    let key = "07".repeat(32);
    during(&server, &interface, async {
        let mut client = connect(&server).await;
        let request = format!("set=1\npublic_key={key}\n{prefixes}\n");
        assert_eq!(ask(&mut client, &request).await, "errno=0\n\n");
        let shown = ask(&mut client, "get=1\n\n").await;
        assert!(shown.starts_with(&format!("public_key={key}\n")));
        assert!(shown.ends_with(&format!("{prefixes}errno=0\n\n")));
    })
    .await;
}

#[tokio::test]
async fn more_clients_than_places_take_turns() {
    let directory = TempDir::new("turns");
    let interface = Fake::default();
    let server = Server::bind(&directory.0, "wg0").await.unwrap();
    during(&server, &interface, async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut client = connect(&server).await;
            assert_eq!(ask(&mut client, "get=1\n\n").await, "errno=0\n\n");
            clients.push(client);
        }
        let mut late = connect(&server).await;
        late.write_all(b"get=1\n\n").await.unwrap();
        clients.pop();
        assert_eq!(answer(&mut late).await, "errno=0\n\n");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_let_go() {
    let directory = TempDir::new("silent");
    let interface = Fake::default();
    let server = Server::bind(&directory.0, "wg0").await.unwrap();
    during(&server, &interface, async {
        let mut client = connect(&server).await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_has_access() {
    let directory = TempDir::new("access");
    let below = directory.0.join("a/wireguard");
    let server = Server::bind(&below, "wg0").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&below), 0o700);
    assert_eq!(mode(server.path()), 0o600);
    assert_eq!(server.path(), below.join("wg0.sock"));
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let directory = TempDir::new("stale");
    let path = directory.0.join("wg0.sock");
    drop(StdUnixListener::bind(&path).unwrap());
    let server = Server::bind(&directory.0, "wg0").await.unwrap();
    let error = Server::bind(&directory.0, "wg0").await.unwrap_err();
    assert!(
        matches!(&error, ServerError::InUse { path: named } if *named == path),
        "{error}"
    );
    connect(&server).await;
    Server::bind(&directory.0, "wg1").await.unwrap();
    drop(server);
    assert!(!path.exists(), "gone with its server");
}

#[tokio::test]
async fn nothing_but_a_socket_is_replaced() {
    let directory = TempDir::new("file");
    let path = directory.0.join("wg0.sock");
    fs::write(&path, "precious").unwrap();
    let error = Server::bind(&directory.0, "wg0").await.unwrap_err();
    assert!(matches!(error, ServerError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn names_stay_in_the_directory() {
    let directory = TempDir::new("names");
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a b",
        "a\nb",
        "sixteen-letters-",
    ] {
        let error = Server::bind(&directory.0, name).await.unwrap_err();
        assert!(
            matches!(error, ServerError::InvalidName(_)),
            "{name:?}: {error}"
        );
    }
    Server::bind(&directory.0, "fifteen-letters").await.unwrap();
}

#[tokio::test]
async fn removing_the_file_ends_the_server() {
    let directory = TempDir::new("removed");
    let server = Server::bind(&directory.0, "wg0").await.unwrap();
    let interface = Fake::default();
    let (served, ()) = tokio::join!(server.serve(&interface), async {
        connect(&server).await;
        fs::write(directory.0.join("unrelated"), "").unwrap();
        fs::remove_file(directory.0.join("unrelated")).unwrap();
        fs::remove_file(server.path()).unwrap();
    });
    served.unwrap();
    // Another server's file is left alone.
    let next = Server::bind(&directory.0, "wg0").await.unwrap();
    drop(server);
    assert!(next.path().exists());
}

#[derive(Default)]
struct Fake {
    listen_port: Cell<u16>,
    peers: RefCell<Vec<(PublicKey, Vec<ipnet::IpNet>)>>,
    refuse: Cell<Option<Errno>>,
}

impl Fake {
    fn permit(&self) -> Result<(), InterfaceError> {
        self.refuse.get().map_or(Ok(()), |errno| {
            Err(InterfaceError::new(errno, "refused by the test"))
        })
    }
}

impl Interface for Fake {
    async fn apply(&self, update: Update) -> Result<(), InterfaceError> {
        self.permit()?;
        // As if the answer came from another thread.
        tokio::task::yield_now().await;
        if let Some(listen_port) = update.listen_port {
            self.listen_port.set(listen_port);
        }
        for peer in update.peers {
            let prefixes = peer.allowed_ips.iter().map(|change| match change {
                ployz_engine::AllowedIpChange::Add(prefix)
                | ployz_engine::AllowedIpChange::Remove(prefix) => *prefix,
            });
            self.peers
                .borrow_mut()
                .push((peer.public_key, prefixes.collect()));
        }
        Ok(())
    }

    async fn measure(&self, _count: u16) -> Result<(), InterfaceError> {
        self.permit()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant cannot be made otherwise"
    )]
    async fn describe(&self) -> Result<InterfaceDescription, InterfaceError> {
        self.permit()?;
        let peer = |(public_key, allowed_ips): &(PublicKey, Vec<ipnet::IpNet>)| PeerDescription {
            state: PeerSnapshot::unheard(*public_key),
            preshared_key: None,
            persistent_keepalive_secs: 0,
            allowed_ips: allowed_ips.clone(),
        };
        Ok(InterfaceDescription {
            listen_port: self.listen_port.get(),
            fwmark: 0,
            device: Description {
                private_key: None,
                peers: self.peers.borrow().iter().map(peer).collect(),
            },
            now: Instant::now(),
            unix_now: Duration::from_secs(1),
        })
    }

    async fn status(&self) -> Result<Vec<(String, String)>, InterfaceError> {
        Ok(vec![("backend".to_owned(), "fake".to_owned())])
    }
}

/// Serves while `client` runs.
async fn during(server: &Server, interface: &Fake, client: impl Future<Output = ()>) {
    tokio::select! {
        ended = server.serve(interface) => panic!("the server ended: {ended:?}"),
        () = client => {}
    }
}

async fn connect(server: &Server) -> BufReader<UnixStream> {
    BufReader::with_capacity(1 << 16, UnixStream::connect(server.path()).await.unwrap())
}

async fn ask(client: &mut BufReader<UnixStream>, request: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    answer(client).await
}

/// Reads to the empty line.
async fn answer(client: &mut BufReader<UnixStream>) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\n\n") {
        text.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ployz-uapi-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
