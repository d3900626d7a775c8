use std::fmt::Write as _;
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

const PUBLIC: &str =
    "public_key=0101010101010101010101010101010101010101010101010101010101010101\n";
const HEX: &str = "a8abababababababababababababababababababababababababababababab6b";
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn operations_without_keys() {
    assert!(matches!(read("get=1\n\n"), Ok(Request::Get)));
    assert!(matches!(read("status=1\n\n"), Ok(Request::Status)));
    assert!(is_empty(&set("")));
    for count in [1, u16::MAX] {
        let read = read(&format!("measure={count}\n\n"));
        assert!(matches!(read, Ok(Request::Measure(it)) if it == count));
    }
    for bad in ["0", "-1", "65536", ""] {
        let refused = read(&format!("measure={bad}\n\n")).map_err(|error| error.mistake);
        assert_eq!(refused.err(), Some(Mistake::UnknownOperation), "{bad}");
    }
}

#[test]
fn every_key_of_an_interface() {
    let update = set(&format!(
        "private_key={HEX}\nlisten_port=51820\nfwmark=4294967295\nreplace_peers=true\n"
    ));
    assert_eq!(hex(update.private_key.unwrap().unwrap().expose()), HEX);
    assert_eq!(update.listen_port, Some(51820));
    assert_eq!(update.fwmark, Some(u32::MAX));
    assert!(update.replace_peers);
    assert!(update.peers.is_empty());
}

#[test]
fn zero_takes_away() {
    let update = set(&format!(
        "private_key={ZEROS}\nlisten_port=0\nfwmark=0\n{PUBLIC}preshared_key={ZEROS}\n"
    ));
    assert!(matches!(update.private_key, Some(None)));
    assert_eq!(update.listen_port, Some(0));
    assert_eq!(update.fwmark, Some(0));
    assert!(matches!(update.peers[0].preshared_key, Some(None)));
}

#[test]
fn every_key_of_a_peer() {
    let update = set(&format!(
        "{PUBLIC}update_only=true\npreshared_key={HEX}\nendpoint=[2001:db8::1]:51820\n\
         persistent_keepalive_interval=65535\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/8\n\
         allowed_ip=+fd00::/8\nallowed_ip=-0.0.0.0/0\nprotocol_version=1\n"
    ));
    let [peer] = &update.peers[..] else {
        panic!("{update:?}")
    };
    assert_eq!(peer.public_key, PublicKey::from_bytes([1; 32]));
    assert!(peer.update_only);
    assert!(!peer.remove);
    assert_eq!(
        hex(peer
            .preshared_key
            .as_ref()
            .unwrap()
            .as_ref()
            .unwrap()
            .expose()),
        HEX
    );
    assert_eq!(peer.endpoint, Some("[2001:db8::1]:51820".parse().unwrap()));
    assert_eq!(peer.persistent_keepalive_secs, Some(65535));
    assert!(peer.replace_allowed_ips);
    assert_eq!(
        peer.allowed_ips,
        [
            add("10.0.0.0/8"),
            add("fd00::/8"),
            AllowedIpChange::Remove(net("0.0.0.0/0"))
        ]
    );
}

#[test]
fn peers_are_sections_in_order() {
    let other = "public_key=0202020202020202020202020202020202020202020202020202020202020202\n";
    let update = set(&format!(
        "{PUBLIC}remove=true\n{other}allowed_ip=10.0.0.1/32\n{PUBLIC}update_only=true\n"
    ));
    let summary: Vec<_> = update
        .peers
        .iter()
        .map(|p| {
            (
                p.public_key.as_bytes()[0],
                p.remove,
                p.update_only,
                p.allowed_ips.len(),
            )
        })
        .collect();
    assert_eq!(
        summary,
        [
            (1, true, false, 0),
            (2, false, false, 1),
            (1, false, true, 0)
        ]
    );
}

