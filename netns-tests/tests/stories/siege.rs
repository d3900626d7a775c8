//! Everything that a management server has to put up with, from a neighbour who can reach its port.
//!
//! ```text
//!   m1 founds acme ──┬── switch
//!   m2, besieging ───┘
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_api::client::ask;
use ployz_api::{
    CertificateName, Code, Credential, HEADER_LEN, InviteId, InviteRequest, MeshInitRequest, Name,
    Operation, REQUEST_LEN_MAX, Request, Response, Role, Secret, encode,
};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::quic_client::{connect, quic, runtime, tls_versions};
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, tell};
use quinn::{Connection, Endpoint};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use serde_json::Value;

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 51_821);
const PATIENCE: Duration = Duration::from_secs(10);
/// A request that has not arrived by then is refused.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// Half-open connections, made by so many sockets each of the other number.
const SOCKETS: usize = 100;
const CONNECTIONS: usize = 100;
/// So many of them have to have arrived, on the busiest of hosts.
const BEGUN_AT_LEAST: u64 = 9_000;

#[test]
fn a_management_server_under_siege() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let (mut founder, besieger) = (segment.machine(stage, 1)?, segment.machine(stage, 2)?);
        founder.start(stage)?;
        ensure!(founder.code("mesh init acme")? == "OK");
        let reader = credential(&founder, Role::Reader)?;
        let admin = credential(&founder, Role::Admin)?;
        ensure!(answer(&besieger, &reader, &Request::Status)?.code == Code::Ok);
        a_reader_changes_nothing(&besieger, &reader)?;
        nobody_without_the_authority(&besieger, &reader)?;
        let counted = |cause: &str| refused(&founder, cause);
        ensure!(counted("FORBIDDEN")? >= 5 && counted("handshake")? >= 2);
        frames(&besieger, &founder, &reader)?;
        half_open(&besieger, &founder, &admin)
    })
}

/// What the network's authority would sign; its key lies with the founder.
fn credential(founder: &Machine, role: Role) -> Result<Credential> {
    let network = read(founder, "network.json")?;
    let name = CertificateName {
        subject: "somebody".to_owned(),
        role,
        network: text(&network, "/network_id"),
    };
    let authority = read(founder, "ca.json")?;
    let key = KeyPair::from_pem(&text(&authority, "/key_pem"))?;
    let issuer = authority_of(&name.network, key);
    let own = KeyPair::generate()?;
    let certificate_pem = parameters(&name)?.signed_by(&own, &issuer)?.pem();
    Ok(Credential {
        endpoints: vec![SERVER.into()],
        ca_pem: text(&network, "/ca_pem"),
        network: name.network,
        certificate_pem,
        key_pem: Secret::new(own.serialize_pem()),
    })
}

fn parameters(name: &CertificateName) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = vec![SanType::DnsName(name.to_string().try_into()?)];
    Ok(parameters)
}

/// As the network's authority calls itself.
fn authority_of(network: &str, key: KeyPair) -> Issuer<'static, KeyPair> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let name = format!("ployz {network}");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Issuer::new(parameters, key)
}

