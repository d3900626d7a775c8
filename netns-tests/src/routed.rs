//! Two hosts that only a router connects.
//!
//! ```text
//!   a: veth1  192.168.1.1/24  fd00:11::1/64         b: veth2  10.0.0.2/24  fd00:10::2/64
//!        |                                               |
//!        |    192.168.1.254   +--------+   10.0.0.254    |
//!        +------ vetha -------| router |------ vethb ----+
//!               fd00:11::fe   +--------+   fd00:10::fe
//! ```

use anyhow::Result;

use crate::stage::Stage;
use crate::{Host, Netns};

#[derive(Debug)]
pub struct Routed {
    pub a: Host,
    pub b: Host,
    pub router: Netns,
}

impl Routed {
    /// Both hosts have a default route and know each other; `a` knows where `b` is, `b` has to be told.
    pub fn new(stage: &Stage) -> Result<Self> {
        let [a, b, router] = ["a", "b", "router"].map(|role| Netns::new(stage, role));
        let (a, b, router) = (a?, b?, router?);
        for family in ["ipv4.ip_forward", "ipv6.conf.all.forwarding"] {
            router.sysctl(&format!("net.{family}"), "1")?;
        }
        attach(
            &a,
            "veth1",
            "192.168.1.1/24 fd00:11::1/64",
            &router,
            "vetha",
        )?;
        attach(&b, "veth2", "10.0.0.2/24 fd00:10::2/64", &router, "vethb")?;
        gateway(&router, "vetha", "192.168.1.254", "fd00:11::fe", &a)?;
        gateway(&router, "vethb", "10.0.0.254", "fd00:10::fe", &b)?;
        let contender = stage.contender();
        let a = Host::new(stage, a, 1, contender)?;
        let b = Host::new(stage, b, 2, contender)?;
        Ok(Self { a, b, router })
    }
}

fn attach(
    host: &Netns,
    cable: &str,
    addresses: &str,
    router: &Netns,
    router_end: &str,
) -> Result<()> {
    host.cable(cable, router, router_end)?;
    addresses
        .split(' ')
        .try_for_each(|address| host.address(cable, address))
}

fn gateway(router: &Netns, end: &str, v4: &str, v6: &str, host: &Netns) -> Result<()> {
    router.address(end, &format!("{v4}/24"))?;
    router.address(end, &format!("{v6}/64"))?;
    host.run(&format!("ip -4 route add default via {v4}"))?;
    host.run(&format!("ip -6 route add default via {v6}"))
        .map(drop)
}