#[test]
fn replacing_allowed_ips_is_about_those_that_follow() {
    let update = set(&format!(
        "{PUBLIC}allowed_ip=10.0.0.1/32\nreplace_allowed_ips=true\nallowed_ip=10.0.0.2/32\n"
    ));
    assert_eq!(update.peers[0].allowed_ips, [add("10.0.0.2/32")]);
}

#[test]
fn host_bits_of_an_allowed_ip_are_dropped() {
    let update = set(&format!(
        "{PUBLIC}allowed_ip=10.1.2.3/8\nallowed_ip=-fd00::1/64\n"
    ));
    assert_eq!(
        update.peers[0].allowed_ips,
        [add("10.0.0.0/8"), AllowedIpChange::Remove(net("fd00::/64"))]
    );
}

#[test]
fn what_wg_sends_for_a_link_local_endpoint() {
    let text = format!("set=1\n{PUBLIC}endpoint=[fe80::1%lo]:51\n\n");
    let Ok(Request::Set(update)) = parse(text.as_bytes(), |name| (name == "lo").then_some(1))
    else {
        panic!()
    };
    assert_eq!(
        update.peers[0].endpoint,
        Some("[fe80::1%1]:51".parse::<SocketAddr>().unwrap())
    );
}

#[test]
fn wrong_values_name_their_key() {
    let interface: &[(&str, &[&str])] = &[
        ("private_key", &["", "00", "zz", &HEX[1..]]),
        ("listen_port", &["", "-1", "+1", "65536", "1x", "0x50"]),
        ("fwmark", &["", "0x10", "4294967296", "off"]),
        ("replace_peers", &["", "false", "1", "TRUE"]),
        ("public_key", &["", "00", &HEX[1..]]),
    ];
    let peer: &[(&str, &[&str])] = &[
        ("remove", &["", "false"]),
        ("update_only", &["", "false"]),
        ("preshared_key", &["", "00"]),
        (
            "endpoint",
            &[
                "",
                "192.0.2.1",
                "192.0.2.1:x",
                "example.org:51820",
                "::1:5",
                "[::1%nowhere]:5",
            ],
        ),
        ("persistent_keepalive_interval", &["", "off", "65536"]),
        ("replace_allowed_ips", &["", "false"]),
        (
            "allowed_ip",
            &[
                "",
                "10.0.0.0",
                "10.0.0.0/33",
                "::/129",
                "--10.0.0.0/8",
                "-",
                "10.0.0.0/8,10.0.0.0/8",
            ],
        ),
        ("protocol_version", &["", "0", "2"]),
    ];
    for (before, keys) in [("", interface), (PUBLIC, peer)] {
        for (key, values) in keys {
            for value in *values {
                let error = refused(&format!("set=1\n{before}{key}={value}\n\n"));
                assert_eq!(error.mistake.errno(), Errno::EINVAL);
                assert_eq!(error.operation, Some(Operation::Set));
                assert_eq!(error.line, 2 + before.lines().count(), "{error}");
                let Mistake::InvalidValue { key: named, .. } = error.mistake else {
                    panic!("{key}={value}: {error}")
                };
                assert_eq!(named, *key);
            }
        }
    }
}

#[test]
fn keys_belong_to_one_section() {
    for key in [
        "listen_port",
        "private_key",
        "fwmark",
        "replace_peers",
        "jc",
        "",
    ] {
        let error = refused(&format!("set=1\n{PUBLIC}{key}=1\n\n"));
        assert_eq!(error.mistake, Mistake::UnknownPeerKey(key.to_owned()));
        assert_eq!(error.mistake.errno(), Errno::EINVAL);
    }
    for key in [
        "endpoint",
        "remove",
        "allowed_ip",
        "protocol_version",
        "rx_bytes",
        "",
    ] {
        let error = refused(&format!("set=1\n{key}=1\n\n"));
        assert_eq!(error.mistake, Mistake::UnknownInterfaceKey(key.to_owned()));
        assert_eq!(error.mistake.errno(), Errno::EINVAL);
    }
}

