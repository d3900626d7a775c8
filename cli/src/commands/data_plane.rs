//! `ployzctl status --interface`: asks a running data plane, over the socket that `wg` uses, what it is like.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ployz_api::{Code, Failure};
use serde_json::{Map, Value, json};

use crate::outcome::{Outcome, Success};

const SOCKET_DIRECTORY: &str = "/var/run/wireguard";
/// The data plane answers within a turn, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// The answer has some forty lines, and one for each of at most 65,536 peers; more than this is not an answer.
const LINES_MAX: usize = 70_000;

pub(super) fn run(interface: Option<&str>) -> Outcome {
    let socket = find_socket(Path::new(SOCKET_DIRECTORY), interface)?;
    let interface = socket
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let lines = ask(&socket).map_err(|error| {
        Failure::new(
            Code::DaemonUnreachable,
            format!(
                "the data plane of {} does not answer: {error}",
                socket.display()
            ),
        )
        .hint(format!("ployzd dataplane {interface}"))
    })?;
    understand(&interface, &lines)
}

fn find_socket(directory: &Path, interface: Option<&str>) -> Result<PathBuf, Failure> {
    if let Some(interface) = interface {
        return Ok(directory.join(format!("{interface}.sock")));
    }
    let mut sockets: Vec<PathBuf> = std::fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    sockets.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "sock")
    });
    match sockets.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::new(
            Code::DaemonUnreachable,
            "no data plane is running on this machine",
        )
        .hint("ployzd dataplane <interface>")),
        several => {
            let message = format!("{} interfaces are running on this machine", several.len());
            Err(Failure::new(Code::InvalidArgument, message)
                .hint("ployzctl status --interface <name>"))
        }
    }
}

/// Sends `status=1` and reads up to the empty line.
fn ask(socket: &Path) -> std::io::Result<Vec<(String, String)>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"status=1\n\n")?;
    let mut lines = Vec::new();
    for line in BufReader::new(stream).lines().take(LINES_MAX) {
        let line = line?;
        let Some((key, value)) = line.split_once('=') else {
            break;
        };
        lines.push((key.to_owned(), value.to_owned()));
    }
    Ok(lines)
}

fn understand(interface: &str, lines: &[(String, String)]) -> Outcome {
    let backend = lines.iter().find(|(key, _)| key == "backend");
    if backend.is_none() {
        let message = format!(
            "{interface} belongs to another WireGuard implementation, which offers no status"
        );
        return Err(Failure::new(Code::Unsupported, message).hint(format!("wg show {interface}")));
    }
    let mut payload = Map::new();
    payload.insert("kind".to_owned(), "status".into());
    payload.insert("interface".to_owned(), interface.into());
    let mut drops = Map::new();
    let (mut paths, mut round_trips) = (Vec::new(), Vec::new());
    let mut text = format!("interface        {interface}");
    for (key, value) in lines.iter().filter(|(key, _)| key != "errno") {
        if key.starts_with("path_")
            && let Some(path) = understand_path(value)
        {
            text += &format!("\npath             {value}");
            paths.push(path);
            continue;
        }
        if key.starts_with("rtt_")
            && let Some(round_trip) = understand_round_trip(value)
        {
            text += &format!("\nround trip       {}", round_trip.text);
            round_trips.push(round_trip.json);
            continue;
        }
        let value_json = value
            .parse::<u64>()
            .map_or_else(|_| yes_no_or_text(value), Value::from);
        if let Some(reason) = key.strip_prefix("drop_") {
            drops.insert(reason.to_owned(), value_json);
            continue;
        }
        text += &format!("\n{key:<16} {value}");
        payload.insert(key.clone(), value_json);
    }
    for (reason, count) in drops.iter().filter(|(_, count)| count.as_u64() != Some(0)) {
        text += &format!("\ndropped          {count} {reason}");
    }
    payload.insert("paths".to_owned(), paths.into());
    payload.insert("round_trips".to_owned(), round_trips.into());
    payload.insert("drops".to_owned(), drops.into());
    Ok(Success {
        text,
        payload,
        ..Success::default()
    })
}

/// Public key, MTU in bytes, and what is known about batches.
fn understand_path(value: &str) -> Option<Value> {
    let mut words = value.split(' ');
    let (public_key, mtu, batches) = (words.next()?, words.next()?, words.next()?);
    let mtu: u64 = mtu.parse().ok()?;
    Some(json!({ "public_key": public_key, "mtu_bytes": mtu, "udp_gso": batches }))
}

