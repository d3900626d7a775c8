//! A container has an address in its machine's part of the overlay, and other machines reach it there. It outlives the
//! daemon, is started again when it fails, moves with its volume, and goes when its workload does.
//!
//! ```text
//!   web' ── ployz-c ── m1 (founds) ── switch ── m2 ── ployz-c ── web
//! ```

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::{PATIENCE, mortal, run, words};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Contender, Outcome, Stage, tell_with};

/// A container engine has much to make, on processors that others use.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);
const IMAGE: &str = "box:1";

#[test]
fn containers_are_in_the_overlay() -> Outcome {
    tell_with(Contender::under_test(Backend::IoUring)?, |stage| {
        let segment = Segment::new(stage)?;
        let mut m1 = segment.machine(stage, 1)?;
        let mut m2 = segment.machine(stage, 2)?;
        let (first, engine) = (Engine::start(stage, &m1)?, Engine::start(stage, &m2)?);
        for (machine, engine) in [(&mut m1, &first), (&mut m2, &engine)] {
            engine.import_web_server(stage)?;
            let socket = engine.socket.display();
            machine.flags = words(&format!("--runtime docker --docker-socket {socket}"));
        }
        m1.start(stage)?;
        m2.start(stage)?;
        m1.ctl("mesh init acme")?.success()?;
        m2.join(&m1)?;
        m2.wait_ready(PATIENCE)?;

        it_is_reached_at_an_address_of_its_own(stage, &m1, &m2, &engine)?;
        it_outlives_the_daemon_and_is_started_again(stage, &m1, &mut m2, &engine)?;
        m1.ctl("migrate apply default/web --to m1")?.success()?;
        assert_eq!(
            engine.docker("ps --all --quiet")?.trim(),
            "",
            "nothing of it is left on m2"
        );
        let moved = first.container().context("it runs on m1")?;
        let page = first.docker(&format!("exec {moved} /bin/busybox cat /www/page"))?;
        assert_eq!(page, "kept");
        m1.ctl("workload rm web")?.success()?;
        wait_until("the container to be gone", ENGINE_PATIENCE, || {
            first.container().is_none()
        })?;
        let networks = || {
            first
                .docker("network ls --format {{.Name}}")
                .unwrap_or_default()
        };
        wait_until("its network to be gone", PATIENCE, || {
            !networks().contains("ployz")
        })?;
        Ok(())
    })
}

fn it_is_reached_at_an_address_of_its_own(
    stage: &Stage,
    m1: &Machine,
    m2: &Machine,
    engine: &Engine,
) -> Result<()> {
    wait_until("m2 to have said what it runs", PATIENCE, || {
        m1.json("machine inspect m2")
            .is_ok_and(|m2| text(&m2, "/payload/observed/runtime") == "docker")
    })?;
    let command = m1.json("deploy service other --exec true --machine m2")?;
    assert_eq!(command["code"], "UNSUPPORTED", "{command}");
    let deploy = "deploy service web --image box:1 --machine m2 --volume data:/www --env SECRET=hush --publish 8080:80";
    m1.ctl(deploy)?.success()?;
    wait_until("web to run", ENGINE_PATIENCE, || is_running(m1))?;
    let volume = m2.data_dir.join("volumes/default/web/data");
    fs::write(volume.join("page"), "kept")?;

    let address = engine.address()?;
    assert!(address.starts_with("10.101.1."), "{address}");
    let fetch = "import sys, urllib.request as r; print(end=r.urlopen(sys.argv[1], timeout=2).read().decode())";
    let fetch = stage.file("fetch.py", fetch)?.display().to_string();
    let fetched = |m: &Machine, place: &str| {
        let line = format!("python3 {fetch} http://{place}/www/page");
        m.netns.attempt(&line).is_ok_and(|got| got.stdout == "kept")
    };
    wait_until("m1 to reach the container", ENGINE_PATIENCE, || {
        fetched(m1, &address)
    })?;
    wait_until("m1 to reach the published port", PATIENCE, || {
        fetched(m1, "10.0.0.2:8080")
    })?;
    assert!(fetched(m2, &address), "its own machine");
    // It has heard of m1 by m1's own address.
    let logs = m1.json("workload logs web")?;
    assert!(logs.to_string().contains("10.101.0.1"), "{logs}");
    assert!(!m2.logged().contains("hush"));
    Ok(())
}