#[test]
fn other_mistakes() {
    let long = format!("set=1\nfwmark={}\n\n", "1".repeat(MAX_LINE));
    let cases = [
        ("get=2\n\n", 1, Mistake::UnknownOperation, Errno::EINVAL),
        (
            "listen_port=1\n\n",
            1,
            Mistake::UnknownOperation,
            Errno::EINVAL,
        ),
        ("GET / HTTP/1.1\n\n", 1, Mistake::NotKeyValue, Errno::EPROTO),
        (
            "get=1\nlisten_port=1\n\n",
            2,
            Mistake::UnexpectedKey,
            Errno::EINVAL,
        ),
        (
            "status=1\nx=1\n\n",
            2,
            Mistake::UnexpectedKey,
            Errno::EINVAL,
        ),
        ("set=1\nfwmark\n\n", 2, Mistake::NotKeyValue, Errno::EPROTO),
        (
            "set=1\r\n\r\n\n",
            1,
            Mistake::UnknownOperation,
            Errno::EINVAL,
        ),
        (&long, 2, Mistake::LineTooLong, Errno::EPROTO),
        ("set=1\nfwmark=1\n", 2, Mistake::Unfinished, Errno::EPROTO),
        ("set=1\nfwmark=x", 1, Mistake::Unfinished, Errno::EPROTO),
        ("", 0, Mistake::Unfinished, Errno::EPROTO),
    ];
    for (text, line, mistake, errno) in cases {
        let error = refused(text);
        assert_eq!((error.line, &error.mistake), (line, &mistake), "{text:?}");
        assert_eq!(mistake.errno(), errno);
    }
    assert_eq!(
        parse(b"set=1\nfwmark=\xff\n\n", no_scopes)
            .unwrap_err()
            .mistake,
        Mistake::NotKeyValue
    );
}

#[test]
fn the_first_mistake_is_the_one_that_counts() {
    let error = refused("set=1\nfwmark=x\nlisten_port=x\nnonsense\n\n");
    assert_eq!(
        error.to_string(),
        "line 2: fwmark is a decimal number from 0 to 4294967295"
    );
}

#[test]
fn errors_never_repeat_a_secret() {
    let error = refused(&format!("set=1\nprivate_key={HEX}0\n\n"));
    assert!(!format!("{error:?}{error}").contains(&HEX[..8]));
    let error = refused(&format!("set=1\nx\x1b{}=\n\n", "y".repeat(200)));
    assert!(error.to_string().len() < 200, "{error}");
    assert!(!error.to_string().contains('\x1b'));
}

#[test]
fn a_parser_goes_on_after_a_mistake() {
    let mut parser = RequestParser::new(no_scopes);
    let text = "\n\nset=1\nfwmark=x\nlisten_port=1\n\nget=1\n\n\nset=1\nfwmark=7\n\n";
    let requests: Vec<_> = text
        .lines()
        .filter_map(|line| parser.line(line.as_bytes()))
        .collect();
    let [Err(error), Ok(Request::Get), Ok(Request::Set(update))] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(error.line, 2);
    assert_eq!((update.fwmark, update.listen_port), (Some(7), None));
}

#[test]
fn a_request_has_a_bound() {
    let mut parser = RequestParser::new(no_scopes);
    assert!(parser.line(b"set=1").is_none());
    let line = PUBLIC.trim_end().as_bytes();
    for _ in 0..=MAX_REQUEST / PUBLIC.len() {
        assert!(parser.line(line).is_none());
    }
    assert!(
        parser.progress.update.peers.is_empty(),
        "what was collected is let go"
    );
    assert_eq!(
        parser.line(b"").unwrap().unwrap_err().mistake,
        Mistake::RequestTooLong
    );
}