struct RoundTrip {
    text: String,
    json: Value,
}

/// A public key, and words of `name=value`.
fn understand_round_trip(value: &str) -> Option<RoundTrip> {
    let mut words = value.split(' ');
    let public_key = words.next()?;
    let mut json = Map::new();
    json.insert("public_key".to_owned(), public_key.into());
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        let number = value.parse::<u64>().map(Value::from).ok();
        let number = number.or_else(|| value.parse::<f64>().map(Value::from).ok());
        json.insert(name.to_owned(), number.unwrap_or_else(|| value.into()));
    }
    let sent = json.get("sent")?.as_u64()?;
    let samples = json.get("samples")?.as_u64()?;
    if samples == 0 {
        // There is no time of no sample.
        let times = json.iter_mut();
        times
            .filter(|(name, _)| name.ends_with("_us") || *name == "age_secs")
            .for_each(|(_, time)| *time = Value::Null);
    }
    let us = |name: &str| json.get(name).and_then(Value::as_f64).unwrap_or_default();
    let count = |name: &str| json.get(name).and_then(Value::as_u64).unwrap_or_default();
    let text = if samples == 0 {
        format!("{public_key} unmeasured, {sent} tests sent")
    } else {
        let lost = count("lost_forward") + count("lost_reverse");
        format!(
            "{public_key} p50 {} us, p99 {} us, through the tunnel {} us, {samples} samples, {lost} lost, {} s ago",
            us("p50_us"),
            us("p99_us"),
            us("tunnel_p50_us"),
            count("age_secs"),
        )
    };
    Some(RoundTrip {
        text,
        json: json.into(),
    })
}

fn yes_no_or_text(value: &str) -> Value {
    match value {
        "yes" => true.into(),
        "no" => false.into(),
        text => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A daemon that gives one answer; the directory goes with it.
    fn daemon(name: &str, answer: &'static str) -> (PathBuf, std::thread::JoinHandle<Vec<u8>>) {
        let directory =
            std::env::temp_dir().join(format!("ployzctl-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join(format!("{name}.sock"))).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 10];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        (directory, thread)
    }

    #[test]
    fn the_only_interface_is_found_asked_and_understood() {
        let answer = "version=1\nbackend=epoll\nudp_gso=yes\npath_0=AAA= 1400 broken\nrtt_0=AAA= p50_us=81.5 p99_us=120.0 tunnel_p50_us=200.5 samples=19 sent=20 lost_forward=1 lost_reverse=0 age_secs=3 stamps=kernel\nrtt_1=BBB= p50_us=0.0 samples=0 sent=4 stamps=kernel\ndrop_spoof=3\ndrop_replay=0\nerrno=0\n\n";
        let (directory, thread) = daemon("st0", answer);
        let socket = find_socket(&directory, None).unwrap();
        let success = understand("st0", &ask(&socket).unwrap()).unwrap();
        assert_eq!(thread.join().unwrap(), b"status=1\n\n");
        assert_eq!(success.payload["backend"], "epoll");
        assert_eq!(success.payload["udp_gso"], true);
        assert_eq!(success.payload["paths"][0]["public_key"], "AAA=");
        assert_eq!(success.payload["paths"][0]["mtu_bytes"], 1400);
        assert_eq!(success.payload["paths"][0]["udp_gso"], "broken");
        assert_eq!(success.payload["round_trips"][0]["p50_us"], 81.5);
        assert_eq!(success.payload["round_trips"][0]["lost_forward"], 1);
        assert_eq!(success.payload["round_trips"][1]["p50_us"], Value::Null);
        assert!(success.text.contains("BBB= unmeasured, 4 tests sent"));
        assert_eq!(success.payload["drops"]["spoof"], 3);
        assert!(success.text.contains("3 spoof") && !success.text.contains("replay"));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn another_wireguard_is_told_apart_from_none() {
        let failure = understand("wg0", &[("errno".to_owned(), "-22".to_owned())]).unwrap_err();
        assert_eq!(failure.code, Code::Unsupported);
        let nowhere = Path::new("/nonexistent");
        assert_eq!(
            find_socket(nowhere, None).unwrap_err().code,
            Code::DaemonUnreachable
        );
        assert!(ask(&nowhere.join("wg0.sock")).is_err());
    }
}