fn it_outlives_the_daemon_and_is_started_again(
    stage: &Stage,
    m1: &Machine,
    m2: &mut Machine,
    engine: &Engine,
) -> Result<()> {
    let before = engine.container().context("it runs")?;
    m2.kill();
    m2.start(stage)?;
    wait_until("web to be known to run", PATIENCE, || is_running(m1))?;
    assert_eq!(
        engine.container(),
        Some(before.clone()),
        "it was left alone"
    );
    engine.docker(&format!("kill {before}"))?;
    wait_until("another one to run", ENGINE_PATIENCE, || {
        engine.container().is_some_and(|now| now != before)
    })
}

fn is_running(m1: &Machine) -> bool {
    m1.json("workload inspect web")
        .is_ok_and(|found| text(&found, "/payload/workload/state") == "running")
}

/// A Docker Engine in a machine's network namespace, with everything of its own.
struct Engine {
    socket: PathBuf,
    process: Child,
}

impl Engine {
    fn start(stage: &Stage, machine: &Machine) -> Result<Self> {
        let place = stage.place("docker");
        fs::create_dir(&place)?;
        let socket = place.join("socket");
        // With the host's own file systems, as control groups are among them.
        let line = format!(
            "nsenter --net=/run/netns/{} dockerd --host unix://{} --data-root {p}/data --exec-root {p}/run --pidfile {p}/pid",
            machine.netns.name(),
            socket.display(),
            p = place.display(),
        );
        let log = File::create(stage.log("dockerd"))?;
        let process = mortal(&words(&line))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let engine = Self { socket, process };
        wait_until("the engine to answer", ENGINE_PATIENCE, || {
            engine.docker("version").is_ok()
        })?;
        Ok(engine)
    }

    /// A web server that shows its whole file system and says whom to, in an image of nothing else.
    fn import_web_server(&self, stage: &Stage) -> Result<()> {
        let root = stage.place("image");
        fs::create_dir_all(root.join("bin"))?;
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        let packed = stage.place("image.tar");
        let tar = format!("tar -cf {} -C {} bin", packed.display(), root.display());
        run(&words(&tar), b"", PATIENCE)?.success()?;
        let entry = r#"CMD ["/bin/busybox","httpd","-f","-vv","-p","80","-h","/"]"#;
        let mut argv = self.argv("import --change");
        argv.extend([entry, &packed.display().to_string(), IMAGE].map(str::to_owned));
        run(&argv, b"", ENGINE_PATIENCE)?.success()?;
        Ok(())
    }

    fn docker(&self, line: &str) -> Result<String> {
        Ok(run(&self.argv(line), b"", ENGINE_PATIENCE)?
            .success()?
            .stdout)
    }

    fn argv(&self, line: &str) -> Vec<String> {
        words(&format!(
            "docker --host unix://{} {line}",
            self.socket.display()
        ))
    }

    /// The one that runs.
    fn container(&self) -> Option<String> {
        let running = self
            .docker("ps --quiet --filter label=ployz.instance")
            .ok()?;
        running.split_whitespace().next().map(str::to_owned)
    }

    fn address(&self) -> Result<String> {
        let id = self.container().context("none runs")?;
        let line =
            format!("inspect --format {{{{.NetworkSettings.Networks.ployz.IPAddress}}}} {id}");
        Ok(self.docker(&line)?.trim().to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Asked, it takes its containers and what it has mounted along.
        if let Ok(pid) = self.process.id().try_into() {
            let _already_gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let ended = || !matches!(self.process.try_wait(), Ok(None));
        let _stubborn = wait_until("the engine to end", ENGINE_PATIENCE, ended);
        let _already_gone = self.process.kill();
    }
}
