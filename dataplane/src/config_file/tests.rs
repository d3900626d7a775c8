use std::fs;

use ipnet::IpNet;
use ployz_engine::AllowedIpChange;
use proptest::prelude::*;

use super::*;

const PRIVATE: &str = "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8gaGU=";
const PUBLIC: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

#[test]
fn every_setting() {
    let config = read_text(&format!(
        "# a comment\n[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 51820\nFwMark = 0xca6c\n\
         Address = 10.0.0.1/24, fd00::1/64\nAddress = 10.1.0.1\nMTU = 1400\n\n\
         [Peer] # another\nPublicKey = {PUBLIC}\nPresharedKey = {PRIVATE}\n\
         AllowedIPs = 10.0.0.2/32, fd00::/64\nAllowedIPs=10.9.8.7/16\nEndpoint = [2001:db8::1]:51820\n\
         PersistentKeepalive = 25\n"
    ))
    .unwrap();
    assert_eq!(
        strings(&config.addresses),
        ["10.0.0.1/24", "fd00::1/64", "10.1.0.1/32"]
    );
    assert_eq!(config.mtu, Some(1400));
    let update = config.update;
    assert!(matches!(update.private_key, Some(Some(_))));
    assert_eq!(update.listen_port, Some(51820));
    assert_eq!(update.fwmark, Some(0xca6c));
    assert!(update.replace_peers);
    let [peer] = &update.peers[..] else {
        panic!("{:?}", update.peers)
    };
    assert_eq!(peer.public_key, PublicKey::from_bytes([1; 32]));
    assert!(matches!(peer.preshared_key, Some(Some(_))));
    assert_eq!(peer.endpoint, Some("[2001:db8::1]:51820".parse().unwrap()));
    assert_eq!(peer.persistent_keepalive_secs, Some(25));
    assert!(peer.replace_allowed_ips);
    assert_eq!(
        peer.allowed_ips,
        [add("10.0.0.2/32"), add("fd00::/64"), add("10.9.0.0/16")]
    );
}

#[test]
fn what_is_not_mentioned_is_taken_away() {
    let Config {
        update,
        addresses,
        mtu,
    } = read_text("").unwrap();
    assert!(matches!(update.private_key, Some(None)));
    assert_eq!(
        (update.listen_port, update.fwmark, update.replace_peers),
        (Some(0), Some(0), true)
    );
    assert!(update.peers.is_empty() && addresses.is_empty() && mtu.is_none());
    let config = read_text(&format!("[Peer]\nPublicKey={PUBLIC}")).unwrap();
    let peer = &config.update.peers[0];
    assert!(peer.replace_allowed_ips && peer.allowed_ips.is_empty());
    assert!(
        peer.endpoint.is_none()
            && peer.preshared_key.is_none()
            && peer.persistent_keepalive_secs.is_none()
    );
}

#[test]
fn names_and_spaces_are_free() {
    let config = read_text(&format!(
        "[INTERFACE]\r\n\tlistenport=  7 # seven\r\n[peer]\nPUBLICKEY\t= {PUBLIC}\npersistentkeepalive = OFF\n[Interface]\nfwmark = OFF"
    ))
    .unwrap();
    assert_eq!(config.update.listen_port, Some(7));
    assert_eq!(config.update.peers[0].persistent_keepalive_secs, Some(0));
    assert_eq!(config.update.fwmark, Some(0));
}

#[test]
fn signs_change_and_their_absence_replaces() {
    let peer = |lines: &str| {
        let text = format!("[Peer]\nPublicKey={PUBLIC}\n{lines}");
        read_text(&text).unwrap().update.peers.remove(0)
    };
    let changed = peer("AllowedIPs = -10.0.0.0/8, +10.1.0.0/16\n");
    assert!(!changed.replace_allowed_ips);
    assert_eq!(
        changed.allowed_ips,
        [
            AllowedIpChange::Remove("10.0.0.0/8".parse().unwrap()),
            add("10.1.0.0/16")
        ]
    );
    assert!(peer("AllowedIPs = +10.0.0.0/8\nAllowedIPs = 10.1.0.0/16\n").replace_allowed_ips);
    let none = peer("AllowedIPs =\n");
    assert!(none.replace_allowed_ips && none.allowed_ips.is_empty());
}

