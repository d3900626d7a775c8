//! The steps on a host: a script, or the host's own `ployzctl`, at a time.

use std::time::Duration;

use ployz_api::{
    Code, Failure, LabelKey, LabelValue, MachineId, MachineList, MachineRow, Name, Outcome,
    Payload, Response, Secret, Success,
};

use serde_json::Value;

use super::host::{Host, Output, Script};
use super::preflight;
use super::source::Git;

/// Facts are at hand.
const FACTS_WAIT: Duration = Duration::from_secs(30);
/// 20 MB over a slow line, and a daemon that starts.
const INSTALL_WAIT: Duration = Duration::from_secs(600);
/// A release build on a small machine.
const BUILD_WAIT: Duration = Duration::from_secs(3600);
/// The daemon has a minute for a request itself.
const ASK_WAIT: Duration = Duration::from_secs(90);
/// The installation's own command line, asking its own daemon.
const OWN: &str = r#"exec /opt/ployz/current/ployzctl --context local --json "$@""#;

/// Asks the host for its facts.
pub(super) async fn facts(host: &Host, ports: &str) -> Result<String, Failure> {
    let script = Script {
        text: preflight::SCRIPT,
        words: &[ports],
        stdin: b"",
        as_root: false,
        patience: FACTS_WAIT,
    };
    // It says what it can, and how it ends does not matter.
    Ok(host.run(&script).await?.stdout)
}

/// Installs what is packed, and starts the daemon.
pub(super) async fn install(host: &Host, packed: &[u8], flags: &[&str]) -> Result<(), Failure> {
    let script = Script {
        text: include_str!("install.sh"),
        words: flags,
        stdin: packed,
        as_root: true,
        patience: INSTALL_WAIT,
    };
    done(host.run(&script).await?)
}

/// Has an installation that is there already do the rest.
pub(super) async fn install_again(host: &Host, flags: &[&str]) -> Result<(), Failure> {
    let words = [&["daemon", "install"], flags].concat();
    let script = Script {
        patience: INSTALL_WAIT,
        ..asking(&words, b"")
    };
    done(host.run(&script).await?)
}

/// Builds the programs there; the artifact.
pub(super) async fn build(
    host: &Host,
    git: &Git,
    each: impl FnMut(&str),
) -> Result<Vec<u8>, Failure> {
    let script = Script {
        text: include_str!("build.sh"),
        words: &[&git.url, &git.reference],
        stdin: b"",
        as_root: false,
        patience: BUILD_WAIT,
    };
    let output = host.follow(&script, each).await?;
    let last = output.stdout.lines().last().unwrap_or_default().to_owned();
    output.success(Code::InstallFailed)?;
    host.fetch(&last, INSTALL_WAIT).await
}

/// Has the daemon join by an invite.
pub(super) async fn join(host: &Host, token: &Secret) -> Result<ployz_api::MachineJoin, Failure> {
    let words = ["machine", "invite", "import", "--token-stdin"];
    match own(host, &words, token.expose().as_bytes()).await?.payload {
        Some(Payload::MachineJoin(joined)) => Ok(joined),
        Some(_) | None => Err(unexpected()),
    }
}

/// Has the daemon found a network.
pub(super) async fn found(host: &Host, network: &Name) -> Result<ployz_api::MeshInit, Failure> {
    let words = ["mesh", "init", network.as_str()];
    match own(host, &words, b"").await?.payload {
        Some(Payload::MeshInit(founded)) => Ok(*founded),
        Some(_) | None => Err(unexpected()),
    }
}

/// Has the founder of a network write labels on its own machine.
pub(super) async fn label(
    host: &Host,
    machine: MachineId,
    labels: &[(LabelKey, LabelValue)],
) -> Result<(), Failure> {
    let machine = machine.to_string();
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut words = vec!["machine", "label", &machine];
    words.extend(labels.iter().map(String::as_str));
    own(host, &words, b"").await.map(drop)
}

