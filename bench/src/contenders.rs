//! The contenders that the command line selects.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::args::ContendersArguments;
use crate::console;
use crate::contender::Contender;
use crate::record::Entrant;
use crate::topology::Wire;

impl ContendersArguments {
    /// The contenders that were asked for, present or not.
    pub(crate) fn selected(&self) -> Result<Vec<Contender>> {
        let mut all = self.known();
        let unknown = |name: &&String| all.iter().all(|contender| contender.name != **name);
        if let Some(name) = self.contenders.iter().find(unknown) {
            let names: Vec<_> = all
                .iter()
                .map(|contender| contender.name.as_str())
                .collect();
            bail!(
                "there is no contender {name}; there are {}",
                names.join(", ")
            );
        }
        all.retain(|one| self.contenders.is_empty() || self.contenders.contains(&one.name));
        Ok(all)
    }

    pub(crate) fn contender(&self, name: &str) -> Result<Contender> {
        let found = self
            .known()
            .into_iter()
            .find(|contender| contender.name == name);
        found.with_context(|| format!("there is no contender {name}"))
    }

    pub(crate) fn wire(&self) -> Wire {
        if self.card { Wire::Card } else { Wire::Veth }
    }

    fn known(&self) -> Vec<Contender> {
        let ployzd = self.ployzd.clone().unwrap_or_else(beside_this_program);
        let mut all = Contender::all(&ployzd);
        all.extend(self.also.iter().cloned());
        all
    }
}

/// Splits those that can run here from the list of all, which says why the others cannot.
pub(crate) fn present(contenders: Vec<Contender>) -> (Vec<Contender>, Vec<Entrant>) {
    let (mut present, mut entrants) = (Vec::new(), Vec::new());
    for contender in contenders {
        let name = contender.name.clone();
        let presence = contender.presence();
        let absent = presence.as_ref().err().map(|reason| format!("{reason:#}"));
        match &absent {
            Some(reason) => console::progress(&format!("absent: {name}: {reason}")),
            None => present.push(contender),
        }
        entrants.push(Entrant {
            name,
            version: presence.ok(),
            absent,
        });
    }
    (present, entrants)
}

/// `target/release/ployzd`, next to `target/release/ployz-bench`.
fn beside_this_program() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    this.with_file_name("ployzd")
}
