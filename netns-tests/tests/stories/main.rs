//! Every story in one program: a file is a story, and its name the story's.

mod bad_config;
mod big_mtu;
mod clock_skew;
mod configuration;
mod containers;
mod counters;
mod crowd;
mod crypto_routing;
mod daemon_install;
mod damage;
mod doctor;
mod endpoints;
mod errors;
mod events;
mod firewall;
mod flood;
mod founding;
mod fwmark;
mod handover;
mod hostile;
mod hostile_machine;
mod identities;
mod interop;
mod joiner_dies;
mod joining;
mod key_change;
mod kill_any;
mod lab;
mod lifecycle;
mod low_order;
mod machine_add;
mod machine_remove;
mod machine_rtt;
mod management;
mod mangled_batches;
mod many;
mod mesh;
mod metrics;
mod migrate;
mod nat;
mod nested;
mod on_the_path;
mod one_token;
mod operations;
mod output;
mod own_key;
mod padding;
mod page;
mod partition;
mod path_mtu;
mod post_quantum;
mod reflector;
mod release;
mod reordering;
mod replay;
mod restore;
mod roaming;
mod routing_loop;
mod rtt;
mod rtt_table;
mod service;
mod shards;
mod shutdown;
mod siege;
mod source_address;
mod storage;
mod store_lost;
mod store_versions;
mod strangers;
mod traffic;
mod update;
mod workload_sandbox;
mod workload_units;
mod workloads;

/// The compiler says nothing of a file that no `mod` names.
#[test]
fn no_story_is_left_out() -> ployz_netns_tests::Outcome {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories");
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        let story = path.file_stem().unwrap_or_default().to_string_lossy();
        let named = include_str!("main.rs").contains(&format!("\nmod {story};\n"));
        anyhow::ensure!(story == "main" || named, "{story} is not in main.rs");
    }
    Ok(())
}
