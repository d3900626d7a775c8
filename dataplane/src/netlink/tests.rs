//! Against the kernel, each in a network namespace of its own that ends with its thread.

use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

use super::*;

#[test]
#[ignore = "needs root"]
fn an_interface_is_set_up() {
    in_namespace(async {
        veth("d0");
        let netlink = Netlink::open().unwrap();
        let link = Link::by_name(&netlink, "d0").await.unwrap();
        link.set_mtu(1400).await.unwrap();
        assert_eq!(link.mtu().await.unwrap(), 1400);
        // Twice, for everything may be asked for again.
        for _ in 0..2 {
            link.add_address(net("10.7.0.1/24")).await.unwrap();
            link.add_address(net("fd00:7::1/64")).await.unwrap();
            link.set_up().await.unwrap();
            link.add_route(net("10.8.0.0/16")).await.unwrap();
            link.add_route(net("fd00:8::/48")).await.unwrap();
            link.add_route(net("0.0.0.0/0")).await.unwrap();
        }
        let addresses = ip("-o addr show dev d0");
        assert!(
            addresses.contains("inet 10.7.0.1/24 scope global d0"),
            "{addresses}"
        );
        assert!(
            addresses.contains("inet6 fd00:7::1/64 scope global"),
            "{addresses}"
        );
        let routes = ip("route show dev d0");
        assert!(
            routes.contains("10.8.0.0/16 proto static scope link"),
            "{routes}"
        );
        assert!(
            routes.contains("default proto static scope link"),
            "{routes}"
        );
        assert!(ip("-6 route show dev d0").contains("fd00:8::/48"));
    });
}

#[test]
#[ignore = "needs root"]
fn refusals_say_why() {
    in_namespace(async {
        veth("d0");
        veth("d1");
        ip("link set d1 up");
        let netlink = Netlink::open().unwrap();
        let error = Link::by_name(&netlink, "nowhere").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no network interface \"nowhere\" here; `ip link` shows those that are"
        );
        let link = Link::by_name(&netlink, "d0").await.unwrap();
        let error = link.add_route(net("10.8.0.0/16")).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot route 10.8.0.0/16 through d0: Network is down"),
            "{error}"
        );
        link.set_up().await.unwrap();
        for prefix in ["10.8.0.0/16", "fd00:8::/48"] {
            ip(&format!("route add {prefix} dev d1"));
            let error = link.add_route(net(prefix)).await.unwrap_err();
            assert!(matches!(error, NetlinkError::RouteTaken { .. }), "{error}");
        }
        let error = link.set_mtu(1).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot set the MTU of d0 to 1: Invalid argument"),
            "{error}"
        );
        ip("link del d0");
        assert!(matches!(link.mtu().await, Err(NetlinkError::NoSuchLink(_))));
    });
}

#[test]
#[ignore = "needs root"]
fn changes_are_told_of() {
    in_namespace(async {
        veth("d0");
        veth("d1");
        ip("link set d1 up");
        let link = Link::by_name(&Netlink::open().unwrap(), "d0")
            .await
            .unwrap();
        let mut watch = link.watch().unwrap();
        told(&mut watch, 1500, None, false).await;
        ip("link set d0 up");
        told(&mut watch, 1500, None, true).await;
        ip("route add 10.1.0.0/16 dev d0 mtu 1400");
        told(&mut watch, 1500, Some(1400), true).await;
        ip("-6 route add fd00:1::/64 dev d0 mtu 1300 table 100");
        told(&mut watch, 1500, Some(1300), true).await;
        // Not the smallest, or not ours.
        ip("route add 10.2.0.0/16 dev d0 mtu 1450");
        ip("route add 10.3.0.0/16 dev d1 mtu 1000");
        silent(&mut watch).await;
        ip("-6 route del fd00:1::/64 dev d0 table 100");
        told(&mut watch, 1500, Some(1400), true).await;
        ip("route add 10.4.0.0/16 mtu 1200 nexthop dev d1 nexthop dev d0");
        told(&mut watch, 1500, Some(1200), true).await;
        ip("link set d0 mtu 1350");
        told(&mut watch, 1350, Some(1200), true).await;
        ip("nexthop add id 5 dev d0");
        ip("route add 10.5.0.0/16 nhid 5 mtu 1100");
        told(&mut watch, 1350, Some(1100), true).await;
        ip("link set d0 down");
        // The route over both interfaces is still there for the other's sake.
        told(&mut watch, 1350, Some(1200), false).await;
        ip("link del d0");
        assert_eq!(next(&mut watch).await, None);
    });
}

#[test]
#[ignore = "needs root"]
fn a_flood_of_routes_is_survived() {
    in_namespace(async {
        veth("d0");
        ip("link set d0 up");
        let link = Link::by_name(&Netlink::open().unwrap(), "d0")
            .await
            .unwrap();
        let mut watch = link.watch().unwrap();
        told(&mut watch, 1500, None, true).await;
        // Far more than the socket's buffer holds; the watch is not polled meanwhile.
        let batch: String = (0..5000)
            .map(|i| {
                format!(
                    "route add 10.{}.{}.0/24 dev d0 mtu {}\n",
                    i / 256,
                    i % 256,
                    6000 - i
                )
            })
            .collect();
        let path = std::env::temp_dir().join(format!("ployz-routes-{}", std::process::id()));
        std::fs::write(&path, batch).unwrap();
        ip(&format!("-batch {}", path.display()));
        std::fs::remove_file(path).unwrap();
        told(&mut watch, 1500, Some(1001), true).await;
        silent(&mut watch).await;
    });
}

async fn told(watch: &mut LinkWatch, mtu: u32, smallest_route_mtu: Option<u32>, up: bool) {
    assert_eq!(
        next(watch).await,
        Some(LinkChange {
            mtu,
            smallest_route_mtu,
            up
        })
    );
}

async fn next(watch: &mut LinkWatch) -> Option<LinkChange> {
    timeout(Duration::from_secs(5), watch.changed())
        .await
        .expect("no news")
        .unwrap()
}

async fn silent(watch: &mut LinkWatch) {
    let news = timeout(Duration::from_millis(100), watch.changed()).await;
    assert!(news.is_err(), "{news:?}");
}

/// Runs in a namespace of its own; what is spawned by the thread is in it as well.
fn in_namespace(story: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(story);
    });
    thread.join().unwrap();
}

/// An interface with a carrier: without one there are no next hop objects.
fn veth(name: &str) {
    ip(&format!("link add {name} type veth peer name {name}-peer"));
    ip(&format!("link set {name}-peer up"));
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}