fn read(machine: &Machine, file: &str) -> Result<Value> {
    let bytes = fs::read(machine.data_dir.join(file))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn answer(from: &Machine, credential: &Credential, request: &Request) -> Result<Response> {
    from.netns
        .enter(|| Ok(runtime()?.block_on(ask(credential, request, PATIENCE))?))
}

/// As the core's table says; here on the wire.
fn a_reader_changes_nothing(from: &Machine, reader: &Credential) -> Result<()> {
    let mutations = [
        Request::MeshInit(MeshInitRequest {
            name: Name::nearest("mine"),
            cluster_cidr: None,
            subnet_prefix_len: None,
            wg_port: None,
            endpoints: Vec::new(),
        }),
        Request::MeshStart,
        Request::MeshStop { force: true },
        Request::MeshDestroy {
            name: Some(Name::nearest("acme")),
            force: true,
        },
        Request::MachineRename {
            machine: "m1".to_owned(),
            name: Name::nearest("other"),
        },
        Request::MachineLabel {
            machine: "m1".to_owned(),
            labels: BTreeMap::new(),
        },
        Request::MachineRemove {
            machine: "m1".to_owned(),
            force: true,
        },
        Request::InviteCreate(InviteRequest::lasting(60)),
        Request::InviteRevoke {
            invite_id: InviteId::new(1, 1),
        },
        Request::InviteImport {
            token: Secret::new("ployz2.x".to_owned()),
        },
    ];
    for request in mutations {
        let operation: Operation = request.operation();
        let response = answer(from, reader, &request)?;
        ensure!(
            response.code == Code::Forbidden,
            "{operation:?}: {response:?}"
        );
    }
    Ok(())
}

/// A certificate that says the right things and was signed by its holder, alone or with a chain of its own making.
fn nobody_without_the_authority(from: &Machine, reader: &Credential) -> Result<()> {
    let name = CertificateName {
        subject: "somebody".to_owned(),
        role: Role::Admin,
        network: reader.network.clone(),
    };
    let own = KeyPair::generate()?;
    let alone = parameters(&name)?.self_signed(&own)?;
    // An authority of the same name as the network's, and with another key.
    let forged = KeyPair::generate()?;
    let issuer = authority_of(&reader.network, forged);
    let chained = parameters(&name)?.signed_by(&own, &issuer)?;
    for certificate in [alone, chained] {
        let credential = Credential {
            endpoints: reader.endpoints.clone(),
            network: reader.network.clone(),
            ca_pem: reader.ca_pem.clone(),
            certificate_pem: certificate.pem(),
            key_pem: Secret::new(own.serialize_pem()),
        };
        let answer = answer(from, &credential, &Request::Status);
        ensure!(answer.is_err(), "{answer:?}");
    }
    Ok(())
}

/// Too long, too slow, cut, and none at all: each costs its sender one request, and nobody anything else.
fn frames(from: &Machine, founder: &Machine, reader: &Credential) -> Result<()> {
    let (too_long, too_slow) = from.netns.enter(|| {
        runtime()?.block_on(async {
            let (_endpoint, connection) = connect(reader).await?;
            let announced = u32::try_from(REQUEST_LEN_MAX + 1)?.to_be_bytes();
            let too_long = say(&connection, &announced, true).await?;
            let cut = say(&connection, &[0, 0, 0, 9, b'"'], true).await?;
            let rubbish = say(&connection, &[0, 0, 0, 1, 0xff], true).await?;
            ensure!(cut == Code::InvalidArgument && rubbish == Code::InvalidArgument);
            let begin = now();
            let frame = encode(&Request::Status, REQUEST_LEN_MAX)?;
            let too_slow = say(&connection, &frame[..HEADER_LEN + 3], false).await?;
            ensure!(begin.elapsed() >= REQUEST_WAIT, "{:?}", begin.elapsed());
            // The connection is as good as ever.
            let whole = say(&connection, &frame, true).await?;
            ensure!(whole == Code::Ok, "{whole}");
            Ok((too_long, too_slow))
        })
    })?;
    ensure!(too_long == Code::InvalidArgument, "{too_long}");
    ensure!(too_slow == Code::Timeout, "{too_slow}");
    ensure!(refused(founder, "INVALID_ARGUMENT")? == 3 && refused(founder, "TIMEOUT")? == 1);
    Ok(())
}

/// Sends bytes, and finishes or does not; the code of the answer.
async fn say(connection: &Connection, bytes: &[u8], finish: bool) -> Result<Code> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(bytes).await?;
    if finish {
        send.finish()?;
    }
    let answer = receive.read_to_end(1 << 20).await?;
    let body = answer.get(HEADER_LEN..).context("a frame")?;
    let response: Response = serde_json::from_slice(body)?;
    Ok(response.code)
}

/// Ten thousand handshakes are begun, and none goes on: what comes back is dropped. Meanwhile the operator is heard.
fn half_open(besieger: &Machine, founder: &Machine, admin: &Credential) -> Result<()> {
    besieger.netns.run("nft add table inet siege")?;
    besieger
        .netns
        .run("nft add chain inet siege input { type filter hook input priority 0 ; }")?;
    besieger
        .netns
        .run("nft add rule inet siege input udp sport 51821 drop")?;
    let before = resident_kib(founder)?;
    let begin = now();
    besieger.netns.enter(begin_and_abandon)?;
    let asked = now();
    let heard = founder
        .netns
        .enter(|| Ok(runtime()?.block_on(ask(admin, &Request::Status, PATIENCE))?))?;
    ensure!(heard.code == Code::Ok, "{heard:?}");
    show("an operator among 10,000 half-open", asked.elapsed());
    ensure!(founder.code("machine ls")? == "OK");
    let grown = resident_kib(founder)?.saturating_sub(before);
    ensure!(grown < 64 * 1024, "it has grown by {grown} KiB");
    wait_until("all of them to be forgotten and counted", PATIENCE, || {
        let count = |cause| refused(founder, cause).unwrap_or_default();
        count("handshake") > 2 && count("handshake") + count("handshakes") >= BEGUN_AT_LEAST
    })?;
    show("the siege", begin.elapsed());
    besieger.netns.run("nft delete table inet siege")?;
    ensure!(answer(besieger, admin, &Request::Status)?.code == Code::Ok);
    Ok(())
}

fn begin_and_abandon() -> Result<()> {
    let runtime = runtime()?;
    let tls = tls_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let config = quic(tls)?;
    let server: SocketAddr = SERVER.into();
    runtime.block_on(async {
        for _ in 0..SOCKETS {
            let endpoint = Endpoint::client(([0, 0, 0, 0], 0).into())?;
            let begun: Vec<_> = (0..CONNECTIONS)
                .map(|_| endpoint.connect_with(config.clone(), server, "siege.ployz"))
                .collect::<Result<_, _>>()?;
            // Each connection is a task that sends its first datagram when it gets its turn.
            for _ in 0..CONNECTIONS {
                tokio::task::yield_now().await;
            }
            // One that is dropped would say so; these are never heard of again.
            std::mem::forget((begun, endpoint));
        }
        Ok(())
    })
}

/// VmRSS of the daemon.
fn resident_kib(machine: &Machine) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", machine.pid()?))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(word.context("VmRSS")?.parse()?)
}

fn refused(machine: &Machine, cause: &str) -> Result<u64> {
    let status = machine.json("status")?;
    let count = status.pointer(&format!("/payload/refused/{cause}"));
    Ok(count.and_then(Value::as_u64).unwrap_or_default())
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what}: {took:.1?}");
}