#[test]
fn the_largest_configurations_fit() {
    let mut text = format!("set=1\n{PUBLIC}");
    for i in 0..130_000 {
        writeln!(
            text,
            "allowed_ip={}/128",
            std::net::Ipv6Addr::from_bits(u128::MAX - i)
        )
        .unwrap();
    }
    let Ok(Request::Set(update)) = read(&(text + "\n")) else {
        panic!()
    };
    assert_eq!(update.peers[0].allowed_ips.len(), 130_000);
}

proptest! {
    #[test]
    fn updates_survive_the_text(model in model()) {
        let Ok(Request::Set(update)) = read(&model.render()) else { panic!("{}", model.render()) };
        prop_assert_eq!(Model::of(&update), model);
    }

    #[test]
    fn bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, no_scopes);
    }

    #[test]
    fn lines_that_look_right_never_panic(lines in vec(almost_a_line(), 0..20)) {
        let _ = read(&format!("set=1\n{}\n\n", lines.join("\n")));
    }
}

/// An update that can be compared: keys cannot.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    private_key: Option<[u8; 32]>,
    listen_port: Option<u16>,
    fwmark: Option<u32>,
    replace_peers: bool,
    peers: Vec<PeerModel>,
}

#[derive(Clone, Debug, PartialEq)]
struct PeerModel {
    public_key: [u8; 32],
    remove: bool,
    update_only: bool,
    preshared_key: Option<[u8; 32]>,
    endpoint: Option<SocketAddr>,
    persistent_keepalive_secs: Option<u16>,
    replace_allowed_ips: bool,
    allowed_ips: Vec<AllowedIpChange>,
}

impl Model {
    fn of(update: &Update) -> Self {
        Self {
            private_key: update
                .private_key
                .as_ref()
                .map(|key| key.as_ref().map_or([0; 32], |key| *key.expose())),
            listen_port: update.listen_port,
            fwmark: update.fwmark,
            replace_peers: update.replace_peers,
            peers: update.peers.iter().map(PeerModel::of).collect(),
        }
    }

    fn render(&self) -> String {
        let mut out = String::from("set=1\n");
        push(
            &mut out,
            "private_key",
            self.private_key.map(|key| hex(&key)),
        );
        push(&mut out, "listen_port", self.listen_port);
        push(&mut out, "fwmark", self.fwmark);
        push(
            &mut out,
            "replace_peers",
            self.replace_peers.then_some(true),
        );
        for peer in &self.peers {
            peer.render(&mut out);
        }
        out + "\n"
    }
}

impl PeerModel {
    fn of(peer: &PeerUpdate) -> Self {
        Self {
            public_key: *peer.public_key.as_bytes(),
            remove: peer.remove,
            update_only: peer.update_only,
            preshared_key: peer
                .preshared_key
                .as_ref()
                .map(|key| key.as_ref().map_or([0; 32], |key| *key.expose())),
            endpoint: peer.endpoint,
            persistent_keepalive_secs: peer.persistent_keepalive_secs,
            replace_allowed_ips: peer.replace_allowed_ips,
            allowed_ips: peer.allowed_ips.clone(),
        }
    }

    fn render(&self, out: &mut String) {
        push(out, "public_key", Some(hex(&self.public_key)));
        push(out, "remove", self.remove.then_some(true));
        push(out, "update_only", self.update_only.then_some(true));
        push(
            out,
            "preshared_key",
            self.preshared_key.map(|key| hex(&key)),
        );
        push(out, "endpoint", self.endpoint);
        push(
            out,
            "persistent_keepalive_interval",
            self.persistent_keepalive_secs,
        );
        push(
            out,
            "replace_allowed_ips",
            self.replace_allowed_ips.then_some(true),
        );
        for change in &self.allowed_ips {
            match change {
                AllowedIpChange::Add(prefix) => push(out, "allowed_ip", Some(prefix)),
                AllowedIpChange::Remove(prefix) => {
                    push(out, "allowed_ip", Some(format!("-{prefix}")))
                }
            }
        }
    }
}

