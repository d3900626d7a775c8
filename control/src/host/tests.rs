//! Secrets of the host after their end: nothing that is freed holds any.

use ployz_api::{InviteId, MachineId, NetworkId, Role, Secret, Token};
use ployz_memory::Watch;
use rcgen::KeyPair;

use super::ca::CertificateAuthority;
use super::files::DataDirectory;
use super::identity::Identity;
use super::tls::{self, Presence};

const FILE: &str = "secret.json";

/// The bytes of a P-256 key in PKCS #8, and where they are in its PEM: in the middle of the first two lines.
const SCALAR: std::ops::Range<usize> = 36..68;
const FIRST_LINE: std::ops::Range<usize> = 48..64;
const SECOND_LINE: std::ops::Range<usize> = 0..24;

/// A data directory that is deleted afterwards.
fn in_directory(name: &str, work: impl FnOnce(&DataDirectory)) {
    let path = std::env::temp_dir().join(format!("ployz-{name}-{}", std::process::id()));
    let files = DataDirectory::open(&path).unwrap();
    work(&files);
    std::fs::remove_dir_all(path).unwrap();
}

fn secrets_of_pem(pem: &str) -> Vec<Vec<u8>> {
    let der = KeyPair::from_pem(pem).unwrap().serialize_der();
    let lines: Vec<&str> = pem.lines().skip(1).collect();
    let texts = [&lines[0][FIRST_LINE], &lines[1][SECOND_LINE]];
    let texts = texts.map(|text| text.as_bytes().to_vec());
    [vec![der[SCALAR].to_vec()], texts.to_vec()].concat()
}

/// Fails if anything that `work` frees holds one of these.
fn watched<T>(secrets: &[Vec<u8>], work: impl FnOnce() -> T) {
    let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    let watch = Watch::begin(&secrets);
    drop(work());
    let found = watch.found();
    assert!(found.is_empty(), "{} blocks: {}", found.len(), found[0]);
}

#[test]
fn an_authority_that_was_read_used_and_saved_leaves_no_key_behind() {
    in_directory("authority", |files| {
        files
            .write(FILE, &CertificateAuthority::generate("n").unwrap())
            .unwrap();
        let saved: serde_json::Value = files.read(FILE).unwrap().unwrap();
        watched(&secrets_of_pem(saved["key_pem"].as_str().unwrap()), || {
            let authority: CertificateAuthority = files.read(FILE).unwrap().unwrap();
            let key = KeyPair::generate().unwrap();
            authority
                .certify_person("ann", Role::Admin, None, &key)
                .unwrap();
            authority
                .certify_store(MachineId::new(1, 1), &[], &key)
                .unwrap();
            authority.route_secret(1);
            files.rewrite(FILE, &authority).unwrap();
        });
    });
}

#[test]
fn an_identity_that_was_read_and_used_leaves_no_key_behind() {
    in_directory("identity-read", |files| {
        let identity = Identity::open(files).unwrap();
        let text = |secret: &Secret| secret.expose().as_bytes().to_vec();
        let mut secrets = secrets_of_pem(identity.certificate_key_pem.expose());
        let wireguard = identity.wireguard_key.expose();
        // What comes before and behind is clamped.
        secrets.push(wireguard[1..25].to_vec());
        secrets.push(super::identity::hex(&wireguard[1..31]).into_bytes());
        secrets.push(text(&identity.nkey_seed));
        watched(&secrets, || {
            let identity = Identity::open(files).unwrap();
            let authority = CertificateAuthority::generate("n").unwrap();
            let key = identity.certificate_key().unwrap();
            let certificate_pem = authority
                .certify_store(MachineId::new(1, 1), &[], &key)
                .unwrap();
            let presence = Presence {
                ca_pem: authority.certificate_pem(),
                certificate_pem: &certificate_pem,
                key_pem: identity.certificate_key_pem.expose(),
                strangers: false,
            };
            let server = tls::server(presence).unwrap();
            let client = tls::store_client(presence).unwrap();
            identity.nkey().unwrap();
            (identity, server, client)
        });
    });
}

#[test]
fn a_token_that_was_made_and_read_leaves_no_secret_behind() {
    let secret = super::identity::hex(&rand::random::<[u8; 16]>());
    let token = |secret: &str| Token {
        network_id: NetworkId::new(1, 2),
        ca_fingerprint: "ca".to_owned(),
        endpoints: vec![([192, 0, 2, 1], 1).into()],
        invite_id: InviteId::new(3, 4),
        secret: Secret::new(secret.to_owned()),
        expires_at: 5,
        coordinators: None,
    };
    // The checksum at the end depends on all of it.
    let word = token(&secret).encode();
    let word = word.expose().as_bytes();
    let secrets = [
        secret.clone().into_bytes(),
        word[word.len() - 200..].to_vec(),
    ];
    watched(&secrets, || {
        let word = token(&secret).encode();
        let read = Token::decode(word.expose()).unwrap();
        assert_eq!(read.secret.expose(), secret);
        let json = serde_json::to_vec(&read).unwrap();
        serde_json::from_slice::<Token>(&json).unwrap()
    });
}