/// Creates an admin credential of the network that the host has founded.
pub(super) async fn credential(host: &Host) -> Result<ployz_api::NewCredential, Failure> {
    let words = [
        "credential",
        "create",
        "--role",
        "admin",
        "--name",
        "founder",
    ];
    match own(host, &words, b"").await?.payload {
        Some(Payload::Credential(credential)) => Ok(*credential),
        Some(_) | None => Err(unexpected()),
    }
}

/// The machines, as the host sees them.
pub(super) async fn machines(host: &Host) -> Result<Vec<MachineRow>, Failure> {
    match own(host, &["machine", "ls"], b"").await?.payload {
        Some(Payload::MachineList(MachineList { rows, .. })) => Ok(rows),
        Some(_) | None => Err(unexpected()),
    }
}

/// Removes everything that was installed.
pub(super) async fn uninstall(host: &Host) -> Result<(), Failure> {
    const UNINSTALL: &str = "if [ -e /opt/ployz/current/ployzctl ]; then\n\
        /opt/ployz/current/ployzctl --json daemon uninstall --force >/dev/null\n\
        else rm -rf /opt/ployz; fi";
    let output = host.run(&Script::of_root(UNINSTALL, ASK_WAIT)).await?;
    output.success(Code::InstallFailed).map(drop)
}

/// Has the daemon forget the network.
pub(super) async fn leave(host: &Host, network: &Name) -> Result<(), Failure> {
    let words = ["mesh", "destroy", "--force", network.as_str()];
    own(host, &words, b"").await.map(drop)
}

async fn own(host: &Host, words: &[&str], stdin: &[u8]) -> Result<Success, Failure> {
    parsed(host.run(&asking(words, stdin)).await?)
}

const fn asking<'a>(words: &'a [&'a str], stdin: &'a [u8]) -> Script<'a> {
    Script {
        text: OWN,
        words,
        stdin,
        as_root: true,
        patience: ASK_WAIT,
    }
}

/// Whether a `ployzctl --json` has done there what it was told; what else it says is for people.
fn done(output: Output) -> Result<(), Failure> {
    let document: Option<Value> = serde_json::from_str(&output.stdout).ok();
    let answer = document.and_then(|mut document| {
        document.as_object_mut()?.remove("payload");
        Response::parse(document.to_string().as_bytes()).ok()
    });
    match answer {
        Some(answer) => Outcome::from(answer).map(drop),
        None => output.success(Code::InstallFailed).map(drop),
    }
}

/// Parses the document of the host's `ployzctl --json`, or reports why there is none.
fn parsed(output: Output) -> Outcome {
    if let Ok(answer) = Response::parse(output.stdout.as_bytes()) {
        return answer.into();
    }
    output.success(Code::InstallFailed)?;
    Err(unexpected())
}

fn unexpected() -> Failure {
    let message = "the ployzctl on the host sent an answer that this one does not understand";
    Failure::new(Code::VersionMismatch, message)
        .hint("install the version of this ployzctl with --install-version")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    /// git would run what `--upload-pack` names.
    #[test]
    fn no_word_of_the_build_script_is_an_option_of_git() {
        let ground = std::env::temp_dir().join(format!("ployz-build-{}", std::process::id()));
        fs::create_dir_all(&ground).unwrap();
        let (repository, owned) = (ground.join("repository"), ground.join("owned"));
        let made = Command::new("git")
            .args(["init", "-q"])
            .arg(&repository)
            .status();
        assert!(made.unwrap().success());
        let built = Command::new("sh")
            .args(["-c", include_str!("build.sh"), "sh"])
            .arg(format!("--upload-pack=touch {};", owned.display()))
            .arg(&repository)
            .env("XDG_CACHE_HOME", &ground)
            .output()
            .unwrap();
        assert!(!built.status.success(), "{built:?}");
        assert!(!owned.exists(), "git has taken a word for an option");
        fs::remove_dir_all(ground).unwrap();
    }
}