fn push(out: &mut String, key: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        writeln!(out, "{key}={value}").unwrap();
    }
}

fn model() -> impl Strategy<Value = Model> {
    let private_key = any::<[u8; 32]>().prop_map(|bytes| *PrivateKey::from_bytes(bytes).expose());
    let peers = vec(peer_model(), 0..5);
    (
        option::of(prop_oneof![private_key, Just([0; 32])]),
        any::<Option<u16>>(),
        any::<Option<u32>>(),
        any::<bool>(),
        peers,
    )
        .prop_map(
            |(private_key, listen_port, fwmark, replace_peers, peers)| Model {
                private_key,
                listen_port,
                fwmark,
                replace_peers,
                peers,
            },
        )
}

fn peer_model() -> impl Strategy<Value = PeerModel> {
    // Mapped addresses are read as IPv4, which the text of the model does not know.
    let endpoint =
        any::<SocketAddr>().prop_filter("mapped", |addr| addr.ip() == addr.ip().to_canonical());
    let endpoint = endpoint.prop_map(|addr| match addr {
        SocketAddr::V6(v6) => {
            std::net::SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
        }
        SocketAddr::V4(_) => addr,
    });
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (
        any::<[u8; 32]>(),
        flags,
        any::<Option<[u8; 32]>>(),
        option::of(endpoint),
        any::<Option<u16>>(),
        vec(change(), 0..6),
    )
        .prop_map(
            |(
                public_key,
                (remove, update_only, replace),
                preshared_key,
                endpoint,
                keepalive,
                allowed_ips,
            )| {
                PeerModel {
                    public_key,
                    remove,
                    update_only,
                    preshared_key,
                    endpoint,
                    persistent_keepalive_secs: keepalive,
                    replace_allowed_ips: replace,
                    allowed_ips,
                }
            },
        )
}

fn change() -> impl Strategy<Value = AllowedIpChange> {
    (any::<std::net::IpAddr>(), 0..=128u8, any::<bool>()).prop_map(|(addr, len, added)| {
        let prefix = IpNet::new(addr, if addr.is_ipv4() { len % 33 } else { len })
            .unwrap()
            .trunc();
        if added {
            AllowedIpChange::Add(prefix)
        } else {
            AllowedIpChange::Remove(prefix)
        }
    })
}

fn almost_a_line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "private_key",
        "listen_port",
        "fwmark",
        "replace_peers",
        "public_key",
        "remove",
        "update_only",
        "preshared_key",
        "endpoint",
        "persistent_keepalive_interval",
        "replace_allowed_ips",
        "allowed_ip",
        "protocol_version",
        "errno",
    ]);
    let value = prop_oneof![
        "[-+0-9a-fx:./%\\[\\]]{0,20}",
        "[0-9a-f]{64}",
        "true",
        ".{0,10}"
    ];
    (key, value).prop_map(|(key, value)| format!("{key}={}", value.replace('\n', "")))
}

fn read(text: &str) -> Result<Request, ParseError> {
    parse(text.as_bytes(), no_scopes)
}

fn set(body: &str) -> Update {
    let Ok(Request::Set(update)) = read(&format!("set=1\n{body}\n")) else {
        panic!("{:?}", read(body))
    };
    update
}

fn refused(text: &str) -> ParseError {
    read(text).expect_err(text)
}

fn no_scopes(_: &str) -> Option<u32> {
    None
}

fn is_empty(update: &Update) -> bool {
    let Update {
        private_key,
        listen_port,
        fwmark,
        replace_peers,
        peers,
    } = update;
    private_key.is_none()
        && listen_port.is_none()
        && fwmark.is_none()
        && !replace_peers
        && peers.is_empty()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn add(text: &str) -> AllowedIpChange {
    AllowedIpChange::Add(net(text))
}

fn hex(bytes: &[u8; 32]) -> String {
    PublicKey::from_bytes(*bytes).to_hex()
}
