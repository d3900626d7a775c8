//! A client that takes as many connections of a management server as it gets, and keeps them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use ployz_api::{
    Credential, HEADER_LEN, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, Request, Response, encode,
};
use quinn::{Connection, ConnectionError, Endpoint};

use crate::quic_client::connect_from;

/// The connections on which the server has answered.
#[derive(Debug)]
pub struct Hoard {
    held: Vec<Connection>,
    _endpoint: Endpoint,
}

impl Hoard {
    /// Asks on one connection after the other for a status; those that are answered are kept.
    pub async fn take(credential: &Credential, attempts: usize) -> Result<Self> {
        let endpoint = Endpoint::client(([0, 0, 0, 0], 0).into())?;
        let mut held = Vec::new();
        for _ in 0..attempts {
            let Ok(connection) = connect_from(&endpoint, credential).await else {
                continue;
            };
            if is_answered(&connection).await.is_ok() {
                held.push(connection);
            }
        }
        Ok(Self {
            held,
            _endpoint: endpoint,
        })
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Waits until the server has closed all of them, with this application code.
    pub async fn closed(&self, code: u32, patience: Duration) -> Result<()> {
        let closed = join_all(self.held.iter().map(Connection::closed));
        let causes = tokio::time::timeout(patience, closed).await;
        for cause in causes.context("connections are still open")? {
            let is_said = matches!(
                &cause,
                ConnectionError::ApplicationClosed(close) if close.error_code == code.into()
            );
            ensure!(is_said, "{cause}");
        }
        Ok(())
    }
}

async fn is_answered(connection: &Connection) -> Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&encode(&Request::Status, REQUEST_LEN_MAX)?)
        .await?;
    send.finish()?;
    let answer = receive.read_to_end(HEADER_LEN + RESPONSE_LEN_MAX).await?;
    let response = Response::parse(answer.get(HEADER_LEN..).context("a frame")?)?;
    ensure!(response.ok, "{response:?}");
    Ok(())
}
