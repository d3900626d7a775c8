//! Reading from a web server, with a bound on everything.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::version::own_version;

/// For a name, a connection, and the beginning of an answer, each.
const STEP_WAIT: Duration = Duration::from_secs(10);
/// A server that says nothing for that long in the middle of an answer has gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The largest artifact at 2 Mb/s.
const ANSWER_WAIT: Duration = Duration::from_secs(10 * 60);
const REDIRECTS_MAX: u32 = 5;

/// Asks for a URL: what it answers, and how long that is, if it says so.
pub(crate) fn get(url: &str) -> Result<(impl Read + use<>, Option<u64>), ureq::Error> {
    let answer = agent(url).get(url).call()?;
    let len = answer.body().content_length();
    Ok((answer.into_body().into_reader(), len))
}

fn agent(url: &str) -> Agent {
    Agent::config_builder()
        // A request with TLS does not follow a redirect to a server without.
        .https_only(url.starts_with("https://"))
        .tls_config(tls())
        .max_redirects(REDIRECTS_MAX)
        .timeout_resolve(Some(STEP_WAIT))
        .timeout_connect(Some(STEP_WAIT))
        .timeout_recv_response(Some(STEP_WAIT))
        .timeout_per_read(Some(SILENCE_MAX))
        .timeout_global(Some(ANSWER_WAIT))
        .user_agent(format!("ployz/{}", own_version()))
        .build()
        .new_agent()
}

/// By the authorities that the system believes. One that cannot be read is one less.
fn tls() -> TlsConfig {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let roots = certificates
        .into_iter()
        .map(|der| Certificate::from_der(&der).to_owned());
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
        .build()
}