#[test]
fn host_names_are_resolved_and_addresses_are_not() {
    let resolve = |host: &str, port: u16| {
        assert_eq!((host, port), ("vpn.example.org", 51820));
        Ok("192.0.2.7:51820".parse().unwrap())
    };
    let text = |endpoint: &str| format!("[Peer]\nPublicKey={PUBLIC}\nEndpoint = {endpoint}\n");
    for (endpoint, expected) in [
        ("vpn.example.org:51820", "192.0.2.7:51820"),
        ("192.0.2.1:1", "192.0.2.1:1"),
        ("[2001:db8::1]:1", "[2001:db8::1]:1"),
    ] {
        let config = parse(&text(endpoint), resolve).unwrap();
        assert_eq!(
            config.update.peers[0].endpoint,
            Some(expected.parse().unwrap())
        );
    }
    let error = parse(&text("vpn.example.org:1"), |_, _| {
        Err(io::Error::other("no such host"))
    })
    .unwrap_err();
    let expected = "line 3: cannot resolve vpn.example.org: no such host; write its address";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn mistakes_are_named_with_their_line() {
    let peer = |line: &str| format!("[Peer]\nPublicKey={PUBLIC}\n{line}\n");
    let interface = |line: &str| format!("\n\n[Interface]\n{line}\n");
    let key = "is 44 characters of base64, as `wg genkey` prints them";
    let cases = [
        (
            "ListenPort = 1".into(),
            1,
            "this setting belongs to no section; write [Interface] or [Peer] above it",
        ),
        (
            "[Other]".into(),
            1,
            "there is no section [Other]; write [Interface] or [Peer]",
        ),
        (
            interface("ListenPort 51820"),
            4,
            "this is no setting; write it as Key = value",
        ),
        (
            interface("ListenPort = 65536"),
            4,
            "ListenPort is a number from 0 to 65535",
        ),
        (
            interface("FwMark = x"),
            4,
            "FwMark is a number up to 4294967295 (0xffffffff), or off",
        ),
        (
            interface("PrivateKey = abc"),
            4,
            &format!("PrivateKey {key}"),
        ),
        (
            interface("Address = 10.0.0.1/33"),
            4,
            "Address is addresses separated by commas, each with or without /length",
        ),
        (
            interface("Address ="),
            4,
            "Address is addresses separated by commas, each with or without /length",
        ),
        (interface("MTU = 67"), 4, "MTU is a number from 68 to 65535"),
        (
            interface("MTU = 65536"),
            4,
            "MTU is a number from 68 to 65535",
        ),
        (
            interface("PostUp = rm -rf /"),
            4,
            "PostUp is for wg-quick and has no effect here; remove the line",
        ),
        (
            interface("PublicKey = x"),
            4,
            "[Interface] has no setting PublicKey; it has PrivateKey, ListenPort, FwMark, Address and MTU",
        ),
        (peer("PublicKey = x"), 3, &format!("PublicKey {key}")),
        (peer("PresharedKey = x"), 3, &format!("PresharedKey {key}")),
        (
            peer("AllowedIPs = 10.0.0.0/8,"),
            3,
            "AllowedIPs is prefixes (address/length) separated by commas",
        ),
        (
            peer("AllowedIPs = ++10.0.0.0/8"),
            3,
            "AllowedIPs is prefixes (address/length) separated by commas",
        ),
        (
            peer("Endpoint = 192.0.2.1"),
            3,
            "Endpoint is address:port, [address]:port or host:port",
        ),
        (
            peer("Endpoint = 2001:db8::1:5"),
            3,
            "Endpoint is address:port, [address]:port or host:port",
        ),
        (
            peer("Endpoint = :5"),
            3,
            "Endpoint is address:port, [address]:port or host:port",
        ),
        (
            peer("PersistentKeepalive = x"),
            3,
            "PersistentKeepalive is a number of seconds up to 65535, or off",
        ),
        (
            peer("MTU = 1400"),
            3,
            "[Peer] has no setting MTU; it has PublicKey, PresharedKey, AllowedIPs, Endpoint and PersistentKeepalive",
        ),
        (
            "[Interface]\n\n[Peer]\n[Interface]".into(),
            3,
            "this [Peer] has no PublicKey; add one",
        ),
        ("[Peer]".into(), 1, "this [Peer] has no PublicKey; add one"),
    ];
    for (text, line, message) in cases {
        let error = read_text(&text).expect_err(&text);
        assert_eq!(error.to_string(), format!("line {line}: {message}"));
    }
}

#[test]
fn files_are_read_and_errors_name_them() {
    let path = std::env::temp_dir().join(format!("ployz-config-{}.conf", std::process::id()));
    fs::write(&path, "[Interface]\nListenPort = 5\n").unwrap();
    assert_eq!(load(&path).unwrap().update.listen_port, Some(5));
    fs::write(&path, "[Interface]\nListenPort = x\n").unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{}, line 2: ListenPort is a number from 0 to 65535",
            path.display()
        )
    );
    fs::remove_file(&path).unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot read {}: No such file", path.display())),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\[(Peer|Interface)\\]\n)?([A-Za-z]{0,8} ?=?[-+0-9a-f.:/,\\[\\]#%=]{0,20}\n){0,8}") {
        let _ = read_text(&text);
    }

    #[test]
    fn no_value_panics(key in "PrivateKey|ListenPort|FwMark|Address|MTU|AllowedIPs|Endpoint|PublicKey", value in ".{0,30}") {
        for section in ["Interface", "Peer"] {
            let _ = read_text(&format!("[{section}]\n{key}={value}\n"));
        }
    }
}

fn read_text(text: &str) -> Result<Config, LineError> {
    parse(text, |_, _| {
        Err(io::Error::other("there is no resolver in tests"))
    })
}

fn add(text: &str) -> AllowedIpChange {
    AllowedIpChange::Add(text.parse().unwrap())
}

fn strings(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}
