//! Keys that are set, shown and read from files leave nothing in freed memory.
#![expect(clippy::unwrap_used, reason = "a test: what fails ends it")]

use std::time::{Duration, Instant};

use ployz_dataplane::config_file;
use ployz_dataplane::uapi::parse::{Request, parse};
use ployz_dataplane::uapi::{InterfaceDescription, render};
use ployz_engine::{
    Departure, Drop, Endpoint, Engine, PrivateKey, PublicKey, ShardMap, Sink, Sources, Update,
};
use ployz_memory::{Watch, Watching};

#[global_allocator]
static ALLOCATOR: Watching = Watching::new();

/// More than lists of peers have room for at first.
const PEERS: u8 = 40;

const PRIVATE: &str = "58c0e2b7a1f4936d0e7c25489bd3fa16874dc05e39a2f16b7e04d89351ac6f42";
const PRESHARED: &str = "e3195f8a0c7db264fa31780e9c5db4268f70ea13c49b5d26738ef0a1529cd64b";
const PRIVATE_BASE64: &str = "WMDit6H0k20OfCVIm9P6FodNwF45ovFrfgTYk1Gsb0I=";
const PRESHARED_BASE64: &str = "4xlfigx9smT6MXgOnF20Jo9w6hPEm10mc47woVKc1ks=";

/// The keys as they are and in both of their forms.
fn secrets() -> Vec<Vec<u8>> {
    let key = |text: &str| {
        PrivateKey::from_hex(text)
            .unwrap()
            .unwrap()
            .expose()
            .to_vec()
    };
    // Clamping does not change the bytes of these in between.
    let mut secrets = vec![key(PRIVATE)[1..25].to_vec(), key(PRESHARED)[1..25].to_vec()];
    let texts = [PRIVATE, PRESHARED, PRIVATE_BASE64, PRESHARED_BASE64];
    secrets.extend(texts.map(|text| text.as_bytes()[..40].to_vec()));
    secrets
}

fn public(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

/// What is sent is lost.
struct Lost;

impl Sink for Lost {
    fn datagram(&mut self, len: usize, _: &Endpoint, _: Departure, write: impl FnOnce(&mut [u8])) {
        write(&mut vec![0; len]);
    }

    fn part(&mut self) {}

    fn packet(&mut self, _: &[u8]) -> Result<(), Drop> {
        Ok(())
    }
}

/// Applies an update, and asks for everything.
#[expect(clippy::disallowed_methods, reason = "a test is a driver")]
fn set_and_get(update: &Update) -> usize {
    let mut drawn = 0;
    let random = move |bytes: &mut [u8]| {
        for byte in bytes {
            drawn += 1;
            *byte = (drawn * 151_u64) as u8;
        }
    };
    let sources = Sources {
        random: Box::new(random),
        unix_time: Box::new(|| Duration::ZERO),
    };
    let mut engine = Engine::new(ShardMap::ONLY, sources);
    let now = Instant::now();
    engine.apply(now, update, &mut Lost).unwrap();
    let answer = render::description(&InterfaceDescription {
        device: engine.describe(),
        listen_port: 1,
        fwmark: 0,
        now,
        unix_now: Duration::ZERO,
    });
    answer.matches(PRESHARED).count()
}

fn watched(text: &str, work: impl FnOnce(&str)) {
    let secrets = secrets();
    let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    let watch = Watch::begin(&secrets);
    work(text);
    let found = watch.found();
    assert!(found.is_empty(), "{} blocks: {}", found.len(), found[0]);
}

#[test]
fn set_and_get_leave_no_key_behind() {
    let mut text = format!("set=1\nprivate_key={PRIVATE}\n");
    for number in 0..PEERS {
        text += &format!(
            "public_key={}\npreshared_key={PRESHARED}\n",
            public(9 + number)
        );
    }
    text += "\n";
    watched(&text, |text| {
        let Ok(Request::Set(update)) = parse(text.as_bytes(), |_| None) else {
            panic!("it is an update");
        };
        assert_eq!(set_and_get(&update), PEERS.into());
    });
}

#[test]
fn a_configuration_file_leaves_no_key_behind() {
    let mut text = format!("[Interface]\nPrivateKey = {PRIVATE_BASE64}\n");
    for number in 0..PEERS {
        let key = PublicKey::from_hex(&public(9 + number)).unwrap();
        text += &format!("[Peer]\nPublicKey = {key}\nPresharedKey = {PRESHARED_BASE64}\n");
    }
    let path = std::env::temp_dir().join(format!("ployz-secrets-{}", std::process::id()));
    std::fs::write(&path, &text).unwrap();
    watched(&text, |_| {
        let config = config_file::load(&path).unwrap();
        assert_eq!(set_and_get(&config.update), PEERS.into());
    });
    std::fs::remove_file(path).unwrap();
}
